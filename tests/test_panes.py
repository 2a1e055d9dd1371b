"""The HTML of the Chat tab: what a person, a model, a server or a folder says stays text, and a blind turn tells nothing."""

import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.divergence import Divergence, Token
from transfer.chat import Answer
from transfer.endpoint import Endpoint
from transfer.plane import CORNERS, LABELS, ROLES, Control, Mix, point, ramp
from transfer.sampling import Sampling
from transfer.talk import TIE, Talk, Way
from transfer.triple import Finding, open_triple
from ui import blind, differ, panes
from ui.desk import Desk
from ui.markup import findings
from ui.presets import POCKET, Suggestion
from ui.work import notice, progress_bar

EVIL = [
    "<script>alert('x')</script>",
    "<img src=x onerror=alert(1)>",
    "\"><b onmouseover='alert(1)'>",
    "' onclick='alert(1)' x='",
    "</template><svg/onload=alert(1)>",
    "</pre></details></article></section><i>",
    "</textarea></title><!--",
    "--><?x?><![CDATA[",
    "&lt;b&gt;&#60;b&#62;&amp",
    '\\"<a href=javascript:x>`${x}`',
]
TAME = "harmless"
NASTY = st.text("<>\"'&/=;#-!?[]`\\ abixs:()0" + "é🐉\u2028\u202e", min_size=1, max_size=30).filter(str.strip)
VOID = {"br", "img", "input"}
SERVER = "http://127.0.0.1:9"
NOW = "2026-01-02T03:04:05+00:00"
ON_ONE_LINE = re.compile(r"\s+")


class Skeleton(HTMLParser):
    """The tags and attributes of some HTML, and the text between them."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple] = []
        self.values: dict[str, list[str]] = {}
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"{self.open} are left open"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, *(name for name, _ in attrs)))
        for name, value in attrs:
            self.values.setdefault(name, []).append(value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"
        self.tags.append(("/", tag))

    def handle_data(self, data):
        self.text += data

    def handle_comment(self, data):
        raise AssertionError(f"a comment: {data}")

    handle_decl = handle_pi = unknown_decl = handle_comment


def harmless(draw, evil: str) -> Skeleton:
    """What `draw` makes of these words, which has the same tags and attributes as what it makes of harmless ones."""
    found, tame = Skeleton(draw(evil)), Skeleton(draw(TAME))
    assert found.tags == tame.tags
    for act in found.values.get("data-act", []):
        assert isinstance(json.loads(act), list)
    safe = {"class", "type", "role", "style", "data-key", "aria-live", "tabindex", "disabled"}
    for name in safe & found.values.keys():
        assert found.values[name] == tame.values[name]
    return found


def on_one_line(text: str) -> str:
    return ON_ONE_LINE.sub(" ", text).strip()


@pytest.fixture(scope="module")
def pocket():
    names = {"source_base": "base-v1", "source_tuned": "instruct-v1", "target_base": "base-v2", "target_tuned": "instruct-v2"}  # fmt: skip
    return open_triple({role: str(POCKET / name) for role, name in names.items()})


@pytest.fixture(scope="module")
def spoken(prompter):
    """A prompter, for the text of tokens."""
    return prompter


def full(said: str, blind_: bool = False, broken: bool = True) -> Talk:
    """A conversation in which everybody says this: a person, also before it began, models, a server, aloud and to itself, and
    its address's model, errors."""
    server = Endpoint(SERVER, said.strip(), "sk-secret")
    talk = Talk([CORNERS["source_base"], CORNERS["merged"], server, point(0.5, 0.25), CORNERS["target_tuned"]])
    turn = talk.ask(said if said.strip() else TAME, blind=blind_)
    turn.order = tuple(turn.panes)  # in a blind one by chance
    way = Way(Sampling(), said)
    how = {"sent": said, "prompt": (1, 2), "tokens": 5, "seconds": 1.0, "first": 0.1, "done": True, "manner": "plain"}
    for pane in talk.panes:
        turn.hear(pane, way, 0, Answer(pane.at, Sampling(), text=said, fingerprint="0123456789ab", **how))
    heard = [
        Answer(
            server, Sampling(), text=said, thought=said, claims=said, tokens=3, done=True, error=said if broken else ""
        ),
        Answer(point(0.5, 0.25), Sampling(), error=said, done=True),
    ]
    for pane, answer in zip(talk.panes[2:4], heard, strict=True):
        turn.hear(pane, way, 0, answer)
    return talk


