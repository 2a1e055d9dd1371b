"""The Chat tab's blind turns and votes, and what is taken away of a conversation."""

import itertools
import json
import re
import threading
from dataclasses import replace
from html import unescape

import pytest

from transfer.endpoint import Endpoint
from transfer.errors import ChatError
from transfer.plane import CORNERS, Mix, point, ramp
from transfer.sampling import Sampling
from transfer.talk import Pane
from ui import blind, differ, link
from ui.desk import way_of
from ui.seen import FORMS, VIEWS
from ui.work import background

from .person import (
    CRAFT,
    DISH,
    FAR,
    FIVE,
    KEY,
    MAYOR,
    NOBODY,
    POCKET,
    Person,
)


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
