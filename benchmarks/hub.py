"""A first look at an 8B triple on the Hub, none of it downloaded: three checkpoints of Llama 3 8B's shapes and size.

The Hub is the tests' own server on loopback, with 50 ms before every answer; its files are holes, which take no room on
the disk. What an ordinary line adds is the time that the bytes take, of which there are `hub_sample_8b_megabytes`.
"""

import json
import struct
import tempfile
import time
from math import prod
from pathlib import Path

from pytest import MonkeyPatch

from analysis.comparison import compare
from tests import hub_server
from transfer.triple import open_triple

from . import synthetic

DELAY = 0.05  # seconds
SHARD = 5_000_000_000  # bytes
LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128_256,
    "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 500_000.0, "tie_word_embeddings": False,
    "hidden_act": "silu", "torch_dtype": "bfloat16",
}  # fmt: skip


def hollow(folder: Path) -> None:
    """A checkpoint of those shapes whose weights are a hole in each file."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA))
    weight_map, header, end, number = {}, {}, 0, 1

    def put() -> None:
        nonlocal header, end, number
        text = json.dumps(header).encode()
        with (folder / f"model-{number:05d}.safetensors").open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            file.truncate(8 + len(text) + end)
        header, end, number = {}, 0, number + 1

    for name, shape in synthetic.shapes(LLAMA):
        nbytes = 2 * prod(shape)
        if end + nbytes > SHARD:
            put()
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + nbytes]}
        weight_map[name] = f"model-{number:05d}.safetensors"
        end += nbytes
    put()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def figures() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as temporary, MonkeyPatch.context() as patch:
        # Nobody needs the hash of gigabytes of nothing: a name of the right form will do.
        patch.setattr(hub_server, "content_hash", lambda path, *_: f"{abs(hash(path)):064x}")
        with hub_server.turned_to(patch, Path(temporary)) as hub:
            refs = {}
            for role in ("source_base", "source_tuned", "target_base"):
                hollow(Path(temporary) / role)
                hub.serve(f"lab/{role.replace('_', '-')}", Path(temporary) / role)
                refs[role] = f"lab/{role.replace('_', '-')}"
            hub.fail(".", hub_server.Fault(late=DELAY))
            triple = open_triple(refs)
            asked, start = len(hub.log), time.perf_counter()
            *_, found = compare(triple)
            seconds = time.perf_counter() - start
            assert triple.missing > 45e9 and not found.exact and len(found.table) == len(triple.tensors)
            return {
                "hub_sample_8b_seconds": seconds,
                "hub_sample_8b_requests": len(hub.log) - asked,
                "hub_sample_8b_megabytes": sum(r.sent for r in hub.log[asked:]) / 1e6,
            }