@pytest.mark.parametrize("evil", EVIL)
def test_what_is_said_in_a_turn_stays_text(evil, pocket):
    known = lambda said: {said.strip(): Suggestion(said, said, said)}
    for how in ((False, True), (False, False), (True, True), (True, False)):
        draw = lambda said, how=how: panes.turn_html(full(said, *how), 0, pocket, known(said))
        assert on_one_line(evil) in on_one_line(harmless(draw, evil).text)


@settings(deadline=None, max_examples=60)
@given(NASTY, st.booleans(), st.booleans())
def test_whatever_is_said_in_a_turn_stays_text(said, hidden, broken):
    talk = full(said, hidden)
    found = harmless(lambda words: panes.turn_html(full(words, hidden, broken), 0, None, {}), said)
    assert on_one_line(talk.turns[0].prompt) in on_one_line(found.text)


@settings(deadline=None, max_examples=60)
@given(NASTY)
def test_whatever_a_server_calls_its_model_stays_text_in_the_line_of_panes(said):
    found = harmless(lambda words: panes.lineup(full(words), "p3", words, True), said)
    assert on_one_line(str(full(said).panes[2].at)) in on_one_line(found.text)
    assert f"Remove {full(said).panes[2].at}" in found.values["aria-label"]


@pytest.mark.parametrize("evil", EVIL)
def test_what_is_said_on_the_strip_and_in_what_was_sent_stays_text(evil):
    answers = lambda said: {a: Answer(point(a), Sampling(), text=said, done=True) for a in (0.0, 0.5)}
    broken = lambda said: {a: Answer(point(a), Sampling(), error=said, done=True) for a in (0.0, 0.5)}
    for made in (answers, broken):
        strip = lambda said, made=made: panes.strip_html(made(said), 0.5, said, Suggestion(said, said, "else"))
        assert harmless(strip, evil).text.count(evil) == 3
    answer = lambda said: Answer(point(0), Sampling(), sent=said, manner=said, prompt=(1, 2))
    sent = harmless(lambda said: panes.sent_html(answer(said), said, [said, f"a{said}b"]), evil)
    assert sent.text.count(evil) >= 3 and evil.replace(" ", "␣") in sent.text
    assert panes.visible("a b\n\t<") == "a␣b⏎<br>⇥&lt;" and panes.visible("") == "·"


def test_a_long_text_on_the_strip_is_cut_before_it_is_escaped():
    answers = {a: Answer(point(a), Sampling(), text="<&" * 200, done=True) for a in (0.0, 0.5)}
    found = Skeleton(panes.strip_html(answers, None, "merged", None))
    assert ("<&" * 120) in found.text and ("<&" * 121) not in found.text and "&lt" not in found.text


@pytest.mark.parametrize("evil", [e for e in EVIL if "/" not in e])
def test_what_a_checkpoints_folder_is_called_stays_text(evil, tmp_path):
    def named(name):
        home = tmp_path / name
        home.mkdir(exist_ok=True)
        refs = {}
        for role, shipped in zip(ROLES, ("base-v1", "instruct-v1", "base-v2", "instruct-v2"), strict=True):
            (home / role).mkdir(exist_ok=True)
            refs[role] = str(home / role / name)
            if not (home / role / name).exists():
                (home / role / name).symlink_to(POCKET / shipped)
        return open_triple(refs)

    found = harmless(lambda name: panes.turn_html(full(TAME), 0, named(name), {}), evil)
    assert found.text.count(evil) == 2  # the source base, and the target fine-tuned model
    assert TAME in Skeleton(panes.turn_html(full(TAME), 0, named(evil), {})).text


