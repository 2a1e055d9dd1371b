"""The Hub, spoken to by the real huggingface_hub client, against a server of our own on loopback."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub as hf
import pytest

import transfer.ranges
from tests.edits import WHOLE, change, write_index
from transfer import client
from transfer.checkpoint import SINGLE, open_folder
from transfer.client import plainly
from transfer.download import download
from transfer.errors import CheckpointError, HubError
from transfer.hub import looks_like_hub_id, open_hub
from transfer.triple import open_triple

from .hub_server import (
    BUSY,
    CONTENT,
    DISABLED,
    GATED,
    NO_ENTRY,
    Fault,
    HubServer,
    assert_same_weights,
    nothing,
    whole_requests,
)

ROOT = Path(__file__).parents[1]


BASE = ("source_base",)


@pytest.fixture
def copy(model, tmp_path):
    """A copy of the model to do harm to."""
    return Path(shutil.copytree(model, tmp_path / "copy"))


@pytest.mark.parametrize(
    ("ref", "is_one"),
    [
        ("owner/name", True),
        ("owner/name@main", True),
        ("allenai/OLMo-2-1124-7B@stage1-step300000-tokens1259B", True),
        ("owner/name@refs/pr/1", True),
        ("name", False),
        ("a/b/c", False),
        ("../b", False),
        ("a/..", False),
        ("owner/name@../../etc", False),
        ("/etc/passwd", False),
        ("owner/name\n", False),
        ("owner/name@", False),
        ("", False),
    ],
)
def test_hub_ids_are_told_from_folders(ref, is_one):
    assert looks_like_hub_id(ref) is is_one


@pytest.mark.parametrize("guess", [64, 1_000_000])
@pytest.mark.parametrize("which", ["model", "shards"])
def test_opening_reads_headers_and_no_weights(hub, request, monkeypatch, which, guess):
    folder = request.getfixturevalue(which)
    monkeypatch.setattr(transfer.ranges, "GUESS", guess)
    monkeypatch.setattr(transfer.ranges, "MAX_HEADER", 100_000)
    commit = hub.serve("lab/model", folder)
    opened, local = open_hub("lab/model"), open_folder(folder)
    assert opened.tensors == local.tensors  # names, dtypes, shapes, files and offsets
    assert (opened.config, opened.revision, opened.name) == (local.config, commit, "lab/model")
    assert list(opened.missing) == local.files
    assert opened.vocabulary() == local.vocabulary() and opened.vocabulary()
    assert whole_requests(hub) == []
    if guess == 64:  # then to the byte: the eight of the length, and the header
        lengths = [int.from_bytes((folder / f).read_bytes()[:8], "little") for f in local.files]
        assert hub.sent(CONTENT) == sum(8 + length for length in lengths)


def test_a_revision_is_pinned_to_its_commit(hub, model, shards):
    new, old = hub.serve("lab/model", model), hub.serve("lab/model", shards, "step-100")
    request = hub.serve("lab/model", shards, "refs/pr/1")
    assert len({new, old, request}) == 3
    for ref, commit, folder in [
        ("lab/model", new, model),
        (f"lab/model@{new}", new, model),
        ("lab/model@step-100", old, shards),
        (f"lab/model@{old}", old, shards),
        ("lab/model@refs/pr/1", request, shards),
    ]:
        opened = open_hub(ref)
        assert (opened.ref, opened.revision, opened.folder.name) == (ref, commit, commit)
        assert opened.tensors == open_folder(folder).tensors
    assert open_hub("lab/model").identity == open_hub(f"lab/model@{new}").identity
    assert open_hub(f"lab/model@{old}").identity != open_hub(f"lab/model@{request}").identity


def down(hub: HubServer) -> None:
    """Switch the server off."""
    hub.http.shutdown()
    hub.http.server_close()
    hf.close_session()


API, FILES = "GET /api/", "(HEAD|GET) /lab/model/resolve/"


@pytest.mark.parametrize(
    ("ref", "where", "fault", "says"),
    [
        ("lab/other", "nowhere", None, "^lab/other is not on the Hub, or is private"),
        ("lab/model@v9", "nowhere", None, "^lab/model@v9: there is no such revision of lab/model. .*case-sensitive"),
        ("lab/model@Main", "nowhere", None, "no such revision"),
        ("lab--x/model", "nowhere", None, "^'lab--x/model' is not a Hub id"),
        ("lab/model", FILES, GATED, "^lab/model is gated. Ask for access at http://.*/lab/model, log in with `hf auth"),
        ("lab/model", API, GATED, "^lab/model is gated"),
        ("lab/model", CONTENT, GATED, "^lab/model is gated"),
        ("lab/model", API, DISABLED, "^lab/model has been disabled"),
        ("lab/model", FILES, DISABLED, "^lab/model has been disabled"),
        ("lab/model", API, Fault(401, message="Invalid credentials in Authorization header"), "does not let you read"),
        ("lab/model", FILES, Fault(403), r"does not let you read lab/model \(403\)"),
        ("lab/model", API, BUSY, r"asks to wait before reading lab/model again \(17 s\)\.$"),
        ("lab/model", FILES, BUSY, r"asks to wait before reading lab/model again \(17 s\)\.$"),
        ("lab/model", CONTENT, BUSY, r"\(17 s\)\.$"),
        ("lab/model", API, Fault(429), r"asks to wait before reading lab/model again\.$"),
        ("lab/model", API, Fault(500), r"an error of its own \(500\) for lab/model"),
        ("lab/model", FILES, Fault(500), r"an error of its own \(500\)"),
        ("lab/model", CONTENT, Fault(503), r"an error of its own \(503\)"),
        ("lab/model", "HEAD .*tokenizer.json", Fault(503), r"an error of its own \(503\)"),
        ("lab/model", API, Fault(drop=0), "cannot be reached for lab/model"),
        ("lab/model", CONTENT, Fault(drop=10), "cannot be reached for lab/model"),
        ("lab/model", "HEAD .*/config.json", NO_ENTRY, r"^lab/model lacks the file config.json\.$"),
    ],
)
def test_what_the_hub_refuses_is_said_plainly(hub, model, ref, where, fault, says):
    hub.serve("lab/model", model)
    if fault:
        hub.fail(where, fault)
    with pytest.raises(HubError, match=says) as caught:
        open_hub(ref)
    assert "not found" not in str(caught.value).lower()
    assert "\n" not in str(caught.value)
    if fault is BUSY:
        assert hub.naps == []  # nobody waits behind the page's back for as long as the Hub asks


def test_a_passing_error_is_tried_again_by_the_client(hub, model):
    hub.serve("lab/model", model)
    hub.fail("HEAD .*tokenizer.json", Fault(503), times=2)
    assert open_hub("lab/model").vocabulary()
    assert hub.naps


def test_a_server_that_serves_no_parts_is_refused(hub, model):
    hub.serve("lab/model", model)
    hub.ranges = False
    with pytest.raises(HubError, match="does not serve parts of files"):
        open_hub("lab/model")


def test_no_server_and_no_copy(hub):
    down(hub)
    with pytest.raises(HubError, match=f"The Hub at {hub.endpoint} cannot be reached for lab/model .*Check the conn"):
        open_hub("lab/model")


def test_no_server_and_a_copy_that_was_only_looked_at(hub, model):
    hub.serve("lab/model", model)
    checkpoint = open_hub("lab/model")
    down(hub)
    with pytest.raises(HubError, match="cannot be reached"):
        open_hub("lab/model")
    with pytest.raises(HubError, match="cannot be reached"):
        list(download(checkpoint, nothing))


@pytest.mark.parametrize("trouble", ["down", "offline", "busy", "broken"])
def test_a_whole_copy_will_do_where_the_hub_does_not_answer(hub, model, shards, monkeypatch, trouble):
    hub.serve("lab/model", model)
    hub.serve("lab/model", shards, "v2")
    refs = ["lab/model", "lab/model@main", "lab/model@v2"]
    for ref in refs:
        list(download(open_hub(ref), nothing))
    before = {ref: open_hub(ref) for ref in refs}
    if trouble == "down":
        down(hub)
    elif trouble == "offline":
        monkeypatch.setattr(hf.constants, "HF_HUB_OFFLINE", True)
    else:
        hub.fail("", Fault(429 if trouble == "busy" else 503))
    for ref in refs:
        assert open_hub(ref) == before[ref]
    with pytest.raises(HubError) as caught:
        open_hub("lab/model@v3")
    assert "revision" not in str(caught.value)  # nobody knows whether there is one


def test_offline_is_named(hub, model, monkeypatch):
    hub.serve("lab/model", model)
    checkpoint = open_hub("lab/model")
    monkeypatch.setattr(hf.constants, "HF_HUB_OFFLINE", True)
    for ref in ("lab/model", "lab/other"):  # the first has left its configs in the cache
        with pytest.raises(HubError, match=f"^{ref} is not whole on this disk, and HF_HUB_OFFLINE keeps us"):
            open_hub(ref)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE"):
        list(download(checkpoint, nothing))


def only(folder: Path, *names: str) -> None:
    """Replace the weights by empty files of these names."""
    (folder / SINGLE).unlink()
    for name in names:
        (folder / name).write_bytes(b"x")


def index(folder: Path, file: str) -> None:
    """An index that says that all tensors are in `file`."""
    write_index(folder, {name: file for name in open_folder(folder).tensors})


def cut(folder: Path, size: int) -> None:
    os.truncate(folder / SINGLE, size)


HARM = {
    "pickle": (lambda f: only(f, "pytorch_model.bin"), "lab/model holds pickle weights .*Convert it to safetensors"),
    "gguf": (lambda f: only(f, "model-q4.gguf"), "lab/model holds GGUF files"),
    "adapter": (
        lambda f: only(f, "adapter_model.safetensors", "adapter_config.json"),
        "lab/model holds a LoRA adapter",
    ),
    "nothing": (only, "lab/model holds no model.safetensors"),
    "no config": (lambda f: (f / "config.json").unlink(), r"^lab/model has no config\.json"),
    "weights alone": (
        lambda f: [p.unlink() for p in f.iterdir() if p.name != SINGLE],
        r"^lab/model has no config\.json",
    ),
    "config broken": (lambda f: (f / "config.json").write_text("{"), "config.json cannot be read as JSON"),
    "quantised": (
        lambda f: change(f, "config.json", quantization_config={"quant_method": "gptq"}),
        r"^lab/model is quantised \(gptq\)",
    ),
    "index outside": (
        lambda f: index(f, "../secret.safetensors"),
        r"^lab/model/model\.safetensors\.index\.json names the",
    ),
    "index absolute": (lambda f: index(f, "/etc/secret.safetensors"), "names the file '/etc/secret.safetensors'"),
    "index to nothing": (lambda f: index(f, "model-1.safetensors"), "names model-1.safetensors, and lab/model has no"),
    "index wrong": (
        lambda f: write_index(f, {"a.weight": WHOLE}),
        r"^lab/model/.*does not match its files: a\.weight",
    ),
    "index empty": (lambda f: write_index(f, {}), "has no weight_map"),
    "empty": (lambda f: cut(f, 0), r"^lab/model/model\.safetensors is not a safetensors file"),
    "cut in the length": (lambda f: cut(f, 5), "is not a safetensors file"),
    "cut in the header": (lambda f: cut(f, 100), "is not a safetensors file"),
    "cut in the weights": (lambda f: cut(f, (f / SINGLE).stat().st_size - 1), "the copy is not whole"),
    "a web page": (lambda f: (f / SINGLE).write_text("<html>" * 50), "is not a safetensors file"),
    "header no JSON": (
        lambda f: (f / SINGLE).write_bytes((20).to_bytes(8, "little") + b"x" * 20),
        "broken safetensors header",
    ),
    "unknown dtype": (
        lambda f: (f / SINGLE).write_bytes(
            (60).to_bytes(8, "little") + b'{"a":{"dtype":"Q3","shape":[1],"data_offsets":[0,1]}}'.ljust(60) + b"x"
        ),
        "unknown dtype Q3",
    ),
}


@pytest.mark.parametrize("harm", HARM)
def test_repositories_that_are_no_checkpoint_are_refused_before_any_weight(hub, copy, harm):
    do, says = HARM[harm]
    do(copy)
    hub.serve("lab/model", copy)
    with pytest.raises(CheckpointError, match=says):
        open_hub("lab/model")
    assert whole_requests(hub) == []


def test_a_whole_triple_from_three_ids(hub, family):
    folders = family("llama", roles=("source_base", "source_tuned", "target_base"))
    refs = {role: f"lab/{role}" for role in folders}
    for role, folder in folders.items():
        hub.serve(refs[role], folder)
    triple, local = open_triple(refs), open_triple(folders)
    assert triple.missing == sum(c.nbytes for c in local.checkpoints.values())
    assert [(t.name, t.shape, t.dtype, t.merged) for t in triple.tensors] == [
        (t.name, t.shape, t.dtype, t.merged) for t in local.tensors
    ]
    assert any("still on the Hub" in f.text for f in triple.findings)
    assert whole_requests(hub) == []
    for checkpoint in triple.checkpoints.values():
        list(download(checkpoint, nothing))
    here = open_triple(refs)
    assert here.missing == 0 and here.identity == triple.identity
    for role, folder in folders.items():
        assert_same_weights(here.checkpoints[role].folder, Path(folder))


def test_a_triple_says_which_of_its_ids_is_wrong(hub, model):
    hub.serve("lab/model", model)
    refs = {"source_base": "lab/model", "source_tuned": "lab/model", "target_base": "lab/gone"}
    with pytest.raises(HubError, match=r"^Target base: lab/gone is not on the Hub"):
        open_triple(refs)


def test_a_token_goes_to_the_hub_and_to_nobody_else(hub, model, monkeypatch):
    Path(hf.constants.HF_TOKEN_PATH).write_text("hf_secret")
    hub.serve("lab/model", model)
    list(download(open_hub("lab/model"), nothing))
    assert {r.token for r in hub.log if not r.path.startswith("/content/")} == {"Bearer hf_secret"}
    assert {r.token for r in hub.log if r.path.startswith("/content/")} == {None}
    # On a Space the token is the owner's, and is lent to nobody.
    hub.log.clear()
    shutil.rmtree(hf.constants.HF_HUB_CACHE)
    monkeypatch.setattr(client, "TOKEN", False)
    list(download(open_hub("lab/model"), nothing))
    assert {r.token for r in hub.log} == {None}


def test_an_error_nobody_thought_of_still_is_a_sentence():
    assert str(plainly(RuntimeError("x\ny"), "a/b@c")).startswith("a/b could not be read from the Hub (RuntimeError).")


def test_in_a_process_of_its_own_with_nothing_replaced(hub, model, tmp_path):
    hub.serve("lab/model", model)
    code = (
        "from transfer.download import download\n"
        "from transfer.hub import open_hub\n"
        "n = sum(download(open_hub('lab/model'), lambda: None))\n"
        "c = open_hub('lab/model')\n"
        "print(n, len(c.missing), c.folder)"
    )
    env = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    env |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    size, missing, folder = done.stdout.split(maxsplit=2)
    assert (int(size), int(missing)) == ((model / SINGLE).stat().st_size, 0)
    assert_same_weights(Path(folder.strip()), model)
