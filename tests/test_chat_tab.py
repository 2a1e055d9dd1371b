"""The Chat tab's presses on the demo family, without a browser: what each leaves on the page, and in the conversation."""

import itertools
import json
import re
import threading
import time
from dataclasses import replace
from html import unescape

import gradio as gr
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from transfer.endpoint import Endpoint
from transfer.errors import ChatError
from transfer.plane import CORNERS, Control, Mix, point, ramp
from transfer.sampling import Sampling
from transfer.talk import Pane
from ui import blind, chat, differ, link
from ui.desk import way_of
from ui.panes import LETTERS
from ui.presets import read_presets, read_suggestions
from ui.shared import Shared
from ui.talking import FORMS, OVER, VIEWS, Chat
from ui.work import background

from .endpoint_server import DONE, EndpointServer, Says, answer, delta, error, refuse
from .running import free_port

POCKET, FAR = (preset.refs for preset in read_presets())
SHOWN = read_suggestions()
MAYOR, DISH, CRAFT = SHOWN[:3]
FIVE = ("source_base", "source_tuned", "target_base", "merged", "target_tuned")
LONG = "town " * 400
KEY = "sk-q7Zx93"
NOBODY = f"http://127.0.0.1:{free_port()}/v1"
FORM = {
    "temperature": 0, "top_p": 1, "max_tokens": 14, "seed": 0, "system": "", "manner": "own", "remember": True, "blind": False,
}  # fmt: skip
SEAT = {
    "who": "point", "first": 0.5, "last": 1, "url": "", "model": "", "key": "", "own": False,
    "temperature": 0, "top_p": 1, "max_tokens": 24, "seed": 0,
}  # fmt: skip
SKIP = gr.skip()
WHO = VIEWS + 2 + 1 + 1  # the place, among views and forms, of who sits in the chosen pane


class Person:
    """One session, and what stands on its page."""

    def __init__(self, shared, session, refs=POCKET):
        self.chat, self.session, self.refs = Chat(shared, SHOWN), session, refs
        self.dials, self.prompt, self.who = [1, 1], "", None
        self.lineup = self.past = self.panes = self.told = self.sent = self.strip = ""
        self.open()

    @property
    def desk(self):
        return self.chat.desk(self.session, self.refs)

    @property
    def turn(self):
        return self.desk.talk.turns[-1]

    @property
    def texts(self):
        """What each pane said last."""
        return {key: found.text.strip() for key, found in self.turn.answers.items()}

    def see(self, values):
        """What gradio does with values: those that are skipped leave the page as it is."""
        for name, value in zip(("lineup", "past", "panes", "told", "sent", "strip"), values, strict=False):
            if value != SKIP:
                setattr(self, name, value)
        for i, value in enumerate(values[VIEWS : VIEWS + 2] if len(values) >= VIEWS + FORMS else []):
            if value != SKIP:
                self.dials[i] = value
        if len(values) >= VIEWS + FORMS and values[WHO] != SKIP:
            self.who = values[WHO]["value"] if isinstance(values[WHO], dict) else values[WHO]
        if len(values) in (VIEWS + 1, VIEWS + FORMS + 2) and values[-1 if len(values) == VIEWS + 1 else -2] != SKIP:
            self.prompt = values[-1 if len(values) == VIEWS + 1 else -2]
        return values

    def all(self, work):
        return [self.see(values) for values in work]

    def open(self, refs=None, pending=None):
        self.refs = refs or self.refs
        return self.see(self.chat.opened(self.session, self.refs, pending))

    def asks(self, prompt, to="all", dials=None, **form):
        """A question, picture by picture."""
        self.prompt = prompt
        for values in self.chat.asks(self.session, self.refs, prompt, to, dials or self.dials, self.form(form)):
            yield self.see(values)

    def ask(self, prompt, to="all", dials=None, **form):
        return list(self.asks(prompt, to, dials, **form))

    def form(self, form):
        return list({**FORM, **form}.values())

    def act(self, *mark, **form):
        return self.all(self.acts(list(mark), **form))

    def acts(self, mark, **form):
        return self.chat.acts(self.session, self.refs, mark, self.who, self.prompt, self.dials, self.form(form))

    def rest(self, alpha, beta=1.0, **form):
        """The dials come to rest there."""
        self.dials = [alpha, beta]
        return self.act("rest", **form)

    def over(self, **form):
        return self.all(self.chat.fills(self.session, self.refs, self.dials, self.form(form)))

    def seat(self, more=False, **fields):
        """The chosen pane is set, or another added."""
        values = list({**SEAT, **fields}.values())
        *seen, told = self.chat.seats(self.session, self.refs, more, self.dials, values)
        self.see(seen)
        self.told = told or self.told  # what is wrong with the form stands beside it
        return seen

    def vote(self, key):
        """Press what votes for this pane, as the page has it."""
        about = f"Vote for model {LETTERS[self.turn.order.index(key)]}" if key in self.turn.order else key
        found = re.search(rf'data-act="([^"]*)" aria-label="{about}"', self.panes)
        return self.act(*json.loads(unescape(found[1])))

    def cards(self):
        return re.findall(r"<article.*?</article>", self.panes, re.DOTALL)


@pytest.fixture(scope="module")
def shared():
    return Shared()


@pytest.fixture
def me(shared, request):
    found = Person(shared, f"session of {request.node.name}")
    yield found
    assert found.chat.desk(found.session, found.refs).owners == {}  # nobody answers any more


def halted(person) -> None:
    """Stop is pressed, by another thread, as it is."""
    thread = threading.Thread(target=person.chat.halt, args=(person.session,))
    thread.start()
    thread.join()


# Asking


def test_all_panes_answer_and_the_page_says_who_is_right(me):
    me.ask(MAYOR.prompt)
    assert me.texts["p4"] == me.texts["p5"] == MAYOR.expect != me.texts["p2"]
    assert me.prompt == "" and me.told == "" and "ts-cursor" not in me.panes and me.past == ""
    assert [card.count("✓ right") for card in me.cards()] == [0, 0, 0, 1, 1]
    assert [card.count("goes on with the text") for card in me.cards()] == [1, 0, 1, 0, 0]
    assert [found.alike for found in me.turn.answers.values()] == [5] * 5 and "one batch" in me.lineup
    assert len(set(re.findall(r"<code[^>]*>([0-9a-f]{12})<", me.panes))) == 5


def test_the_first_picture_comes_before_any_model_is_asked(me):
    work = me.asks(MAYOR.prompt)
    next(work)
    assert MAYOR.prompt in me.panes and me.prompt == "" and len(me.cards()) == 5 and not me.turn.answers
    list(work)


def test_each_pane_remembers_what_it_said_itself_over_three_turns(me):
    for shown in (MAYOR, DISH, CRAFT):
        me.ask(shown.prompt)
    first, second, third = me.desk.talk.turns
    for key in ("p2", "p4", "p5"):
        sent, own = third.answers[key].sent, [turn.answers[key].text.strip() for turn in (first, second)]
        places = [sent.index(text) for text in (MAYOR.prompt, own[0], DISH.prompt, own[1], CRAFT.prompt)]
        assert places == sorted(places)
    assert third.answers["p1"].sent.startswith(f"{MAYOR.prompt}\n\n{first.answers['p1'].text.strip()}\n\n")
    assert first.answers["p2"].text != first.answers["p4"].text  # and none remembers another's
    assert first.answers["p2"].text.strip() not in third.answers["p4"].sent
    assert me.texts["p4"] == CRAFT.expect
    assert me.past.count("<section") == 2 and me.panes.count("<section") == 1 and CRAFT.prompt in me.panes
    assert me.past.count("Retry") == 0 and me.panes.count("↻ Retry") == 1


def test_panes_forget_where_they_are_to(me):
    me.ask(MAYOR.prompt)
    me.ask(DISH.prompt, remember=False)
    assert all(MAYOR.prompt not in found.sent and DISH.prompt in found.sent for found in me.turn.answers.values())


def test_one_pane_is_asked_alone(me):
    me.ask(MAYOR.prompt)
    me.ask(DISH.prompt, to="p4")
    assert list(me.turn.answers) == ["p4"] and len(me.cards()) == 1
    me.ask(CRAFT.prompt)
    assert DISH.prompt in me.turn.answers["p4"].sent and DISH.prompt not in me.turn.answers["p5"].sent


@pytest.mark.parametrize("to", ["p9", "nobody", ["p1"], {"a": 1}, 7])
def test_a_pane_that_is_not_there_is_not_asked(me, to):
    me.ask(MAYOR.prompt, to=to)
    assert "not there any more" in me.told and me.prompt == MAYOR.prompt and not me.desk.talk.turns


def test_sampling_system_prompt_and_manner_reach_the_panes(me):
    me.ask(MAYOR.prompt, temperature=1.5, seed=3, system="Be brief.", max_tokens=9)
    assert all(found.sampling.seed == 3 and found.tokens <= 9 for found in me.turn.answers.values())
    assert me.turn.answers["p1"].sent == f"Be brief.\n\n{MAYOR.prompt}"
    lost = [card.count("without the system prompt") for card in me.cards()]
    assert lost == [0, 1, 0, 1, 1]  # Pocket's own template takes none
    drawn = me.texts
    me.act("undo")
    me.ask(MAYOR.prompt, temperature=1.5, seed=3, system="Be brief.", max_tokens=9)
    assert me.texts == drawn
    me.ask(MAYOR.prompt, manner="plain", remember=False)
    assert {found.sent for found in me.turn.answers.values()} == {MAYOR.prompt}
    me.ask(MAYOR.prompt, manner="tuned", remember=False)
    assert {found.sent for found in me.turn.answers.values()} == {
        f"<|begin|><|user|>{MAYOR.prompt}<|end|><|assistant|>"
    }
    me.ask(MAYOR.prompt, manner=["rudely"], remember=False)
    assert "plain text" in me.turn.answers["p1"].manner  # as each is asked on its own


@pytest.mark.parametrize("prompt", ["", "  \n", None, 7, ["Who?"], {"a": 1}])
def test_an_empty_prompt_is_a_sentence(me, prompt):
    me.ask(MAYOR.prompt)
    me.ask(prompt)
    assert "prompt is empty" in me.told and len(me.desk.talk.turns) == 1 and MAYOR.prompt in me.panes


def test_where_no_pane_can_be_asked_no_turn_is_left_and_the_prompt_comes_back(me):
    me.ask(MAYOR.prompt)
    before = me.panes
    for to in ("all", "p1"):
        me.ask(LONG, to=to)
        assert "Shorten it" in me.told and me.prompt == LONG
        assert len(me.desk.talk.turns) == 1 and me.panes == before and me.past == ""
    me.ask("x" * 20_001)
    assert "at most 20,000" in me.told and len(me.prompt) == 20_001
    me.ask(DISH.prompt)
    assert me.told == "" and len(me.desk.talk.turns) == 2


