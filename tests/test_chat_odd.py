"""The Chat tab, whoever presses and whatever: several people, several presses at once, hostile ones."""

import itertools

import gradio as gr
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from transfer.plane import point
from ui import chat
from ui.seen import FORMS, VIEWS
from ui.talking import Chat

from .person import (
    DISH,
    FAR,
    FORM,
    MAYOR,
    POCKET,
    SEAT,
    SHOWN,
    Person,
    halted,
)


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
