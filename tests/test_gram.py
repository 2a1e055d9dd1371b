"""The one pass and what follows from it, against float64 on the whole tensors."""

import math
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from analysis import gram
from analysis.geometry import by_tensor, grouped, place, tensor_table, total
from analysis.gram import TensorGram, gram_pass
from analysis.kernel import FIELDS, PAIRS
from transfer.plane import CORNERS, point
from transfer.stream import Reader
from transfer.triple import open_triple

from . import families


def loaded(triple):
    """role → name → flat float64, straight from the files."""
    return {
        role: {k: v.double().flatten() for f in c.files for k, v in load_file(c.folder / f).items()}
        for role, c in triple.checkpoints.items()
    }


def vectors(files, name):
    s, f, t, r = (files[role][name] for role in families.ROLES)
    return [s, f - s, t - s, r - t]


@pytest.mark.parametrize("kind", list(families.CONFIGS))
def test_every_gram_entry_is_right(triple, kind):
    found = triple(kind)
    files = loaded(found)
    grams = list(gram_pass(found))
    assert {g.name for g in grams} == set(files["target_base"])
    for g in grams:
        x = torch.stack(vectors(files, g.name))
        exact = (x @ x.T).numpy()
        scale = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
        assert np.allclose(g.gram, exact, rtol=0, atol=2e-7 * scale + 1e-30), g.name
        assert g.covered == x.shape[1]
        assert g["n_unchanged"] == int((x[1] == 0).sum())
        assert g["most"] == pytest.approx(float(x[1].abs().max()))
        for other, name in ((x[2], "shift"), (x[3], "reference")):
            assert g[f"n_with_{name}"] == int((x[1] * other > 0).sum())
            assert g[f"n_against_{name}"] == int((x[1] * other < 0).sum())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("alpha", [1.0, 0.3, -0.01])
def test_what_rounding_loses_is_counted(triple, dtype, alpha):
    found = triple("llama", dtype=dtype)
    files = loaded(found)
    for g in gram_pass(found, alpha=alpha):
        _, delta, _, _ = vectors(files, g.name)
        target = files["target_base"][g.name]
        kept = (target + alpha * delta).to(dtype).double()
        assert g["n_lost"] == pytest.approx(int(((kept == target) & (delta != 0)).sum()), abs=2)
        residue = float((kept - target - alpha * delta).square().sum()) / alpha**2
        assert g["residue"] == pytest.approx(residue, rel=0.05 if dtype == torch.float32 else 2e-3)


def test_dtypes_may_differ_between_the_checkpoints(family, tmp_path):
    kinds = {"source_base": torch.float16, "source_tuned": torch.float32, "target_base": torch.bfloat16}
    kinds["target_tuned"] = torch.float64
    refs = {role: str(shutil.copytree(ref, tmp_path / role)) for role, ref in family("llama").items()}
    for role, dtype in kinds.items():
        path = tmp_path / role / "model.safetensors"
        save_file({k: v.to(dtype) for k, v in load_file(path).items()}, path, metadata={"format": "pt"})
    found = open_triple(refs)
    files = loaded(found)
    for g in gram_pass(found):
        x = torch.stack(vectors(files, g.name))
        exact = (x @ x.T).numpy()
        scale = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
        assert np.allclose(g.gram, exact, rtol=0, atol=1e-6 * scale), g.name


def test_spans_add_up_to_the_tensor(triple, monkeypatch):
    found = triple("llama")
    whole = {g.name: g for g in gram_pass(found)}
    monkeypatch.setattr(gram, "SPAN", 1000)
    monkeypatch.setattr(gram, "STEP", 300)
    for g in gram_pass(found, threads=3):
        assert g.covered == whole[g.name].covered
        assert np.allclose(g.figures, whole[g.name].figures, rtol=1e-5, atol=1e-9)


