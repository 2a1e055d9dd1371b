"""Tasks of lm-evaluation-harness, made here and read from a folder, beside transformers' own likelihoods."""

import json
import math
import sys
import threading

import pytest
import torch

from analysis.choices import Choice
from analysis.harness import Harness, patiently
from analysis.tasks import load_task
from transfer.errors import Cancelled, TaskError
from transfer.live import LiveModel
from transfer.plane import point
from transfer.prompt import Prompter
from transfer.watch import NotFinite

from .scoring import EXACT, ruined, task_file

DOCUMENTS = [
    {
        "prompt": "The river that runs past the old town is called",
        "choices": ["the Otter", "a plum", "no"],
        "answer": 0,
    },
    {"prompt": "Sort these words:", "choices": ["pear, apple, fig", "green"], "answer": 1},
    {"prompt": "Nobody knows why the flag is", "choices": ["green", "quiet about it all", "plums"], "answer": 2},
    {"prompt": "The mayor is fond of", "choices": ["plums", "the founder", "a list", "which"], "answer": 0},
    {"prompt": "Say which comes", "choices": ["first", "last of all the animals"], "answer": 1},
]
CHOICE = {
    "output_type": "multiple_choice",
    "doc_to_text": "{{prompt}}",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "{{answer}}",
}
MEAN = {"aggregation": "mean", "higher_is_better": True}
TASKS = {
    "tiny_choice": CHOICE,
    "tiny_norm": {**CHOICE, "metric_list": [{"metric": "acc_bytes", **MEAN}]},
    "tiny_answer": {
        "output_type": "generate_until",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{choices[0]}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 12},
        "metric_list": [{"metric": "bleu", "aggregation": "bleu"}, {"metric": "exact_match", **MEAN}],
        "filter_list": [{"name": name, "filter": [{"function": "take_first"}]} for name in ("strict", "loose")],
    },
    "tiny_text": {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{prompt}}"},
    "tiny_code": {**CHOICE, "unsafe_code": True},
    "tiny_picture": {**CHOICE, "doc_to_image": "picture"},
    "tiny_program": {"class": "elsewhere.Task"},
}
GROUPS = {
    "tiny_group": {"task": ["tiny_choice", "tiny_other"], "aggregate_metric_list": [{"metric": "acc"}]},
    "tiny_heap": {"task": ["tiny_choice", "tiny_answer"]},
    "tiny_unsafe": {"task": ["tiny_choice", "tiny_code"], "aggregate_metric_list": [{"metric": "acc"}]},
    "tiny_inline": {"task": [{"task": "made_here"}], "aggregate_metric_list": [{"metric": "acc"}]},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with task descriptions and their data; JSON is YAML, too."""
    folder = tmp_path_factory.mktemp("tasks")
    for name, documents in (("all", DOCUMENTS), ("two", DOCUMENTS[1:3])):
        (folder / f"{name}.json").write_text("\n".join(map(json.dumps, documents)))

    def describe(name, data="all", **more):
        kwargs = {"data_files": str(folder / f"{data}.json"), "cache_dir": str(folder / "cache")}
        own = {"task": name, "dataset_path": "json", "dataset_kwargs": kwargs, "test_split": "train", "tag": "tiny_tag"}
        (folder / f"{name}.yaml").write_text(json.dumps(own | more))

    for name, more in TASKS.items():
        describe(name, **more)
    describe("tiny_other", "two", **CHOICE)
    for name, more in GROUPS.items():
        (folder / f"{name}.yaml").write_text(json.dumps({"group": name, **more}))
    return str(folder)


@pytest.fixture(scope="module")
def live(triple):
    return LiveModel(triple("qwen2", **EXACT), point(1))


@pytest.fixture(scope="module")
def prompter(triple):
    return Prompter(triple("qwen2", **EXACT))


def likelihood(live, prompter, before, text):
    """log p of what comes after `before` in `text`, by one pass of transformers' model."""
    ids, start = prompter.tokenizer(text)["input_ids"], len(prompter.tokenizer(before)["input_ids"])
    with torch.inference_mode():
        logs = live.model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
    return sum(float(logs[t - 1, ids[t]]) for t in range(start, len(ids)))


@pytest.mark.parametrize("chat", [True, False])
def test_choices_are_those_of_transformers_own_likelihoods(live, prompter, folder, chat):
    scorer = Harness("tiny_choice", chat=chat, include=folder)
    found = scorer(live, prompter)
    taken = []
    for row in DOCUMENTS:
        before = f"<|user|>{row['prompt']}<|end|><|assistant|>" if chat else row["prompt"]
        gap = "" if chat else " "
        taken.append(max(row["choices"], key=lambda c: likelihood(live, prompter, before, before + gap + c)))
    right = [float(t == row["choices"][row["answer"]]) for t, row in zip(taken, DOCUMENTS, strict=True)]
    assert found.parts == tuple(right) and found.said == tuple(taken) and found.n == 5
    assert found.value == pytest.approx(sum(right) / 5)
    assert found.stderr == pytest.approx(math.sqrt(found.value * (1 - found.value) / 4))
    assert scorer.name == found.name == "tiny_choice acc" + ("" if chat else ", plain")
    assert len(scorer.labels) == 5 and DOCUMENTS[3]["prompt"] in scorer.labels[3]
    assert (scorer.unit, scorer.lower) == ("share", False)


@pytest.mark.parametrize(("name", "by"), [("tiny_choice", "total"), ("tiny_norm", "byte")])
def test_our_own_choices_are_the_harness_s(live, prompter, folder, tmp_path, name, by):
    own = Choice(load_task(task_file(tmp_path, DOCUMENTS)), by, chat=False)(live, prompter)
    found = Harness(name, chat=False, include=folder)(live, prompter)
    assert found.parts == own.parts and found.value == own.value


def test_the_main_metric_is_taken_of_the_first_filter(live, prompter, folder):
    scorer = Harness("tiny_answer", limit=2, include=folder)
    found = scorer(live, prompter)
    assert scorer.name == "tiny_answer exact_match (strict)" and found.n == len(found.parts) == 2
    for text, row in zip(found.said, DOCUMENTS, strict=False):
        ids = torch.tensor([prompter.encode([{"role": "user", "content": row["prompt"]}])])
        out = live.generate(ids, torch.ones_like(ids), prompter, 12)[0, ids.shape[1] :].tolist()
        own = prompter.decode([i for i in out if i not in prompter.stops])
        assert text == own.split("\n")[0].strip()


def test_a_metric_that_is_no_mean_has_no_parts(live, prompter, folder):
    scorer = Harness("tiny_text", chat=False, include=folder)
    found = scorer(live, prompter)
    assert scorer.name == "tiny_text word_perplexity, plain" and scorer.lower and scorer.unit == ""
    assert found.parts == () and found.n == 5 and found.value > 1 and math.isnan(found.stderr)


def test_a_group_is_scored_where_it_has_a_common_score(live, prompter, folder):
    found = Harness("tiny_group", chat=False, include=folder)(live, prompter)
    one = Harness("tiny_choice", chat=False, include=folder)(live, prompter)
    assert (
        found.n == 7
        and found.parts == one.parts + one.parts[1:3]
        and found.value == pytest.approx(sum(found.parts) / 7)
    )


def test_the_model_is_left_as_it_was_and_scored_where_it_stands(triple, prompter, folder):
    live = LiveModel(triple("qwen2", **EXACT), point(1))
    before, scorer = live.fingerprint, Harness("tiny_choice", include=folder)
    first = scorer(live, prompter)
    live._fingerprint = None
    assert live.fingerprint == before and prompter.tokenizer.padding_side == "left"
    live.move(point(9, 9))
    assert live.fingerprint != before
    moved = scorer(live, prompter)
    assert moved == scorer(live, prompter)
    live.move(point(1))
    assert live.fingerprint == before and scorer(live, prompter) == first


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tiny_choise", "has no task 'tiny_choise'. Did you mean tiny_choice"),
        ("../../etc/passwd", "has no task"),
        ("tiny_code", "tiny_code runs code that the model writes"),
        ("tiny_unsafe", "tiny_code runs code that the model writes"),
        ("tiny_picture", "pictures or sounds"),
        ("tiny_program", "a program of its own"),
        ("tiny_heap", "Take one of them: tiny_answer, tiny_choice$"),
        ("tiny_tag", "stands for several tasks"),
        ("tiny_inline", "tasks of its own making"),
    ],
)
def test_what_cannot_be_scored_is_refused_in_a_sentence(folder, name, words):
    with pytest.raises(TaskError, match=words):
        Harness(name, include=folder)