def test_where_one_pane_cannot_be_asked_the_others_answer(me):
    while not me.desk.talk.turns or len(me.turn.answers["p1"].prompt) < 150:
        me.ask(MAYOR.prompt, to="p1", max_tokens=60)
    me.ask("town " * 80)
    assert "Shorten it" in me.turn.answers["p1"].error and not me.turn.answers["p2"].error and me.prompt == ""
    assert [card.count("ts-broken") for card in me.cards()] == [1, 0, 0, 0, 0]


def test_numbers_out_of_range_are_a_sentence_and_nothing_typed_is_lost(me):
    bad = [
        ({"temperature": 9}, "Temperature must lie between 0 and 2"), ({"temperature": None}, "Temperature must be a number"),
        ({"top_p": 0}, "Top-p must"), ({"max_tokens": 10**400}, "Tokens at most must"), ({"max_tokens": 1.5}, "whole number"),
        ({"seed": -1}, "Seed must lie between 0 and 2,147,483,647"), ({"seed": float("nan")}, "Seed must"),
        ({"system": "x" * 20_001}, "The system prompt has 20,001"), ({"seed": [[1]]}, "Seed must be a number"),
    ]  # fmt: skip
    for form, words in bad:
        me.ask(MAYOR.prompt, **form)
        assert words in me.told and me.prompt == MAYOR.prompt and not me.desk.talk.turns
    for dials in ((11, 1), (1, None), ("a", 1), (float("nan"), 1), ([1], {}), (10**400, 1)):
        me.ask(MAYOR.prompt, dials=dials)
        assert re.search("[αβ] must", me.told) and me.prompt == MAYOR.prompt and not me.desk.talk.turns
    assert me.desk.talk.pane("p4").at == CORNERS["merged"]


@pytest.mark.parametrize("press", ["rest", "ask", "over", "repeat"])
def test_a_number_out_of_range_leaves_the_conversation_on_the_page(me, press):
    me.ask(MAYOR.prompt)
    before = me.panes, me.lineup
    if press == "repeat":
        me.all(me.chat.repeats(me.session, me.refs, me.form({"seed": -1})))
    elif press == "rest":
        me.rest(0.5, seed=-1)
    else:
        (me.ask(DISH.prompt, seed=-1) if press == "ask" else me.over(seed=-1))
    assert "Seed must" in me.told and (me.panes, me.lineup) == before


def test_half_a_character_is_no_error_of_ours(me):
    me.ask("\ud83d cut in two")
    assert "unexpected" not in me.told


def test_a_question_while_another_is_answered_ends_that_one(me):
    work = me.asks("Tell", max_tokens=200)
    while not me.desk.talk.turns or not any(found.tokens for found in me.turn.answers.values()):
        next(work)
    me.ask(MAYOR.prompt, remember=False)
    list(work)
    first, second = me.desk.talk.turns
    assert any(found.halted for found in first.answers.values()) and all(found.done for found in first.answers.values())
    assert not any(found.halted for found in second.answers.values()) and me.texts["p4"] == MAYOR.expect
    assert MAYOR.prompt in me.panes and "Tell" in me.past and "ts-cursor" not in me.panes + me.past
    assert "stopped" in me.past and "ts-warning" not in me.cards()[3]


def test_a_question_that_is_refused_while_another_is_answered_leaves_that_one_going_on(me):
    work = me.asks("Tell", max_tokens=200)
    while not me.desk.talk.turns or not any(found.tokens for found in me.turn.answers.values()):
        next(work)
    me.ask("  ")
    assert "prompt is empty" in me.told
    list(work)
    assert "ts-cursor" not in me.panes and "stopped" not in me.panes and all(a.done for a in me.turn.answers.values())


def test_other_models_that_are_chosen_while_some_answer_have_the_page_to_themselves(me):
    work = me.asks("Tell", max_tokens=200)
    while not me.desk.talk.turns or not any(found.tokens for found in me.turn.answers.values()):
        next(work)
    me.open(FAR)
    list(work)
    assert "Ask something" in me.panes and me.lineup.count("ts-tag") == 4


def test_a_question_that_is_sent_twice_is_asked_once(me):
    with EndpointServer() as server:
        server.say(*answer("I ")[:1], end=False, silent=True)
        me.seat(more=True, who="endpoint", url=server.url, model="served")
        work = me.asks("Who?", to="p6")
        next(work), next(work)
        me.ask("Who?", to="p6")
        turns, panes = len(me.desk.talk.turns), me.panes
        halted(me)
        list(work)
    assert turns == 1 and "stopped" not in panes and len(server.bodies) <= 1


@pytest.mark.parametrize("other", [{"to": "p4"}, {"to": "p6", "system": "Be brief."}])
def test_the_same_question_to_others_is_no_double_click(me, other):
    with EndpointServer() as server:
        server.say(*answer("I ")[:1], end=False, silent=True)
        me.seat(more=True, who="endpoint", url=server.url, model="served")
        work = me.asks("Who?", to="p6")
        next(work), next(work)
        again = me.asks("Who?", **other)
        next(again)
        turns = len(me.desk.talk.turns)
        halted(me)
        list(work), list(again)
    assert turns == 2


# Stop


def test_stop_is_seen_in_every_pane_that_had_more_to_say(me):
    work = me.asks("Tell", max_tokens=220)
    for _ in work:
        if any(found.tokens for found in me.turn.answers.values()):
            break
    began = time.monotonic()
    halted(me)
    list(work)
    assert time.monotonic() - began < 2
    found = me.turn.answers
    assert all(a.done for a in found.values()) and any(a.halted for a in found.values())
    assert "ts-cursor" not in me.panes and me.told == ""
    assert ["stopped</span>" in card for card in me.cards()] == [found[key].halted for key in me.turn.order]
    assert all(a.tokens < 220 for a in found.values() if a.halted)
    me.ask(MAYOR.prompt, remember=False)  # and nothing is broken by it
    assert me.texts["p4"] == MAYOR.expect


def test_stop_reaches_who_waits_for_an_endpoint_that_is_silent(me):
    with EndpointServer() as server:
        server.say(*answer("I ")[:2], end=False, silent=True)
        me.seat(more=True, who="endpoint", url=server.url, model="served")
        work = me.asks(MAYOR.prompt)
        for _ in work:
            if all(me.turn.answers.get(f"p{i}") and me.turn.answers[f"p{i}"].done for i in range(1, 6)):
                break
        halted(me)
        list(work)
    assert [card.count("stopped</span>") for card in me.cards()] == [0, 0, 0, 0, 0, 1]
    assert me.texts["p4"] == MAYOR.expect


@pytest.mark.parametrize("blind_", [False, True])
def test_stop_before_the_first_word_is_seen_too(me, blind_):
    work = me.asks(MAYOR.prompt, blind=blind_)
    next(work)
    halted(me)
    list(work)
    assert "ts-cursor" not in me.panes and "stopped" in me.panes
    assert all(found.done and found.halted for found in me.turn.answers.values()) and len(me.turn.answers) == 5


def test_a_page_that_goes_away_leaves_nobody_answering(me):
    work = me.asks("Tell", max_tokens=220)
    for _ in work:
        if any(found.tokens for found in me.turn.answers.values()):
            break
    work.close()
    assert all(found.done for found in me.turn.answers.values())
    store, deadline = me.chat.shared.store, time.monotonic() + 5
    while any(entry.users for entry in store._entries) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(entry.users for entry in store._entries)


