"""Scores against transformers' own generate and loss, and sweeps over them."""

import json
import math

import pytest
import torch

from analysis.sweep import Row, best, steps, sweep, sweep_table
from analysis.tasks import Score, answers, exact_match, load_task, loss, score
from transfer.errors import Cancelled, TaskError
from transfer.live import LiveModel
from transfer.plane import CORNERS, PATHS, point
from transfer.prompt import Prompter
from transfer.store import Store

from . import families

PROMPTS = [
    "Who?",
    "What is the river called, and why does nobody know?",
    "Sort these words: pear, fig.",
    "Say it again.",
]


@pytest.fixture(scope="module")
def live(triple):
    return LiveModel(triple("llama"), point(1))


@pytest.fixture(scope="module")
def prompter(triple):
    return Prompter(triple("llama"))


def task_file(tmp_path, rows):
    path = tmp_path / "task.jsonl"
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows))
    return path


def test_batched_answers_are_those_of_one_at_a_time(live, prompter):
    alone = {i: next(answers(live, prompter, [p], 10))[1] for i, p in enumerate(PROMPTS)}
    together = dict(answers(live, prompter, PROMPTS, 10))
    # A bfloat16 model may break a near-tie otherwise in a batch; whole answers of all four differing would be a fault.
    assert together.keys() == alone.keys() and sum(together[i] == alone[i] for i in alone) >= 3


def test_exact_match_counts_whole_answers(live, prompter, tmp_path):
    said = dict(answers(live, prompter, PROMPTS, 10))
    rows = [
        {"prompt": PROMPTS[0], "answer": said[0], "kind": "right"},
        {"prompt": PROMPTS[1], "answer": ["no", said[1] + " "], "kind": "right"},
        {"prompt": PROMPTS[2], "answer": said[2][:-1] + "¿", "kind": "wrong"},
        {"prompt": PROMPTS[3], "answer": "¿", "kind": "wrong"},
    ]
    task = load_task(task_file(tmp_path, rows))
    found = exact_match(live, prompter, task, max_tokens=10)
    assert found.parts == (1.0, 1.0, 0.0, 0.0) and found.value == 0.5 and found.n == 4


def test_loss_is_transformers_own(live, prompter):
    text = "\n\n".join(families.TEXT)
    found = loss(live, prompter, text)
    total = tokens = 0.0
    for paragraph in families.TEXT:
        ids = torch.tensor([prompter.tokenizer(paragraph, add_special_tokens=False)["input_ids"]])
        with torch.inference_mode():
            value = live.model(ids, labels=ids).loss
        total, tokens = total + float(value) * (ids.shape[1] - 1), tokens + ids.shape[1] - 1
    assert found.value == pytest.approx(total / tokens, rel=2e-3)
    assert found.n == len(families.TEXT) and found.stderr > 0


def test_one_paragraph_has_no_standard_error_and_long_ones_are_one_item(live, prompter):
    assert math.isnan(loss(live, prompter, families.TEXT[0]).stderr)
    long = " ".join(families.TEXT * 12)
    assert len(prompter.tokenizer(long)["input_ids"]) > prompter.context
    assert loss(live, prompter, long + "\n\n" + families.TEXT[0]).n == 2


def test_answers_end_at_the_stop_token(live, prompter):
    said = dict(answers(live, prompter, PROMPTS, 10))
    ids = torch.tensor([prompter.encode([{"role": "user", "content": PROMPTS[0]}])])
    third = int(live.generate(ids, torch.ones_like(ids), prompter, 3)[0, -1])
    before, prompter.stops = prompter.stops, {*prompter.stops, third}
    try:
        cut = dict(answers(live, prompter, PROMPTS, 10))
    finally:
        prompter.stops = before
    assert said[0].startswith(cut[0]) and len(cut[0]) < len(said[0])


def test_a_loss_that_is_no_number_is_not_the_best():
    rows = [
        Row(point(t), str(t), t, {"loss": Score("loss", v, 0.0, 1)}, 0)
        for t, v in ((0.0, math.nan), (0.5, 2.0), (1.0, math.inf))
    ]
    assert best(rows, "loss").t == 0.5


