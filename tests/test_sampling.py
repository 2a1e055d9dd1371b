"""Draws: by the softmax at a temperature, out of the nucleus alone, the same for the same seed."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from transfer.sampling import Draw, Sampling, nucleus

LOGITS = torch.log(torch.tensor([0.1, 0.2, 0.7]))


def test_draws_follow_the_softmax():
    draw = Draw(Sampling(temperature=1.0))
    counts = torch.bincount(torch.stack([draw(LOGITS).argmax() for _ in range(4000)]), minlength=3) / 4000
    assert torch.allclose(counts, torch.tensor([0.1, 0.2, 0.7]), atol=0.03)
    cold = Draw(Sampling(temperature=0.05))
    assert all(cold(LOGITS).argmax() == 2 for _ in range(50))


def test_without_temperature_the_likeliest_always():
    draw = Draw(Sampling(temperature=0, top_p=0.5))
    assert torch.equal(draw(LOGITS), LOGITS.double())


def test_draws_come_from_the_nucleus_alone_and_in_its_shares():
    draw = Draw(Sampling(temperature=1.0, top_p=0.75))
    counts = torch.bincount(torch.stack([draw(LOGITS).argmax() for _ in range(4000)]), minlength=3) / 4000
    assert torch.allclose(counts, torch.tensor([0, 2 / 9, 7 / 9]), atol=0.03) and counts[0] == 0


@given(st.lists(st.floats(-8, 8), min_size=1, max_size=40), st.floats(0.01, 1))
def test_the_nucleus_is_the_smallest_set_that_holds_enough(logits, top_p):
    scores = torch.tensor(logits, dtype=torch.float64)
    shares, kept = scores.softmax(-1), torch.isfinite(nucleus(scores, top_p))
    assert kept.any() and shares[kept].sum() >= top_p - 1e-9
    if not kept.all():
        assert shares[kept].min() >= shares[~kept].max()
        assert shares[kept].sum() - shares[kept].min() < top_p + 1e-9


def test_a_seed_repeats_its_draws():
    flat = torch.zeros(1000)
    first, again, other = (Draw(Sampling(temperature=1, seed=seed)) for seed in (3, 3, 4))
    one, two, three = ([int(draw(flat).argmax()) for _ in range(5)] for draw in (first, again, other))
    assert one == two != three


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": float("nan")}, {"temperature": -1}, {"max_tokens": 0}, {"max_tokens": 10**6}, {"seed": -1}, {"top_p": 0},
        {"top_p": 1.01}, {"top_p": float("nan")},
    ],
)  # fmt: skip
def test_sampling_has_bounds(bad):
    with pytest.raises(ValidationError):
        Sampling(**bad)