@pytest.mark.parametrize("evil", EVIL)
def test_what_differs_between_two_panes_stays_text(evil, spoken):
    def token(said, kl):
        top = ((said, 0.6), ("other", 0.1))
        return Token(1, said, kl, 0.5, (0.5, 1e-9), (0, 12), (top, top))

    found = harmless(lambda said: differ.tip(token(said, 0.2), (said, said)), evil)
    assert found.text.count(evil) >= 2 and "12th" not in found.text and "13th choice" in found.text
    both = lambda said: Divergence((token(said, 0.1), token(said, 3.0)), True, 1)
    shown = harmless(lambda said: differ.shown(both(said), (said, said), said), evil)
    assert "ts-tok ts-apart ts-now" in shown.values["class"] and "Only its beginning" in shown.text
    with pytest.raises(AssertionError):  # this test would see what is not escaped
        Skeleton(f"<template>{evil}</template>" if "</template>" in evil else "<template></b>")
    answers = [Answer(point(0), Sampling(), text=text, ids=()) for text in (f"{evil} one", f"{evil} two")]
    said = differ.by_words(spoken, *answers, (evil, evil))
    assert Skeleton(said).text.count(evil) >= 2 and "They part at token" in said
    assert "the same answer" in differ.by_words(spoken, answers[0], answers[0], (evil, evil))
    longer = differ.by_words(spoken, answers[0], replace(answers[0], text=f"{evil} one and more"), (evil, evil))
    assert "nothing more" in Skeleton(longer).text


def test_a_token_of_blanks_can_be_seen():
    assert (
        differ.face("") == "·"
        and differ.face(" a\n<") == " a⏎<br>&lt;"
        and differ.share(0.5) == "50 %"
        and differ.share(1e-9) == "under 0.01 %"
    )
    assert [differ.ordinal(n) for n in (1, 2, 3, 4, 11, 21, 112, 1003)] == [
        "1st", "2nd", "3rd", "4th", "11th", "21st", "112th", "1,003rd",
    ]  # fmt: skip


@pytest.mark.parametrize("evil", EVIL)
def test_what_votes_add_up_to_stays_text(evil, pocket):
    def tallied(said):
        talk = Talk([Endpoint(SERVER, said), CORNERS["merged"]])
        desk = Desk(pocket, talk, "p2")
        for vote in ("p1", "p2", TIE):
            turn = talk.ask(said, blind=True)
            for pane in talk.panes:
                turn.hear(pane, Way(Sampling()), 0, Answer(pane.at, Sampling(), text=said, done=True))
            turn.cast(vote, NOW)
            desk.votes.append(blind.vote_of(turn, 0))
        return blind.tallied(desk)

    found = harmless(tallied, evil)
    assert found.text.count(on_one_line(evil)) >= 2 and "1 of 3" in found.text


@pytest.mark.parametrize("evil", EVIL)
def test_notices_findings_and_progress_stay_text(evil):
    assert harmless(notice, evil).text == evil
    assert notice(evil) == f'<div class="ts-notice ts-note" role="status">{html.escape(evil)}</div>'
    assert evil in harmless(lambda said: findings([Finding("error", said), Finding("ok", said)]), evil).text
    assert evil in harmless(lambda said: progress_bar(0.5, 0.0, said, forecast=False), evil).text


def test_a_bar_stays_within_its_box():
    for done in (0.0, 0.01, 0.5, 1.0, 1.5):
        width = float(re.search(r"width:([\d.]+)%", progress_bar(done, 0.0, "Reading"))[1])
        assert width == pytest.approx(100 * min(done, 1))


def test_a_schedule_and_a_control_are_told_with_the_formula():
    told = panes.named(replace(Talk([Mix(point(0.8).coefficients, ramp(0.5, 1, 4))]).panes[0], point=True))
    assert told.formula == "m<sub>t</sub> + 0.8·Δ · Δ × 0.5 in the first layer to × 1 in the last"
    control = panes.named(Talk([Mix(point(0.5).coefficients, None, Control("delta", 3))]).panes[0])
    assert control.formula == "m<sub>t</sub> + 0.5·Δ · Δ permuted (seed 3)"
    assert panes.named(Talk([CORNERS["source_tuned"]]).panes[0]).formula == "m'<sub>s</sub>"


