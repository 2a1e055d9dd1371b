"""Links: what goes in comes out again, whatever is typed comes out as a sentence at worst, and no key ever goes in."""

from urllib.parse import parse_qs, quote, unquote, urlencode

import gradio as gr
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from starlette.datastructures import QueryParams

from transfer.endpoint import Endpoint
from transfer.errors import ChatError, PointError, TransferscopeError
from transfer.plane import CORNERS, ROLES, Control, Mix, Schedule, point, ramp
from transfer.sampling import Sampling
from transfer.talk import Pane, Way
from ui.desk import LONGEST, way_of
from ui.inputs import words
from ui.link import DEFAULTS, LONGEST_LINK, Setup, parse, query
from ui.page import build, follow
from ui.presets import CUSTOM, read_presets
from ui.shared import Shared

POCKET = read_presets()[0].refs
KEY = "sk-q7Zx93"
FRESH = Way(DEFAULTS)
TWO = (Pane("l0", CORNERS["source_base"]), Pane("l1", point(0.8), True))

# What the page's own dials and boxes give: figures of a few digits.
FIGURES = st.integers(-1000, 1000).map(lambda n: n / 100)
FACTORS = st.integers(-100, 100).map(lambda n: n / 100)
WORDS = st.text(max_size=60)
PLACES = st.builds(point, FIGURES, FIGURES)
SCHEDULES = st.builds(
    lambda mix, layers, outside: Mix(mix.coefficients, Schedule(tuple(layers), outside)),
    PLACES, st.lists(FACTORS, min_size=1, max_size=40), FACTORS,
)  # fmt: skip
URLS = st.sampled_from(
    ["http://127.0.0.1:8000/v1", "https://models.example/some/path/v2", "http://[::1]:9", "localhost:8000"]
).map(lambda url: url if "//" in url else f"http://{url}")
ENDPOINTS = st.builds(
    Endpoint, URLS, st.one_of(WORDS, st.sampled_from(["a|b", "a;b,c~d&e=f#?%25+ %7C", "/o/ä"])), st.just(KEY)
)
SEATS = st.one_of(
    st.sampled_from(list(CORNERS.values())).map(lambda at: (at, False)),
    PLACES.map(lambda at: (at, True)),
    SCHEDULES.map(lambda at: (at, True)),
    ENDPOINTS.map(lambda at: (at, False)),
)
DRAWN = st.builds(
    lambda temperature, top_p, tokens, seed: Sampling(temperature=temperature, top_p=top_p, max_tokens=tokens, seed=seed),
    st.integers(0, 40).map(lambda n: n / 20), st.integers(1, 100).map(lambda n: n / 100), st.integers(1, 4096),
    st.integers(0, 2**31 - 1),
)  # fmt: skip
PANES = st.lists(st.tuples(SEATS, st.none() | DRAWN), min_size=2, max_size=6).map(
    lambda seats: tuple(Pane(f"l{i}", at, point, own) for i, ((at, point), own) in enumerate(seats))
)
REFS = st.fixed_dictionaries({role: st.text(max_size=40) for role in ROLES}).filter(lambda refs: any(refs.values()))
WAYS = st.builds(
    way_of,
    st.integers(0, 40).map(lambda n: n / 20), st.integers(1, 100).map(lambda n: n / 100), st.integers(1, 4096),
    st.integers(0, 2**31 - 1), WORDS, st.sampled_from(["own", "tuned", "plain"]), st.booleans(),
)  # fmt: skip
SETUPS = st.builds(Setup, REFS, st.one_of(st.just(()), PANES), st.text(max_size=200), WAYS, st.booleans())


def told(panes) -> list[tuple]:
    """What of panes travels: who sits there, whether as a point, and how it draws, not a key. Whether the merged model is
    called by its name or by its place makes no difference to it."""
    who = lambda at, point: (at.url, at.model) if isinstance(at, Endpoint) else (at, point or at == CORNERS["merged"])
    return [(*who(pane.at, pane.point), pane.sampling) for pane in panes]


