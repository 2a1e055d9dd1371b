"""The first look: estimates from random blocks, and whether their intervals hold as often as they say."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from scipy.stats import binom
from scipy.stats import t as student

from analysis import comparison, sample
from analysis.comparison import compare
from analysis.geometry import grouped, measure, piece_table, summed, tensor_table, total
from analysis.gram import gram_pass
from analysis.sample import blocks, half_widths, sample_pass, strata
from transfer.errors import Cancelled
from transfer.plane import ROLES
from transfer.triple import open_triple

from .hub_server import turned_to
from .test_align import EMBED, copied, rows_of, with_vocabulary

WATCHED = [
    "norm_base", "norm_delta", "relative", "cos_shift", "cos_reference", "best_alpha", "sign_shift", "lost", "unchanged",
    "rounding", "miss",
]  # fmt: skip


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """A triple of eight matrices whose rows differ in how far they moved, as a trained model's do."""
    folder = tmp_path_factory.mktemp("uneven")
    torch.manual_seed(0)
    tensors: dict[str, dict[str, torch.Tensor]] = {role: {} for role in ROLES}
    for layer in range(4):
        for kind in ("self_attn.q_proj", "mlp.up_proj"):
            shape = (256, 192)
            size, tilt = torch.exp(0.35 * torch.randn(256, 1)), 0.5 * torch.randn(256, 1)
            base, delta, noise, other = (0.02 * torch.randn(shape) for _ in range(4))
            delta = 0.05 * size * delta
            shift = 0.1 * size * noise + 0.3 * tilt * delta
            again = delta + 0.05 * size * other
            name = f"model.layers.{layer}.{kind}.weight"
            tensors["source_base"][name] = base
            tensors["source_tuned"][name] = base + delta
            tensors["target_base"][name] = base + shift
            tensors["target_tuned"][name] = base + shift + again
    for role in ROLES:
        (folder / role).mkdir()
        save_file({k: v.bfloat16() for k, v in tensors[role].items()}, folder / role / "model.safetensors")
        (folder / role / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 7}))
    return open_triple({role: str(folder / role) for role in ROLES})