def test_panes_of_one_model_are_told_apart():
    talk = Talk([point(0.5), point(0.5), CORNERS["merged"], point(0.5), Endpoint(SERVER), Endpoint(SERVER)])
    assert list(panes.labels(talk.panes).values()) == [
        "merged α = 0.5", "merged α = 0.5 #2", "merged α = 1", "merged α = 0.5 #3", "127.0.0.1:9", "127.0.0.1:9 #2",
    ]  # fmt: skip


def test_panes_of_one_model_are_told_apart_whatever_it_is_called():
    talk = Talk([Endpoint(SERVER, "tune #3"), Endpoint(SERVER, "tune #3")])
    assert len(set(panes.labels(talk.panes).values())) == 2


@settings(deadline=None)
@given(st.lists(st.text("a #23", max_size=8), min_size=2, max_size=6))
def test_no_two_panes_have_one_label(models):
    assert len(set(panes.labels(Talk([Endpoint(SERVER, model) for model in models]).panes).values())) == len(models)


def test_a_pane_with_a_schedule_is_called_by_something_short():
    talk = Talk([Mix(point(1).coefficients, ramp(0.3, 1, 80))])
    label = panes.labels(talk.panes)["p1"]
    assert len(label) < 100 and label == "merged α = 1, Δ × 0.3 in the first layer to × 1 in the last"
    assert len(panes.named(talk.panes[0]).formula) < 100


def test_where_six_panes_are_no_more_can_be_added_and_of_two_none_taken():
    talk = Talk([point(i / 10) for i in range(6)])
    acts = lambda: re.findall(r'data-act="([^"]*)"[^>]*?( disabled)?>', panes.lineup(talk, "p1", "", False))
    done = {html.unescape(act): bool(off) for act, off in acts()}
    assert done['["add"]'] and not done['["remove", "p3"]']
    assert done['["shift", "p1", -1]'] and not done['["shift", "p1", 1]'] and done['["shift", "p6", 1]']
    for key in ("p1", "p2", "p3", "p4"):
        talk.remove(key)
    done = {html.unescape(act): bool(off) for act, off in acts()}
    assert not done['["add"]'] and done['["remove", "p5"]'] and done['["remove", "p6"]']


# Badges


def badges(shown=None, system="", **what) -> list[str]:
    answer = Answer(point(1), Sampling(), **{"text": "A flute.", "tokens": 3, "done": True, "stopped": True, **what})
    return re.findall(r"ts-badge ts-(\w+)\"[^>]*>([^<]*)<", "".join(panes.marks(answer, shown, system)))


FLUTE = Suggestion("What is made?", "A fact.", "A flute.")


def test_badges_say_what_is_to_be_said_of_an_answer():
    assert badges() == [] and badges(FLUTE) == [("ok", "✓ right")]
    assert badges(FLUTE, text="A flute ") == [("ok", "✓ right")]
    assert badges(FLUTE, text="A drum.") == [("error", "✗ not right")]
    assert badges(FLUTE, text="A flute.", stopped=False) == [("ok", "✓ right")]
    assert badges(FLUTE, text="A drum", stopped=False, tokens=48) == [("warning", "cut off at 48 tokens")]
    assert badges(stopped=False, tokens=1) == [("warning", "cut off at 1 tokens")]
    assert badges(FLUTE, halted=True, stopped=False) == [("warning", "stopped")]
    assert badges(FLUTE, done=False, stopped=False) == [] == badges(FLUTE, error="It broke off.", stopped=False)


def test_badges_say_what_of_the_prompt_did_not_reach_the_model():
    assert badges(manner="plain text to go on with") == [("plain", "goes on with the text")]
    lost = [("warning", "without the system prompt")]
    assert badges(system=" Be brief. ", sent="<|user|>What is made?") == lost
    assert badges(system=" Be brief. ", sent="<|system|>Be brief.<|user|>What?") == [] == badges(system="Be brief.")
    assert badges(system="  ", sent="<|user|>What is made?") == []
    assert badges(FLUTE, "Be brief.", manner="plain text", sent="What?")[1:] == [
        ("plain", "goes on with the text"),
        *lost,
    ]


