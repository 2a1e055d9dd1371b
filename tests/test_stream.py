"""The reader of weights, and the one rounding."""

import math
import os
import shutil
import threading
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from transfer.errors import Cancelled, ReadError
from transfer.plane import CORNERS, point
from transfer.stream import TORCH, Reader, blend, round_once, spread
from transfer.triple import open_triple


def nearest(x: float, bits: int, lowest: int, highest: int) -> float:
    """x rounded to nearest even with `bits` bits of significand, by exact arithmetic: the reference for round_once."""
    if x == 0 or not math.isfinite(x):
        return x
    exponent = max(math.frexp(x)[1] - bits, lowest)
    scaled = Fraction(x) / Fraction(2) ** exponent
    down = math.floor(scaled)
    rest = scaled - down
    whole = down + (rest > Fraction(1, 2) or (rest == Fraction(1, 2) and down % 2 == 1))
    value = Fraction(whole) * Fraction(2) ** exponent
    return math.copysign(math.inf, x) if abs(value) >= Fraction(2) ** highest else float(value)


# Numbers near the ties of 16-bit types, where rounding twice goes wrong, besides any others.
tricky = st.builds(
    lambda m, e, d: math.ldexp(m + 0.5 + d, e),
    st.integers(128, 4096),
    st.integers(-30, 10),
    st.sampled_from([0.0, 1e-9, -1e-9, 1e-5, -1e-5]),
)


@settings(max_examples=300)
@given(st.lists(st.one_of(tricky, st.floats(-1e5, 1e5), st.floats(-1e-5, 1e-5)), min_size=1, max_size=20))
def test_rounding_happens_once(values):
    exact = torch.tensor(values, dtype=torch.float64)
    half = round_once(exact.clone(), torch.float16).tolist()
    brain = round_once(exact.clone(), torch.bfloat16).tolist()
    assert half == [nearest(v, 11, -24, 16) for v in values]
    assert brain == [nearest(v, 8, -133, 128) for v in values]


def test_rounding_twice_would_be_seen():
    x = torch.tensor([1 + 2**-8 + 2**-40], dtype=torch.float64)  # just above a tie of bfloat16, and a float32 tie on it
    assert x.to(torch.bfloat16).item() != round_once(x, torch.bfloat16).item() == 1 + 2**-7


def test_rounding_keeps_what_is_not_finite():
    out = round_once(torch.tensor([math.nan, math.inf, -math.inf, 1e300, -1e300], dtype=torch.float64), torch.bfloat16)
    assert math.isnan(out[0]) and out[1:].tolist() == [math.inf, -math.inf, math.inf, -math.inf]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("alpha", [1.0, 0.7, -0.3, 1.25])
def test_a_point_is_the_float64_formula_rounded_once(triple, dtype, alpha):
    found = triple("llama", dtype=dtype)
    files = {role: load_file(c.folder / "model.safetensors") for role, c in found.checkpoints.items()}
    with Reader(found.checkpoints) as reader:
        for tensor in found.tensors:
            got = torch.cat([piece for _, piece in reader.mixed(tensor, point(alpha))])
            s, f, t = (
                files[role][tensor.name].double().flatten() for role in ("source_base", "source_tuned", "target_base")
            )
            exact = t + alpha * (f - s)
            assert torch.equal(got, round_once(exact, dtype)), tensor.name


def test_corners_are_exact_to_the_bit(triple):
    found = triple("llama")
    with Reader(found.checkpoints) as reader:
        for role, checkpoint in found.checkpoints.items():
            file = load_file(checkpoint.folder / "model.safetensors")
            for tensor in found.tensors:
                got = torch.cat([piece for _, piece in reader.mixed(tensor, CORNERS[role])])
                assert torch.equal(got.view(torch.int16), file[tensor.name].flatten().view(torch.int16))


def test_a_corner_passes_nan_and_odd_bits_through():
    odd = torch.tensor([0x7FC1, -32768, 1], dtype=torch.int16).view(torch.bfloat16)
    assert blend({"target_base": odd}, {"target_base": 1.0}, torch.bfloat16) is odd


def test_chunks_cover_every_element_once(triple):
    found = triple("llama")
    with Reader(found.checkpoints) as reader:
        for tensor in found.tensors:
            seen = np.zeros(tensor.numel, int)
            for where, parts in reader.chunks(tensor, tensor.parts):
                seen[where] += 1
                assert all(len(p) == where.stop - where.start and p.dtype == TORCH["BF16"] for p in parts.values())
            assert (seen == 1).all()


def test_a_file_that_shrinks_is_a_sentence(family, tmp_path):
    refs = {role: shutil.copytree(ref, tmp_path / role) for role, ref in family("llama").items()}
    found = open_triple({role: str(ref) for role, ref in refs.items()})
    with Reader(found.checkpoints) as reader:
        list(reader.mixed(found.tensors[0], CORNERS["merged"]))  # the files are open now
        os.truncate(refs["source_tuned"] / "model.safetensors", 20_000)
        with pytest.raises(ReadError, match=r"model\.safetensors ended inside tensor"):
            for tensor in found.tensors:
                list(reader.mixed(tensor, CORNERS["merged"]))


def test_a_file_that_was_replaced_since_it_was_checked_is_a_sentence(family, tmp_path):
    """Its tensors lie elsewhere in it, and reading on would give numbers of another tensor."""
    refs = {role: shutil.copytree(ref, tmp_path / role) for role, ref in family("llama").items()}
    found = open_triple({role: str(ref) for role, ref in refs.items()})
    path = tmp_path / "source_tuned" / "model.safetensors"
    save_file({"a": torch.ones(9), **load_file(path)}, path)
    with (
        Reader(found.checkpoints) as reader,
        pytest.raises(ReadError, match=r"model\.safetensors has changed since it was checked"),
    ):
        list(reader.mixed(found.tensors[0], CORNERS["merged"]))


def test_a_file_that_vanishes_is_a_sentence(family, tmp_path):
    refs = {role: shutil.copytree(ref, tmp_path / role) for role, ref in family("llama").items()}
    found = open_triple({role: str(ref) for role, ref in refs.items()})
    (refs["target_base"] / "model.safetensors").unlink()
    with Reader(found.checkpoints) as reader, pytest.raises(ReadError, match="cannot be opened"):
        list(reader.mixed(found.tensors[0], CORNERS["merged"]))


def test_reads_end_after_a_stop(triple):
    found = triple("llama")
    with Reader(found.checkpoints) as reader:
        reader.cancelled.set()
        with pytest.raises(Cancelled):
            list(reader.mixed(found.tensors[0], CORNERS["merged"]))


def test_spread_gives_every_result_and_stops_when_closed():
    stop = threading.Event()
    assert sorted(spread(lambda n: n * n, range(20), stop)) == [n * n for n in range(20)]
    assert not stop.is_set()
    work = spread(lambda n: stop.wait(5) if n else n, range(4), stop, threads=1)
    assert next(work) == 0
    work.close()
    assert stop.is_set()


def test_spread_raises_what_a_worker_raises():
    with pytest.raises(ZeroDivisionError):
        list(spread(lambda n: 1 // n, [1, 0, 2], threading.Event()))