def test_plain_torch_finds_the_same(triple):
    """The path that a GPU takes, here on the CPU's own device."""
    found = triple("qwen2")
    ours = {g.name: g.figures for g in gram_pass(found, alpha=0.7)}
    for g in gram_pass(found, alpha=0.7, device="cpu:0"):
        assert np.allclose(g.figures, ours[g.name], rtol=2e-5, atol=1e-7), g.name


def test_large_tensors_keep_their_accuracy(tmp_path):
    """Norms and cosines to 1e-6 of float64 on a tensor of four million weights with an update of 1e-3."""
    torch.manual_seed(0)
    shape = (2048, 2048)
    base = torch.randn(shape) * 0.02
    made = {
        "source_base": base,
        "source_tuned": base + 2e-5 * torch.randn(shape),
        "target_base": base + 1e-4 * torch.randn(shape),
        "target_tuned": base + 1e-4 * torch.randn(shape),
    }
    for role, weights in made.items():
        folder = tmp_path / role
        folder.mkdir()
        save_file({"model.layers.0.w.weight": weights}, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text('{"model_type": "llama", "vocab_size": 7}')
    found = open_triple({role: str(tmp_path / role) for role in made})
    measures = total(tensor_table(gram_pass(found)))
    s, f, t, r = (made[role].double().flatten() for role in families.ROLES)
    delta, shift, reference = f - s, t - s, r - t
    assert measures["norm_delta"] == pytest.approx(float(delta.norm()), rel=1e-6)
    assert measures["norm_shift"] == pytest.approx(float(shift.norm()), rel=1e-6)
    assert measures["cos_shift"] == pytest.approx(float(delta @ shift / delta.norm() / shift.norm()), abs=1e-6)
    assert measures["best_alpha"] == pytest.approx(float(delta @ reference / (delta @ delta)), abs=1e-5)


def test_groups_are_sums_and_not_means(triple):
    found = triple("llama")
    files = loaded(found)
    table = tensor_table(gram_pass(found))
    for _, row in grouped(table, "layer").iterrows():
        there = table["layer"].isna() if pd.isna(row["layer"]) else table["layer"].eq(row["layer"]).fillna(False)
        names = table.loc[there, "tensor"]
        delta = torch.cat([vectors(files, n)[1] for n in names])
        assert row["norm_delta"] == pytest.approx(float(delta.norm()), rel=1e-5)
        assert row["numel"] == len(delta)
    whole = [torch.cat([vectors(files, n)[i] for n in table["tensor"]]) for i in range(4)]
    sums = total(table)
    assert sums["relative"] == pytest.approx(float(whole[1].norm() / whole[0].norm()), rel=1e-5)
    assert sums["cos_reference"] == pytest.approx(
        float(whole[1] @ whole[3] / whole[1].norm() / whole[3].norm()), abs=1e-5
    )
    assert sums["miss"] == pytest.approx(float((whole[3] - whole[1]).norm() / whole[3].norm()), rel=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.floats(-2, 2), st.floats(-2, 2))
def test_distances_follow_from_the_gram_matrix(triple, alpha, beta):
    """‖w(α, β) − m_s‖² = α²‖Δ‖² + 2αβ⟨Δ, δ⟩ + β²‖δ‖², on float32 weights, where rounding is no matter."""
    found = triple("llama", dtype=torch.float32)
    table = tensor_table(gram_pass(found))
    g = table[["g11", "g12", "g22"]].sum()
    expected = alpha**2 * g["g11"] + 2 * alpha * beta * g["g12"] + beta**2 * g["g22"]
    squares = 0.0
    with Reader(found.checkpoints) as reader:
        for tensor in found.tensors:
            there = torch.cat([p for _, p in reader.mixed(tensor, point(alpha, beta))]).double()
            here = torch.cat([p for _, p in reader.mixed(tensor, CORNERS["source_base"])]).double()
            squares += float((there - here).square().sum())
    assert squares == pytest.approx(expected, rel=1e-3, abs=1e-9)


def test_without_the_yardstick_its_measures_are_missing(family):
    refs = family("llama")
    found = open_triple({k: v for k, v in refs.items() if k != "target_tuned"})
    measures = total(tensor_table(gram_pass(found)))
    assert math.isnan(measures["cos_reference"]) and math.isnan(measures["best_alpha"])
    assert measures["norm_delta"] > 0


def test_a_fine_tune_that_changed_nothing_has_no_direction(family):
    refs = family("llama")
    measures = total(tensor_table(gram_pass(open_triple({**refs, "source_tuned": refs["source_base"]}))))
    assert measures["norm_delta"] == 0 and measures["unchanged"] == 1
    assert math.isnan(measures["cos_shift"])


def test_the_table_to_take_away_is_in_order_of_depth(triple):
    frame = by_tensor(tensor_table(gram_pass(triple("llama"))))
    layers = frame["layer"].dropna().tolist()
    assert layers == sorted(layers)
    assert set(frame["tensor"]) == {t.name for t in triple("llama").tensors}


@pytest.mark.parametrize(
    ("name", "layer", "kind"),
    [
        ("model.layers.3.self_attn.q_proj.weight", 3, "attn.q_proj"),
        ("model.layers.11.mlp.up_proj.weight", 11, "mlp.up_proj"),
        ("model.layers.0.input_layernorm.weight", 0, "input_layernorm"),
        ("model.layers.2.block_sparse_moe.experts.5.w1.weight", 2, "moe.experts.w1"),
        ("gpt_neox.layers.4.attention.query_key_value.bias", 4, "attn.query_key_value.bias"),
        ("model.embed_tokens.weight", None, "embed_tokens"),
        ("lm_head.weight", None, "lm_head"),
        ("transformer.h.7.mlp.c_fc.weight", 7, "mlp.c_fc"),
        ("vision_tower.encoder.layers.3.self_attn.q_proj.weight", 3, "vision_tower: attn.q_proj"),
    ],
)
def test_places_are_told_from_names(name, layer, kind):
    assert place(name) == (layer, kind)


def test_numbers_that_are_none_are_not_left_out_of_sums(family, tmp_path):
    refs = {role: str(shutil.copytree(ref, tmp_path / role)) for role, ref in family("llama").items()}
    path = tmp_path / "source_tuned" / "model.safetensors"
    weights = load_file(path)
    weights["lm_head.weight"][3, 4] = torch.nan
    save_file(weights, path, metadata={"format": "pt"})
    table = tensor_table(gram_pass(open_triple(refs)))
    assert math.isnan(total(table)["norm_delta"])
    layers = grouped(table, "layer")
    assert layers.loc[layers["layer"].notna(), "norm_delta"].notna().all()
    odd = table.set_index("tensor")["odd_source_tuned"]
    assert odd.pop("lm_head.weight") == 1 and (odd == 0).all()


@settings(max_examples=50)
@given(st.lists(st.lists(st.floats(-3, 3), min_size=6, max_size=6), min_size=4, max_size=4))
def test_the_nearest_point_of_the_plane_is_the_least_squares_one(rows):
    x = np.array(rows)
    gram = x @ x.T
    if np.linalg.cond(x[1:3] @ x[1:3].T) > 1e6 or np.linalg.norm(x[3]) < 1e-3:
        return
    figures = np.zeros(len(FIELDS))
    figures[: len(PAIRS)] = [gram[i, j] for i, j in PAIRS]
    measures = total(tensor_table([TensorGram("model.layers.0.w", (6,), 6, figures)]))
    best, *_ = np.linalg.lstsq(x[1:3].T, x[3], rcond=None)
    assert measures["nearest_alpha"] == pytest.approx(best[0], rel=1e-4, abs=1e-6)
    assert measures["nearest_beta"] == pytest.approx(1 + best[1], rel=1e-4, abs=1e-6)
    off = np.linalg.norm(x[3] - x[1:3].T @ best) / np.linalg.norm(x[3])
    assert measures["off_plane"] == pytest.approx(off, abs=1e-5)
