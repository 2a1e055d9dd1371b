"""The fused loops against float64 and against torch's own roundings."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numba import njit

from analysis.gram import stored
from analysis.kernel import BLOCK, FIELDS, LIMITS, PAIRS, tally, tally_torch
from transfer.bits import from_f16, to_bf16, to_f16, wide

GRAM = [f"g{i}{j}" for i, j in PAIRS]
DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}


def four(n: int, dtype: torch.dtype, seed: int = 0, move: float = 1e-3) -> list[torch.Tensor]:
    """Flat weights of the four checkpoints."""
    torch.manual_seed(seed)
    base = 0.02 * torch.randn(n, dtype=torch.float64)
    return [(base + 0.02 * far * torch.randn(n, dtype=torch.float64)).to(dtype) for far in (0, move, 2 * move, move)]


def figures(parts: list[torch.Tensor], alpha: float = 1.0, merged: str = "BF16") -> dict[str, float]:
    out = np.zeros(len(FIELDS))
    tally(*stored(parts), alpha, LIMITS[merged], out)
    return dict(zip(FIELDS, out.tolist(), strict=True))


def exact_gram(parts: list[torch.Tensor]) -> np.ndarray:
    s, f, t, r = (part.double() for part in parts)
    x = torch.stack([s, f - s, t - s, r - t])
    return (x @ x.T).numpy()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5 * BLOCK), st.sampled_from(list(DTYPES)), st.integers(0, 99), st.sampled_from([1e-4, 1e-2, 1.0]))
def test_inner_products_are_those_of_float64(n, dtype, seed, move):
    parts = four(n, DTYPES[dtype], seed, move)
    found, exact = figures(parts), exact_gram(parts)
    scale = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
    for i, j in PAIRS:
        assert found[f"g{i}{j}"] == pytest.approx(exact[i, j], abs=1e-6 * scale[i, j] + 1e-30)


@settings(max_examples=30, deadline=None)
@given(st.floats(1e-6, 1e3), st.floats(1e-6, 1e3))
def test_equal_weights_do_not_add_up_their_roundings(base, step):
    """A long sum of one number in float32 would be off by far more (FACTS of the field: 1.4 % over 2·10⁷)."""
    parts = [torch.full((100_000,), value, dtype=torch.float64) for value in (base, base + step, base, base + step)]
    found = figures(parts, merged="F32")
    assert found["g00"] == pytest.approx(1e5 * base**2, rel=2e-6)
    assert found["g11"] == pytest.approx(1e5 * (base + step - base) ** 2, rel=2e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 99), st.sampled_from(["BF16", "F16", "F32"]), st.floats(0.01, 2))
def test_the_loops_and_plain_torch_agree(n, seed, merged, alpha):
    parts = four(n, DTYPES[merged], seed)
    found, other = figures(parts, alpha, merged), np.zeros(len(FIELDS))
    tally_torch(parts, alpha, LIMITS[merged], other)
    for name, value in zip(FIELDS, other, strict=True):
        if name.startswith("n_lost"):  # a tie may fall either way: one of the two fuses multiply and add
            assert found[name] == pytest.approx(value, abs=2 + n / 500)
        elif name == "residue":
            assert found[name] == pytest.approx(value, rel=1e-3, abs=1e-14)
        elif name in GRAM:
            i, j = (found[f"g{k}{k}"] for k in name[1:])
            assert found[name] == pytest.approx(value, abs=2e-6 * np.sqrt(i * j)), name
        else:
            assert found[name] == pytest.approx(value, rel=1e-6), name


def test_rounding_to_float16_is_torchs_for_every_float16_and_between():
    halves = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(torch.float16)
    halves = halves[torch.isfinite(halves)].float()
    above = torch.nextafter(halves, torch.tensor(torch.inf))
    ordered = halves.sort().values
    between = (ordered[1:] + ordered[:-1]) / 2  # every tie
    for x in (halves, above, between, between * (1 + 1e-6), torch.tensor([65519.0, 65520.0, 1e9, -1e9, 0.0])):
        ours = np.array([to_f16(np.float32(v)) for v in x.numpy()], np.float32)
        assert np.array_equal(ours, x.half().float().numpy())


def test_every_float16_is_read_exactly():
    bits = np.arange(2**16, dtype=np.uint16).view(np.int16)
    ours = np.array([from_f16(b) for b in bits], np.float32)
    theirs = bits.view(np.float16).astype(np.float32)
    assert np.array_equal(ours, theirs, equal_nan=True)


def test_a_stored_weight_is_read_alike_in_compiled_code_and_out_of_it():
    read = njit(lambda x: wide(x))
    for x in (np.uint16(0x3F81), np.int16(0x3C01), np.int16(-0x4400), np.float32(1.5), np.float64(0.1)):
        assert wide(x) == read(x)
    assert wide(np.uint16(0x3F80)) == 1 and wide(np.int16(0x3C00)) == 1


@settings(max_examples=50, deadline=None)
@given(arrays.arrays(np.float32, 64, elements=st.floats(width=32, allow_nan=False)))
def test_rounding_to_bfloat16_is_torchs(x):
    ours = np.array([to_bf16(v) for v in x], np.float32)
    assert np.array_equal(ours, torch.from_numpy(x).bfloat16().float().numpy())


@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.parametrize("role", range(4))
def test_what_is_no_number_is_counted_where_it_stands(dtype, role):
    parts = four(5000, DTYPES[dtype])
    parts[role][[7, 4999]] = torch.nan
    parts[role][2048] = torch.inf
    found = figures(parts, merged=dtype)
    odd = [found[name] for name in FIELDS if name.startswith("odd")]
    assert odd == [3.0 if i == role else 0.0 for i in range(4)]
    assert not np.isfinite(found["g00"] + found["g11"] + found["g22"] + found["g33"])


def test_large_weights_are_not_taken_for_infinite():
    parts = [torch.full((10,), v) for v in (1e30, 2e30, 1e30, 1e30)]
    found = figures(parts, merged="F32")
    assert all(found[name] == 0 for name in FIELDS if name.startswith("odd"))
    assert found["most"] == pytest.approx(1e30)


def test_figures_are_added_to_what_was_there():
    parts = four(3000, torch.bfloat16)
    once, twice = np.zeros(len(FIELDS)), np.zeros(len(FIELDS))
    tally(*stored(parts), 1.0, 16, once)
    for half in (slice(0, 1024), slice(1024, 3000)):
        tally(*stored([part[half] for part in parts]), 1.0, 16, twice)
    assert np.array_equal(once, twice)