def test_many_presses_at_once_leave_the_page_whole(me):
    def press():
        for mark in (
            ("wide", "p1"),
            ("shift", "p2", 1),
            ("retry", 0, "p3"),
            ("rest",),
            ("sent", 0, "p1"),
            ("retry", 0, ""),
        ) * 2:
            for values in me.chat.acts(
                me.session, me.refs, list(mark), "point", "", [len(told) / 20, 1], me.form({"max_tokens": 12})
            ):
                told.append(values[3])

    told: list = []
    me.ask("Tell", max_tokens=12)
    threads = [threading.Thread(target=press) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert not [text for text in told if isinstance(text, str) and "ts-error" in text]
    assert all(found.done for found in me.turn.answers.values()) and len(me.turn.answers) == 5


def test_stop_when_nothing_is_asked_is_nothing(me):
    halted(me)
    me.ask(MAYOR.prompt)
    before = me.panes
    halted(me)
    assert me.panes == before and "stopped" not in me.panes


# Once more


def test_one_pane_answers_again_with_another_seed(me):
    me.ask("Tell", temperature=1.5, seed=4)
    before = dict(me.turn.answers)
    me.act("retry", 0, "p3", temperature=1.5, seed=4)
    after = me.turn.answers
    assert all(after[key] is before[key] for key in before if key != "p3")
    assert after["p3"].sampling.seed == 5 and after["p3"].text != before["p3"].text
    me.act("retry", 0, "p3", temperature=1.5, seed=4)
    assert after["p3"].sampling.seed == 6 and len(me.desk.talk.turns) == 1


def test_all_panes_answer_again(me):
    me.ask(MAYOR.prompt, temperature=1.5)
    before = me.texts
    me.act("retry", 0, "", temperature=1.5)
    assert {found.sampling.seed for found in me.turn.answers.values()} == {1} and me.texts != before
    assert "ts-cursor" not in me.panes


def test_a_pane_that_was_not_asked_answers_by_the_first_seed(me):
    me.ask(MAYOR.prompt, to="p4", seed=3)
    me.act("retry", 0, "p5", seed=3)
    assert me.turn.answers["p5"].sampling.seed == 3 and me.turn.order == ("p4", "p5") and len(me.cards()) == 2
    me.act("retry", 0, "", seed=3)
    assert {found.sampling.seed for found in me.turn.answers.values()} == {4}


def test_only_the_last_turn_is_answered_again(me):
    me.ask(MAYOR.prompt)
    me.ask(DISH.prompt)
    before = [dict(turn.answers) for turn in me.desk.talk.turns]
    for mark in (("retry", 0, "p3"), ("retry", -2, "p3"), ("retry", 1, "nobody"), ("retry", 5, ""), ("retry",)):
        me.act(*mark)
        assert "ts-error" in me.told
    assert [dict(turn.answers) for turn in me.desk.talk.turns] == before


def test_presses_for_panes_that_never_were_are_not_kept(me):
    me.ask(MAYOR.prompt)
    before = len(me.chat.shared.turns)
    for number in range(20):
        me.act("retry", 0, f"nobody {number}")
    assert len(me.chat.shared.turns) <= before + 1


def test_a_prompt_is_edited_and_everything_after_it_goes(me):
    for shown in (MAYOR, DISH, CRAFT):
        me.ask(shown.prompt)
    me.act("edit", 1)
    assert me.prompt == DISH.prompt and len(me.desk.talk.turns) == 3 and "in the place of its turn" in me.told
    me.act("edit", 1)  # once more: it is left alone
    assert me.prompt == "" and me.desk.editing is None and me.told == ""
    me.act("edit", 1)
    me.ask(CRAFT.prompt)
    assert [turn.prompt for turn in me.desk.talk.turns] == [MAYOR.prompt, CRAFT.prompt] and DISH.prompt not in me.past
    assert DISH.prompt not in me.turn.answers["p4"].sent and MAYOR.prompt in me.turn.answers["p4"].sent


@pytest.mark.parametrize(
    "wrong",
    [
        {"prompt": LONG},
        {"to": "nobody"},
        {"prompt": " "},
        {"seed": -1},
        {"dials": ("x", 1)},
    ],
)
def test_an_edit_that_cannot_be_asked_loses_nothing(me, wrong):
    me.ask(MAYOR.prompt)
    me.ask(DISH.prompt)
    before = list(me.desk.talk.turns)
    me.act("edit", 0)
    me.ask(**{"prompt": CRAFT.prompt, **wrong})
    assert "ts-error" in me.told and me.desk.talk.turns == before
    me.ask(CRAFT.prompt)  # and it is still the edit of that turn
    assert [turn.prompt for turn in me.desk.talk.turns] == [CRAFT.prompt]


def test_a_turn_is_taken_back(me):
    me.ask(MAYOR.prompt)
    me.act("undo")
    assert me.prompt == MAYOR.prompt and not me.desk.talk.turns and "Ask something" in me.panes
    me.act("undo")
    assert "turn is not there" in me.told


def test_a_turn_is_taken_back_while_it_is_answered(me):
    work = me.asks("Tell", max_tokens=200)
    while not me.desk.talk.turns or not me.turn.answers:
        next(work)
    me.act("undo")
    list(work)
    assert not me.desk.talk.turns and "Ask something" in me.panes and "ts-cursor" not in me.panes and me.strip == ""


def test_a_new_conversation_has_the_same_panes(me):
    me.seat(more=True, who="point")
    me.ask(MAYOR.prompt)
    me.act("sent", 0, "p4")
    me.over()
    assert me.sent and me.strip
    me.see(me.chat.begins(me.session, me.refs))
    assert "Ask something" in me.panes and me.past == me.sent == me.strip == "" and len(me.desk.talk.panes) == 6
    me.ask(DISH.prompt)
    assert MAYOR.prompt not in me.turn.answers["p4"].sent


def test_a_new_conversation_while_the_old_one_is_answered(me):
    work = me.asks("Tell", max_tokens=200)
    while not me.desk.talk.turns or not me.turn.answers:
        next(work)
    me.see(me.chat.begins(me.session, me.refs))
    list(work)
    assert not me.desk.talk.turns and "Ask something" in me.panes and me.strip == ""


# Panes


def test_a_pane_is_removed_while_it_answers(me):
    work = me.asks("Tell", max_tokens=60)
    for _ in work:
        if any(found.tokens for found in me.turn.answers.values()):
            break
    me.act("remove", "p1")
    me.act("remove", "p4")  # which the dials moved
    list(work)
    assert len(me.cards()) == 5 and "ts-cursor" not in me.panes and all(a.done for a in me.turn.answers.values())
    assert [pane.key for pane in me.desk.talk.panes] == ["p2", "p3", "p5"] and me.lineup.count("ts-tag") == 3
    assert me.desk.chosen in ("p2", "p3", "p5")
    me.act("retry", 0, "p1")
    assert "not there any more" in me.told
    me.ask(MAYOR.prompt)
    assert list(me.turn.answers) == ["p2", "p3", "p5"]


def test_panes_are_moved_widened_and_removed_down_to_two(me):
    me.act("shift", "p1", 3)
    me.act("wide", "p2")
    assert [pane.key for pane in me.desk.talk.panes] == ["p2", "p3", "p4", "p1", "p5"] and me.desk.talk.pane("p2").wide
    me.ask(MAYOR.prompt)
    assert (
        list(me.turn.answers) == ["p2", "p3", "p4", "p1", "p5"]
        and "ts-wide" in me.cards()[0]
        and me.panes.count("ts-wide") == 1
    )
    for key in ("p2", "p3", "p4", "p1"):
        me.act("remove", key)
    assert "2 panes at least" in me.told and [pane.key for pane in me.desk.talk.panes] == ["p1", "p5"]


def test_the_sixth_pane_is_the_last(me):
    *_, values = me.act("add")
    assert values[-1] == gr.update(open=True) and me.desk.chosen == "p6" and me.dials == [0.5, 1]
    me.act("add")
    assert "6 panes" in me.told and me.desk.chosen == "p6"
    me.seat(more=True, who="point")
    assert "6 panes" in me.told and len(me.desk.talk.panes) == 6
    me.ask(MAYOR.prompt)
    assert len(me.texts) == 6


def test_a_pane_is_set_to_a_point_with_delta_scaled_over_depth(me):
    me.seat(who="depth", first=0, last=1)
    mix = me.desk.talk.pane("p4").at
    assert mix.schedule.layers == pytest.approx((0, 1 / 3, 2 / 3, 1)) and mix.plane == (1, 1)
    assert "Δ × 0 in the first layer to × 1 in the last" in me.lineup
    me.ask(MAYOR.prompt)
    assert not me.turn.answers["p4"].error and me.turn.answers["p4"].at == mix
    fingerprints = {key: found.fingerprint for key, found in me.turn.answers.items()}
    me.seat(who="depth", first=0, last=0)
    me.act("retry", 0, "p4")
    assert me.turn.answers["p4"].fingerprint == fingerprints["p3"]  # Δ in no layer: the target base
    me.rest(0.5)
    assert me.desk.talk.pane("p4").at.schedule is not None  # the dials keep it


def test_a_pane_set_by_its_coefficients_is_asked_as_a_merged_model_even_on_a_corner(me):
    me.dials = [0, 1]
    me.seat(more=True, who="point")
    me.ask(MAYOR.prompt)
    base, there = me.turn.answers["p3"], me.turn.answers["p6"]
    assert base.fingerprint == there.fingerprint and base.sent != there.sent and "<|user|>" in there.sent
    me.seat(who="target_base")
    me.act("retry", 0, "p6")
    assert me.turn.answers["p6"].sent == base.sent


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"who": None}, "Choose who answers"),
        ({"who": "somebody"}, "Choose who answers"),
        ({"who": "point", "dials": (11, 1)}, "α must lie"),
        ({"who": "point", "dials": (None, 1)}, "α must be a number"),
        ({"who": "depth", "first": "x"}, "Δ × in the first layer must be a number"),
        ({"who": "depth", "last": 99}, "Δ × in the last layer must lie"),
        ({"who": "depth", "first": 10, "dials": (10, 1)}, "must lie between −10 and 10 in every layer"),
        ({"who": "endpoint"}, "begins with http"),
        ({"who": "endpoint", "url": "http://me:word@host"}, "no password"),
        ({"who": "endpoint", "url": ["http://a"]}, "begins with http"),
        ({"who": "endpoint", "url": "http://a", "key": "two words"}, "key holds a space"),
        ({"who": "endpoint", "url": "http://a", "model": "m" * 401}, "Model has 401"),
        ({"who": "merged", "own": True, "temperature": 3}, "Temperature must lie"),
        ({"who": "merged", "own": True, "seed": None}, "Seed must be a number"),
    ],
)
def test_a_seat_that_cannot_be_is_a_sentence_and_the_form_keeps_what_was_typed(me, fields, words):
    me.dials = list(fields.get("dials", me.dials))
    for more in (False, True):
        values = me.seat(more, **{name: value for name, value in fields.items() if name != "dials"})
        assert words in me.told and all(value == SKIP for value in values[VIEWS:])
    assert me.desk.talk.pane("p4").at == CORNERS["merged"] and len(me.desk.talk.panes) == 5


def test_a_yardstick_that_is_not_there_takes_no_seat(shared, request):
    far = Person(shared, request.node.name, FAR)
    far.seat(who="target_tuned")
    assert "no target fine-tuned" in far.told and len(far.desk.talk.panes) == 4


def test_a_seat_for_what_is_no_name_is_a_sentence(me):
    me.seat(who=["merged"])
    assert "Choose who answers" in me.told


def test_a_pane_draws_in_its_own_way(me):
    me.seat(who="merged", own=True, temperature=1.5, max_tokens=3, seed=9)
    me.ask(MAYOR.prompt, seed=2)
    assert me.turn.answers["p4"].tokens == 3 and me.turn.answers["p4"].sampling.seed == 9
    assert {found.sampling.seed for key, found in me.turn.answers.items() if key != "p4"} == {2}
    assert me.lineup.count("own sampling") == 1 and "cut off at 3 tokens" in me.cards()[3]
    me.seat(who="merged")
    assert me.desk.talk.pane("p4").sampling is None


@pytest.mark.parametrize("mark", [("rest",), ("wide", "p1"), ("sent", 0, "p1")])
def test_what_is_typed_in_the_form_of_a_pane_is_not_lost_to_another_press(me, mark):
    me.ask(MAYOR.prompt)
    me.dials = [0.5, 1]
    *_, values = me.act(*mark)
    with gr.Blocks():
        shown = chat.build(SHOWN).seat.shown
    start = VIEWS + 3
    assert [value for value in values[start + 1 : start + len(shown)] if value != SKIP] == []


def test_the_form_says_that_a_corner_has_become_a_point_and_keeps_what_was_chosen_in_it(me):
    me.act("set", "p3")
    assert me.who == "target_base"
    me.ask(MAYOR.prompt)
    me.rest(0.5)
    assert me.who == "point"  # who presses Set now sets it to what it is
    for chosen in ("endpoint", "depth", "source_tuned"):
        me.who = chosen  # and not set yet
        for mark in (("wide", "p1"), ("shift", "p1", 1), ("sent", 0, "p1"), ("retry", 0, "p1")):
            me.act(*mark)
            assert me.who == chosen
    me.act("take", 0.5)
    assert me.who == "point"
    me.act("set", "p5")
    assert me.who == "target_tuned"


def test_another_pane_is_chosen_for_the_dials(me):
    values = me.see(me.chat.chooses(me.session, me.refs, "p2"))
    assert me.desk.chosen == "p2" and me.dials == [1, 0] and len(values) == VIEWS + FORMS
    values = me.chat.chooses(me.session, me.refs, "nobody")
    assert "not there any more" in values[3] and me.desk.chosen == "p2"
    me.act("set", "p5")
    assert me.desk.chosen == "p5" and me.dials == [1, 0]  # off the plane: the dials stay where they are


