"""Singular values and what follows from them, against numpy's decomposition in float64."""

import json
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from analysis.decompose import Spectrum, Top, decompose, estimate_seconds
from analysis.entries import histogram
from analysis.intruders import heaviest, intruders
from analysis.matrix import matrices, slices
from analysis.plots.spectrum import histogram_figure, overlap_figure, spectrum_figure
from analysis.spectrum import overlap, random_share, spectra, spectra_table, tensor_spectra
from transfer.errors import Cancelled, ReadError, TripleError
from transfer.stream import Reader
from transfer.triple import open_triple

from . import families

DECAYS = {
    "fast": lambda n: 0.7 ** torch.arange(n),
    "slow": lambda n: torch.arange(1, n + 1) ** -0.5,
    "flat": lambda n: 1 + 0.1 * torch.linspace(1, 0, n),
}  # fmt: skip


def with_values(values: torch.Tensor, rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    """A float32 matrix of these singular values and random directions."""
    random = torch.Generator().manual_seed(seed)
    u, v = (torch.linalg.qr(torch.randn(n, len(values), generator=random).double()).Q for n in (rows, columns))
    return ((u * values) @ v.T).float()


def energy(a: torch.Tensor) -> float:
    return float(a.double().square().sum())


def top(a: torch.Tensor, exact: bool | None = None, **how) -> Top:
    return decompose(a, energy(a), exact, **how)


def triple_of(tmp_path, made: dict[str, dict[str, torch.Tensor]]):
    """A triple out of role → name → weights."""
    for role, weights in made.items():
        (tmp_path / role).mkdir()
        whole = {name: w.contiguous() for name, w in weights.items()}
        save_file(whole, tmp_path / role / "model.safetensors", metadata={"format": "pt"})
        (tmp_path / role / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 7}))
    return open_triple({role: str(tmp_path / role) for role in made})


def moved(shape, name="model.layers.0.w.weight", dtype=torch.float32, seed=0):
    """Four models of one random tensor."""
    random = torch.Generator().manual_seed(seed)
    draw = lambda scale: scale * torch.randn(shape, generator=random, dtype=torch.float64)
    base, delta, shift = draw(1), draw(0.1), draw(0.2)
    made = {"source_base": base, "source_tuned": base + delta, "target_base": base + shift}
    made["target_tuned"] = base + shift + 0.5 * delta + draw(0.05)
    return {role: {name: w.to(dtype)} for role, w in made.items()}


# --- decompositions --------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 10**6), st.floats(1e-6, 1e6))
def test_exact_values_and_vectors_are_those_of_numpy(rows, columns, seed, scale):
    a = scale * torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    found = top(a)
    s = np.linalg.svd(a.double().numpy(), compute_uv=False)
    assert found.spectrum.exact and found.spectrum.values.shape == (min(rows, columns),)
    assert (np.abs(found.spectrum.values - s) <= found.spectrum.errors + 1e-14 * s[0]).all()
    sizes = torch.from_numpy(found.spectrum.values)
    assert torch.allclose(a.double() @ found.right, found.left * sizes, atol=1e-5 * s[0])
    for side in (found.left, found.right):
        assert torch.allclose(side.T @ side, torch.eye(len(sizes), dtype=torch.float64), atol=1e-6)


@pytest.mark.parametrize("shape", [(200, 200), (150, 400), (400, 150)])
@pytest.mark.parametrize("decay", list(DECAYS))
def test_randomised_values_lie_within_their_error_of_a_true_one(decay, shape):
    a = with_values(DECAYS[decay](min(shape)), *shape)
    true = np.linalg.svd(a.double().numpy(), compute_uv=False)
    found = top(a, exact=False, rank=24).spectrum
    assert not found.exact and len(found.values) == 24
    assert (np.abs(found.values[:, None] - true).min(1) <= found.errors).all()
    assert (found.values <= true[:24] * (1 + 1e-12)).all()
    assert found.captured == pytest.approx((found.values**2).sum() / (true**2).sum(), rel=1e-9)
    if decay == "fast":
        assert found.values == pytest.approx(true[:24], rel=1e-6)