def groups(pieces: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    return measure(summed(tensor_table(pieces).assign(all=0), by))


def places(stratum, *how, **more) -> list[tuple[str, int, int]]:
    return [(tensor.name, start, stop) for tensor, start, stop in blocks(stratum, *how, **more)]


@pytest.mark.parametrize("by", [["all"], ["tensor"], ["layer", "kind"], ["layer"]])
def test_intervals_cover_the_truth_as_often_as_they_say(uneven, by):
    truth = groups(piece_table(gram_pass(uneven)), by)[WATCHED]
    held = np.zeros(len(WATCHED))
    tries = 0
    for seed in range(60):
        pieces = piece_table(sample_pass(uneven, count=12, size=384, seed=seed))
        miss = (groups(pieces, by)[WATCHED] - truth).abs()
        held += (miss <= half_widths(pieces, by)[WATCHED]).sum().to_numpy()
        tries += len(truth)
    # Groups of one draw are of different tensors, so draws are independent: binomial around 95 %, give or take.
    low, high = binom.ppf(1e-4, tries, 0.925) / tries, binom.ppf(1 - 1e-4, tries, 0.965) / tries
    assert all(low <= share <= high for share in held / tries), dict(zip(WATCHED, held / tries, strict=True))


def test_more_blocks_make_narrower_intervals(uneven):
    few = half_widths(piece_table(sample_pass(uneven, count=8, size=384)), ["all"])[WATCHED]
    many = half_widths(piece_table(sample_pass(uneven, count=64, size=384)), ["all"])[WATCHED]
    assert (many < few).all(axis=None)


def test_leaving_out_a_block_is_what_the_formula_says(uneven):
    """The vectorised jackknife against the plain one, block by block, for the cosine of one layer."""
    pieces = piece_table(sample_pass(uneven, count=6, size=384))
    layer = pieces[pieces["layer"] == 2]
    variance, terms = 0.0, []
    for _, tensor in layer.groupby("tensor"):
        theta = np.array([grouped(tensor_table(layer.drop(i)), "layer")["cos_shift"].iloc[0] for i in tensor.index])
        b, f = len(theta), tensor["covered"].sum() / tensor["numel"].iloc[0]
        terms.append(((1 - f) * (b - 1) / b * ((theta - theta.mean()) ** 2).sum(), b - 1))
        variance += terms[-1][0]
    freedom = variance**2 / sum(v**2 / d for v, d in terms)
    expected = student.ppf(0.975, freedom) * np.sqrt(variance)
    found = half_widths(pieces, ["layer"]).set_index("layer").loc[2, "cos_shift"]
    assert found == pytest.approx(expected, rel=1e-6)


def test_blocks_are_repeatable_and_on_borders(uneven):
    stratum = strata(uneven)[0]
    drawn = places(stratum, 10, 384)
    assert drawn == places(stratum, 10, 384) and drawn != places(stratum, 10, 384, seed=1)
    assert len(set(drawn)) == 10 and all(start % 384 == 0 and 0 < stop - start <= 384 for _, start, stop in drawn)


def test_small_tensors_are_read_whole_and_exact(triple):
    found = triple("llama")
    pieces = piece_table(sample_pass(found, count=4, size=10_000))
    exact = tensor_table(gram_pass(found))
    whole = tensor_table(pieces)["covered"] == tensor_table(pieces)["numel"]
    assert whole.any()
    there = half_widths(pieces, ["tensor"]).set_index("tensor").loc[exact["tensor"][whole].tolist()]
    assert (there == 0).all(axis=None)


def test_an_exact_tensor_takes_the_place_of_its_blocks(uneven):
    sampled, exact = list(sample_pass(uneven, count=8, size=384)), list(gram_pass(uneven))
    done = {g.name: g for g in exact[:3]}
    mixed = piece_table([*done.values(), *(g for g in sampled if g.name not in done)])
    widths = half_widths(mixed, ["tensor"]).set_index("tensor")
    assert (widths.loc[list(done)] == 0).all(axis=None)
    assert (widths.drop(list(done))["norm_delta"] > 0).all()
    wide, narrow = half_widths(piece_table(sampled), ["all"]), half_widths(mixed, ["all"])
    assert narrow["norm_delta"][0] < wide["norm_delta"][0]


def test_rows_matched_by_token_are_sampled_by_whole_rows(family, tmp_path, monkeypatch):
    refs = copied(family("llama"), tmp_path)
    for role, tokens in zip(ROLES, ("abcde", "bcdae", "eabcd", "abcde"), strict=True):
        with_vocabulary(refs[role], list(tokens), rows_of(list(tokens), 0) + 0.1 * torch.randn(5, 48))
    found = open_triple(refs)
    rows = next(s for s in strata(found) if s.name == EMBED)
    assert rows.tensors[0].grain == 48
    monkeypatch.setattr(sample, "WHOLE", 0)
    drawn = places(rows, 2, 60)
    assert all(start % 48 == 0 and stop - start == 48 for _, start, stop in drawn)
    whole = total(tensor_table(sample_pass(found, count=1000, size=48)))
    assert whole["norm_delta"] == pytest.approx(total(tensor_table(gram_pass(found)))["norm_delta"], rel=1e-6)


def test_what_no_block_has_seen_has_no_interval(tmp_path):
    """Three rows of a thousand changed: where no block has hit one there is nothing to say how far off 0 may be."""
    torch.manual_seed(0)
    base = {"model.embed_tokens.weight": 0.02 * torch.randn(1000, 384)}
    tuned = {"model.embed_tokens.weight": base["model.embed_tokens.weight"].clone()}
    tuned["model.embed_tokens.weight"][[1, 500, 999]] += 1
    for role, weights in zip(ROLES[:3], (base, tuned, base), strict=True):
        (tmp_path / role).mkdir()
        save_file({k: v.bfloat16() for k, v in weights.items()}, tmp_path / role / "model.safetensors")
        (tmp_path / role / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 7}))
    found = open_triple({role: str(tmp_path / role) for role in ROLES[:3]})
    pieces = piece_table(sample_pass(found, count=20, size=384))
    widths = half_widths(pieces, ["all"]).iloc[0]
    assert total(tensor_table(pieces))["norm_delta"] == 0
    assert widths[["norm_delta", "unchanged", "cos_shift", "max_delta"]].isna().all() and widths["norm_base"] > 0
    whole = half_widths(piece_table(gram_pass(found)), ["all"]).iloc[0]
    assert (whole[["norm_delta", "unchanged", "max_delta"]] == 0).all()