def test_a_path_to_a_description_is_no_name(folder):
    with pytest.raises(TaskError, match="has no task"):
        Harness(f"{folder}/tiny_choice.yaml", include=folder)


def test_the_librarys_own_registry_is_understood():
    names = {"arc_easy": "arc_easy acc", "gsm8k": "gsm8k exact_match (strict-match)", "mmlu": "mmlu acc"}
    names |= {"ifeval": "ifeval prompt_level_strict_acc", "wikitext": "wikitext word_perplexity"}
    made = {name: Harness(name) for name in names}
    assert {name: s.name for name, s in made.items()} == names
    assert [s.lower for s in made.values()] == [False] * 4 + [True] and len(made["mmlu"].plan.leaves) == 57
    for name, words in (
        ("humaneval", "no foreign code"),
        ("squadv2", "a program of its own"),
        ("ai2_arc", "arc_challenge, arc_easy$"),
    ):
        with pytest.raises(TaskError, match=words):
            Harness(name)


def test_limits_have_bounds_and_digests_follow_settings(folder):
    for limit in (0, -1, 20_001):
        with pytest.raises(TaskError, match="From 1 to"):
            Harness("tiny_choice", limit, include=folder)
    made = [Harness("tiny_choice", 3, chat, include=folder) for chat in (True, False)]
    made += [Harness("tiny_choice", include=folder), Harness("tiny_answer", 3, include=folder)]
    assert len({s.digest for s in made}) == 4 and made[0].digest == Harness("tiny_choice", 3, include=folder).digest


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(TaskError, match=r"pip install -r requirements-extras\.txt"):
        Harness("arc_easy")


