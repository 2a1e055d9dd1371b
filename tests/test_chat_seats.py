"""The Chat tab's panes: set, added, moved, removed, and answered by a server."""

import json
import re

import gradio as gr
import pytest

from transfer.endpoint import Endpoint
from transfer.plane import CORNERS
from ui import blind, chat, differ, link
from ui.seen import FORMS, VIEWS

from .endpoint_server import DONE, EndpointServer, Says, answer, delta, error, refuse
from .person import (
    DISH,
    FAR,
    KEY,
    MAYOR,
    NOBODY,
    SEAT,
    SHOWN,
    SKIP,
    Person,
    halted,
)


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