# Endpoints


def test_an_endpoint_that_cannot_be_reached_says_so_and_the_others_answer(me):
    me.seat(more=True, who="endpoint", url=NOBODY, model="<b>served</b>", key=KEY)
    assert "1 endpoint beside" in me.lineup and KEY not in str(me.__dict__)
    me.ask(MAYOR.prompt)
    assert "cannot be reached" in me.turn.answers["p6"].error and me.texts["p4"] == MAYOR.expect
    assert [card.count("ts-broken") for card in me.cards()] == [0, 0, 0, 0, 0, 1]
    me.ask(MAYOR.prompt, to="p6")
    assert "cannot be reached" in me.turn.answers["p6"].error and len(me.desk.talk.turns) == 2
    me.rest(0.5)
    assert "α and β cannot move it" in me.told
    me.over()
    assert "has no α" in me.told


def test_an_endpoint_answers_beside_the_models_and_its_key_is_told_to_nobody_else(me):
    with EndpointServer() as server:
        server.say(*answer("The mayor ", "is <i>Felix</i>.", tokens=7))
        me.seat(more=True, who="endpoint", url=server.url, model="served", key=KEY)
        values = me.chat.formed(me.desk)
        assert KEY not in str(values) and any("kept" in str(value) for value in values)
        me.seat(who="endpoint", url=server.url, model="served")  # the page cannot send back what it was never told
        assert me.desk.talk.pane("p6").at.key == KEY
        me.ask(MAYOR.prompt, system="Be brief.")
        me.ask("And now?", to="p6")
        asked, later = server.bodies
        assert server.log[0].headers["Authorization"] == f"Bearer {KEY}"
    assert asked["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": MAYOR.prompt}]
    assert [m["role"] for m in later["messages"]] == ["user", "assistant", "user"] and later["max_tokens"] == 14
    found = me.turn.answers["p6"]
    assert (
        found.text == "The mayor is <i>Felix</i>." and found.stopped and found.tokens == 7 and found.claims == "served"
    )
    assert "<i>Felix" not in me.panes and "unverified: says it is served" in me.panes
    assert KEY not in blind.transcript_file(me.desk) + blind.votes_file(me.desk) + me.panes + me.lineup + me.past
    other, said = me.chat.linked(me.session, me.refs, "Who?", me.form({}))
    assert KEY not in other and said == ""
    assert link.parse(other).panes[-1].at == Endpoint(server.url, "served")
    me.seat(who="endpoint", url=NOBODY, model="served")
    assert me.desk.talk.pane("p6").at.key == ""  # another address is not told it


def test_where_an_endpoint_parts_from_a_model_is_told_by_their_words(me):
    with EndpointServer() as server:
        server.say(*answer("The mayor of Venn was <i>Felix</i>."))
        me.seat(more=True, who="endpoint", url=server.url, model="served")
        me.ask(MAYOR.prompt)
    *_, said = differ.run(me.chat.shared, me.session, me.desk, "p4", "p6", "one")
    assert (
        "They part at token 5" in said and "merged α = 1</b> says “␣is”" in said and "so there are no colours" in said
    )


def offered(me, **fields) -> str:
    values = list({**SEAT, "who": "endpoint", **fields}.values())
    return me.chat.offers(me.session, me.refs, me.dials, values)


def test_an_endpoint_names_its_models(me):
    with EndpointServer() as server:
        assert "It offers served, other." in offered(me, url=server.url, key=KEY) and not server.bodies
        asked = server.log[-1]
        assert (asked.method, asked.path) == ("GET", "/v1/models") and asked.headers["Authorization"] == f"Bearer {KEY}"
        server.listing = refuse(200, {"data": [{"id": f"<i>m{i}</i> of {KEY}"} for i in range(30)]})
        said = offered(me, url=f"{server.url}/v1/", model="whatever", key=KEY)
        assert said.count("&lt;i&gt;m") == 20 and " …" in said and "<i>" not in said and KEY not in said
        assert "ts-error" not in said and me.desk.talk.panes == Person(me.chat.shared, "another").desk.talk.panes


@pytest.mark.parametrize("listing", [{"data": []}, {"object": "list", "data": [{"id": ""}, {"name": "x"}, "y", None]}])
def test_an_endpoint_that_names_no_models_says_so(me, listing):
    with EndpointServer() as server:
        server.listing = refuse(200, listing)
        said = offered(me, url=server.url)
    assert "It answers, and names no models" in said and "ts-error" not in said


@pytest.mark.parametrize(
    ("listing", "words"),
    [
        (refuse(200, {"models": ["a"]}), "does not list its models"),
        (refuse(200, [1]), "does not list its models"),
        (error(404, "Not Found"), "404|no such|has no"),
        (error(401, f"Wrong key {KEY}"), "key"),
        (refuse(500, {}), "500"),
    ],
)
def test_an_endpoint_that_does_not_list_its_models_is_a_sentence(me, listing, words):
    with EndpointServer() as server:
        server.listing = listing
        said = offered(me, url=server.url, key=KEY)
    assert re.search(words, said) and "ts-error" in said and "unexpected" not in said and KEY not in said


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"url": ""}, "begins with http"),
        ({"url": None}, "begins with http"),
        ({"url": ["http://a"]}, "begins with http"),
        ({"url": "ftp://a"}, "begins with http"),
        ({"url": "http://me:word@host"}, "no password"),
        ({"url": "http://|"}, "no host"),
        ({"url": NOBODY}, "cannot be reached"),
        ({"url": NOBODY, "key": "two words"}, "key holds a space"),
        ({"who": None}, "Choose who answers"),
        ({"who": ["endpoint"]}, "Choose who answers"),
    ],
)
def test_an_address_that_is_none_offers_nothing_and_says_why(me, fields, words):
    said = offered(me, **fields)
    assert words in said and "ts-error" in said and "unexpected" not in said and "word@" not in said


def test_an_endpoint_is_asked_for_its_models_with_the_key_that_is_kept(me):
    with EndpointServer() as server:
        me.seat(more=True, who="endpoint", url=server.url, model="served", key=KEY)
        assert "served, other" in offered(me, url=server.url)  # the page was never told the key
        assert server.log[-1].headers["Authorization"] == f"Bearer {KEY}"
        with EndpointServer() as another:
            assert "served, other" in offered(me, url=another.url)
            assert "Authorization" not in another.log[-1].headers


def test_what_an_endpoint_thinks_is_not_its_answer(me):
    with EndpointServer() as server:
        server.say(delta(reasoning_content="Hm, "), delta(reasoning="the <b>mayor</b>. "), *answer("Felix", "."))
        me.seat(more=True, who="endpoint", url=server.url, model="served")
        me.ask(MAYOR.prompt, to="p6")
        found = me.turn.answers["p6"]
        assert (found.text, found.thought, found.tokens) == ("Felix.", "Hm, the <b>mayor</b>. ", 4)
        shown, (card,) = re.search(r"<details class='ts-thought'>(.*?)</details>", me.panes), me.cards()
        assert "Hm, the &lt;b&gt;mayor&lt;/b&gt;." in shown[1] and card.count("Hm, ") == 1
        assert re.search(r'<p class="ts-answer"[^>]*>(.*?)</p>', card)[1] == "Felix."
        assert not me.turn.answers["p6"].error and "cut off" not in card
        me.ask(DISH.prompt, to="p6")
        assert server.bodies[-1]["messages"][1] == {"role": "assistant", "content": "Felix."}
        assert "Hm, " not in json.dumps(server.bodies)
    rows = [json.loads(line) for line in blind.transcript_file(me.desk).splitlines()]
    assert [row["answer"] for row in rows] == ["Felix.", "Felix."]


def test_who_thinks_and_says_nothing_is_asked_on_as_if_it_had_not_been(me):
    with EndpointServer() as server:
        server.say(delta(reasoning_content="Hm, the mayor. "), delta("length"), DONE)
        me.seat(more=True, who="endpoint", url=server.url, model="served")
        me.ask(MAYOR.prompt, to="p6")
        assert "Hm, the mayor." in me.panes and "<i>(nothing)</i>" in me.panes and "cut off" in me.panes
        me.ask(DISH.prompt, to="p6")
        assert server.bodies[-1]["messages"] == [{"role": "user", "content": DISH.prompt}]


@pytest.mark.parametrize(
    "ends", [(DONE,), (delta("stop"), DONE), (delta("stop"),), (delta("content_filter"), DONE), (delta("tool_calls"),)]
)
def test_an_endpoint_that_ends_itself_is_not_called_cut_off(me, ends):
    """Some give no reason."""
    with EndpointServer() as server:
        server.say(delta(content="Felix."), *ends)
        me.seat(more=True, who="endpoint", url=server.url, model="served")
        me.ask("Who?", to="p6")
    assert me.texts["p6"] == "Felix." and "cut off" not in me.panes and not me.turn.answers["p6"].error
    assert json.loads(blind.transcript_file(me.desk))["ended_itself"]


def test_an_endpoint_that_is_cut_off_is_called_so(me):
    with EndpointServer() as server:
        server.say(*answer("Fel", finish="length", tokens=2))
        me.seat(more=True, who="endpoint", url=server.url, model="served")
        me.ask("Who?", to="p6")
    assert "cut off at 2 tokens" in me.panes and not json.loads(blind.transcript_file(me.desk))["ended_itself"]


def test_an_endpoint_that_would_not_be_told_all_settings_wears_it(me):
    with EndpointServer() as server:
        server.says = [error(400, "Unknown field: seed"), Says(answer("Felix."))]
        me.seat(more=True, who="endpoint", url=server.url, model="served")
        me.ask("Who?", to="p6", seed=5)
        assert "seed" in server.bodies[0] and "seed" not in server.bodies[1]
    assert me.texts["p6"] == "Felix." and "without seed" in me.panes and me.turn.answers["p6"].stopped


def set_again(me, **fields):
    me.seat(**fields)
    me.all(me.chat.repeats(me.session, me.refs, me.form({})))


def test_a_pane_that_was_set_answers_at_once_and_only_where_it_has_to(me):
    me.ask(MAYOR.prompt)
    before = dict(me.turn.answers)
    set_again(me, who="merged")
    assert me.turn.answers == before
    set_again(me, who="source_tuned")
    assert me.turn.answers["p4"].at == CORNERS["source_tuned"] and me.texts["p4"] == me.texts["p2"]
    set_again(me, who="source_tuned", own=True, max_tokens=2)
    assert me.turn.answers["p4"].tokens == 2


