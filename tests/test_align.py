"""Tensors by name, vocabulary rows by token string, and what the preflight says of it."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from transfer.errors import CheckpointError, TripleError
from transfer.live import LiveModel
from transfer.merge import merge
from transfer.plane import CORNERS
from transfer.stream import Reader
from transfer.triple import open_triple

from . import families


def copied(refs: dict[str, str], to: Path) -> dict[str, str]:
    return {role: str(shutil.copytree(ref, to / role)) for role, ref in refs.items()}


def edit_config(folder: str, **values) -> None:
    path = Path(folder) / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def merged(triple, name: str, corner: str = "merged") -> torch.Tensor:
    tensor = next(t for t in triple.tensors if t.name == name)
    with Reader(triple.checkpoints) as reader:
        return torch.cat([p for _, p in reader.mixed(tensor, CORNERS[corner])]).view(tensor.shape)


def with_vocabulary(folder: str, tokens: list[str], rows: torch.Tensor) -> None:
    """Give a checkpoint another vocabulary: its tokens in order (a WordLevel tokenizer.json) and their rows."""
    path = Path(folder)
    weights = load_file(path / "model.safetensors")
    weights["model.embed_tokens.weight"] = rows.to(torch.bfloat16)
    weights["lm_head.weight"] = (rows * 2).to(torch.bfloat16)
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    edit_config(folder, vocab_size=len(rows))
    document = {"model": {"type": "WordLevel", "vocab": {t: i for i, t in enumerate(tokens)}}, "added_tokens": []}
    (path / "tokenizer.json").write_text(json.dumps(document))


EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def rows_of(tokens: list[str], seed: int) -> torch.Tensor:
    """A row for every token that depends on the token and the checkpoint, in bfloat16-exact numbers."""
    table = {t: i for i, t in enumerate("abcdefgh")}
    return torch.tensor([[table[t] * 8 + seed + c % 2 for c in range(48)] for t in tokens], dtype=torch.float32)


@pytest.mark.parametrize(
    ("source", "tuned", "target"),
    [
        ("abc", "abcd", "abc"),  # a token added by fine-tuning
        ("abc", "abc", "habc"),  # a release that prepends one
        ("abc", "cab", "bca"),  # reordered
        ("abcde", "abc", "abcdefg"),  # larger bases
        ("abc", "dabc", "abc"),  # a token that fine-tuning put before the others: row −1, then row 0
        ("bd", "abcde", "ce"),  # rows that are there and rows that are not, by turns
    ],
)
def test_rows_are_matched_by_token(family, tmp_path, source, tuned, target):
    refs = copied(family("llama", roles=families.ROLES[:3]), tmp_path)
    for number, (role, tokens) in enumerate(zip(families.ROLES, (source, tuned, target), strict=False)):
        with_vocabulary(refs[role], list(tokens), rows_of(list(tokens), number))
    triple = open_triple(refs)
    for name, factor in ((EMBED, 1), (HEAD, 2)):
        got = merged(triple, name).float()
        assert got.shape == (len(tuned), 48)
        for row, token in enumerate(tuned):
            zero = torch.zeros(48)
            s = rows_of([token], 0)[0] if token in source else zero
            t = rows_of([token], 2)[0] if token in target else zero
            assert torch.equal(got[row], factor * (t + rows_of([token], 1)[0] - s)), (name, token)
    if len({source, tuned, target}) > 1:
        assert any("matched by token" in f.text for f in triple.findings)


def test_padding_rows_go_by_index(family, tmp_path):
    refs = copied(family("llama", roles=families.ROLES[:3]), tmp_path)
    for number, (role, tokens) in enumerate(zip(families.ROLES, ("abc", "acb", "abc"), strict=False)):
        rows = torch.cat([rows_of(list(tokens), number), torch.full((2, 48), 100.0 + number)])
        with_vocabulary(refs[role], list(tokens), rows)
    got = merged(open_triple(refs), EMBED).float()
    assert torch.equal(got[3:], torch.full((2, 48), 102.0 + 101 - 100))


def test_sizes_that_differ_without_a_tokenizer_are_refused(family, tmp_path):
    refs = copied(family("llama", roles=families.ROLES[:3]), tmp_path)
    with_vocabulary(refs["source_tuned"], list("abcd"), rows_of(list("abcd"), 1))
    (Path(refs["source_base"]) / "tokenizer.json").unlink()
    with pytest.raises(TripleError, match=r"tokenizer\.json in .*source_base.*missing"):
        open_triple(refs)


def test_an_untied_fine_tune_of_a_tied_base_keeps_its_head(family, tmp_path):
    refs = copied(family("llama-tied", roles=families.ROLES[:3]), tmp_path)
    weights = load_file(Path(refs["source_tuned"]) / "model.safetensors")
    head = weights[EMBED] + 0.25
    save_file({**weights, HEAD: head}, Path(refs["source_tuned"]) / "model.safetensors", metadata={"format": "pt"})
    edit_config(refs["source_tuned"], tie_word_embeddings=False)
    triple = open_triple(refs)
    s, t = (load_file(Path(refs[r]) / "model.safetensors")[EMBED].double() for r in ("source_base", "target_base"))
    assert torch.equal(merged(triple, HEAD), (t + head.double() - s).to(torch.bfloat16))


def test_shapes_that_differ_are_named(family):
    refs = family("llama")
    other = family("mistral")
    with pytest.raises(TripleError, match=r"No tensor name|differ in shape"):
        open_triple({**refs, "target_base": family("gpt-neox")["target_base"]})
    narrow = {**refs, "target_base": other["target_base"]}
    assert any("Different architectures" in f.text for f in open_triple(narrow).findings)


def test_one_tensor_of_another_shape_is_named(family, tmp_path):
    refs = copied(family("llama", roles=families.ROLES[:3]), tmp_path)
    path = Path(refs["source_tuned"]) / "model.safetensors"
    weights = load_file(path)
    weights["model.layers.1.mlp.up_proj.weight"] = torch.zeros(81, 48, dtype=torch.bfloat16)
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(TripleError, match=r"layers\.1\.mlp\.up_proj\.weight is \[81, 48\]"):
        open_triple(refs)


def test_tensors_that_only_the_target_has_are_copied_and_reported(family, tmp_path):
    refs = copied(family("llama", roles=families.ROLES[:3]), tmp_path)
    path = Path(refs["target_base"]) / "model.safetensors"
    extra = torch.arange(6, dtype=torch.float32).to(torch.bfloat16)
    counts = torch.arange(4)
    save_file({**load_file(path), "model.extra": extra, "model.counts": counts}, path, metadata={"format": "pt"})
    triple = open_triple(refs)
    assert torch.equal(merged(triple, "model.extra"), extra)
    assert torch.equal(merged(triple, "model.extra", "source_base"), extra)
    assert torch.equal(merged(triple, "model.counts"), counts)
    assert any("copied" in f.text and "model.extra" in f.text for f in triple.findings)


def test_missing_roles_and_bad_folders_are_named(family, tmp_path):
    refs = family("llama")
    with pytest.raises(TripleError, match="Choose a target base"):
        open_triple({**refs, "target_base": " "})
    with pytest.raises(CheckpointError, match=r"Source fine-tuned: There is no folder .*nowhere"):
        open_triple({**refs, "source_tuned": str(tmp_path / "nowhere")})


def test_the_preflight_tells_of_twins_and_of_other_configs(family, tmp_path):
    refs = copied(family("llama", roles=families.ROLES[:3]), tmp_path)
    edit_config(refs["target_base"], max_position_embeddings=512)
    texts = [f.text for f in open_triple({**refs, "source_tuned": refs["source_base"]}).findings]
    assert any("same checkpoint" in t for t in texts)
    assert any("context length differs: 256 in the source, 512 in the target" in t for t in texts)
    assert any("no chat template" in t for t in texts)


def test_the_identity_changes_with_a_file(family, tmp_path):
    refs = copied(family("llama", roles=families.ROLES[:3]), tmp_path)
    before = open_triple(refs).identity
    assert open_triple(refs).identity == before
    path = Path(refs["target_base"]) / "model.safetensors"
    weights = load_file(path)
    save_file({k: v + 1 for k, v in weights.items()}, path, metadata={"format": "pt"})
    assert open_triple(refs).identity != before


def test_a_config_that_promises_more_rows_than_there_are_is_refused(family, tmp_path):
    refs = copied(family("llama", roles=families.ROLES[:3]), tmp_path)
    for role in families.ROLES[:3]:
        path = Path(refs[role]) / "model.safetensors"
        weights = load_file(path)
        if role == "source_tuned":
            weights[EMBED] = weights[EMBED][:300].clone()
        save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(TripleError, match=r"embed_tokens\.weight is \[300, 48\]"):
        open_triple(refs)


@pytest.mark.parametrize("kind", ["llama-tied", "gemma2"])
def test_a_tie_that_the_config_leaves_out_is_seen_from_the_files(family, tmp_path, kind):
    """transformers 4 leaves tie_word_embeddings out where tied is the family's default."""
    refs = copied(family(kind, roles=families.ROLES[:3]), tmp_path)
    for ref in refs.values():
        path = Path(ref) / "config.json"
        config = json.loads(path.read_text())
        config.pop("tie_word_embeddings", None)
        path.write_text(json.dumps(config))
    triple = open_triple(refs)
    assert all(c.tied for c in triple.checkpoints.values())
    live = LiveModel(triple, CORNERS["merged"])
    assert live.model.get_input_embeddings().weight.data_ptr() == live.model.get_output_embeddings().weight.data_ptr()