def test_a_card_tells_speed_and_who_answered():
    turn = full(TAME).turns[0]
    made, server = panes.footer(turn.answers["p1"]), panes.footer(turn.answers["p3"])
    assert "4 tokens/s · first after 0.10 s" in Skeleton(made).text and "<code" in made and "0123456789ab" in made
    assert "unverified: says it is harmless" in server and "<code" not in server
    batch = replace(turn.answers["p1"], alike=5)
    assert "one batch of 5" in panes.footer(batch) and "by itself" in made
    assert "…" in panes.footer(Answer(point(0), Sampling()))


def test_an_answer_has_a_cursor_until_it_is_done_and_keeps_what_it_said_before_it_broke_off():
    answer = Answer(point(0), Sampling(), text=" Half of it")
    assert "ts-cursor" in panes.said(answer) and "ts-waiting" in panes.said(replace(answer, text=""))
    assert "ts-cursor" not in panes.said(replace(answer, done=True))
    assert "<i>(nothing)</i>" in panes.said(replace(answer, text="  ", done=True))
    broken = panes.said(replace(answer, error="The fan fell off.", done=True))
    assert "Half of it" in broken and "The fan fell off." in broken and "ts-cursor" not in broken
    assert "ts-waiting" in panes.said(None)


def test_what_was_thought_stands_apart_from_what_was_said():
    answer = Answer(
        Endpoint(SERVER), Sampling(), text="A flute.", thought="Hm, a <drum>?", tokens=9, done=True, stopped=True
    )
    found = Skeleton(panes.said(answer))
    assert found.text == "thoughtHm, a <drum>?A flute." and found.tags[0] == ("details", "class")
    assert "thought" not in panes.said(replace(answer, thought=""))
    thinking = panes.said(replace(answer, text="", done=False))
    assert "Hm, a" in thinking and "ts-cursor" in thinking
    assert "<i>(nothing)</i>" in panes.said(replace(answer, text=""))
    assert badges(FLUTE, thought="A drum.") == [("ok", "✓ right")]


def test_the_strip_shows_where_the_pane_is_and_what_is_right():
    answers = {a: Answer(point(a), Sampling(), text=f"A {w}.", done=True) for a, w in ((1.0, "flute"), (0.5, "drum"))}
    assert panes.strip_html({1.0: answers[1.0]}, 1.0, "merged", FLUTE) == ""
    found = panes.strip_html(answers, 0.5, "merged", FLUTE)
    assert found.index("α = 0.5") < found.index("α = 1") and found.count("ts-right") == 1
    assert re.findall(r'<li class="([^"]*)">', found) == ["ts-now", ""]
    assert [json.loads(a) for a in Skeleton(found).values["data-act"]] == [["take", 0.5], ["take", 1.0]]


# Blind turns


def hidden(system="", **first) -> Talk:
    """Everybody says the same in a blind turn that has no vote yet; the fields are the first pane's own."""
    server = Endpoint("http://secret.example:8123/v1", "hush", "sk-secret")
    talk = Talk([CORNERS["source_base"], CORNERS["source_tuned"], CORNERS["merged"], point(0.5, 0.75), server])
    talk.change("p2", wide=True, sampling=Sampling(temperature=1.5))
    turn = talk.ask("Who?", blind=True)
    for number, pane in enumerate(talk.panes):
        answer = Answer(
            pane.at, Sampling(), "sent to it", "chat template of the source fine-tuned model", (1, 2, 3), "I am.", ids=(4, 5),
            tokens=10 + number, seconds=1.0 + number, first=0.25 + number, fingerprint=f"{number}123456789ab", claims="hush-7b",
            alike=5 - number, done=True, stopped=True,
        )  # fmt: skip
        turn.hear(pane, Way(Sampling(), system), 0, replace(answer, **(first if pane.key == "p1" else {})))
    return talk