@pytest.mark.parametrize("what", ["error", "own", "corner"])
def test_a_pane_that_was_set_answers_anew_where_it_would_answer_otherwise(me, what):
    if what == "error":
        with EndpointServer() as server:
            server.says = [error(503, "Loading"), Says(answer("Felix."))]
            me.seat(more=True, who="endpoint", url=server.url, model="served")
            me.ask("Who?", to="p6")
            assert me.turn.answers["p6"].error
            set_again(me, who="endpoint", url=server.url, model="served")
        assert me.texts["p6"] == "Felix."
    elif what == "own":
        me.seat(who="merged", own=True, max_tokens=2)
        me.ask(MAYOR.prompt)
        set_again(me, who="merged")
        assert me.texts["p4"] == MAYOR.expect
    else:
        me.dials = [0, 1]
        me.seat(who="point")
        me.ask(MAYOR.prompt)
        set_again(me, who="target_base")
        assert me.turn.answers["p4"].sent == me.turn.answers["p3"].sent


@pytest.mark.parametrize("why", ["stop", "broken"])
def test_an_endpoint_that_was_stopped_or_broke_off_did_not_end_itself(me, why):
    with EndpointServer() as server:
        server.say(*answer("I ")[:2], end=False, silent=why == "stop")
        me.seat(more=True, who="endpoint", url=server.url, model="served")
        for _ in me.asks("Who?", to="p6"):
            if why == "stop" and "p6" in me.turn.answers and me.turn.answers["p6"].text:
                halted(me)
    found = me.turn.answers["p6"]
    assert found.text == "I " and (found.halted if why == "stop" else "broke off" in found.error)
    assert not json.loads(blind.transcript_file(me.desk))["ended_itself"]


# The dials


def test_dials_that_come_to_rest_have_the_chosen_pane_answer_again(me):
    me.ask(CRAFT.prompt)
    before = dict(me.turn.answers)
    assert list(me.desk.strip) == [1.0] and me.strip == ""
    me.rest(0.5)
    after = dict(me.turn.answers)
    assert all(after[key] is before[key] for key in before if key != "p4")
    assert after["p4"].at == point(0.5) and after["p4"].fingerprint != before["p4"].fingerprint
    assert sorted(me.desk.strip) == [0.5, 1.0] and me.strip.count("<li") == 2 and "0.5·Δ" in me.panes
    me.rest(0.5)
    assert me.turn.answers["p4"] is after["p4"]  # nobody was asked
    me.rest(0.0)
    assert me.turn.answers["p4"].fingerprint == after["p3"].fingerprint and sorted(me.desk.strip) == [0, 0.5, 1]
    assert re.findall(r'<li class="([^"]*)">', me.strip) == ["ts-now", "", ""]
    me.rest(0.0, beta=0.5)
    assert list(me.desk.strip) == [0.0] and me.strip == ""  # of another β


def test_every_answer_of_the_strip_is_of_its_alpha(me):
    me.ask(CRAFT.prompt)
    for alpha in (0.5, 0.25, 1.0, 0.5):
        me.rest(alpha)
    assert all(found.at.plane == (alpha, 1) for alpha, found in me.desk.strip.items()) and len(me.desk.strip) == 3


def test_dials_that_are_stopped_at_once_put_no_answer_where_it_does_not_belong(me, monkeypatch):
    me.ask(CRAFT.prompt)
    voice = me.chat.shared.voice
    monkeypatch.setattr(me.chat.shared, "voice", lambda *how: [halted(me), voice(*how)][1])  # meanwhile Stop is pressed
    me.rest(0.5)
    assert all(found.at.plane[0] == alpha for alpha, found in me.desk.strip.items())
    assert me.turn.answers["p4"].at == me.turn.panes["p4"].at


def test_dials_are_stopped_from_their_first_picture_on(me):
    me.ask("Tell", max_tokens=60)
    before = me.turn.answers["p4"]
    me.dials = [0.5, 1]
    work = me.acts(["rest"], max_tokens=200)
    me.see(next(work))
    halted(me)
    me.all(work)
    assert me.turn.answers["p4"] is before and me.turn.panes["p4"].at == point(1)  # what stood there stays, by its name
    assert list(me.desk.strip) == [1.0] and me.told == "" and "ts-cursor" not in me.panes


def test_dials_that_are_stopped_later_say_so(me):
    me.ask("Tell", max_tokens=12)
    me.dials = [0.5, 1]
    for values in me.acts(["rest"], max_tokens=200):
        me.see(values)
        if me.turn.answers["p4"].at == point(0.5) and me.turn.answers["p4"].tokens:
            halted(me)
    found = me.turn.answers["p4"]
    assert found.halted and found.at == me.turn.panes["p4"].at == point(0.5) and "stopped" in me.cards()[3]
    assert list(me.desk.strip) == [1.0]


@pytest.mark.parametrize("why", ["stop", "form", "long"])
def test_where_the_dials_asked_nobody_they_ask_when_they_come_to_rest_there_again(me, why):
    me.ask(CRAFT.prompt)
    if why == "stop":
        me.dials = [0.5, 1]
        work = me.acts(["rest"])
        me.see(next(work))
        halted(me)
        me.all(work)
    else:
        me.rest(0.5, **({"seed": -1} if why == "form" else {"system": LONG, "manner": "plain"}))
    assert me.turn.answers["p4"].at == point(1)
    me.rest(0.5)
    assert me.turn.answers["p4"].at == point(0.5) and me.told == ""


@pytest.mark.parametrize("then", ["same", "letters", "seed", "repeat"])
def test_dials_that_rest_once_more_and_ask_nobody_let_the_pane_answer_on(me, then):
    """A dial rests also where the focus leaves it."""
    me.ask("Tell", max_tokens=4)
    me.dials = [0.5, 1]
    work = me.acts(["rest"], max_tokens=60)
    for values in work:
        me.see(values)
        if me.turn.answers["p4"].at == point(0.5) and me.turn.answers["p4"].tokens:
            break
    if then == "repeat":
        me.all(me.chat.repeats(me.session, me.refs, me.form({"max_tokens": 60})))
    else:
        me.rest("x" if then == "letters" else 0.5, **{"max_tokens": 60, **({"seed": -1} if then == "seed" else {})})
    me.all(work)
    assert not me.turn.answers["p4"].halted and "ts-cursor" not in me.panes


def test_dials_that_come_to_rest_while_all_answer_take_over_one_pane(me):
    work = me.asks("Tell", max_tokens=40)
    while not me.desk.talk.turns or not any(found.tokens for found in me.turn.answers.values()):
        next(work)
    me.rest(0.5, max_tokens=40)
    list(work)
    found = me.turn.answers
    assert all(a.done and not a.halted for a in found.values()) and found["p4"].at == point(0.5)
    assert all(found[key].at == pane.at for key, pane in me.turn.panes.items()) and 0.5 in me.desk.shown_strip


def test_a_strip_is_of_one_way_of_drawing(me):
    me.ask("Tell", temperature=1.5, seed=0)
    me.rest(0.5, temperature=1.5, seed=9)
    me.rest(0.25, temperature=1.5, seed=9)
    assert {found.sampling.seed for found in me.desk.strip.values()} == {9} and sorted(me.desk.strip) == [0.25, 0.5]


def test_dials_before_any_question_move_the_pane(me):
    me.rest(0.25)
    assert me.desk.talk.pane("p4").at == point(0.25) and "0.25·Δ" in me.lineup and "Ask something" in me.panes
    for bad in (11, None, "x", float("nan"), [], {}, 10**400):
        me.rest(bad)
        assert "α must" in me.told and me.desk.talk.pane("p4").at == point(0.25)
    me.dials = [0.25, 1]
    me.ask(MAYOR.prompt, dials=(0.75, 1))  # typed, and asked before the dial came to rest
    assert me.turn.answers["p4"].at == point(0.75)


def test_the_whole_strip_is_one_batch(me):
    me.ask(CRAFT.prompt, to="p1")
    me.over()
    assert sorted(me.desk.strip) == list(OVER) and me.strip.count("<li") == 7 and me.told == ""
    assert {found.alike for found in me.desk.strip.values()} == {7}
    assert all(found.at.plane == (alpha, 1) and found.done for alpha, found in me.desk.strip.items())
    assert len({found.fingerprint for found in me.desk.strip.values()}) == 7
    before = dict(me.desk.strip)
    me.over()
    assert all(me.desk.strip[alpha] is found for alpha, found in before.items())


def test_what_the_strip_has_is_not_answered_again(me):
    me.ask(CRAFT.prompt)
    me.rest(0.5)
    before = dict(me.desk.strip)
    me.over()
    assert len(me.desk.strip) == 7 and all(me.desk.strip[alpha] is found for alpha, found in before.items())
    assert {found.alike for alpha, found in me.desk.strip.items() if alpha not in before} == {5}
    me.rest(0.6)
    assert len(me.desk.strip) == 8


def test_a_strip_that_is_stopped_keeps_what_is_whole(me):
    me.ask("Tell", max_tokens=200)
    work = me.chat.fills(me.session, me.refs, me.dials, me.form({"max_tokens": 200}))
    for values in work:
        me.see(values)
        if len(me.desk.strip) > 1:
            break
    halted(me)
    me.all(work)
    assert all(found.done for found in me.desk.strip.values()) and "Answering" not in me.told
    stopped = {alpha for alpha, found in me.desk.strip.items() if found.halted}
    assert stopped and 1.0 not in stopped  # what was said until then stays, and is asked for anew
    me.over()
    assert len(me.desk.strip) == 7 and not any(found.halted for found in me.desk.strip.values())


def test_the_strip_is_shown_of_the_chosen_pane_as_it_is_now_and_of_the_last_prompt(me):
    desk = me.desk
    assert desk.shown_strip == {}
    me.ask(CRAFT.prompt)
    assert list(desk.shown_strip) == [1.0]
    me.over()
    whole = dict(desk.shown_strip)
    assert sorted(whole) == list(OVER)
    for other in ("p2", "p5"):  # which have none, as they are corners by name
        me.act("set", other)
        assert desk.shown_strip == {} and me.strip == ""
    me.act("set", "p4")
    assert desk.shown_strip == whole and me.strip.count("<li") == 7
    for change in (
        {"at": Endpoint(NOBODY)},
        {"at": point(1, 0.5)},
        {"at": replace(point(1), schedule=ramp(0.5, 1, 4))},
        {"at": replace(point(1), control=Control("delta"))},
        {"at": CORNERS["target_tuned"]},
        {"at": CORNERS["target_base"], "point": False},
    ):
        before = desk.talk.pane("p4")
        desk.talk.change("p4", **change)
        assert desk.shown_strip == {}
        desk.talk.change("p4", at=before.at, point=before.point)
    desk.talk.change("p4", at=point(0.3))
    assert desk.shown_strip == whole  # α moves along it
    desk.chosen = "gone"
    assert desk.shown_strip == {}
    desk.chosen = "p4"
    question = desk.talk.turns[-1]
    desk.talk.ask(CRAFT.prompt)  # the same words are another question
    assert desk.shown_strip == {}
    desk.talk.cut(-1)
    assert desk.shown_strip == whole and desk.talk.turns == [question]
    question.blind = True
    assert desk.shown_strip == {}
    desk.talk.turns.clear()
    assert desk.shown_strip == {}