def test_checkpoints_of_equal_shapes_and_times_are_not_confused(family, tmp_path):
    """Unpacked from one archive, files of a family have sizes and times in common."""
    refs = copied(family("llama"), tmp_path)
    for ref in refs.values():
        for file in Path(ref).iterdir():
            os.utime(file, (1_700_000_000, 1_700_000_000))
    triple = open_triple(refs)
    assert len({c.identity for c in triple.checkpoints.values()}) == 4
    swapped = open_triple({**refs, "target_base": refs["target_tuned"], "target_tuned": ""})
    assert swapped.identity != triple.identity and not any("same checkpoint" in f.text for f in triple.findings)


def test_a_special_token_beyond_the_merged_vocabulary_is_dropped(family, tmp_path):
    refs = copied(family("llama", roles=families.ROLES[:3]), tmp_path)
    with_vocabulary(refs["target_base"], list("abcdef"), rows_of(list("abcdef"), 2))
    edit_config(refs["target_base"], pad_token_id=5)
    for number, role in enumerate(("source_base", "source_tuned")):
        with_vocabulary(refs[role], list("abc"), rows_of(list("abc"), number))
        edit_config(refs[role], pad_token_id=None, bos_token_id=None, eos_token_id=None)
    triple = open_triple(refs)
    assert LiveModel(triple, CORNERS["merged"]).model.config.pad_token_id is None
    *_, _ = merge(triple, CORNERS["merged"], tmp_path / "merged")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "merged").get_input_embeddings().weight.shape == (3, 48)


