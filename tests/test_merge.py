"""Merged checkpoints: right, loadable, and complete or absent."""

import json
import os
import time

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from transfer.errors import MergeError, ReadError
from transfer.live import LiveModel
from transfer.merge import merge, sweep
from transfer.plane import CORNERS, point
from transfer.stream import round_once
from transfer.triple import open_triple

from . import families


def written(triple, mix, folder, **how):
    shares = list(merge(triple, mix, folder, **how))
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1)
    return folder


@pytest.mark.parametrize("kind", list(families.CONFIGS))
def test_a_merged_checkpoint_loads_and_is_the_live_model(triple, kind, tmp_path):
    found = triple(kind)
    out = written(found, point(0.7), tmp_path / "merged")
    model, report = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(report[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    live = LiveModel(found, point(0.7))
    theirs = model.state_dict()
    assert all(torch.equal(v, theirs[k]) for k, v in live.model.state_dict().items())
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer.chat_template == families.TEMPLATE
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hello"}], add_generation_prompt=True, return_tensors="pt"
    )
    assert model.generate(**prompt, max_new_tokens=3, do_sample=False).shape[1] > prompt["input_ids"].shape[1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_file_is_the_float64_reference_rounded_once(triple, dtype, tmp_path):
    found = triple("llama", dtype=dtype)
    out = written(found, point(0.7), tmp_path / "merged")
    got = load_file(out / "model.safetensors")
    s, f, t = (load_file(found.checkpoints[r].folder / "model.safetensors") for r in families.ROLES[:3])
    assert got.keys() == t.keys()
    for name, tensor in got.items():
        exact = t[name].double() + 0.7 * (f[name].double() - s[name].double())
        assert tensor.dtype == dtype and torch.equal(tensor, round_once(exact, dtype)), name


def test_at_zero_it_is_the_target_to_the_bit(triple, tmp_path):
    found = triple("llama")
    out = written(found, CORNERS["target_base"], tmp_path / "merged")
    got, wanted = (load_file(p / "model.safetensors") for p in (out, found.checkpoints["target_base"].folder))
    assert all(torch.equal(got[k].view(torch.int16), wanted[k].view(torch.int16)) for k in wanted)


def test_shards_have_an_index_that_transformers_reads(triple, tmp_path):
    found = triple("llama")
    out = written(found, point(1), tmp_path / "merged", shard=40_000)
    files = sorted(p.name for p in out.glob("*.safetensors"))
    assert len(files) > 2 and files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == set(files) and index["metadata"]["total_size"] == found.nbytes
    whole = written(found, point(1), tmp_path / "whole")
    parts = {k: v for f in files for k, v in load_file(out / f).items()}
    assert all(torch.equal(v, parts[k]) for k, v in load_file(whole / "model.safetensors").items())
    AutoModelForCausalLM.from_pretrained(out)


def test_who_gives_what(family, tmp_path):
    import shutil

    refs = {
        role: str(shutil.copytree(ref, tmp_path / role))
        for role, ref in family("llama", roles=families.ROLES[:3]).items()
    }
    for role, values in (
        ("source_tuned", {"eos_token_id": 1, "max_position_embeddings": 64}),
        ("target_base", {"eos_token_id": 9, "max_position_embeddings": 512}),
    ):
        path = tmp_path / role / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    (tmp_path / "source_tuned" / "generation_config.json").write_text('{"eos_token_id": [1, 2], "temperature": 0.6}')
    out = written(open_triple(refs), point(1), tmp_path / "merged")
    config = json.loads((out / "config.json").read_text())
    assert config["max_position_embeddings"] == 512 and config["eos_token_id"] == 1
    assert json.loads((out / "generation_config.json").read_text())["eos_token_id"] == [1, 2]
    card = (out / "README.md").read_text()
    assert card.startswith("---\n") and "# merged" in card and "−1·m_s" in card.replace("− 1", "−1")
    for role in families.ROLES[:3]:
        assert role in card


def test_a_full_folder_is_left_alone(triple, tmp_path):
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged" / "thesis.txt").write_text("precious")
    with pytest.raises(MergeError, match="not empty"):
        list(merge(triple("llama"), point(1), tmp_path / "merged"))
    assert (tmp_path / "merged" / "thesis.txt").read_text() == "precious"


def test_a_merge_that_is_stopped_leaves_nothing(triple, tmp_path):
    work = merge(triple("llama"), point(1), tmp_path / "merged")
    next(work)
    assert os.listdir(tmp_path)
    work.close()
    assert os.listdir(tmp_path) == []


def test_a_merge_that_fails_leaves_nothing(family, tmp_path):
    import shutil

    refs = {role: str(shutil.copytree(ref, tmp_path / "in" / role)) for role, ref in family("llama").items()}
    found = open_triple(refs)
    os.truncate(tmp_path / "in" / "source_tuned" / "model.safetensors", 30_000)
    with pytest.raises(ReadError):
        list(merge(found, point(1), tmp_path / "out" / "merged"))
    assert os.listdir(tmp_path / "out") == []


def test_leftovers_of_a_killed_run_are_swept_after_a_day(tmp_path):
    for name, age in ((".old.1-2.partial", 2), (".new.1-2.partial", 0)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age * 86400,) * 2)
    sweep(tmp_path)
    assert os.listdir(tmp_path) == [".new.1-2.partial"]


def test_a_disk_that_is_full_is_told_before(triple, tmp_path, monkeypatch):
    import shutil
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 9, 1))
    with pytest.raises(MergeError, match="disk has 1 B free"):
        list(merge(triple("llama"), point(1), tmp_path / "merged"))


def test_an_overflow_is_named_and_leaves_nothing(family, tmp_path):
    import shutil

    from safetensors.torch import save_file

    refs = {
        role: str(shutil.copytree(ref, tmp_path / "in" / role))
        for role, ref in family("llama", dtype=torch.float16).items()
    }
    for role, value in (("source_base", -40000.0), ("source_tuned", 40000.0), ("target_base", 40000.0)):
        path = tmp_path / "in" / role / "model.safetensors"
        weights = load_file(path)
        weights["model.norm.weight"][0] = value
        save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(MergeError, match=r"model\.norm\.weight overflows float16"):
        list(merge(open_triple(refs), point(1), tmp_path / "out" / "merged"))
    assert os.listdir(tmp_path / "out") == []
