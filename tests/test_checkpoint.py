"""Checkpoints by their headers: what is read is what safetensors itself reads, and what is broken is said to be."""

import json
import os
import shutil
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers import models as token_models

from tests.edits import WHOLE, change, write_index
from transfer.checkpoint import (
    INDEX,
    MAX_HEADER,
    SINGLE,
    Checkpoint,
    identify,
    open_folder,
    parse_header,
    read_header,
)  # fmt: skip
from transfer.errors import CheckpointError
from transfer.tensors import TensorInfo

BASE = ("source_base",)
often = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture
def model(family, tmp_path):
    """A model in one file, to do harm to."""
    return Path(shutil.copytree(family("llama", roles=BASE)["source_base"], tmp_path / "model"))


@pytest.fixture
def sharded(family, tmp_path):
    """A model in several files, to do harm to."""
    return Path(shutil.copytree(family("qwen2", shard="60KB", roles=BASE)["source_base"], tmp_path / "sharded"))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """A folder with a config and no weights, for weights that are made up one after the other."""
    folder = tmp_path_factory.mktemp("scratch")
    (folder / "config.json").write_text("{}")
    return folder


def entry(shape=(2,), begin=0, end=8, dtype="F32") -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def pack(header: dict | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """The bytes of a safetensors file, right or wrong."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def assert_as_the_library_reads(checkpoint: Checkpoint) -> None:
    """Names, dtypes, shapes and places are those of safetensors, file by file and byte by byte."""
    seen = set()
    for file in checkpoint.files:
        raw = (checkpoint.folder / file).read_bytes()
        with safe_open(checkpoint.folder / file, "pt") as library:
            for name in sorted(library.keys()):
                info, tensor = checkpoint.tensors[name], library.get_tensor(name)
                assert (info.name, info.file) == (name, file)
                assert info.dtype == library.get_slice(name).get_dtype()
                assert (info.shape, info.numel) == (tuple(tensor.shape), tensor.numel())
                there = raw[info.offset : info.offset + info.nbytes]
                assert there == tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()
                seen.add(name)
    assert seen == set(checkpoint.tensors)


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("llama", {}),
        ("llama", {"dtype": torch.float32}),
        ("llama-tied", {"dtype": torch.float16}),
        ("qwen2", {"shard": "60KB"}),
        ("mixtral", {"shard": "100KB"}),
        ("gpt-neox", {}),
    ],
)
def test_headers_are_what_safetensors_reads(family, kind, how):
    folder = Path(family(kind, roles=BASE, **how)["source_base"])
    checkpoint = open_folder(folder)
    assert_as_the_library_reads(checkpoint)
    assert checkpoint.files == sorted(p.name for p in folder.glob("*.safetensors"))
    assert (len(checkpoint.files) > 1) == ("shard" in how)
    assert checkpoint.parameters == sum(t.numel for t in checkpoint.tensors.values()) > 0
    assert checkpoint.nbytes < sum((folder / f).stat().st_size for f in checkpoint.files)
    assert checkpoint.config == json.loads((folder / "config.json").read_text())
    assert (checkpoint.ref, checkpoint.folder, checkpoint.name) == (str(folder), folder.resolve(), folder.name)
    assert (checkpoint.missing, checkpoint.revision) == ((), None)


def test_every_dtype_and_odd_shapes(scratch):
    dtypes = (
        torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
        torch.uint8, torch.bool,
    )  # fmt: skip
    tensors = {str(d): torch.arange(6).reshape(2, 3).to(d) for d in dtypes}
    tensors |= {"scalar": torch.tensor(1.5), "none": torch.zeros(0, 4), "名前.weight": torch.ones(1, 1, 1)}
    save_file(tensors, scratch / SINGLE, metadata={"format": "pt"})
    checkpoint = open_folder(scratch)
    assert set(checkpoint.tensors) == set(tensors)
    assert_as_the_library_reads(checkpoint)


def test_settings_are_also_found_under_text_config():
    def setting(config, key):
        return Checkpoint("x", Path("x"), config, {}, "").setting(key, "default")

    assert setting({"a": 1, "text_config": {"a": 2}}, "a") == 1
    assert setting({"text_config": {"a": 2}}, "a") == 2
    assert setting({"text_config": {}}, "a") == "default"
    assert setting({"text_config": "words"}, "a") == "default"


def test_the_identity_is_of_headers_and_stamps():
    info = TensorInfo("a", "F32", (2, 3), "model.safetensors", 100)
    other = replace(info, name="z")
    changed = [
        ({"a": info, "z": other}, ["1"]),
        ({"a": replace(info, name="b")}, ["1"]),
        ({"a": replace(info, dtype="I32")}, ["1"]),
        ({"a": replace(info, shape=(3, 2))}, ["1"]),
        ({"a": replace(info, file="x.safetensors")}, ["1"]),
        ({"a": replace(info, offset=108)}, ["1"]),
        ({"a": info}, ["2"]),
        ({"a": info}, ["1", "1"]),
        ({"a": info}, ["1"]),
    ]
    assert len({identify(*one) for one in changed}) == len(changed)
    assert identify({"z": other, "a": info}, ["1"]) == identify({"a": info, "z": other}, ["1"])  # in any order


def test_the_identity_changes_with_a_file(model):
    first = open_folder(model).identity
    assert open_folder(model).identity == first
    stat = (model / SINGLE).stat()
    os.utime(model / SINGLE, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert open_folder(model).identity != first


# ── What is broken ────────────────────────────────────────────────────────────────────────────────────────────────


def refused(folder: Path) -> str:
    """The sentence with which a folder is refused; any other exception than ours goes through and fails the test."""
    with pytest.raises(CheckpointError) as caught:
        open_folder(folder)
    return str(caught.value)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "its header does not fit"),
        (b"1234567", "its header does not fit"),
        (pack(b""), "its header does not fit"),
        (pack({}, length=2**64 - 1), "its header does not fit"),
        (pack({}, length=MAX_HEADER + 1), "its header does not fit"),
        (pack({}, length=3), "its header does not fit"),
        (pack(b"[]"), "broken safetensors header"),
        (pack(b"null"), "broken safetensors header"),
        (pack(b"\xff\xfe"), "broken safetensors header"),
        (pack(b'{"a":' * 100_000), "broken safetensors header"),
        (pack({"a": 3}), "broken safetensors header"),
        (pack({"a": {}}), "broken safetensors header"),
        (pack({"a": {**entry(), "data_offsets": [0]}}, bytes(8)), "broken safetensors header"),
        (pack({"a": {**entry(), "data_offsets": "08"}}, bytes(8)), "broken safetensors header"),
        (pack({"a": {**entry(), "dtype": ["F32"]}}, bytes(8)), "broken safetensors header"),
        (pack({"a": entry(dtype="Q7")}, bytes(8)), "unknown dtype Q7"),
        (pack({"a": entry(shape=[-2])}, bytes(8)), "tensor a"),
        (pack({"a": entry(shape=[2.0])}, bytes(8)), r"tensor a"),
        (pack({"a": entry(shape=[3])}, bytes(8)), r"tensor a of shape \[3\] does not fill its 8 bytes"),
        (pack({"a": entry(begin=8, end=0)}, bytes(8)), "tensor a"),
        (pack({"a": entry(begin=-8, end=0)}), "broken safetensors header"),
        (pack({"a": entry(begin=4, end=12)}, bytes(12)), "overlap or leave a gap"),
        (pack({"a": entry(), "b": entry()}, bytes(8)), "overlap or leave a gap"),
        (pack({"a": entry(), "b": entry(begin=4, end=12)}, bytes(12)), "overlap or leave a gap"),
        (pack({"a": entry(), "b": entry(begin=12, end=20)}, bytes(20)), "overlap or leave a gap"),
        (pack(b'{"a":%b,"a":%b}' % ((json.dumps(entry()).encode(),) * 2), bytes(8)), "a name stands in the header twice"),
        (pack(b'{"a":%b,"shape":[2]}' % json.dumps(entry()).encode(), bytes(8)), "broken safetensors header"),
        (pack(b'{"a":{"dtype":"F32","shape":[1],"shape":[2],"data_offsets":[0,8]}}', bytes(8)), "stands in the header twice"),
        (pack(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,Infinity]}}', bytes(8)), "broken safetensors header"),
        (pack(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[NaN,8]}}', bytes(8)), "broken safetensors header"),
        (pack({"a": entry(shape=[10**18] * 3, end=4 * 10**54)}, bytes(8)), "should be .* bytes long|broken safetensors"),
        (pack({"a": entry()}, bytes(7)), "should be .* bytes long and is .*: the copy is not whole"),
        (pack({"a": entry()}, bytes(9)), "should be .* bytes long"),
    ],
    ids=map(str, count()),
)  # fmt: skip
def test_broken_files_are_refused_by_name(scratch, data, says):
    (scratch / SINGLE).write_bytes(data)
    with pytest.raises(CheckpointError, match=says):
        open_folder(scratch)
    assert SINGLE in refused(scratch)


@often
@given(st.binary(max_size=300))
def test_random_bytes_are_no_checkpoint(scratch, data):
    (scratch / SINGLE).write_bytes(data)
    assert SINGLE in refused(scratch)


@often
@given(st.data())
def test_a_file_cut_short_anywhere_is_refused(scratch, family, data):
    whole = (Path(family("llama", roles=BASE)["source_base"]) / SINGLE).read_bytes()
    length = int.from_bytes(whole[:8], "little")
    size = data.draw(st.one_of(st.integers(0, length + 16), st.integers(0, len(whole) - 1)))
    (scratch / SINGLE).write_bytes(whole[:size])
    assert SINGLE in refused(scratch)


@often
@given(st.integers(0, 2**64 - 1) | st.integers(0, 200), st.binary(max_size=20))
def test_a_wrong_length_of_the_header_is_refused(scratch, length, tail):
    header = json.dumps({"a": entry()}).encode()
    data = pack(header, bytes(8) + tail, length)
    (scratch / SINGLE).write_bytes(data)
    if length == len(header) and not tail:
        assert set(open_folder(scratch).tensors) == {"a"}
    else:
        refused(scratch)


words = st.text(st.characters(codec="utf-8"), max_size=8)
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=8,
)
small = st.integers(-1, 9)
near = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "BF16", "U8", "BOOL", "F64"]) | anything,
        "shape": st.lists(small, max_size=3) | anything,
        "data_offsets": st.lists(small, min_size=2, max_size=2) | anything,
    },
)


@often
@given(st.dictionaries(words, near | anything, max_size=4), st.integers(0, 40))
def test_a_made_up_header_is_refused_or_read_as_safetensors_reads_it(scratch, header, size):
    """Whatever we take for a file, the library takes for one too, and finds the same in it."""
    header.pop("__metadata__", None)  # the library wants text in it; we do not look
    path = scratch / SINGLE
    path.write_bytes(pack(header, bytes(size)))
    try:
        tensors = read_header(path)
    except CheckpointError:
        return
    with safe_open(path, "pt") as library:
        assert set(library.keys()) == set(tensors)
        for name, info in tensors.items():
            part = library.get_slice(name)
            assert (info.dtype, list(info.shape)) == (part.get_dtype(), part.get_shape())


@often
@given(
    st.lists(st.tuples(st.sampled_from(["F64", "BF16", "U8"]), st.lists(st.integers(0, 3), max_size=3)), max_size=5),
    st.randoms(),
)
def test_tensors_may_stand_in_any_order(scratch, kinds, random):
    width, position, header = {"F64": 8, "BF16": 2, "U8": 1}, 0, {}
    for i, (dtype, shape) in enumerate(kinds):
        size = width[dtype] * torch.Size(shape).numel()
        header[f"t{i}"] = entry(shape, position, position + size, dtype)
        position += size
    names = list(header)
    random.shuffle(names)
    (scratch / SINGLE).write_bytes(pack({n: header[n] for n in names}, bytes(position)))
    tensors = open_folder(scratch).tensors
    start = (scratch / SINGLE).stat().st_size - position
    assert {n: (t.dtype, list(t.shape), t.offset - start) for n, t in tensors.items()} == {
        n: (e["dtype"], e["shape"], e["data_offsets"][0]) for n, e in header.items()
    }


def test_a_file_that_cannot_be_read_is_named(scratch):
    with pytest.raises(CheckpointError, match=r"gone\.safetensors cannot be read: No such file"):
        read_header(scratch / "gone.safetensors")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_header(scratch)


# ── Indexes ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "file",
    [
        "../model.safetensors", "/etc/model.safetensors", "sub/model.safetensors", "./model.safetensors", "..", "",
        "model.bin", "config.json", "model.safetensors/..", 3, None, ["model.safetensors"], {"a": "b"},
    ],
)  # fmt: skip
def test_an_index_leads_nowhere_else(model, file):
    shutil.copy(model / SINGLE, model.parent / SINGLE)  # so that there would be something to find
    (model / "sub").mkdir()
    shutil.copy(model / SINGLE, model / "sub" / SINGLE)
    write_index(model, {name: file for name in open_folder(model).tensors})
    text = refused(model)
    assert INDEX in text and repr(file) in text


@pytest.mark.parametrize(
    "index", [{}, {"weight_map": {}}, {"weight_map": []}, {"weight_map": "x"}, {"weight_map": None}]
)
def test_an_index_without_a_map_is_refused(model, index):
    (model / SINGLE).rename(model / WHOLE)
    (model / INDEX).write_text(json.dumps(index))
    assert "has no weight_map" in refused(model)


def test_the_single_file_is_read_where_there_is_an_index_too(model):
    before = open_folder(model).tensors
    change(model, INDEX, weight_map={"a": "b.safetensors"})
    assert open_folder(model).tensors == before


def test_an_index_must_match_its_files(sharded):
    listed = json.loads((sharded / INDEX).read_text())["weight_map"]
    name, file = next(iter(listed.items()))
    other = next(f for f in listed.values() if f != file)
    change(sharded, INDEX, weight_map=listed | {name: other})
    assert f"does not match its files: {name} (listed in {other})." in refused(sharded)
    change(sharded, INDEX, weight_map=listed | {f"x{i}": file for i in range(9)})
    text = refused(sharded)
    assert f"x4 (listed in {file}) …" in text and "x5" not in text
    change(sharded, INDEX, weight_map=listed)
    assert_as_the_library_reads(open_folder(sharded))


def test_a_shard_that_is_missing_or_broken_is_named(sharded):
    files = open_folder(sharded).files
    os.truncate(sharded / files[1], 50)
    assert files[1] in refused(sharded)
    (sharded / files[1]).unlink()
    assert f"{files[1]} cannot be read: No such file" in refused(sharded)


def test_one_name_in_two_shards_is_refused(sharded):
    files = open_folder(sharded).files
    shutil.copy(sharded / files[0], sharded / files[-1])
    assert "does not match its files" in refused(sharded)


# ── Folders that hold no checkpoint ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["pytorch_model.bin"], r"holds pickle weights \(\.bin\) only"),
        (["model.pt"], r"holds pickle weights \(\.pt\) only"),
        (["consolidated.00.pth"], r"holds pickle weights \(\.pth\) only"),
        (["model-Q4_K_M.gguf", "imatrix.bin"], "holds GGUF files, which are quantised"),
        (["adapter_model.safetensors", "adapter_config.json", "training_args.bin"], "holds a LoRA adapter"),
        (["README.md"], "holds no model.safetensors and no model.safetensors.index.json. Choose the folder"),
        (["other.safetensors"], "holds no model.safetensors"),
    ],
)
def test_what_a_folder_holds_instead_is_said(tmp_path, names, says):
    (tmp_path / "config.json").write_text("{}")
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(CheckpointError, match=says):
        open_folder(tmp_path)
    assert refused(tmp_path).startswith(str(tmp_path))


def test_there_must_be_a_folder(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "none", tmp_path / "file"):
        assert refused(path).startswith(f"There is no folder {path}. Give a folder with a model, or a Hub id")


@pytest.mark.parametrize("text", [None, "", "{", "[]", '"x"', "[" * 100_000, b"\xff\xfe", '{"a": 1}}'])
def test_a_config_must_be_there_and_be_an_object(model, text):
    path = model / "config.json"
    if text is None:
        path.unlink()
        assert refused(model) == f"{path} is missing. A checkpoint folder needs it."
    else:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        assert refused(model).startswith(str(path))


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, r"is quantised \(gptq\)"),
        ({"quantization_config": {"bits": 4}}, r"is quantised \(quantised\)"),
        ({"text_config": {"quantization_config": {"quant_method": "awq"}}}, r"is quantised \(awq\)"),
    ],
)
def test_quantised_by_its_config_is_refused(model, config, says):
    change(model, "config.json", **config)
    with pytest.raises(CheckpointError, match=says + ": its numbers cannot be added"):
        open_folder(model)


def test_quantised_to_four_bits_is_refused(scratch):
    (scratch / SINGLE).write_bytes(pack({"a": entry([8], 0, 4, "F4")}, bytes(4)))
    assert "is quantised (F4)" in refused(scratch)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_quantised_by_its_dtype_is_refused(scratch, dtype):
    save_file({"a": torch.ones(4), "b": torch.ones(4).to(dtype)}, scratch / SINGLE)
    assert "is quantised (F8_" in refused(scratch)


# ── Vocabularies ──────────────────────────────────────────────────────────────────────────────────────────────────

TOKENIZERS = {
    "BPE": lambda: token_models.BPE(vocab={"a": 0, "b": 1, "ab": 2}, merges=[("a", "b")]),
    "Unigram": lambda: token_models.Unigram([("<unk>", 0.0), ("▁a", -1.0), ("b", -2.5)], unk_id=0, byte_fallback=False),
    "WordLevel": lambda: token_models.WordLevel({"one": 0, "two": 1, "[UNK]": 2}, unk_token="[UNK]"),
}


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_vocabulary_is_what_tokenizers_reads(model, kind):
    made = Tokenizer(TOKENIZERS[kind]())
    made.add_special_tokens(["<|end|>"])
    made.add_tokens(["an added word"])
    made.save(str(model / "tokenizer.json"))
    vocabulary = open_folder(model).vocabulary()
    assert vocabulary == made.get_vocab(with_added_tokens=True)
    assert len(vocabulary) == 5


def test_a_real_tokenizer_and_none(model):
    made = Tokenizer.from_file(str(model / "tokenizer.json"))
    assert open_folder(model).vocabulary() == made.get_vocab(with_added_tokens=True)
    (model / "tokenizer.json").unlink()
    assert open_folder(model).vocabulary() is None


@pytest.mark.parametrize(
    "document",
    [
        [], {}, {"model": None}, {"model": {}}, {"model": {"vocab": None}}, {"model": {"vocab": [[]]}},
        {"model": {"vocab": [[["x"], 1]]}}, {"model": {"vocab": {}}, "added_tokens": [{"id": 1}]},
        {"model": {"vocab": {}}, "added_tokens": 3}, {"model": {"vocab": {}}, "added_tokens": [{"content": [], "id": 1}]},
    ],
)  # fmt: skip
def test_a_tokenizer_file_that_is_none_is_named(model, document):
    (model / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        open_folder(model).vocabulary()


# ── Faults that were found, one by one ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "data",
    [
        pack(rb'{"\ud800":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', bytes(8)),  # no text, so no name
        pack({"a": {**entry(), "data_offsets": [0.0, 8.0]}}, bytes(8)),  # an offset is a whole number
        pack({"a": {**entry(), "data_offsets": [False, 8]}}, bytes(8)),
        pack({"a": {**entry(shape=[True], end=4)}}, bytes(4)),
        pack({"a": {**entry(end=4), "shape": {}}}, bytes(4)),
        pack({"a": entry(shape=[10**4300 // 8 - 1], end=10**4300 - 8, dtype="F64")}),  # more digits than Python prints
        pack(b' {"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', bytes(8)),  # the library wants the brace first
    ],
    ids=map(str, count()),
)
def test_headers_that_are_nearly_right(scratch, data):
    (scratch / SINGLE).write_bytes(data)
    assert "broken safetensors header" in refused(scratch)


@pytest.mark.parametrize("file", ["a\0b.safetensors", "\ud800.safetensors"], ids=["null", "surrogate"])
def test_an_index_with_a_name_no_file_can_have(model, file):
    write_index(model, {"a": file})
    assert "names the file" in refused(model)


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000, "~nobody-of-that-name/model", "\ud800"], ids=map(str, count()))
def test_a_path_no_folder_can_have(path):
    assert refused(path).startswith("There is no folder")


@pytest.mark.parametrize(
    ("config", "fine"),
    [({"quantization_config": "gptq"}, False), ({"quantization_config": [1]}, False), ({"text_config": "words"}, True)],
)
def test_configs_of_odd_types(model, config, fine):
    change(model, "config.json", **config)
    if fine:
        assert open_folder(model).tensors
    else:
        assert "is quantised" in refused(model)


@pytest.mark.parametrize(("dtype", "size"), [("F6_E2M3", 6), ("F8_E4M3FNUZ", 8)])
def test_rarer_dtypes_are_quantised_and_not_broken(scratch, dtype, size):
    (scratch / SINGLE).write_bytes(pack({"a": entry([8], 0, size, dtype)}, bytes(size)))
    assert f"is quantised ({dtype})" in refused(scratch)


@pytest.mark.parametrize(
    "document",
    [
        {"model": {"vocab": {"a": "b"}}}, {"model": {"vocab": {"a": 1.5}}}, {"model": {"vocab": {"a": -1}}},
        {"model": {"vocab": {"a": 0}}, "added_tokens": [{"content": "b", "id": None}]},
        {"model": {"vocab": {"a": 0}}, "added_tokens": [{"content": 3, "id": 1}]},
    ],
)  # fmt: skip
def test_rows_of_a_vocabulary_are_whole_numbers(model, document):
    (model / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        open_folder(model).vocabulary()


def test_a_header_names_its_file_and_not_its_folder():
    with pytest.raises(CheckpointError, match=r"^shard\.safetensors has a broken"):
        parse_header(b"[]", "shard.safetensors", 10)