def test_randomised_ones_are_the_same_each_time_and_know_it_when_they_are_whole():
    a = with_values(DECAYS["slow"](60), 60, 90)
    one, two = top(a, exact=False, rank=16), top(a, exact=False, rank=16)
    assert (one.spectrum.values == two.spectrum.values).all() and torch.equal(one.left, two.left)
    whole = top(a, exact=False, rank=100).spectrum
    assert whole.exact and whole.effective_rank == pytest.approx(top(a).spectrum.effective_rank, rel=1e-5)


def test_forced_exact_values_of_a_large_matrix(monkeypatch):
    monkeypatch.setattr("analysis.decompose.EXACT_SIDE", 32)
    a = with_values(DECAYS["slow"](200), 200, 300)
    assert not top(a, rank=16).spectrum.exact
    forced = top(a, exact=True, rank=16)
    assert forced.spectrum.exact and forced.left.shape == (200, 16)
    assert forced.spectrum.values == pytest.approx(np.linalg.svd(a.double().numpy(), compute_uv=False), rel=1e-9)


def test_estimates_grow_with_the_work():
    small, large = estimate_seconds((512, 512)), estimate_seconds((4096, 4096))
    assert 0 < small < large and estimate_seconds((4096, 4096), exact=False) < large


@pytest.mark.parametrize("exact", [True, False])
def test_a_stop_is_heard_between_blocks(exact):
    calls = iter(range(2))

    def tick():
        if next(calls, None) is None:
            raise Cancelled("Stopped.")

    with pytest.raises(Cancelled):
        top(torch.randn(3000, 3000)[: 2000 if exact else 3000], exact=exact, tick=tick)


# --- measures --------------------------------------------------------------------------------------------------------


def test_ranks_of_plain_cases():
    same = top(torch.eye(30)).spectrum
    assert same.stable_rank == pytest.approx(30) and same.effective_rank == pytest.approx(30)
    assert same.energy_in(3) == pytest.approx(0.1) and same.directions(0.5) == 15
    one = top(torch.outer(torch.arange(1.0, 21), torch.ones(50))).spectrum
    assert one.stable_rank == pytest.approx(1) and one.effective_rank == pytest.approx(1, abs=1e-4)
    assert one.directions(0.99) == 1 and one.energy_in(64) == pytest.approx(1)


@settings(max_examples=50)
@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=30))
def test_measures_follow_their_formulas(values):
    s = np.sort(values)[::-1]
    found = Spectrum((len(s), 50), s, 0 * s, float((s**2).sum()), True)
    assert found.stable_rank == pytest.approx((s**2).sum() / s[0] ** 2)
    assert 1 - 1e-9 <= found.stable_rank <= found.effective_rank**2 + 1e-6
    share = s / s.sum()
    assert found.effective_rank == pytest.approx(math.exp(-(share * np.log(share)).sum()))
    need = found.directions(0.9)
    assert found.energy_in(int(need)) >= 0.9 - 1e-9
    assert need == 1 or found.energy_in(int(need) - 1) < 0.9


def test_what_is_not_known_is_said_to_be_missing():
    found = top(with_values(DECAYS["flat"](300), 300, 300), exact=False, rank=20).spectrum
    assert math.isnan(found.effective_rank) and math.isnan(found.directions(0.99)) and math.isnan(found.energy_in(64))
    assert 0 < found.energy_in(16) < 1


# --- subspaces -------------------------------------------------------------------------------------------------------


def test_equal_matrices_share_everything_and_random_ones_what_chance_gives():
    d, columns = 300, 500
    one, other = (top(torch.randn(d, columns, generator=torch.Generator().manual_seed(n))) for n in (1, 2))
    same, found = overlap(one, one), overlap(one, other)
    assert same.left == pytest.approx(1) and same.right == pytest.approx(1)
    assert list(found.ranks) == [1, 2, 4, 8, 16, 32, 64, 128]
    for sides, chance, n in ((found.left, found.left_chance, d), (found.right, found.right_chance, columns)):
        k = found.ranks
        assert chance == pytest.approx(k / n)
        # The variance of ‖UᵀW‖² for random subspaces of dimension k in n, from the second moments of a random projection.
        spread = np.sqrt(2 * (k * (n - k)) ** 2 / (n**2 * (n - 1) * (n + 2))) / k
        assert (np.abs(sides - chance) < 5 * spread).all()


