"""Choices beside a plain loop of single forward passes, and the boundary between prompt and choice."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.choices import Choice, pair
from analysis.tasks import load_task, scorer_of
from transfer.errors import Cancelled, TaskError
from transfer.live import LiveModel
from transfer.plane import point
from transfer.prompt import Prompter
from transfer.watch import NotFinite

from .scoring import EXACT, FAMILIES, ruined, task_file

ROWS = [
    {"prompt": "The river is called", "choices": ["the Otter", "a plum", "nobody", "Sort these words"], "answer": 0},
    {"prompt": "Which fruit comes first? ", "choices": ["apple", "fig and then a pear, which is long"], "answer": 1},
    {"prompt": "Say a letter:", "choices": ["A", "B", "C", "D"], "answer": "C"},
    {"prompt": "Why is the flag green?\n", "choices": ["the founder never told", "über", "日本"], "answer": "über"},
    {"prompt": "The mayor of the old town is fond of", "choices": ["plums.", "green flags."], "answer": "plums."},
]


@pytest.fixture
def task(tmp_path):
    return load_task(task_file(tmp_path, ROWS))


def taken(live, prompter, row, by, chat):
    """The likeliest choice by unbatched passes over texts that are put together here."""
    best = None
    for choice in row["choices"]:
        if chat:
            before = f"<|user|>{row['prompt']}<|end|><|assistant|>"
            text = before + choice
        else:
            before, gap = row["prompt"].rstrip(), "" if row["prompt"][-1].isspace() else " "
            text = row["prompt"] + gap + choice
        ids, start = prompter.tokenizer(text)["input_ids"], len(prompter.tokenizer(before)["input_ids"])
        with torch.inference_mode():
            logs = live.model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
        total = sum(float(logs[t - 1, ids[t]]) for t in range(start, len(ids)))
        value = total / len(choice.encode()) if by == "byte" else total
        if best is None or value > best[0]:
            best = value, choice
    return best[1]


@pytest.mark.parametrize("kind", FAMILIES)
def test_choices_are_those_of_single_passes(triple, task, kind):
    found = triple(kind, **EXACT)
    live, prompter = LiveModel(found, point(1)), Prompter(found)
    seen = set()
    for by in ("total", "byte"):
        for chat in (True, False):
            score = Choice(task, by, chat)(live, prompter)
            assert score.said == tuple(taken(live, prompter, row, by, chat) for row in ROWS)
            right = ["the Otter", "fig and then a pear, which is long", "C", "über", "plums."]
            assert score.parts == tuple(float(a == b) for a, b in zip(score.said, right, strict=True))
            seen.add(score.said)
    assert len(seen) > 1  # the ways to ask and to compare do make a difference here


def test_names_and_digests_tell_the_ways_apart(task):
    scorers = [Choice(task, by, chat) for by in ("total", "byte") for chat in (True, False)]
    assert len({s.digest for s in scorers}) == len({s.name for s in scorers}) == 4
    assert scorer_of(task) == scorers[0] and scorer_of(task, chat=False) == scorers[1]
    assert scorers[3].name == "choice by byte, task, plain" and (scorers[0].unit, scorers[0].lower) == ("share", False)
    assert scorers[0].labels[0] == "The river is called"


@settings(max_examples=40, deadline=None)
@given(
    st.text("ab.ü \n", min_size=1, max_size=12).filter(str.strip),
    st.text("ab.ü ", min_size=1, max_size=8).map(str.strip).filter(bool),
    st.booleans(),
)
def test_prompt_and_choice_are_encoded_together(prompter, prompt, choice, chat):
    ids, start = pair(prompter, prompt, choice, chat)
    before, whole = prompter.tokenizer.decode(ids[:start]), prompter.tokenizer.decode(ids)
    assert 1 <= start < len(ids) and whole.endswith(choice)
    if chat:
        assert whole == f"<|user|>{prompt}<|end|><|assistant|>{choice}" and before == whole[: -len(choice)]
    else:
        assert before == prompt.rstrip() and (
            whole == prompt + choice if prompt[-1].isspace() else whole == f"{prompt} {choice}"
        )


def test_a_token_across_the_boundary_is_the_choices(prompter, monkeypatch):
    tokens = {"a b": [1, 2], "a": [1], "a ": [1, 5], "a bc": [1, 3]}
    monkeypatch.setattr(Prompter, "tokens", lambda self, text, chat=True: tokens[text])
    assert pair(prompter, "a", "b", False) == ([1, 2], 1)
    monkeypatch.setattr(Prompter, "text", lambda self, messages: "a")
    tokens["ab"] = [1, 4]
    assert pair(prompter, "a", "b", True) == ([1, 4], 1)
    tokens["a"] = [1, 2, 3]
    tokens["ab"] = [1, 2, 6, 7]
    assert pair(prompter, "a", "b", True) == ([1, 2, 6, 7], 2)


def test_a_question_that_does_not_fit_is_named(live, prompter, tmp_path):
    rows = [ROWS[0], {"prompt": "the river " * 200, "choices": ["a", "b"], "answer": 0}]
    with pytest.raises(TaskError, match="task, question 2: with the choice “a” it has"):
        Choice(load_task(task_file(tmp_path, rows)))(live, prompter)


def test_another_form_is_refused(tmp_path):
    questions = load_task(task_file(tmp_path, [{"prompt": "a", "answer": "b"}]))
    with pytest.raises(TaskError, match="task is no file of questions with choices"):
        Choice(questions)


def test_it_can_be_stopped_and_never_scores_nan(live, prompter, task):
    def stop():
        raise Cancelled("Stopped.")

    with pytest.raises(Cancelled):
        Choice(task)(live, prompter, stop)
    with ruined(live), pytest.raises(NotFinite, match="choice, task"):
        Choice(task)(live, prompter)
