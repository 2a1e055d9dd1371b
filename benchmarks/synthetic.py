"""Synthetic families for the benchmarks: Llamas of any size in bfloat16, random, sharded, with plausible distances.

Fine-tuning and the new release move weights by some per cent of their spread. Made once into a folder that git ignores.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

from transfer.plane import ROLES
from transfer.triple import Triple, open_triple

CACHE = Path(__file__).with_name("cache")
MOVES = {"source_base": 0.0, "source_tuned": 0.03, "target_base": 0.05, "target_tuned": 0.06}  # of the weights' spread
SPREAD = 0.02


def config(billions: float) -> dict:
    """A Llama's config of about that many parameters: the shape of a 1B model, or of a small one, with as many layers as it
    takes."""
    hidden, inner, heads, groups, words = (2048, 5632, 32, 4, 32_000) if billions > 0.2 else (512, 1408, 8, 2, 8000)
    attention = 2 * hidden * hidden + 2 * hidden * hidden * groups // heads
    layer = attention + 3 * hidden * inner
    layers = max(1, round((billions * 1e9 - 2 * words * hidden) / layer))
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden, "intermediate_size": inner,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": groups, "vocab_size": words,
        "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False,
        "hidden_act": "silu", "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip


def shapes(c: dict) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every tensor of a Llama, in the order of its files."""
    hidden, inner = c["hidden_size"], c["intermediate_size"]
    narrow = hidden * c["num_key_value_heads"] // c["num_attention_heads"]
    yield "model.embed_tokens.weight", (c["vocab_size"], hidden)
    for layer in range(c["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        for name, rows in (("q_proj", hidden), ("k_proj", narrow), ("v_proj", narrow), ("o_proj", hidden)):
            yield f"{at}.self_attn.{name}.weight", (rows, hidden)
        for name, shape in (
            ("gate_proj", (inner, hidden)),
            ("up_proj", (inner, hidden)),
            ("down_proj", (hidden, inner)),
        ):
            yield f"{at}.mlp.{name}.weight", shape
        yield f"{at}.input_layernorm.weight", (hidden,)
        yield f"{at}.post_attention_layernorm.weight", (hidden,)
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (c["vocab_size"], hidden)


def family(billions: float, shard: int = 250_000_000, home: Path | None = None) -> dict[str, str]:
    """role → folder of four checkpoints of about that many parameters, made where they are not there yet."""
    home = home or CACHE / f"{billions:g}B"
    if not (home / "done").exists():
        shutil.rmtree(home, ignore_errors=True)
        c = config(billions)
        for role in ROLES:
            (home / role).mkdir(parents=True)
            (home / role / "config.json").write_text(json.dumps(c, indent=2))
        weight_map: dict[str, str] = {}
        held: dict[str, dict[str, torch.Tensor]] = {role: {} for role in ROLES}
        used = number = 0

        def put() -> None:
            nonlocal used, number, held
            file = f"model-{(number := number + 1):05d}.safetensors"
            for role in ROLES:
                save_file(held[role], home / role / file, metadata={"format": "pt"})
            weight_map.update(dict.fromkeys(held["source_base"], file))
            held, used = {role: {} for role in ROLES}, 0

        for turn, (name, shape) in enumerate(shapes(c)):
            dice = torch.Generator().manual_seed(turn)
            center = 1.0 if len(shape) == 1 else 0.0
            base = center + SPREAD * torch.randn(shape, generator=dice)
            noise = torch.randn(shape, generator=dice)
            for role in ROLES:
                noise = noise.flatten().roll(7919).view(shape)  # another noise, at the cost of a copy
                held[role][name] = (base + SPREAD * MOVES[role] * noise).to(torch.bfloat16)
            used += 2 * base.numel()
            if used > shard:
                put()
        if used:
            put()
        for role in ROLES:
            index = {"metadata": {}, "weight_map": weight_map}  # transformers wants both
            (home / role / "model.safetensors.index.json").write_text(json.dumps(index))
        (home / "done").touch()
    return {role: str(home / role) for role in ROLES}


def triple(billions: float) -> Triple:
    return open_triple(family(billions))