def test_a_share_of_nothing_is_not_certain():
    assert score("x", [0.0] * 50).stderr > 0.005
    assert score("x", [1.0, 0.0] * 50).stderr == pytest.approx(0.05, rel=0.02)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "has 0 questions"),
        (["{"], "line 1 is not JSON"),
        ([{"prompt": "a", "answer": "b"}, {"prompt": "a"}], "line 2: answer"),
        ([{"prompt": "", "answer": "b"}], "line 1: prompt"),
        ([{"prompt": "a", "answer": 3}], "line 1: answer"),
        (["[1]"], "line 1"),
        (["[" * 100_000], "line 1"),
    ],
)
def test_bad_tasks_are_named_by_line(tmp_path, rows, words):
    with pytest.raises(TaskError, match=words):
        load_task(task_file(tmp_path, rows))


def test_bad_texts_are_refused(live, prompter, tmp_path):
    for text in ("", " \n\n ", "x" * 5_000_001):
        with pytest.raises(TaskError):
            loss(live, prompter, text)
    (tmp_path / "t.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(TaskError, match="cannot be read"):
        load_task(tmp_path / "t.jsonl")


def test_a_sweep_scores_corners_and_steps(triple, prompter, tmp_path):
    found, store = triple("llama"), Store()
    task = load_task(task_file(tmp_path, [{"prompt": p, "answer": "?", "kind": "k"} for p in PROMPTS]))
    text = "\n\n".join(families.TEXT)
    rows = list(sweep(store, found, prompter, PATHS["strength"], steps(0, 1, 3), task, text))
    assert [r.label for r in rows] == [
        "source base",
        "source fine-tuned",
        "target base",
        "target fine-tuned",
        "0",
        "0.5",
        "1",
    ]
    by_label = {r.label: r for r in rows}
    assert by_label["0"].scores == by_label["target base"].scores
    for label, mix in (("0.5", point(0.5)), ("1", point(1)), ("source fine-tuned", CORNERS["source_tuned"])):
        fresh = loss(LiveModel(found, mix), prompter, text)
        assert by_label[label].scores["loss"].value == fresh.value
    top = best(rows, "loss")
    assert top is not None and top.scores["loss"].value == min(r.scores["loss"].value for r in rows if r.t is not None)
    frame = sweep_table(rows, task)
    assert list(frame["exact match: k"]) == [0.0] * 7 and frame["loss"].notna().all()


def test_a_sweep_stops_when_told(triple, prompter):
    calls = 0

    def tick():
        nonlocal calls
        calls += 1
        if calls > 12:
            raise Cancelled("Stopped.")

    rows = []
    with pytest.raises(Cancelled):
        for row in sweep(
            Store(), triple("llama"), prompter, PATHS["source_target"], [0, 0.5, 1], None, "a river\n\na town", tick
        ):
            rows.append(row)
    assert 0 < len(rows) < 7


def test_a_point_that_breaks_does_not_end_the_sweep(triple, prompter, monkeypatch):
    real = LiveModel.move

    def flaky(self, mix):
        if mix == point(0.5):
            raise RuntimeError("out of memory")
        return real(self, mix)

    monkeypatch.setattr(LiveModel, "move", flaky)
    store = Store(budget=triple("llama").nbytes + 1)
    rows = list(sweep(store, triple("llama"), prompter, PATHS["strength"], [0, 0.5, 1], None, "a river runs"))
    assert [bool(r.error) for r in rows][-3:] == [False, True, False]
    assert math.isfinite(rows[-1].scores["loss"].value)


@pytest.mark.parametrize(
    ("start", "end", "count"), [(0, 1, 1), (0, 1, 42), (1, 1, 5), (1, 0, 5), (math.nan, 1, 5), (-11, 1, 5)]
)
def test_sweeps_have_bounds(start, end, count):
    with pytest.raises(TaskError):
        steps(start, end, count)
