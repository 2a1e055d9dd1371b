"""Losses beside transformers' own, text by text."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.likelihood import Loss, nats
from analysis.scores import mean_score, ratio_score
from transfer.errors import Cancelled, TaskError
from transfer.live import LiveModel
from transfer.plane import point
from transfer.prompt import Prompter
from transfer.watch import NotFinite

from . import families
from .scoring import EXACT, FAMILIES, ruined


def own_nats(live, ids, start):
    """−log p of ids[start:] by one unbatched pass of transformers' model."""
    with torch.inference_mode():
        logs = live.model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
    return -sum(float(logs[t - 1, ids[t]]) for t in range(start, len(ids)))


@pytest.mark.parametrize("kind", FAMILIES)
def test_loss_is_transformers_own(triple, kind):
    found = triple(kind, **EXACT)
    live, prompter = LiveModel(found, point(1)), Prompter(found)
    scorer = Loss("\n\n".join(families.TEXT))
    score = scorer(live, prompter)
    own = []
    for paragraph in families.TEXT:
        ids = torch.tensor([prompter.tokenizer(paragraph, add_special_tokens=False)["input_ids"]])
        with torch.inference_mode():
            own.append((float(live.model(ids, labels=ids).loss), ids.shape[1] - 1))
    assert score.parts == pytest.approx([value for value, _ in own], rel=1e-5)
    assert score.weights == tuple(float(n) for _, n in own)
    assert score.value == pytest.approx(sum(v * n for v, n in own) / sum(n for _, n in own), rel=1e-5)
    assert score.n == len(families.TEXT) and score.stderr > 0
    assert score.name == scorer.name == "loss, text" and (scorer.unit, scorer.lower) == ("nats", True)
    assert scorer.labels[1].startswith("Sort these words")


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 299), min_size=2, max_size=20), st.integers(1, 19)), min_size=1, max_size=12
    )
)
def test_batched_nats_are_those_of_single_passes(live, prompter, rows):
    rows = [(ids, min(start, len(ids) - 1)) for ids, start in rows]
    found = dict(nats(live, prompter, rows, "a test"))
    assert found == pytest.approx({i: own_nats(live, *row) for i, row in enumerate(rows)}, rel=1e-4, abs=1e-4)


def test_rows_that_differ_in_the_last_token_share_a_pass(live, prompter, monkeypatch):
    """Also: a family that computes the logits of every position, whatever is asked, is read alike."""
    shapes = []
    real = type(live.model).forward

    def spy(self, *args, **more):
        shapes.append(tuple(more["input_ids"].shape))
        return real(self, *args, **more)

    monkeypatch.setattr(type(live.model), "forward", spy)
    rows = [([7, 8, 9, last], 3) for last in (10, 11, 12)] + [([7, 8], 1)]
    found = dict(nats(live, prompter, rows, "a test"))
    assert shapes == [(2, 3)]
    monkeypatch.undo()
    assert found == pytest.approx({i: own_nats(live, *row) for i, row in enumerate(rows)}, rel=1e-4)


def test_one_paragraph_has_no_standard_error_and_long_ones_are_one_item(live, prompter):
    assert math.isnan(Loss(families.TEXT[0])(live, prompter).stderr)
    long = " ".join(families.TEXT * 12)
    assert len(prompter.tokenizer(long)["input_ids"]) > prompter.context
    found = Loss(long + "\n\n" + families.TEXT[0])(live, prompter)
    assert found.n == 2 and found.weights[0] > prompter.context


def test_a_paragraph_without_a_token_to_tell_keeps_its_place(live, prompter):
    scorer = Loss(f"{families.TEXT[0]}\n\na\n\n{families.TEXT[1]}", title="v2")
    found = scorer(live, prompter)
    assert found.n == 2 and len(found.parts) == len(scorer.labels) == 3 and found.weights[1] == 0
    assert math.isnan(found.parts[1]) and found.name == "loss, v2"
    with pytest.raises(TaskError, match="too short"):
        Loss("a")(live, prompter)


def test_bad_texts_are_refused():
    for text in ("", " \n\n ", "x" * 5_000_001):
        with pytest.raises(TaskError):
            Loss(text)


def test_a_loss_that_is_not_finite_is_an_error(live, prompter):
    with ruined(live), pytest.raises(NotFinite, match="loss, text at"):
        Loss(families.TEXT[0])(live, prompter)


def test_somebody_may_stop_it(live, prompter):
    def stop():
        raise Cancelled("Stopped.")

    with pytest.raises(Cancelled):
        Loss(families.TEXT[0])(live, prompter, stop)
    with pytest.raises(Cancelled):
        next(nats(live, prompter, [([1, 2], 1)], "a test", stop))


def test_a_share_of_nothing_is_not_certain():
    assert mean_score("x", [0.0] * 50).stderr > 0.005
    assert mean_score("x", [1.0, 0.0] * 50).stderr == pytest.approx(0.05, rel=0.02)


@given(
    st.lists(st.tuples(st.floats(-50, 50), st.integers(0, 30)), min_size=1, max_size=20).filter(
        lambda r: any(w for _, w in r)
    )
)
def test_a_ratio_is_the_mean_of_all_tokens(rows):
    sums, weights = [s * w for s, w in rows], [w for _, w in rows]
    found = ratio_score("x", sums, weights)
    counted = [(s, w) for s, w in zip(sums, weights, strict=True) if w]
    assert found.value == pytest.approx(sum(sums) / sum(weights)) and found.n == len(counted)
    without = ratio_score("x", [s for s, _ in counted], [w for _, w in counted])
    assert found.stderr == pytest.approx(without.stderr, nan_ok=True) and len(found.parts) == len(rows)