def test_a_pane_that_is_chosen_shows_the_strip_of_its_own_answers(me):
    me.seat(more=True, who="point")
    me.ask(CRAFT.prompt)
    assert me.desk.chosen == "p6"
    me.rest(0.5)
    assert sorted(me.desk.shown_strip) == [0.5, 1.0]
    me.act("set", "p4")
    assert list(me.desk.shown_strip) == [1.0] and me.desk.shown_strip[1.0] is me.turn.answers["p4"]
    me.act("take", 0.5)
    assert "not there any more" in me.told and me.desk.talk.pane("p4").at == CORNERS["merged"]


def test_the_strip_goes_on_after_an_answer_was_taken_from_it(me):
    how = {"temperature": 0.5, "seed": 3, "system": "Be brief."}
    me.ask(CRAFT.prompt, **how)
    me.over(**how)
    before = dict(me.desk.shown_strip)
    me.act("take", 0.25)  # whatever the form says by now
    assert me.desk.shown_strip == before and re.findall(r'<li class="([^"]*)">', me.strip)[1] == "ts-now"
    assert me.turn.ways["p4"].system == "Be brief." and "without the system prompt" in me.cards()[3]
    me.act("take", 1.25)
    assert me.strip.count('"ts-now"') == 1 and me.dials == [1.25, 1] and me.turn.answers["p4"] is before[1.25]
    me.over(**how)
    assert all(me.desk.shown_strip[alpha] is found for alpha, found in before.items())  # nobody was asked
    me.rest(0.6, **how)
    assert len(me.desk.shown_strip) == 8
    me.act("retry", 0, "p4", **how)  # by another seed, so all else is no longer equal
    assert list(me.desk.shown_strip) == [0.6] and me.desk.shown_strip[0.6].sampling.seed == 4
    me.act("take", 0.25)
    assert "not there any more" in me.told


def test_what_is_not_whole_yet_is_not_taken_from_the_strip(me):
    me.ask("Tell", max_tokens=8, to="p1")
    work = me.chat.fills(me.session, me.refs, me.dials, me.form({"max_tokens": 60}))
    for values in work:
        me.see(values)
        if any(not found.done for found in me.desk.strip.values()):
            break
    alpha = next(alpha for alpha, found in me.desk.strip.items() if not found.done)
    me.act("take", alpha)
    assert "not there any more" in me.told and "p4" not in me.turn.answers
    me.all(work)
    me.act("take", alpha)
    assert me.turn.answers["p4"].done and me.told == ""


def test_an_answer_is_taken_from_the_strip(me):
    me.ask(CRAFT.prompt)
    me.over()
    me.act("take", 0.25)
    assert me.dials == [0.25, 1] and me.desk.talk.pane("p4").at == point(0.25)
    assert me.turn.answers["p4"] is me.desk.strip[0.25] and "0.25·Δ" in me.cards()[3]
    before = me.turn.answers["p4"]
    me.rest(0.25)
    assert me.turn.answers["p4"] is before  # it is there already
    for gone in (0.3, -1, float("nan"), None, "x", [1], 10**400):
        me.act("take", gone)
        assert "ts-error" in me.told and me.turn.answers["p4"] is before


def test_over_alpha_takes_a_question_first(me):
    me.over()
    assert "Ask something first" in me.told
    me.ask(MAYOR.prompt)
    me.act("set", "p5")
    me.over()
    assert "no point of the plane" in me.told


def test_an_answer_is_taken_from_the_strip_of_a_pane_that_was_not_asked(me):
    me.ask(CRAFT.prompt, to="p1")
    me.over()
    me.act("take", 0.5)
    assert len(me.cards()) == 2 and "0.5·Δ" in me.panes


def test_the_strip_is_of_the_last_prompt(me):
    me.ask(CRAFT.prompt)
    me.over()
    me.ask(MAYOR.prompt, to="p5")
    assert me.strip == ""
    me.act("take", 0.5)
    assert "not there any more" in me.told and "p4" not in me.turn.answers


@pytest.mark.parametrize("add", ["act", "seat"])
def test_the_strip_is_of_the_pane_that_the_dials_move(me, add):
    me.ask(CRAFT.prompt)
    me.over()
    if add == "act":
        me.act("add")
    else:
        me.dials = [0.5, 0]
        me.seat(more=True, who="point")
    assert me.strip == ""


@pytest.mark.parametrize("fields", [{"who": "source_tuned"}, {"who": "depth"}])
def test_the_strip_is_of_the_pane_as_it_is_now(me, fields):
    me.ask(CRAFT.prompt)
    me.over()
    me.seat(**fields)
    assert me.strip == ""


def test_all_answers_of_a_strip_are_to_the_same_words(me):
    me.act("set", "p3")
    me.ask(CRAFT.prompt)
    me.rest(0.5)
    me.over()
    assert len({found.sent for found in me.desk.strip.values()}) == 1


def test_the_strip_draws_in_the_panes_own_way(me):
    me.ask(CRAFT.prompt)
    me.seat(who="merged", own=True, max_tokens=2)
    me.over()
    assert {found.tokens for found in me.desk.strip.values()} == {2}


def test_a_pane_that_cannot_be_asked_again_keeps_the_name_of_who_answered(me):
    me.ask(CRAFT.prompt)
    me.rest(0.5, system=LONG, manner="plain")
    assert "Shorten it" in me.told and me.turn.answers["p4"].at == me.turn.panes["p4"].at


# Blind


def test_a_blind_question_is_voted_on(me):
    me.ask(MAYOR.prompt, blind=True)
    turn = me.turn
    assert sorted(turn.order) == ["p1", "p2", "p3", "p4", "p5"] and "names come back with your vote" in me.lineup
    for word in ("Δ", "m<sub>", "tokens/s", "base-v", "instruct-v2", "merged", "<code"):
        assert word not in me.panes
    assert me.panes.count("is best") == 5 and me.strip == "" and me.sent == ""
    assert blind.tallied(me.desk) == blind.NONE and blind.votes_file(me.desk) == ""
    me.act("sent", 0, "p4")
    assert me.sent == ""
    me.act("retry", 0, "p4")
    assert "after your vote" in me.told
    me.over()
    assert "Vote first" in me.told
    *_, said = differ.run(me.chat.shared, me.session, me.desk, "p1", "p4", "one")
    assert "blind" in said and "merged" not in said
    me.vote("p4")
    assert me.told == "" and turn.vote == "p4" and re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", turn.voted)
    assert (
        "your vote" in me.cards()[turn.order.index("p4")] and "names come back" not in me.lineup and "<code" in me.panes
    )
    me.act("vote", 0, "p1")
    assert "has its vote already" in me.told and turn.vote == "p4"


def test_votes_add_up_and_can_be_taken_away(me):
    for shown, choice in ((MAYOR, "p4"), (DISH, "p4"), (CRAFT, "Tie"), (MAYOR, "All bad")):
        me.ask(shown.prompt, blind=True, remember=False, max_tokens=8)
        me.vote({"Tie": "They are as good", "All bad": "None is any good"}.get(choice, choice))
    told = blind.tallied(me.desk)
    assert "<td>merged α = 1</td><td>2 of 4</td>" in told and told.count("<tr><td>") == 5 and "too few to tell" in told
    rows = [json.loads(line) for line in blind.votes_file(me.desk).splitlines()]
    assert [(row["choice"], row["bad"], row["turn"]) for row in rows] == [
        ("merged α = 1", False, 1), ("merged α = 1", False, 2), (None, False, 3), (None, True, 4),
    ]  # fmt: skip
    assert all(sorted(row["shown"]) == sorted(rows[0]["shown"]) and len(row["shown"]) == 5 for row in rows)
    assert rows[0]["prompt"] == MAYOR.prompt and rows[0]["at"]
    me.act("undo")
    assert len(blind.votes_file(me.desk).splitlines()) == 4  # whatever becomes of the turns


def test_votes_are_forgotten_when_that_is_asked_for(me):
    me.ask(MAYOR.prompt, blind=True)
    me.vote("p4")
    me.see(me.chat.begins(me.session, me.refs))
    assert "1 of 1" in blind.tallied(me.desk) and blind.votes_file(me.desk)  # a new conversation keeps them
    assert me.chat.forgets(me.session, me.refs) == blind.NONE == blind.tallied(me.desk)
    assert blind.votes_file(me.desk) == ""


def test_votes_for_one_of_two_panes_of_one_name_are_all_for_that_one(me):
    for key in ("p1", "p2", "p3"):
        me.act("remove", key)
    me.dials = [0.8, 1]
    for key in ("p4", "p5"):
        me.desk.talk.change(key, at=point(0.8), point=True)
    me.desk.talk.change("p5", sampling=Sampling(temperature=1.5, max_tokens=4))
    for _ in range(16):
        me.ask(MAYOR.prompt, blind=True, remember=False, max_tokens=1)
        me.vote("p4")
    assert len({json.loads(line)["choice"] for line in blind.votes_file(me.desk).splitlines()}) == 1


def test_a_question_to_one_pane_is_not_blind(me):
    me.ask(MAYOR.prompt, to="p4", blind=True)
    assert not me.turn.hidden and "is best" not in me.panes


def test_the_buttons_of_a_vote_tell_nobody(me):
    me.ask(MAYOR.prompt, blind=True)
    acts = [json.loads(unescape(act)) for act in re.findall(r'data-act="([^"]*)"', me.panes)]
    votes = [act for act in acts if act[0] == "vote"]
    assert votes == [*(["vote", 0, i] for i in range(5)), ["vote", 0, "tie"], ["vote", 0, "bad"]]
    assert not re.search(r"p[1-5]", "".join(re.findall(r'data-(?:act|key)="([^"]*)"', me.panes)))
    me.act("vote", 0, 5)
    assert "out of date" in me.told and me.turn.hidden
    me.act("vote", 0, 2)
    assert me.turn.vote == me.turn.order[2] and me.told == ""