def test_shared_directions_are_counted():
    u = torch.linalg.qr(torch.randn(80, 8, generator=torch.Generator().manual_seed(0))).Q
    v = torch.linalg.qr(torch.randn(60, 8, generator=torch.Generator().manual_seed(1))).Q
    one = (u[:, :4] * torch.tensor([9.0, 8, 7, 6])) @ v[:, :4].T
    other = (u[:, 2:6] * torch.tensor([9.0, 8, 7, 6])) @ v[:, 4:].T
    found = overlap(top(one), top(other))
    assert found.left[:3] == pytest.approx([0, 0, 0.5], abs=1e-6)
    assert found.right[:3] == pytest.approx(0, abs=1e-6)
    assert np.isnan(found.left[3:]).all()  # of rank 4: there is no top 8


# --- intruder dimensions ---------------------------------------------------------------------------------------------


def planted(rows, columns, decay, count=3):
    """A matrix, and the same with `count` new directions on top and a small change all over."""
    random = torch.Generator().manual_seed(rows + columns)
    base = with_values(DECAYS[decay](min(rows, columns)), rows, columns, seed=5)
    tuned = base + 1e-3 * base.std() * torch.randn(rows, columns, generator=random)
    for j in range(count):
        u, v = (torch.randn(n, generator=random) for n in (rows, columns))
        tuned = tuned + (1.6 - 0.15 * j) * torch.outer(u / u.norm(), v / v.norm())
    return base, tuned


@pytest.mark.parametrize("shape", [(250, 250), (250, 500), (500, 250)])
@pytest.mark.parametrize("decay", ["slow", "flat"])
def test_planted_intruders_are_found(decay, shape):
    base, tuned = planted(*shape, decay)
    first, second = (np.linalg.svd(a.double().numpy(), full_matrices=False)[0] for a in (base, tuned))
    cosines = np.abs(first.T @ second[:, :10]).max(0)
    true = cosines < 0.5
    found = intruders(top(tuned), top(base), base)
    assert (found.certain, found.undecided) == (true.sum(), 0) and true.sum() >= 3
    assert found.cosines == pytest.approx(cosines, abs=1e-4)
    part = intruders(top(tuned, False, rank=40, power=12), top(base, False, rank=40, power=12), base)
    assert 3 <= part.certain <= true.sum() <= part.certain + part.undecided
    if decay == "slow":
        assert part.undecided == 0


def test_a_small_change_brings_none():
    base = with_values(DECAYS["slow"](200), 200, 300)
    tuned = base + 1e-3 * base.std() * torch.randn(200, 300, generator=torch.Generator().manual_seed(1))
    for exact in (True, False):
        found = intruders(top(tuned, exact, rank=40), top(base, exact, rank=40), base)
        assert (found.examined, found.certain, found.undecided) == (10, 0, 0)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 60), st.integers(2, 60), st.integers(0, 10**6), st.integers(1, 40))
def test_the_bound_on_cosines_is_one(rows, columns, seed, steps):
    random = torch.Generator().manual_seed(seed)
    a = torch.randn(rows, columns, generator=random) * torch.rand(columns, generator=random) ** 3
    u, s, _ = np.linalg.svd(a.double().numpy(), full_matrices=False)
    looked = torch.linalg.qr(torch.randn(rows, 3, generator=random).double() + 3 * torch.from_numpy(u[:, :1])).Q
    bound = heaviest(a, looked, lambda: None, torch.zeros(rows, 0, dtype=torch.float64), steps).numpy()
    true = np.abs(u[:, s > 1e-4 * s[0]].T @ looked.numpy()).max(0)
    assert (bound >= true - 1e-3).all()