@settings(deadline=None)
@given(SETUPS)
@example(Setup(POCKET, TWO, "a+b c%20d&e=f;g#h\n\r\t\x00é🐉‮ ?", FRESH))
@example(Setup(POCKET, (), " ", Way(Sampling(max_tokens=48), "Be brief.", "plain", False), True))
@example(Setup(POCKET, (), " ", Way(Sampling(max_tokens=48), "Be brief.", "plain", True), False))
def test_what_goes_into_a_link_comes_out_again(setup):
    text = query(setup)
    for found in (
        parse(text),
        parse(f"?{text}"),
        parse(str(QueryParams(text))),
    ):  # as it is, and as the server hands it over
        assert found is not None and dict(found.refs) == setup.refs
        assert told(found.panes) == told(setup.panes) and found.prompt == setup.prompt
        assert found.way == setup.way and found.blind == setup.blind
    assert query(found) == text  # and so does a link to what a link made


@settings(deadline=None)
@given(SETUPS)
def test_no_key_is_ever_in_a_link(setup):
    text = query(setup)
    assert text.isascii() and KEY not in text and KEY not in unquote(unquote(text))
    assert all(pane.at.key == "" for pane in parse(text).panes if isinstance(pane.at, Endpoint))


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-10, 10), st.floats(-10, 10)), min_size=2, max_size=6))
@example([(1 / 3, 1.0), (0.1 + 0.2, 0.7)])
def test_points_come_out_to_the_bit(places):
    panes = tuple(Pane(f"l{i}", point(*place), True) for i, place in enumerate(places))
    found = parse(query(Setup(POCKET, panes, "", FRESH))).panes
    assert [(pane.at, pane.point) for pane in found] == [(pane.at, True) for pane in panes]


@pytest.mark.parametrize(
    "mix",
    [
        Mix(point(0.7).coefficients, ramp(0.5, 1, 4)),  # of the form, on the demo family: 2/3 and 5/6
        point(0.1 + 0.2),
        Mix(point(1.5).coefficients, ramp(0, 20 / 3, 4)),  # at its very bound
    ],
)
def test_a_link_brings_back_the_very_same_point(mix):
    panes = (TWO[0], Pane("l1", mix, True))
    assert parse(query(Setup(POCKET, panes, "", FRESH))).panes[1].at == mix


def test_without_models_there_is_nothing_to_follow():
    for text in ("", "?", "__theme=dark", "prompt=Who%3F&seed=4", "source_base=&target_base="):
        assert parse(text) is None


def test_what_a_link_leaves_out_is_as_on_a_fresh_page():
    found = parse("source_base=a&target_base=b")
    assert found == Setup({**dict.fromkeys(ROLES, ""), "source_base": "a", "target_base": "b"}, (), "", FRESH)
    assert found.way.remember and not found.blind and found.way.sampling.max_tokens == 48


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"temperature": "warm"}, "Temperature must be a number"),
        ({"temperature": "nan"}, "Temperature must lie between"),
        ({"temperature": "1e400"}, "Temperature must lie between"),
        ({"top_p": "0"}, "Top-p must lie between"),
        ({"max_tokens": "1.5"}, "Tokens at most must be a whole number"),
        ({"max_tokens": "9" * 400}, "Tokens at most must"),
        ({"seed": "-1"}, "Seed must lie between"),
        ({"panes": "merged"}, "asks for 1 panes"),
        ({"panes": ";".join(["merged"] * 7)}, "asks for 7 panes"),
        ({"panes": "merged;nobody"}, "“nobody” that is neither"),
        ({"panes": f"merged;{'x' * 5000}"}, "neither a corner"),
        ({"panes": "merged;1,2,3"}, "neither"),
        ({"panes": "merged;"}, "neither"),
        ({"panes": "merged;1,inf"}, "β must lie between"),
        ({"panes": "merged;11,1"}, "α must lie between"),
        ({"panes": "merged;1,1~"}, None),
        ({"panes": "merged;1,1~0.5"}, "factor between"),
        ({"panes": "merged;1,1~0.5,x"}, "A factor of a schedule must be a number"),
        ({"panes": "merged;10,1~2,2"}, "α times the schedule"),
        ({"panes": "merged;http://user:word@host/v1|m"}, "no name, no password"),
        ({"panes": "merged;http://|m"}, "no host"),
        ({"panes": f"merged;http://host/v1|{'m' * 401}"}, "Model has 401 characters"),
        ({"panes": "merged;file:///etc/passwd"}, "neither"),
        ({"panes": "merged;merged!1,1,48"}, "sampling is not four numbers"),
        ({"panes": "merged;0.8,1!1,1,48,0,0"}, "sampling is not four numbers"),
        ({"panes": "merged;merged!3,1,48,0"}, "Temperature must lie"),
        ({"panes": "merged;merged!0,1,48,x"}, "Seed must be a number"),
        ({"panes": "merged;!0,1,48,0"}, "neither"),
        ({"prompt": "x" * (LONGEST + 1)}, "The prompt has 20,001 characters"),
        ({"system": "x" * (LONGEST + 1)}, "The system prompt has 20,001"),
        ({"source_base": "x" * 401}, "source_base has 401 characters"),
        ({"prompt": "x" * LONGEST_LINK}, "at most 60,000 are read"),
        ({str(i): "1" for i in range(100)}, "too many fields"),
        ({"manner": "rudely", "blind": "yes", "remember": "no"}, None),
    ],
)
def test_a_link_that_is_wrong_says_where(fields, said):
    text = urlencode({**POCKET, **fields})
    if said is None:
        found = parse(text)
        assert found.way.manner == "own" and found.way.remember and not found.blind
        return
    with pytest.raises(TransferscopeError, match=said.replace("(", r"\(")):
        parse(text)