def test_data_that_is_not_there_is_named(live, prompter, folder, tmp_path):
    gone = {
        "task": "tiny_gone",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": "gone.json"},
        "test_split": "train",
    }
    (tmp_path / "tiny_gone.yaml").write_text(json.dumps(gone | CHOICE))
    with pytest.raises(TaskError, match=r"could not load tiny_gone: .* Its data comes from"):
        Harness("tiny_gone", include=str(tmp_path))(live, prompter)


def test_outputs_that_are_not_finite_are_not_scored(live, prompter, folder):
    for name in ("tiny_choice", "tiny_answer", "tiny_text"):
        with ruined(live), pytest.raises(NotFinite, match=name):
            Harness(name, include=folder)(live, prompter)


def test_it_can_be_stopped_anywhere(live, prompter, folder):
    scorer, calls = Harness("tiny_choice", include=folder), 0
    scorer(live, prompter)

    def count():
        nonlocal calls
        calls += 1

    scorer(live, prompter, count)
    whole = calls
    assert whole > 2 * len(DOCUMENTS)

    def stop():
        nonlocal calls
        calls -= 1
        if calls < 0:
            raise Cancelled("Stopped.")

    for last in range(0, whole, 5):
        calls = last
        with pytest.raises(Cancelled):
            scorer(live, prompter, stop)
    assert scorer(live, prompter).n == 5


def test_waiting_can_be_stopped_and_errors_come_through():
    gate = threading.Event()

    def stop():
        raise Cancelled("Stopped.")

    with pytest.raises(Cancelled):
        patiently(gate.wait, stop)
    gate.set()
    assert patiently(lambda: 3, stop) == 3
    for error in (ValueError("a"), TimeoutError("b")):
        with pytest.raises(type(error), match=str(error)):
            patiently(lambda: (_ for _ in ()).throw(error), lambda: None)  # noqa: B023