def test_many_experts_are_sampled_together(triple, monkeypatch):
    """A Mixture's experts as one stratum a layer and matrix, whose estimate holds for all of them."""
    found = triple("mixtral")
    assert {s.name for s in strata(found)} == {t.name for t in found.tensors}
    monkeypatch.setattr(sample, "BUDGET", 60)
    together = strata(found)
    experts = next(s for s in together if s.name == "model.layers.1.block_sparse_moe.experts.*.w1.weight")
    assert len(experts.tensors) == 4 and experts.shape == (4, *experts.tensors[0].shape)
    assert sum(len(s.tensors) for s in together) == len(found.tensors)
    pieces = piece_table(sample_pass(found, count=12, size=96))
    assert "moe.experts.w1" in set(pieces["kind"])
    sums, exact = tensor_table(pieces), tensor_table(gram_pass(found))
    assert sums["numel"].sum() == exact["numel"].sum()
    by = ["layer", "kind"]
    truth = grouped(exact, by).set_index(by)["norm_delta"]
    guess = grouped(sums, by).set_index(by)["norm_delta"]
    width = half_widths(pieces, by).set_index(by)["norm_delta"]
    assert set(guess.index) == set(truth.index)
    assert ((guess - truth).abs() <= 2 * width + 1e-9).all()
    monkeypatch.setattr(sample, "WHOLE", 2)
    monkeypatch.setattr(comparison, "AT_ONCE", 0)
    monkeypatch.setattr(comparison, "BEAT", 0)
    steps = list(compare(found))
    assert all(int(step.table["numel"].sum()) == int(exact["numel"].sum()) for step in steps)
    assert not steps[0].exact and steps[-1].exact


def test_one_block_gives_no_interval(uneven):
    pieces = piece_table(sample_pass(uneven, count=1, size=384))
    assert half_widths(pieces, ["all"])[WATCHED].isna().all(axis=None)


def test_it_can_be_stopped(uneven):
    calls = 0

    def tick():
        nonlocal calls
        calls += 1
        if calls > 20:
            raise Cancelled("Stopped.")

    with pytest.raises(Cancelled):
        list(sample_pass(uneven, tick, count=30, size=384))


def test_what_is_on_the_hub_is_sampled_there(monkeypatch, tmp_path, uneven):
    """The same blocks as on a disk, by range requests; no file is downloaded and no weight is read twice."""
    monkeypatch.setattr(sample, "WHOLE", 2)
    with turned_to(monkeypatch, tmp_path) as hub:
        refs = {}
        for role, checkpoint in uneven.checkpoints.items():
            refs[role] = f"lab/{role.replace('_', '-')}"
            hub.serve(refs[role], checkpoint.folder)
        found = open_triple(refs)
        assert found.missing > 0
        far, near = (piece_table(sample_pass(t, count=5, size=384)) for t in (found, uneven))
        order = ["tensor", "g11", "g00"]
        far, near = (t.sort_values(order, ignore_index=True) for t in (far, near))
        pd.testing.assert_frame_equal(far, near)
        *_, first = compare(found)
        assert not first.exact and first.share < 1 and len(first.table) == len(found.tensors)
        weights = sum(c.nbytes for c in found.checkpoints.values())
        assert hub.sent("GET /content/") < weights  # two looks, neither of them whole
        assert not list((tmp_path / "cache").rglob("*.safetensors"))