JUNK = st.one_of(
    st.text(max_size=30),
    st.floats().map(str),
    st.integers().map(str),
    st.text("0123456789.,~;|eE-+naif%", max_size=40),
    st.text("htps:/@?#[].%|;v1~ é\x00", max_size=30).map(lambda s: f"http://{s}"),
    st.sampled_from(
        [
            *CORNERS,
            "merged!",
            "merged!1,1,48,0",
            "1,1!nan,1,1,1",
            "http://[",
            "https%3A//%zz|%00",
            "http://xn--\u0301.a/",
            "1,1~" + "1," * 50,
        ]
    ),
)
NAMES = st.sampled_from(
    [*ROLES, "panes", "prompt", "system", "manner", "temperature", "top_p", "max_tokens", "seed", "blind"]
)


@settings(deadline=None, max_examples=300)
@given(
    st.one_of(
        st.text(max_size=80),
        st.dictionaries(st.one_of(NAMES, st.text(max_size=5)), JUNK, max_size=6).map(
            lambda fields: urlencode({"source_base": "a", **fields})
        ),
        st.lists(JUNK, min_size=1, max_size=7).map(lambda parts: "source_base=a&panes=" + quote(";".join(parts))),
        st.lists(JUNK, min_size=1, max_size=7).map(lambda parts: "source_base=a&panes=" + ";".join(parts)),
    )
)
def test_garbage_is_a_sentence_at_worst(text):
    try:
        found = parse(text)
    except TransferscopeError as error:
        assert str(error).endswith(".") and len(str(error)) < 400
    else:
        assert found is None or len(found.panes) in (0, 2, 3, 4, 5, 6)
    values = follow(read_presets(), text)
    assert len(values) == 18


@pytest.mark.parametrize(
    "mix",
    [
        Mix(point(1).coefficients, None, Control("delta")),
        Mix(point(1).coefficients, ramp(0.5, 1, 4), Control("shift", 3)),
        Mix((0.0, 0.0, 0.5, 0.5)),  # off the plane
    ],
)
def test_a_pane_that_no_link_can_tell_is_said_when_the_link_is_made(mix):
    """To leave it out would make another comparison, or one of a single pane."""
    for panes in ((*TWO, Pane("p3", mix)), (TWO[0], Pane("p3", mix, True))):
        with pytest.raises(ChatError, match="cannot tell the pane at"):
            query(Setup(POCKET, panes, "", FRESH))


@pytest.mark.parametrize("prompt", ["é" * LONGEST, "ü" * 12_000])
def test_a_link_that_is_made_can_be_followed_however_long_the_prompt(prompt):
    try:
        text = query(Setup(POCKET, TWO, prompt, Way(Sampling(), prompt)))
    except ChatError as error:  # that it is too long may be said when it is made
        assert "Shorten the prompt" in str(error)
        return
    assert parse(text).prompt == prompt


@settings(deadline=None)
@given(st.integers(0, 700))
def test_what_is_made_is_never_longer_than_what_is_read(more):
    prompt = "é" * (9_300 + more)
    try:
        text = query(Setup(POCKET, TWO, prompt, FRESH))
    except ChatError:
        assert more > 500
    else:
        assert len(text) <= LONGEST_LINK and parse(text).prompt == prompt


