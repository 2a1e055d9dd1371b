"""The Chat tab asked: one turn and several, what a pane remembers, Stop, and once more."""

import re
import threading
import time

import pytest

from transfer.plane import CORNERS

from .endpoint_server import EndpointServer, answer
from .person import CRAFT, DISH, FAR, LONG, MAYOR, halted


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