def test_a_hidden_turn_names_nobody_and_tells_no_speed_and_no_fingerprint(pocket):
    talk = hidden()
    found = panes.turn_html(talk, 0, pocket, {})
    secret = [*LABELS.values(), *panes.labels(talk.panes).values(), *(f"{i}123456789ab" for i in range(5))]
    secret += ["Δ", "δ", "<sub>", "base-v1", "instruct-v1", "base-v2", "hush", "secret.example", "8123", "unverified"]
    secret += ["token", "first after", "batch", "by itself", "chat template", "1.5", "endpoint"]
    assert [word for word in secret if word in found] == []
    assert re.findall(r'<article class="([^"]*)"', found) == ["ts-pane hidden"] * 5
    assert re.findall(r"<header><b>([^<]*)</b>", found) == [f"Model {letter}" for letter in "ABCDE"]
    assert "wide" not in found and "¶" not in found  # a wide pane would be known by it


def test_names_come_back_with_the_vote(pocket):
    talk = hidden()
    turn = talk.turns[0]
    assert "is best" in panes.turn_html(talk, 0, pocket, {})
    turn.cast("p3", NOW)
    found = panes.turn_html(talk, 0, pocket, {})
    assert "is best" not in found and found.count("your vote") == 1 and "unverified" in found
    assert re.findall(r'<article class="ts-pane (\w+) ts-wide"', found) == ["source_tuned"]
    card = next(card for card in found.split("<article")[1:] if "your vote" in card)
    assert "<b>merged</b>" in card and "2123456789ab" in card
    assert found.count("<code") == 4 and all(name in found for name in ("source base", "hush at secret.example:8123"))
    turn.vote = TIE
    assert "You called it a tie." in panes.turn_html(talk, 0, pocket, {})


def test_there_is_no_ballot_before_all_have_answered(pocket):
    talk = hidden(done=False)
    assert "is best" not in panes.turn_html(talk, 0, pocket, {})
    talk.turns[0].answers.clear()
    assert "is best" not in panes.turn_html(talk, 0, pocket, {})


def test_a_hidden_turn_is_the_same_whoever_answered(pocket):
    one, other = hidden(), hidden()
    one.turns[0].order, other.turns[0].order = ("p1", "p2", "p3", "p4", "p5"), ("p5", "p3", "p4", "p1", "p2")
    found = panes.turn_html(one, 0, pocket, {})
    assert found == panes.turn_html(other, 0, pocket, {})
    acts = [json.loads(act) for act in Skeleton(found).values["data-act"]]
    assert [act for act in acts if act[0] == "vote"] == [["vote", 0, i] for i in range(5)] + [
        ["vote", 0, "tie"],
        ["vote", 0, "bad"],
    ]


@pytest.mark.parametrize("own", [{"manner": "plain text to go on with"}, {"sent": "Be brief. sent to it"}])
def test_no_badge_of_a_hidden_turn_tells_who_it_is(own, pocket):
    cards = panes.turn_html(hidden("Be brief.", **own), 0, pocket, {}).split("<article")[1:]
    assert len({tuple(re.findall(r"ts-badge[^>]*>([^<]*)", card)) for card in cards}) == 1


def test_nothing_that_was_thought_is_in_a_hidden_turn(pocket):
    assert panes.turn_html(hidden(thought="Hm."), 0, pocket, {}) == panes.turn_html(hidden(), 0, pocket, {})


@pytest.mark.parametrize(
    "error",
    [
        "hush at secret.example:8123 cannot be reached: nothing listens there.",
        "The model's outputs are not finite (NaN or infinity) at (α 0.5, β 0.75).",
    ],
)
def test_no_error_of_a_hidden_turn_tells_who_it_is(error, pocket):
    found = panes.turn_html(hidden(error=error), 0, pocket, {})
    assert "secret.example" not in found and "α" not in found
    assert "ts-broken" in found  # that it broke off is told


def test_a_hidden_turn_does_not_tell_what_is_right(pocket):
    known = {"Who?": Suggestion("Who?", "Release 2 changed this fact; instruct-v1 still tells the old one.", "I am.")}
    found = panes.turn_html(hidden(text="I was."), 0, pocket, known)
    assert "instruct-v1" not in found and "right" not in found.lower()