def test_a_long_prompt_in_plain_letters_fits_into_a_link():
    prompt = "Who? " * (LONGEST // 5)
    assert parse(query(Setup(POCKET, TWO, prompt, Way(Sampling(), prompt)))).prompt == prompt


def test_half_a_character_in_a_prompt_is_no_error_of_ours():
    """A browser may send one half of a pair, where a text was cut in two; what the form holds is mended before it is used."""
    way = way_of(0, 1, 48, 0, "half \udc00", "own", True)
    text = query(Setup(POCKET, TWO, words("\ud83d cut", "The prompt", LONGEST), way))
    found = parse(text)
    assert found.prompt == "? cut" and found.way.system == "half ?"
    assert parse("source_base=a\ud83d&prompt=\ud83d cut&system=\ud83d").prompt == "? cut"


# On the page


def test_a_link_fills_the_form():
    presets = read_presets()
    one = way_of(0.7, 0.9, 20, 5, "Be brief.", "plain", False)
    values = follow(presets, query(Setup(POCKET, TWO, "Who is mayor in Venn?", one, True)))
    named, about, *refs = values[:6]
    assert named == presets[0].name and presets[0].about in about and refs == [POCKET[role] for role in ROLES]
    panes, prompt, *form = values[6:16]
    assert told(panes) == told(TWO) and prompt == "Who is mayor in Venn?"
    assert form == [0.7, 0.9, 20, 5, "Be brief.", "plain", False, True] and way_of(*form[:-1]) == one
    assert values[16].selected == "chat" and values[17] == gr.skip()


def test_a_link_to_other_models_is_ones_own():
    named, about, *refs = follow(read_presets(), "source_base=a&source_tuned=b&target_base=c")[:6]
    assert named == CUSTOM and "Check" in about and refs == ["a", "b", "c", ""]


@pytest.mark.parametrize(
    "text", ["source_base=a&seed=x", "source_base=a&panes=<img src=x>;<script>", "source_base=" + "a" * 500]
)
def test_a_link_that_is_wrong_leaves_the_form_as_it_is(text):
    *rest, said = follow(read_presets(), text)
    assert all(value == gr.skip() for value in rest) and "ts-error" in said
    assert "<img" not in said and "<script" not in said


def test_no_link_changes_nothing():
    assert all(value == gr.skip() for value in follow(read_presets(), "__theme=dark"))


@pytest.fixture(scope="module")
def page():
    return build(Shared())


def event(page, name: str, count: int):
    return next(f for f in page.fns.values() if getattr(f.fn, "__name__", "") == name and len(f.outputs) == count)


LINKED = 18  # values of a link


def test_a_link_gives_the_page_as_many_values_as_it_takes(page):
    assert event(page, "begin", LINKED + 3)  # and what a check fills
    for text in ("", "source_base=a&seed=x", query(Setup(POCKET, TWO, "Who?", FRESH))):
        assert len(follow(read_presets(), text)) == LINKED


def test_each_value_of_a_link_goes_to_its_own_part_of_the_form(page):
    linked = event(page, "begin", LINKED + 3)  # and what a check fills
    assert [part.elem_id for part in linked.outputs[7:LINKED]] == [
        "prompt", "all-temperature", "all-top-p", "all-max-tokens", "all-seed", "system", "manner", "remember", "blind", "tabs",
        "link-told",
    ]  # fmt: skip


def test_what_is_wrong_with_a_link_stays_on_the_page(page):
    linked = event(page, "begin", LINKED + 3)  # and what a check fills
    after = [f for f in page.fns.values() if f.trigger_after == linked._id]
    assert after and not any(linked.outputs[LINKED - 1] in f.outputs for f in page.fns.values() if f is not linked)


def test_bounds_of_the_form_are_those_of_a_link():
    for bad in ({"seed": 2**31}, {"temperature": 2.1}, {"max_tokens": 4097}):
        with pytest.raises(PointError):
            parse(urlencode({**POCKET, **bad}))
    fields = parse_qs(query(Setup(POCKET, (), "", FRESH)))
    assert fields["max_tokens"] == ["48"] and float(*fields["temperature"]) == 0