def test_only_a_blind_turn_takes_a_vote_and_only_for_one_of_its_answers(me):
    me.ask(MAYOR.prompt)
    me.act("vote", 0, "p4")
    assert "not blind" in me.told
    me.ask(MAYOR.prompt, blind=True)
    for mark in (("vote", 1, "p9"), ("vote", 7, "p4"), ("vote", 1), ("vote", None, "p4"), ("vote", [1], {})):
        me.act(*mark)
        assert "ts-error" in me.told and me.turn.hidden


def test_a_vote_waits_until_all_have_answered(me):
    work = me.asks("Tell", blind=True, max_tokens=150)
    for _ in work:
        if any(found.tokens for found in me.turn.answers.values()):
            break
    me.act("vote", 0, "p4")
    assert "once all of them are there" in me.told and me.turn.hidden
    list(work)
    me.vote("p4")
    assert me.turn.vote == "p4"


def test_a_vote_waits_until_anybody_has_answered(me):
    work = me.asks(MAYOR.prompt, blind=True)
    next(work)
    me.act("vote", 0, "p4")
    early = me.turn.vote
    list(work)
    assert early == ""


def test_dials_wait_for_the_vote(me):
    me.ask(MAYOR.prompt, blind=True)
    me.rest(0.5)
    assert "Vote first" in me.told and me.desk.talk.pane("p4").at == CORNERS["merged"]


@pytest.mark.parametrize("then", ["rest", "take", "retry"])
def test_a_vote_stays_with_whom_it_was_given_to(me, then):
    me.ask(MAYOR.prompt, blind=True)
    me.vote("p4")
    before = blind.votes_file(me.desk), blind.tallied(me.desk)
    if then == "rest":
        me.rest(0.25)
    elif then == "take":
        me.over()
        me.act("take", 0.25)
    else:
        me.seat(more=True, who="point")
        me.act("retry", 0, "p6")
    assert (blind.votes_file(me.desk), blind.tallied(me.desk)) == before


def voted(me, then) -> None:
    """A vote for p4, after which another model answers there."""
    me.ask(MAYOR.prompt, blind=True)
    me.vote("p4")
    assert me.panes.count("your vote") == 1 and '"chosen": true' in blind.transcript_file(me.desk)
    if then == "rest":
        me.rest(0.25)
    else:
        me.seat(who="source_base")
        me.act("retry", 0, "p4")


@pytest.mark.parametrize("then", ["rest", "seat"])
def test_the_transcript_gives_the_vote_to_no_answer_that_it_was_not_given_to(me, then):
    voted(me, then)
    assert '"chosen": true' not in blind.transcript_file(me.desk)


@pytest.mark.parametrize("then", ["rest", "seat"])
def test_no_card_wears_a_vote_that_it_was_not_given(me, then):
    voted(me, then)
    assert "your vote" not in me.panes


def test_a_pane_that_is_widened_after_the_vote_keeps_it(me):
    me.ask(MAYOR.prompt, blind=True)
    me.vote("p4")
    me.act("wide", "p4")
    assert me.panes.count("your vote") == 1 and blind.transcript_file(me.desk).count('"chosen": true') == 1


# What is taken away


def test_a_transcript_holds_every_answer_and_what_made_it(me):
    me.seat(more=True, who="endpoint", url=NOBODY, model="served", key=KEY)
    me.ask(MAYOR.prompt, seed=5)
    me.act("remove", "p6")
    me.ask(DISH.prompt, blind=True)
    me.vote("p4")
    text = blind.transcript_file(me.desk)
    rows = [json.loads(line) for line in text.splitlines()]
    assert text.isascii() and text.endswith("\n") and len(rows) == 11 and KEY not in text
    assert [row["turn"] for row in rows] == [1] * 6 + [2] * 5
    merged, server = rows[3], rows[5]
    assert [row["pane"] for row in rows if row["chosen"]] == ["merged α = 1"]
    assert [row["blind"] for row in rows] == [False] * 6 + [True] * 5
    assert (
        merged["pane"] == "merged α = 1"
        and merged["coefficients"] == [-1, 1, 1, 0]
        and merged["answer"].strip() == MAYOR.expect
    )
    assert merged["sampling"] == {"temperature": 0, "top_p": 1, "max_tokens": 14, "seed": 5} and merged["ended_itself"]
    assert merged["sent"].endswith("<|assistant|>") and len(merged["fingerprint"]) == 12 and merged["error"] == ""
    assert (
        merged["tokens"] > 3 and merged["seconds"] >= merged["first_token_seconds"] > 0 and merged["schedule"] is None
    )
    assert server["endpoint"] == NOBODY and server["model"] == "served" and "cannot be reached" in server["error"]
    assert len({row["fingerprint"] for row in rows[:5]}) == 5
    assert blind.transcript_file(Person(me.chat.shared, "silent").desk) == ""


def test_a_transcript_does_not_tell_who_is_who_before_the_vote(me):
    me.ask(MAYOR.prompt, blind=True)
    text = json.dumps([json.loads(line) for line in blind.transcript_file(me.desk).splitlines()], ensure_ascii=False)
    assert not re.search("merged|source|target|fingerprint|coefficients", text)


def test_what_a_pane_was_sent_is_shown_token_by_token(me):
    me.ask(MAYOR.prompt)
    me.act("sent", 0, "p4")
    assert (
        "What merged α = 1 was sent" in me.sent and me.sent.count("ts-token") == len(me.turn.answers["p4"].prompt) + 1
    )
    assert "&lt;|user|&gt;" in me.sent and "<|user|>" not in me.sent
    me.act("sent", 0, "nobody")
    assert me.sent == ""
    me.act("sent", 0, "p1")
    assert "plain text to go on with" in me.sent
    me.act("unsent")
    assert me.sent == ""
    me.act("sent", 3, "p1")
    assert "not there any more" in me.told


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_fails_at_once_is_told():
    """As the comparison of two panes does, which would else wait for ever."""

    def fails(tick):
        raise ChatError("There is nothing to read.")

    with pytest.raises(ChatError, match="nothing to read"):
        list(itertools.islice(background(fails), 2))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_two_panes_are_compared_on_an_earlier_turn(me, monkeypatch):
    monkeypatch.setattr("transfer.talk.KEPT", 1)
    for to in ("all", "p1", "p1"):
        me.ask(MAYOR.prompt, to=to)
    told: list = []
    work = differ.run(me.chat.shared, me.session, me.desk, "p2", "p4", "one")
    thread = threading.Thread(target=lambda: told.extend(work), daemon=True)
    thread.start()
    thread.join(2)
    assert not thread.is_alive() and ("ts-tok" in told[-1] or "ts-error" in told[-1])


def test_two_panes_are_compared_token_by_token(me):
    me.ask(MAYOR.prompt)
    *_, said = differ.run(me.chat.shared, me.session, me.desk, "p2", "p4", "other")
    assert "What merged α = 1 answered, read by <b>source fine-tuned</b>" in said and said.count("ts-tok") > 5
    for one, other in (("p1", "p1"), ("p1", "p9"), (None, None), ([], {})):
        *_, said = differ.run(me.chat.shared, me.session, me.desk, one, other, "one")
        assert "ts-error" in said


def test_a_link_restores_panes_prompt_and_settings_for_another_session(me, shared):
    me.dials = [0.5, 1]
    me.seat(more=True, who="depth", first=0.25, last=1)
    me.act("remove", "p1")
    me.ask(MAYOR.prompt, temperature=0.5)
    form = me.form({"temperature": 0.5, "system": "Be brief.", "remember": False, "blind": True})
    text, said = me.chat.linked(me.session, me.refs, "", form)
    setup = link.parse(text)
    assert said == "" and setup.prompt == MAYOR.prompt and dict(setup.refs) == POCKET and setup.blind
    assert setup.way == way_of(*form[:-1]) and setup.way.system == "Be brief." and not setup.way.remember
    other = Person(shared, "another's")
    values = other.open(pending=setup.panes)
    keys = [pane.key for pane in other.desk.talk.panes]
    assert values[-1] is None and other.lineup.count("ts-tag") == 5 and other.desk.chosen in keys
    assert not set(keys) & {pane.key for pane in setup.panes}  # a link brings no keys of its own
    assert [p.at for p in other.desk.talk.panes][:4] == [p.at for p in me.desk.talk.panes][:4]
    other.ask(MAYOR.prompt, temperature=0.5)
    assert list(other.texts.values()) == list(me.texts.values())
    text, said = me.chat.linked(me.session, me.refs, "", me.form({"seed": -1}))
    assert text == "" and "Seed must" in said and "ts-error" in said


def test_a_link_to_a_yardstick_that_is_not_there_leaves_the_panes_that_are(shared, request):
    far = Person(shared, request.node.name, FAR)
    far.open(pending=(Pane("l0", CORNERS["target_tuned"]), Pane("l1", point(1))))
    assert "no target fine-tuned" in far.told and far.lineup.count("ts-tag") == 4
    assert [pane.key for pane in far.desk.talk.panes] == ["p1", "p2", "p3", "p4"] and far.desk.chosen == "p4"
    far.ask(MAYOR.prompt)
    assert list(far.texts) == ["p1", "p2", "p3", "p4"] and far.told == ""


@pytest.mark.parametrize("layers", [1, 4, 5, 1000])
def test_a_links_schedule_has_at_most_as_many_layers_as_the_models(me, layers):
    mix = replace(point(0.8), schedule=ramp(0.5, 1, layers))
    text = link.query(link.Setup(POCKET, (Pane("l0", mix, True), Pane("l1", CORNERS["merged"])), "", way_of(0, 1, 24, 0, "", "own", True)))  # fmt: skip
    values = me.open(pending=link.parse(text).panes)
    assert values[-1] is None and len(values) == VIEWS + FORMS + 1
    if layers > 4:
        assert "These models have 4 layers" in me.told and "ts-error" in me.told
        assert [pane.at for pane in me.desk.talk.panes] == [CORNERS[role] for role in FIVE] and me.dials == [1, 1]
    else:
        assert me.told == "" and [pane.at for pane in me.desk.talk.panes] == [mix, point(1)]
    me.ask(MAYOR.prompt)
    assert not any(found.error for found in me.turn.answers.values())


def test_a_link_to_the_same_models_takes_the_panes_and_leaves_what_was_said(me):
    me.ask(MAYOR.prompt)
    before = dict(me.turn.answers)
    me.open(pending=(Pane("l0", point(0.5), True), Pane("p4", CORNERS["source_tuned"])))
    assert me.lineup.count("ts-tag") == 2 and me.turn.answers == before and len(me.cards()) == 5
    me.act("retry", 0, "")
    assert "None of the panes that answered is there any more" in me.told
    me.ask(DISH.prompt)
    assert len(me.texts) == 2 and not any(MAYOR.prompt in found.sent for found in me.turn.answers.values())