def test_the_two_ways_to_write_rope_are_one(family, tmp_path):
    refs = copied(family("llama", roles=families.ROLES[:3]), tmp_path)
    path = Path(refs["source_base"]) / "config.json"
    config = json.loads(path.read_text())
    config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    path.write_text(json.dumps({**config, "rope_scaling": None}))
    triple = open_triple(refs)
    assert not any("RoPE" in f.text for f in triple.findings)
    assert triple.config_key("source_base") == triple.config_key("target_base")


def test_a_yardstick_that_lacks_a_tensor_is_told_and_left_out(family, tmp_path):
    refs = copied(family("llama"), tmp_path)
    path = Path(refs["target_tuned"]) / "model.safetensors"
    weights = load_file(path)
    del weights["model.norm.weight"]
    save_file(weights, path, metadata={"format": "pt"})
    triple = open_triple(refs)
    assert any("lacks 1 of these tensors" in f.text for f in triple.findings)
    with pytest.raises(TripleError, match=r"has no model\.norm\.weight that fits"):
        triple.need(CORNERS["target_tuned"])
    triple.need(CORNERS["merged"])


def test_swapped_sources_are_noticed(family):
    refs = family("llama")
    swapped = {**refs, "source_base": refs["source_tuned"], "source_tuned": refs["source_base"]}
    assert any("Are they swapped?" in f.text for f in open_triple(swapped).findings)
    assert not any("swapped" in f.text for f in open_triple(refs).findings)
