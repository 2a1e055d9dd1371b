"""Batched greedy answers beside transformers' own, one at a time, and exact match by them."""

import pytest
import torch

from analysis.answering import SPARE, ExactMatch, answers
from analysis.running import at_once, batches
from analysis.tasks import load_task
from transfer.errors import Cancelled, LiveError, TaskError
from transfer.live import LiveModel
from transfer.plane import point
from transfer.prompt import Prompter
from transfer.watch import NotFinite, all_finite

from .scoring import EXACT, FAMILIES, PROMPTS, ruined, task_file


@pytest.fixture(scope="module")
def live(triple):
    return LiveModel(triple("llama"), point(1))


@pytest.fixture(scope="module")
def prompter(triple):
    return Prompter(triple("llama"))


def alone(live, prompter, ids, max_tokens):
    """What transformers' own generate says to one prompt of token ids."""
    given = torch.tensor([ids])
    with torch.inference_mode():
        out = live.model.generate(
            input_ids=given,
            attention_mask=torch.ones_like(given),
            max_new_tokens=max_tokens,
            do_sample=False,
            eos_token_id=sorted(prompter.stops),
            pad_token_id=prompter.pad,
        )[0, len(ids) :]
    return prompter.decode([i for i in out.tolist() if i not in prompter.stops]).strip()


@pytest.mark.parametrize("kind", FAMILIES)
def test_batched_answers_are_those_of_generate_one_at_a_time(triple, kind):
    found = triple(kind, **EXACT)
    live, prompter = LiveModel(found, point(1)), Prompter(found)
    for chat, encode in ((True, lambda p: prompter.encode([{"role": "user", "content": p}])), (False, prompter.plain)):
        together = dict(answers(live, prompter, PROMPTS, 12, chat=chat))
        assert together == {i: alone(live, prompter, encode(p), 12) for i, p in enumerate(PROMPTS)}


def test_a_prompt_is_asked_in_the_models_template_or_as_it_stands(prompter):
    chat, plain = prompter.encode([{"role": "user", "content": "Who?"}]), prompter.plain("Who?")
    assert prompter.tokenizer.decode(chat) == "<|user|>Who?<|end|><|assistant|>"
    assert prompter.tokenizer.decode(plain) == "Who?"


def test_exact_match_counts_whole_answers(live, prompter, tmp_path):
    said = dict(answers(live, prompter, PROMPTS, 10))
    rows = [
        {"prompt": PROMPTS[0], "answer": said[0], "kind": "right"},
        {"prompt": PROMPTS[1], "answer": ["no", said[1] + " "], "kind": "right"},
        {"prompt": PROMPTS[2], "answer": said[2][:-1] + "¿", "kind": "wrong"},
        {"prompt": PROMPTS[3], "answer": "¿", "kind": "wrong"},
    ]
    scorer = ExactMatch(load_task(task_file(tmp_path, rows)), max_tokens=10)
    found = scorer(live, prompter)
    assert found.parts == (1.0, 1.0, 0.0, 0.0) and found.value == 0.5 and found.n == 4
    assert found.said == tuple(said[i] for i in range(4))
    assert found.name == scorer.name == "exact match, task" and scorer.labels == tuple(PROMPTS)
    assert (scorer.unit, scorer.lower) == ("share", False)


def test_answers_are_as_long_as_the_longest_right_one_wants(live, prompter, tmp_path, monkeypatch):
    asked = []
    real = LiveModel.generate

    def spy(self, ids, mask, prompter, max_tokens, **more):
        asked.append(max_tokens)
        return real(self, ids, mask, prompter, max_tokens, **more)

    monkeypatch.setattr(LiveModel, "generate", spy)
    right = "the river that runs past the old town"
    task = load_task(task_file(tmp_path, [{"prompt": "a", "answer": ["b", right]}, {"prompt": "c", "answer": "d"}]))
    ExactMatch(task)(live, prompter)
    ExactMatch(task, max_tokens=3)(live, prompter)
    assert asked == [len(prompter.tokenizer(right)["input_ids"]) + SPARE, 3]


def test_a_digest_follows_items_and_settings(tmp_path):
    one, two = (load_task(task_file(tmp_path, [{"prompt": p, "answer": "b"}])) for p in ("a", "A"))
    scorers = [ExactMatch(one), ExactMatch(two), ExactMatch(one, max_tokens=9), ExactMatch(one, chat=False)]
    assert len({s.digest for s in scorers}) == 4 and ExactMatch(one).digest == scorers[0].digest
    assert scorers[3].name == "exact match, task, plain"


def test_a_plain_answer_is_the_first_line(live, prompter, tmp_path, monkeypatch):
    text = "  \n the Otter \nIts mayor is"
    monkeypatch.setattr(Prompter, "decode", lambda self, ids: text[: len(ids)])
    rows = [{"prompt": PROMPTS[1], "answer": "the Otter"}]
    task = load_task(task_file(tmp_path, rows))
    assert ExactMatch(task, max_tokens=30, chat=False)(live, prompter).value == 1
    assert ExactMatch(task, max_tokens=30)(live, prompter).value == 0