# --- tensors of a triple ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(families.CONFIGS))
def test_every_matrix_of_every_family_is_right(triple, kind):
    found = triple(kind)
    files = {
        role: {k: v.double() for f in c.files for k, v in load_file(c.folder / f).items()}
        for role, c in found.checkpoints.items()
    }
    results = list(spectra(found))
    assert {r.name for r in results} == {n for n, w in files["target_base"].items() if w.ndim == 2}
    for r in results:
        s, f, t, _ = (files[role][r.name] for role in families.ROLES)
        for vector, true in {"delta": f - s, "shift": t - s, "base": s}.items():
            values = np.linalg.svd(true.numpy(), compute_uv=False)
            assert r.spectra[vector].values == pytest.approx(values, abs=2e-6 * values[0])
        if min(r.shape) >= 48:
            assert r.overlaps["reference"].left[4] > r.overlaps["shift"].left[4]
        assert r.intruders is not None and r.intruders.undecided == 0
    table = spectra_table(results)
    assert list(table["tensor"]) == [r.name for r in results] and table["exact"].all()
    whole = [min(r.shape) >= 16 for r in results]  # a router of four experts has no top 16
    assert table[whole].drop(columns="layer").notna().all(axis=None)
    some = matrices(found, layers=[1])
    assert some and all(".1." in t.name for t in some)
    only = list(spectra(found, some[:1], with_intruders=False))
    assert only[0].intruders is None and set(only[0].spectra) == {"delta", "shift", "reference"}


def test_without_the_yardstick_there_is_no_reference(family):
    found = open_triple({k: v for k, v in family("llama").items() if k != "target_tuned"})
    one = next(spectra(found))
    assert set(one.overlaps) == {"shift"} and "reference" not in one.spectra
    assert math.isnan(spectra_table([one])["overlap_reference_left"][0])


def test_weights_in_float64_are_not_rounded(tmp_path):
    base = torch.ones(20, 20, dtype=torch.float64)
    tuned = base + 1e-12 * torch.eye(20, dtype=torch.float64)
    weights = {"source_base": base, "source_tuned": tuned, "target_base": base + 1}
    found = triple_of(tmp_path, {role: {"model.layers.0.w.weight": w} for role, w in weights.items()})
    one = next(spectra(found, with_intruders=False))
    assert one.spectra["delta"].values == pytest.approx(np.full(20, 1e-12), rel=1e-3)


def test_experts_are_taken_one_by_one_and_filters_as_one(tmp_path):
    made = moved((3, 20, 30), "model.layers.0.mlp.experts.up")
    for role, more in moved((24, 10, 4), "model.layers.0.conv.weight").items():
        made[role] |= more
    found = triple_of(tmp_path, made)
    results = {r.name: r for r in spectra(found)}
    experts = [f"model.layers.0.mlp.experts.up[{n}]" for n in range(3)]
    assert set(results) == {*experts, "model.layers.0.conv.weight"}
    delta = made["source_tuned"]["model.layers.0.mlp.experts.up"] - made["source_base"]["model.layers.0.mlp.experts.up"]
    for number, name in enumerate(experts):
        true = np.linalg.svd(delta[number].numpy(), compute_uv=False)
        assert results[name].spectra["delta"].values == pytest.approx(true, rel=1e-5)
    assert results["model.layers.0.conv.weight"].shape == (24, 40)
    assert set(spectra_table(results.values())["kind"]) == {"mlp.experts.up", "conv"}
    stack = next(t for t in found.tensors if t.name.endswith("up"))
    with Reader(found.checkpoints) as reader, pytest.raises(TripleError, match="stack of 3"):
        tensor_spectra(reader, stack)


def test_a_vector_has_no_spectrum(triple):
    found = triple("llama")
    norm = next(t for t in found.tensors if len(t.shape) == 1)
    with pytest.raises(TripleError, match=r"layernorm.*is a vector"):
        slices(norm)
    with Reader(found.checkpoints) as reader:
        assert histogram(reader, norm).numel == norm.numel


@pytest.mark.parametrize(("bad", "words"), [(torch.nan, "NaN"), (torch.inf, "infinite")])
def test_weights_that_are_no_numbers_are_named(tmp_path, bad, words):
    made = moved((40, 50))
    made["target_base"]["model.layers.0.w.weight"][3, 4] = bad
    found = triple_of(tmp_path, made)
    with pytest.raises(ReadError, match=rf"model\.layers\.0\.w\.weight of the target base model holds {words}"):
        list(spectra(found))
    with Reader(found.checkpoints) as reader, pytest.raises(ReadError, match=words):
        histogram(reader, found.tensors[0], "shift")


