"""Every instruction with answers worked out by hand, and the score that is made of them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.following import Instructions
from analysis.instructions import CHECKS, UNCHECKED, follows, misfit, sentences
from analysis.tasks import load_task, scorer_of
from transfer.errors import Cancelled, TaskError
from transfer.watch import NotFinite

from .scoring import ruined, task_file

LEAST, LESS = "at least", "less than"

# id, settings, answers that follow it, answers that do not
CASES = [
    ("keywords:existence", {"keywords": ["Otter", "plum"]}, ["PLUMS and an otter.", "otterplum"], ["An otter.", ""]),
    ("keywords:existence", {"keywords": ["über"]}, ["ÜBER"], ["uber"]),
    ("keywords:frequency", {"keyword": "fig", "frequency": 2, "relation": LEAST}, ["Fig, figs", "a fig fig fig"], ["fig", ""]),
    ("keywords:frequency", {"keyword": "fig", "frequency": 2, "relation": LESS}, ["fig", "pear"], ["fig Fig"]),
    ("keywords:forbidden_words", {"forbidden_words": ["fig", "a.b"]}, ["figs", "axb"], ["A FIG.", "a.b"]),
    ("keywords:letter_frequency", {"letter": "e", "let_frequency": 3, "let_relation": LEAST}, ["Eee"], ["ee", "é è ê"]),
    ("keywords:letter_frequency", {"letter": "Q", "let_frequency": 1, "let_relation": LESS}, ["none"], ["quiet", "Q"]),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": LEAST}, ["One. Two!", "A? B"], ["One.", "..."]),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": LESS}, ["Dr. Who came."], ["He came. She went."]),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, ["a\n***\nb", "***a***b***"], ["a", "a***b***c", "a******b"]),
    ("length_constraints:number_words", {"num_words": 3, "relation": LEAST}, ["one two, three", "a-b c"], ["one two", ""]),
    ("length_constraints:number_words", {"num_words": 3, "relation": LESS}, ["Ein Bär!", "日本"], ["don't go"]),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Weekend"},
        ["a\n\nweekend is near", 'a\n\n\n"Weekend," he said', "a\n\nWEEKEND's end"],
        ["weekend\n\nb", "a\n\nweekends", "a\n\nb\n\nweekend", "weekend", ""],
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, ["[name] [age]", "[[a]][b]"], ["[name]", "[a\nb] [c]"]),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, ["Bye.\nP.S. more", "p. s. x"], ["PS more", ""]),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, ["Bye\nP.P.S more", "P. P. S. more"], ["P.S. more"]),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, ["* a\n* b", "- a\n  - b\nc"], ["* a", "**a**\n* b", "* a\n- b\n* c"]),
    ("detectable_format:constrained_response", {}, ["My answer is maybe.", "Well. My answer is no."], ["my answer is no.", "yes"]),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, ["*a* **b c**"], ["*a* * *", "**a**", "*a\nb* *c*"]),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        ["Section 1\na\nSection 2\nb", "Section1 Section2 Section3"],
        ["Section 1 a", "SECTION 1 SECTION 2", "Section one Section two"],
    ),
    ("detectable_format:json_format", {}, ['{"a": 1}', '```json\n{"a": [1]}\n```', "```\n[]\n```", " 3 "], ["{a: 1}", "NaN", "So: {}", ""]),
    ("detectable_format:title", {}, ["<<A poem>>\ntext", "x <<y>> z"], ["<A poem>", "<< >>", "<<a\nb>>", ">>a<<"]),
    ("combination:two_responses", {}, ["a\n******\nb", "******a******b******"], ["a", "a******a", "a******b******c", "******"]),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it. "}, ["say it. It.", " Say it."], ["It. Say it.", ""]),
    ("startend:end_checker", {"end_phrase": "That is all."}, ['"x that is all."', "That is all. "], ["That is all. Bye", ""]),
    ("startend:quotation", {}, ['"a"', ' "a" b "c" \n'], ['"', "“a”", '"a', ""]),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": LEAST}, ["I am HERE", "A-B C3"], ["I am", ""]),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": LESS}, ["DON'T go"], ["NO, ÜBER"]),
    ("change_case:english_capital", {}, ["HELLO, 3!"], ["HELLo", "3!", ""]),
    ("change_case:english_lowercase", {}, ["hello, 3!"], ["Hello", "3!", ""]),
    ("punctuation:no_comma", {}, ["a; b", "a，b"], ["a, b"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "settings", "right", "wrong"), CASES)
def test_each_is_checked_as_published(name, settings, right, wrong):
    assert misfit(name, settings) == ""
    assert [a for a in right if not CHECKS[name](a, **settings)] == []
    assert [a for a in wrong if CHECKS[name](a, **settings)] == []
    assert not follows("", [name], [settings]) and not follows(" \n", [name], [settings])


def test_every_published_instruction_is_known():
    assert {name for name, *_ in CASES} == CHECKS.keys() and len(CHECKS | UNCHECKED) == 25


def test_all_must_be_followed():
    names, settings = ["punctuation:no_comma", "startend:quotation"], [{}, {}]
    assert follows('"a"', names, settings)
    assert not follows('"a,b"', names, settings) and not follows("ab", names, settings)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("...", 0),
        ("no end", 1),
        ("One. Two. Three", 3),
        ("Really?! Yes.", 2),
        ('He said "Go." She went.', 2),
        ("Dr. J. Smith paid 3.50, i.e. too much. So it goes.", 2),
        ("Three things:\n1. One.\n2. Two.", 2),
        ("It was 1990. Then it ended.", 2),
        ("It was I. I did it.", 2),
        ("これは本です。それも本です。", 2),
        ("Wait... what? Well… yes. So… Fine", 4),
        ("See example.com now. Bye.", 2),
    ],
)
def test_sentences(text, count):
    assert sentences(text) == count


@given(st.text('aB.!? \n1。,"*-[]<>P:S', max_size=60), st.sampled_from(CASES))
def test_no_answer_breaks_a_check(answer, case):
    name, settings, *_ = case
    assert CHECKS[name](answer, **settings) in (True, False)
    assert 0 <= sentences(answer) <= len(answer)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"instruction_id_list": ["keywords:exist"]}, "'keywords:exist' is no instruction that is known"),
        ({"kwargs": [{}]}, "keywords:existence: keywords: Missing"),
        ({"kwargs": [{"keywords": "a"}]}, "keywords:existence: keywords"),
        ({"kwargs": [{"keywords": []}]}, "keywords:existence: keywords"),
        ({"kwargs": [{"keywords": ["a"], "letter": "b"}]}, "keywords:existence takes no letter"),
        ({"kwargs": []}, "0 settings for 1 instructions"),
        ({"instruction_id_list": []}, "instruction_id_list"),
        ({"instruction_id_list": ["length_constraints:number_words"], "kwargs": [{"num_words": 3, "relation": "about"}]}, "'at least'"),
        ({"instruction_id_list": ["length_constraints:number_words"], "kwargs": [{"num_words": -3, "relation": LEAST}]}, "num_words"),
    ],
)  # fmt: skip
def test_what_cannot_be_checked_is_named_by_line(tmp_path, change, words):
    row = {"prompt": "a", "instruction_id_list": ["keywords:existence"], "kwargs": [{"keywords": ["b"]}]}
    with pytest.raises(TaskError, match=f"task.jsonl, line 2: .*{words}"):
        load_task(task_file(tmp_path, [row, row | change]))


def test_the_published_file_is_taken_as_it_is(tmp_path):
    """Rows in the forms of google-research's file and of the Hub's, where absent settings are null."""
    rows = [
        {
            "key": 1000,
            "prompt": "Write two words.",
            "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
            "kwargs": [{}, {"num_words": 2.0, "relation": "at least", "num_sentences": None, "keywords": None}],
        },
        {"key": 1001, "prompt": "Auf Deutsch.", "instruction_id_list": ["language:response_language"], "kwargs": [{"language": "de"}]},
    ]  # fmt: skip
    task = load_task(task_file(tmp_path, rows))
    assert [item.id for item in task.items] == ["1000"] and task.items[0].kwargs[1] == {
        "num_words": 2.0,
        "relation": LEAST,
    }
    assert task.note.startswith("1 of the 2 prompts in task.jsonl ask for the language of an answer")
    with pytest.raises(TaskError, match="Nothing remains"):
        load_task(task_file(tmp_path, rows[1:]))
    with pytest.raises(TaskError, match="line 2 is of another form"):
        load_task(task_file(tmp_path, [rows[0], {"prompt": "a", "answer": "b"}]))


@pytest.fixture
def task(tmp_path):
    rows = [
        {"prompt": prompt, "instruction_id_list": [name], "kwargs": [{}]}
        for prompt, name in (
            ("Say a thing.", "punctuation:no_comma"),
            ("Say it in quotes, and at length.", "startend:quotation"),
            ("Say another thing.", "detectable_format:json_format"),
        )
    ]
    return load_task(task_file(tmp_path, rows))


def test_the_score_is_the_share_of_prompts_with_all_followed(live, prompter, task, monkeypatch):
    said = {
        "Say a thing.": "a, b",
        "Say it in quotes, and at length.": '"a"',
        "Say another thing.": json.dumps("x" * 5000),
    }
    order = [item.prompt for item in task.items]
    monkeypatch.setattr("analysis.following.replies", lambda *_, **more: ((i, said[p]) for i, p in enumerate(order)))
    scorer = scorer_of(task)
    found = scorer(live, prompter)
    assert found.parts == (0.0, 1.0, 1.0) and found.value == pytest.approx(2 / 3) and found.n == 3
    assert found.said[:2] == ("a, b", '"a"') and len(found.said[2]) == 2000
    assert scorer.name == found.name == "instructions followed, task" and scorer.labels == tuple(order)
    assert (scorer.unit, scorer.lower) == ("share", False)


def test_a_model_is_asked_and_can_be_stopped(live, prompter, task):
    for chat in (True, False):
        found = Instructions(task, chat=chat)(live, prompter)  # the default is longer than this model's context
        assert found.n == 3 and all(found.said)
    scorers = [Instructions(task), Instructions(task, max_tokens=9), Instructions(task, chat=False)]
    assert len({s.digest for s in scorers}) == 3 and scorers[2].name == "instructions followed, task, plain"
    with ruined(live), pytest.raises(NotFinite, match="instructions followed, task"):
        Instructions(task, max_tokens=9)(live, prompter)

    def stop():
        raise Cancelled("Stopped.")

    with pytest.raises(Cancelled):
        Instructions(task)(live, prompter, stop)
