"""The Chat tab's dials and strip: only the chosen pane answers again, and a strip is of one line."""

import re
from dataclasses import replace

import pytest

from transfer.endpoint import Endpoint
from transfer.plane import CORNERS, Control, point, ramp
from ui.talking import OVER

from .person import CRAFT, LONG, MAYOR, NOBODY, halted


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