def test_a_fine_tune_that_changed_nothing(family):
    refs = family("llama")
    found = open_triple({**refs, "source_tuned": refs["source_base"]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = next(spectra(found))
        table = spectra_table([one])
        with Reader(found.checkpoints) as reader:
            entries = histogram(reader, matrices(found)[0])
        figures = [spectrum_figure(one), overlap_figure(one), histogram_figure(entries)]
    delta = one.spectra["delta"]
    assert (delta.values == 0).all() and delta.energy == 0
    assert math.isnan(delta.stable_rank) and math.isnan(delta.effective_rank) and math.isnan(delta.directions(0.5))
    assert np.isnan(one.overlaps["shift"].left).all() and math.isnan(table["top_1"][0])
    assert one.intruders is not None and one.intruders.certain == 0
    assert entries.zero == 1 and entries.counts.sum() == entries.numel and math.isnan(entries.excess_kurtosis)
    assert all(figure.data for figure in figures)


def test_a_stop_ends_the_generator(triple):
    calls = []

    def tick():
        calls.append(1)
        if len(calls) > 20:
            raise Cancelled("Stopped.")

    with pytest.raises(Cancelled):
        list(spectra(triple("llama"), tick=tick))
    assert len(calls) == 21


# --- entries ---------------------------------------------------------------------------------------------------------


def test_the_histogram_and_its_moments_are_right(tmp_path):
    made = moved((300, 400))
    weights = {role: w["model.layers.0.w.weight"] for role, w in made.items()}
    weights["source_tuned"][:30] = weights["source_base"][:30]
    weights["source_tuned"][50, 60] = 9.0
    found = triple_of(tmp_path, made)
    delta = (weights["source_tuned"] - weights["source_base"]).double().numpy().ravel()
    with Reader(found.checkpoints) as reader:
        h = histogram(reader, found.tensors[0])
    inside = np.abs(delta) <= h.edges[-1]
    assert h.counts.sum() == inside.sum() and h.outside == pytest.approx(1 - inside.mean())
    expected, _ = np.histogram(delta, h.edges)
    assert np.abs(h.counts - expected).sum() <= 4  # entries on an edge
    assert h.zero == pytest.approx((delta == 0).mean()) and h.max_abs == np.abs(delta).max()
    assert h.std == pytest.approx(delta.std()) and h.mean == pytest.approx(delta.mean())
    assert h.excess_kurtosis == pytest.approx(((delta - delta.mean()) ** 4).mean() / delta.var() ** 2 - 3)


# --- figures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(192, 192), (512, 192), (192, 2443)])
@pytest.mark.parametrize("r", [4, 64])
def test_a_random_matrix_holds_what_the_law_says(shape, r):
    values = np.linalg.svd(np.random.default_rng(0).standard_normal(shape), compute_uv=False) ** 2
    assert random_share(shape, r) == pytest.approx(values[:r].sum() / values.sum(), rel=0.03)


def test_figures_show_every_vector_and_the_errors(triple):
    found = triple("llama")
    chosen = matrices(found)[:1]
    exact, part = (next(spectra(found, chosen, exact, rank=16, with_intruders=False)) for exact in (True, False))
    assert [t.name for t in spectrum_figure(exact).data] == ["Δ", "δ", "Δ<sub>t</sub>"]
    bands = [t for t in spectrum_figure(part).data if t.fill == "toself"]
    assert len(bands) == 3 and all(np.array(t.y).min() > 0 for t in bands)
    assert [t.name for t in overlap_figure(exact, "right").data] == ["Δ, δ", "Δ, Δ<sub>t</sub>", "chance"]
    with Reader(found.checkpoints) as reader:
        drawn = histogram_figure(histogram(reader, chosen[0]))
    density = np.array(drawn.data[0].y) * drawn.data[0].width
    assert density.sum() == pytest.approx(1, abs=1e-3)