def test_a_link_that_cannot_be_made_says_so(me):
    me.desk.talk.change("p1", at=Mix((0.0, 0.0, 0.5, 0.5)))
    text, said = me.chat.linked(me.session, me.refs, "Who?", me.form({}))
    assert text == "" and "cannot tell the pane" in said and "ts-error" in said
    me.act("remove", "p1")
    text, said = me.chat.linked(me.session, me.refs, "é" * 20_000, me.form({}))
    assert text == "" and "Shorten the prompt" in said
    text, said = me.chat.linked(me.session, me.refs, "\ud83d cut", me.form({"system": "half \udc00"}))
    assert said == "" and link.parse(text).prompt == "? cut" and link.parse(text).way.system == "half ?"


@pytest.mark.parametrize(
    "mix", [point(0.3, 0.9), replace(point(0.7), schedule=ramp(1, 0, 4)), Mix((0.0, 0.0, 0.5, 0.5)), point(1, 0)]
)
def test_a_point_that_scoring_found_is_taken_to_the_chosen_pane(me, mix):
    me.ask(CRAFT.prompt)
    me.see(me.chat.taken(me.session, me.refs, mix))
    pane = me.desk.talk.pane("p4")
    assert pane.at == mix and pane.point == bool(mix.plane) and me.dials == list(mix.plane or [1, 1])
    me.all(me.chat.repeats(me.session, me.refs, me.form({})))
    assert me.turn.answers["p4"].at == mix and me.told == "" and "<|user|>" in me.turn.answers["p4"].sent


def test_a_point_that_scoring_found_goes_to_another_pane_where_an_endpoint_is_chosen(me):
    me.seat(more=True, who="endpoint", url=NOBODY)
    me.see(me.chat.taken(me.session, me.refs, point(0.3)))
    assert me.desk.chosen == "p5" and me.desk.talk.pane("p5").at == point(0.3) and me.told == ""
    assert me.desk.talk.pane("p6").at == Endpoint(NOBODY)


def test_a_point_with_the_yardstick_is_a_sentence_where_there_is_none(shared, request):
    far = Person(shared, request.node.name, FAR)
    far.see(far.chat.taken(far.session, far.refs, Mix((0.0, 0.0, 0.5, 0.5))))
    assert "no target fine-tuned" in far.told and [p.at for p in far.desk.talk.panes][-1] == CORNERS["merged"]


def test_a_point_that_scoring_found_is_a_sentence_where_only_endpoints_sit(me):
    me.open(pending=(Pane("l0", Endpoint(NOBODY)), Pane("l1", Endpoint(NOBODY))))
    values = me.see(me.chat.taken(me.session, me.refs, point(0.3, 0.9)))
    assert "unexpected" not in values[3] and "All panes are endpoints" in me.told and me.lineup.count("ts-tag") == 2


def test_a_system_prompt_of_later_says_nothing_of_earlier_answers(me):
    me.ask(MAYOR.prompt)
    me.ask(DISH.prompt, system="Be brief.")
    assert "without the system prompt" not in me.past and "without the system prompt" in me.panes
    me.ask(CRAFT.prompt)
    assert "without the system prompt" in me.past and "without the system prompt" not in me.panes


# Whoever presses, and whatever


def test_two_sessions_never_mix(shared):
    one, two = Person(shared, "one"), Person(shared, "two", FAR)
    works = [one.asks(MAYOR.prompt, max_tokens=30), two.asks(DISH.prompt, max_tokens=30)]
    for values in itertools.zip_longest(*works):
        assert len(values) == 2
    one.act("remove", "p1")
    assert len(one.desk.talk.panes) == 4 == len(two.desk.talk.panes) and two.desk.talk.pane("p1")
    assert one.turn.prompt == MAYOR.prompt and two.turn.prompt == DISH.prompt
    assert MAYOR.prompt not in two.panes and DISH.prompt not in one.panes and "base-far" not in one.panes
    work = two.asks("Tell", max_tokens=200)
    next(work)
    halted(one)
    list(work)
    assert not any(found.halted for found in two.turn.answers.values())


def test_a_desk_goes_with_its_models(me):
    me.ask(MAYOR.prompt)
    me.act("remove", "p1")
    old = me.desk
    me.open(FAR)
    assert (
        me.desk is not old and not me.desk.talk.turns and len(me.desk.talk.panes) == 4 and "Ask something" in me.panes
    )
    me.open(POCKET)
    assert me.desk is not old and not me.desk.talk.turns and len(me.desk.talk.panes) == 5
    me.open(POCKET)
    me.ask(MAYOR.prompt)
    me.open(POCKET)  # the same once more is no other
    assert len(me.desk.talk.turns) == 1 and MAYOR.prompt in me.panes


@pytest.mark.parametrize(
    "refs", [{}, {role: "pocket/no-such" for role in POCKET}, {**POCKET, "target_base": "/no/such"}]
)
def test_without_models_every_press_is_a_sentence(shared, refs):
    tab, form = Chat(shared, SHOWN), list(FORM.values())
    presses = [
        [tab.opened("nobody", refs, None)], tab.asks("nobody", refs, "Who?", "all", (1, 1), form),
        tab.acts("nobody", refs, ["undo"], None, "", (1, 1), form), tab.acts("nobody", refs, ["rest"], None, "", (1, 1), form),
        tab.fills("nobody", refs, (1, 1), form), tab.repeats("nobody", refs, form), [tab.begins("nobody", refs)],
        [tab.seats("nobody", refs, False, (1, 1), list(SEAT.values()))], [tab.chooses("nobody", refs, "p1")],
        [tab.taken("nobody", refs, point(1))],
    ]  # fmt: skip
    for press in presses:
        *_, values = press
        assert "ts-error" in values[3] and "unexpected" not in values[3]
    text, said = tab.linked("nobody", refs, "Who?", form)
    offered = tab.offers("nobody", refs, (1, 1), list(SEAT.values()))
    assert text == "" and all("ts-error" in one and "unexpected" not in one for one in (said, offered))


def test_every_press_gives_as_many_values_as_the_page_takes(me):
    with gr.Blocks():
        tab = chat.build(SHOWN)
    views, forms = len(tab.views), len(tab.forms)
    assert (views, forms) == (VIEWS, FORMS)
    assert len(me.chat.formed(me.desk)) == len(me.chat.formed(me.desk, keep=True)) == forms
    assert {len(values) for values in me.ask(MAYOR.prompt) + me.ask("") + me.ask("Who?", seed=-1)} == {views + 1}
    marks = [
        ["rest"],
        ["retry", 1, "p9"],
        ["retry", 0, "p4"],
        ["take", 3],
        ["wide", "p1"],
        ["no"],
        [],
        ["sent", 0, "p4"],
    ]
    given = {len(values) for mark in marks for values in me.act(*mark)} | {len(v) for v in me.rest(0.5) + me.rest(None)}
    assert given == {views + forms + 2}
    me.dials = [0.5, 1]
    assert {len(v) for v in me.over() + me.all(me.chat.repeats(me.session, me.refs, me.form({})))} == {views}
    both = [me.seat(), me.seat(who="nobody"), me.seat(True), me.chat.chooses(me.session, me.refs, "p1")]
    both += [me.chat.chooses(me.session, me.refs, "no"), me.chat.taken(me.session, me.refs, point(0.5))]
    assert {len(values) for values in both} == {views + forms}
    assert {len(me.open()), len(Person(me.chat.shared, "x", {}).open())} == {views + forms + 1}
    assert len(me.chat.begins(me.session, me.refs)) == views


ANYTHING = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.sampled_from([10**30, -(10**30), 2**63]), st.floats(), st.text(max_size=8),
        st.sampled_from(["p1", "p4", "all", "9" * 5000, "<script>", "\x00"]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=2)),
    max_leaves=4,
)  # fmt: skip
WHAT = st.sampled_from(
    ["rest", "retry", "take", "set", "shift", "wide", "remove", "add", "edit", "undo", "vote", "sent", "unsent", ""]
)
MARKS = st.one_of(ANYTHING, st.tuples(WHAT, st.lists(ANYTHING, max_size=3)).map(lambda pair: [pair[0], *pair[1]]))


@settings(deadline=None, max_examples=100, suppress_health_check=list(HealthCheck))
@given(
    MARKS,
    ANYTHING,
    st.lists(ANYTHING, min_size=2, max_size=2),
    st.dictionaries(st.sampled_from(list(FORM)), ANYTHING, max_size=2),
)
def test_whatever_is_pressed_is_a_sentence_at_worst(shared, mark, who, dials, form):
    form.pop("max_tokens", None)
    session = "somebody's"
    shared.desks.pop(session, None)
    me = Person(shared, session)
    me.desk.talk.ask("<b>Who?</b>")
    work = me.chat.acts(session, POCKET, mark, who, "", dials, me.form({"max_tokens": 2, **form}))
    for values in itertools.islice(work, 200):
        assert len(values) == VIEWS + FORMS + 2
        me.see(values)
    assert me.lineup.startswith("<ul") and "<script" not in me.lineup + me.told + me.panes and "<b>Who" not in me.panes
    assert 2 <= len(me.desk.talk.panes) <= 6 and len(me.desk.talk.turns) <= 1


@pytest.mark.parametrize(
    "mark",
    [
        None, [], {}, "undo", 7, [None], [["undo"]], [{"a": 1}], ["no"], ["set"], ["set", None], ["set", ["p1"]], ["shift", "p1"],
        ["shift", "p1", "x"], ["shift", "p1", float("nan")], ["remove", 5], ["edit"], ["edit", "x"], ["edit", 10**30],
        ["edit", -(10**30)], ["edit", "9" * 5000], ["vote", 0], ["vote", {}, "p1"], ["sent", 0], ["sent", "0x1", "p1"],
        ["take"], ["take", None], ["take", [0.5]], ["take", float("nan")], ["take", float("inf")], ["retry"], ["retry", 0],
        ["retry", None, ""], ["wide", None], ["undone"], [True], ["shift"],
    ],
)  # fmt: skip
def test_a_button_that_is_out_of_date_or_made_up_is_a_sentence(me, mark):
    me.desk.talk.ask(MAYOR.prompt)
    (values,) = me.all(me.acts(mark))
    assert "ts-error" in values[3] and "unexpected" not in values[3]
    assert len(me.desk.talk.turns) == 1 and [p.key for p in me.desk.talk.panes] == ["p1", "p2", "p3", "p4", "p5"]


@pytest.mark.parametrize(
    "mark", [["take", 10**400], ["edit", float("inf")], ["shift", "p1", float("inf")], ["retry", float("-inf"), ""]]
)
def test_a_number_beyond_all_bounds_is_a_sentence(me, mark):
    me.desk.talk.ask(MAYOR.prompt)
    me.act(*mark)
    assert "out of date" in me.told