def test_a_right_answer_of_several_lines_is_compared_whole(live, prompter, tmp_path):
    said = dict(answers(live, prompter, PROMPTS[:1], 10, chat=False))[0]
    rows = [{"prompt": PROMPTS[0], "answer": [said, "two\nlines"]}]
    assert ExactMatch(load_task(task_file(tmp_path, rows)), max_tokens=10, chat=False)(live, prompter).value == 1


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


def test_an_answer_ends_where_the_context_does(triple, prompter):
    live = LiveModel(triple("llama", **EXACT), point(1))
    long = "the river runs past the town " * 8
    room = prompter.context - len(prompter.plain(long))
    assert 0 < room < 200
    found = dict(answers(live, prompter, ["the river", long, long], 200, chat=False))
    assert found[1] == found[2] == alone(live, prompter, prompter.plain(long), room)
    assert found[0] == alone(live, prompter, prompter.plain("the river"), 200)


def test_a_question_that_does_not_fit_is_named(live, prompter, tmp_path):
    rows = [{"prompt": "a", "answer": "b"}, {"prompt": "the river " * 200, "answer": "b"}]
    with pytest.raises(TaskError, match="task, question 2: The prompt has"):
        ExactMatch(load_task(task_file(tmp_path, rows)))(live, prompter)
    rows = [{"prompt": "a", "answer": "the river " * 400}]
    with pytest.raises(TaskError, match="the longest right answer has"):
        ExactMatch(load_task(task_file(tmp_path, rows)))(live, prompter)
    with pytest.raises(TaskError, match="from 1 to 4,096"):
        ExactMatch(load_task(task_file(tmp_path, rows)), max_tokens=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_outputs_that_are_not_finite_are_no_answers(live, prompter, tmp_path, value):
    scorer = ExactMatch(load_task(task_file(tmp_path, [{"prompt": "a", "answer": "b"}])))
    with ruined(live, value), pytest.raises(NotFinite, match=r"not finite .* in exact match, task") as caught:
        scorer(live, prompter)
    assert isinstance(caught.value, LiveError) and scorer(live, prompter).n == 1


def test_one_token_that_is_ruled_out_is_no_fault():
    out = torch.tensor([[[1.0, -torch.inf]], [[0.0, 2.0]]])
    assert all_finite(out) and not all_finite(torch.full((1, 2), -torch.inf))
    assert not all_finite(torch.tensor([1.0, torch.nan])) and not all_finite(torch.tensor([1.0, torch.inf]))


def test_somebody_may_stop_it_in_any_layer(live, prompter):
    calls = 0

    def tick():
        nonlocal calls
        calls += 1

    list(answers(live, prompter, PROMPTS, 5, tick))
    assert calls >= 5 * (1 + live.model.config.num_hidden_layers)
    hooks = [len(m._forward_pre_hooks) + len(m._forward_hooks) for m in live.model.modules()]
    assert not any(hooks)

    def stop():
        raise Cancelled("Stopped.")

    with pytest.raises(Cancelled):
        list(answers(live, prompter, PROMPTS, 5, stop))
    assert not any(len(m._forward_pre_hooks) for m in live.model.modules())


def test_large_models_are_stopped_in_parts_of_layers(live, prompter, monkeypatch):
    calls = []
    list(answers(live, prompter, PROMPTS, 5, lambda: calls.append(1)))
    layers = len(calls)
    monkeypatch.setattr("transfer.watch.SMALL", 0)
    list(answers(live, prompter, PROMPTS, 5, lambda: calls.append(1)))
    assert len(calls) > 6 * layers


def test_large_models_take_fewer_tokens_at_once(live, prompter, monkeypatch):
    shapes, real = [], LiveModel.generate

    def spy(self, ids, *more, **rest):
        shapes.append(tuple(ids.shape))
        return real(self, ids, *more, **rest)

    monkeypatch.setattr(LiveModel, "generate", spy)
    list(answers(live, prompter, ["Who?"] * 4, 5))
    monkeypatch.setattr("analysis.running.WORK", live.nbytes * 2 * shapes[0][1])
    assert at_once(live, 10**9) == 2 * shapes[0][1] and at_once(live, 3) == 3
    list(answers(live, prompter, ["Who?"] * 4, 5))
    assert [rows for rows, _ in shapes] == [4, 2, 2]


def test_the_head_is_never_given_strided_rows(live, prompter):
    """On a CPU torch multiplies them hundreds of times as slowly in bfloat16; a batch's last positions are such rows."""
    strided = []
    head = live.model.get_output_embeddings()
    hook = head.register_forward_hook(lambda module, args, output: strided.append(not args[0].is_contiguous()))
    try:
        list(answers(live, prompter, PROMPTS, 5))
    finally:
        hook.remove()
    assert len(strided) == 5 and not any(strided)


def test_batches_are_of_like_length_and_within_their_bound():
    lengths = [5, 1, 9, 1, 7, 30]
    assert list(batches(lengths, 64, 14)) == [[1, 3], [0, 4], [2], [5]]
    assert list(batches(lengths, 2, 99)) == [[1, 3], [0, 4], [2, 5]]
    assert list(batches(lengths, 64, 99, lambda b: 2 not in b or 4 not in b)) == [[1, 3, 0, 4], [2, 5]]
    assert list(batches([], 1, 1)) == []
