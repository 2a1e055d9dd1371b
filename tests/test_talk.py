"""A conversation without any model: who sits where, what each pane is asked, and what a blind turn hides."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer.chat import Answer
from transfer.endpoint import Endpoint
from transfer.errors import ChatError
from transfer.plane import CORNERS, point
from transfer.sampling import Sampling
from transfer.talk import BAD, FEWEST, KEPT, MOST, MOST_TURNS, TIE, Pane, Talk, Way, history

FIVE = [CORNERS[role] for role in ("source_base", "source_tuned", "target_base", "merged", "target_tuned")]
GREEDY = Sampling()
NOW = "2026-01-02T03:04:05+00:00"
DEEDS = st.lists(
    st.tuples(st.sampled_from(["add", "remove", "shift", "change", "ask"]), st.integers(0, 7), st.integers(-9, 9)),
    max_size=30,
)


def said(turn, **texts) -> None:
    """Have some panes of a turn answer in these words."""
    for key, text in texts.items():
        turn.hear(turn.panes[key], Way(GREEDY), 0, Answer(turn.panes[key].at, GREEDY, text=text, done=True))


def asked(talk, turn, key, system="", remember=True, shared=GREEDY) -> list[tuple[str, str]]:
    """What a pane is asked, as (role, words)."""
    found = talk.asked(turn, talk.pane(key), None, Way(shared, system, remember=remember))
    return [(m["role"], m["content"]) for m in found.messages]


def words(messages) -> list[str]:
    return [content for _, content in messages]


def test_there_are_two_panes_at_least_and_six_at_most():
    talk = Talk(FIVE)
    talk.add(point(0.5), point=True)
    with pytest.raises(ChatError, match=f"{MOST} panes"):
        talk.add(point(0.6))
    assert len(talk.panes) == MOST == 6
    while len(talk.panes) > FEWEST:
        talk.remove(talk.panes[0].key)
    with pytest.raises(ChatError, match=f"{FEWEST} panes at least"):
        talk.remove(talk.panes[0].key)
    assert [pane.key for pane in talk.panes] == ["p5", "p6"] and FEWEST == 2


def test_a_key_is_never_given_twice():
    talk = Talk(FIVE)
    gone = talk.panes[-1].key
    talk.remove(gone)
    assert talk.add(point(0.3)).key not in {gone, *(p.key for p in talk.panes[:-1])}


@given(DEEDS)
def test_whatever_is_done_there_are_two_to_six_panes_each_with_a_key_of_its_own(deeds):
    talk, seen = Talk(FIVE), {f"p{i}" for i in range(1, 6)}
    for deed, place, number in deeds:
        key = talk.panes[place].key if place < len(talk.panes) else "nobody's"
        before, turns = list(talk.panes), len(talk.turns)
        try:
            if deed == "add":
                assert talk.add(point(number)).key not in seen
                seen.add(talk.panes[-1].key)
            elif deed == "remove":
                talk.remove(key)
                assert talk.panes == [p for p in before if p.key != key]
            elif deed == "shift":
                talk.shift(key, number)
                there = min(max(place + number, 0), len(before) - 1)
                assert talk.panes[there].key == key and {p.key for p in talk.panes} == {p.key for p in before}
                others = [p for p in before if p.key != key]
                assert [p for p in talk.panes if p.key != key] == others
            elif deed == "change":
                talk.change(key, at=point(number), point=True)
                assert talk.panes[place] == replace(before[place], at=point(number), point=True)
            else:
                assert set(talk.ask("Who?", [key]).order) == {key}
        except ChatError:  # then nothing has happened
            assert talk.panes == before and len(talk.turns) == turns
        assert FEWEST <= len(talk.panes) <= MOST
        assert len({p.key for p in talk.panes}) == len(talk.panes)


@pytest.mark.parametrize("do", ["remove", "change", "shift", "ask", "pane"])
def test_what_is_done_to_a_pane_that_is_gone_is_a_sentence(do):
    talk = Talk(FIVE)
    talk.ask("Who?")
    talk.remove("p2")
    arguments = {
        "remove": ("p2",),
        "change": ("p2",),
        "shift": ("p2", 1),
        "ask": ("Who?", ["p2"]),
        "pane": ("p2",),
    }
    with pytest.raises(ChatError, match="not there any more"):
        getattr(talk, do)(*arguments[do])
    assert len(talk.panes) == 4 and len(talk.turns) == 1


def test_a_question_goes_to_all_panes_or_to_one():
    talk = Talk(FIVE)
    assert talk.ask("Who?").order == ("p1", "p2", "p3", "p4", "p5")
    assert talk.ask("And you?", ["p4"]).order == ("p4",)
    assert [turn.prompt for turn in talk.turns] == ["Who?", "And you?"]
    assert list(talk.turns[1].panes) == ["p4"] and talk.turns[1].panes["p4"].at == point(1)
    for empty in ("", "  \n\t"):
        with pytest.raises(ChatError, match="prompt is empty"):
            talk.ask(empty)
    assert len(talk.turns) == 2


def test_a_turn_keeps_the_panes_that_it_was_put_to():
    talk = Talk(FIVE)
    turn = talk.ask("Who?")
    talk.change("p4", at=point(0.5), point=True)
    talk.remove("p1")
    talk.shift("p2", 3)
    assert turn.order == ("p1", "p2", "p3", "p4", "p5") and turn.panes["p4"] == Pane("p4", point(1))
    assert talk.ask("And now?").order == ("p3", "p4", "p5", "p2")


def test_a_conversation_has_an_end():
    talk = Talk(FIVE)
    for i in range(MOST_TURNS):
        talk.ask(str(i))
    with pytest.raises(ChatError, match=f"{MOST_TURNS} turns"):
        talk.ask("One more")
    talk.cut(-1)
    assert talk.ask("One more").prompt == "One more" and len(talk.turns) == MOST_TURNS


def test_each_pane_is_told_what_it_said_itself():
    talk = Talk(FIVE[:2])
    said(talk.ask("One?"), p1="a one", p2="b one")
    said(talk.ask("Two?"), p1=" a two \n", p2="b two")
    last = talk.ask("Three?")
    assert asked(talk, last, "p1") == [
        ("user", "One?"), ("assistant", "a one"), ("user", "Two?"), ("assistant", "a two"), ("user", "Three?"),
    ]  # fmt: skip
    assert words(asked(talk, last, "p2")) == ["One?", "b one", "Two?", "b two", "Three?"]
    assert asked(talk, last, "p2", remember=False) == [("user", "Three?")]
    assert asked(talk, talk.turns[1], "p1")[:2] == [("user", "One?"), ("assistant", "a one")]
    assert len(asked(talk, talk.turns[1], "p1")) == 3  # what came later is not told


def test_a_turn_that_went_to_one_pane_is_told_to_that_one_alone():
    talk = Talk(FIVE[:2])
    said(talk.ask("One?"), p1="a one", p2="b one")
    said(talk.ask("And you?", ["p2"]), p2="b two")
    last = talk.ask("Three?")
    assert words(asked(talk, last, "p1")) == ["One?", "a one", "Three?"]
    assert words(asked(talk, last, "p2")) == ["One?", "b one", "And you?", "b two", "Three?"]


def test_the_system_prompt_comes_first_and_a_blank_one_not_at_all():
    talk = Talk(FIVE[:2])
    said(talk.ask("One?"), p1="a one")
    last = talk.ask("Two?")
    assert asked(talk, last, "p1", system="Be brief.")[0] == ("system", "Be brief.")
    assert asked(talk, last, "p1", system="Be brief.", remember=False) == [("system", "Be brief."), ("user", "Two?")]
    assert asked(talk, last, "p1", system=" \n")[0] == ("user", "One?")


def test_of_a_pane_that_broke_off_only_what_it_said_is_told():
    talk = Talk(FIVE[:2])
    first = talk.ask("One?")
    first.answers["p1"] = Answer(point(0), GREEDY, error="It broke off.", done=True)
    first.answers["p2"] = Answer(point(0), GREEDY, text=" half of ", error="It broke off.", done=True)
    last = talk.ask("Two?")
    assert words(asked(talk, last, "p1")) == ["Two?"]
    assert words(asked(talk, last, "p2")) == ["One?", "half of", "Two?"]
    assert history(talk.turns[:1], "p1") == [] and "broke" not in str(history(talk.turns, "p2"))


def test_a_history_always_takes_turns_between_user_and_assistant():
    talk = Talk(FIVE[:2])
    said(talk.ask("One?"), p1="a one", p2="   ")
    said(talk.ask("Two?", ["p2"]), p2="b two")
    talk.ask("Three?")  # to which nobody has said anything yet
    last = talk.ask("Four?")
    for key in ("p1", "p2"):
        roles = [role for role, _ in asked(talk, last, key)]
        assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]


def test_what_a_pane_said_stays_its_history_when_another_model_takes_its_place():
    talk = Talk(FIVE[:2])
    said(talk.ask("One?"), p1="a one", p2="b one")
    talk.change("p1", at=Endpoint("http://127.0.0.1:9", "served"))
    last = talk.ask("Two?")
    assert words(asked(talk, last, "p1")) == ["One?", "a one", "Two?"]
    assert talk.asked(last, talk.pane("p1"), None, Way(GREEDY)).at == Endpoint("http://127.0.0.1:9", "served")
    assert talk.turns[0].panes["p1"].at == FIVE[0]


def test_a_pane_that_was_removed_is_not_asked_and_a_new_one_knows_nothing_of_it():
    talk = Talk(FIVE[:3])
    said(talk.ask("One?"), p1="a one", p2="b one", p3="c one")
    talk.remove("p1")
    new = talk.add(point(0.5), point=True)
    last = talk.ask("Two?")
    assert last.order == ("p2", "p3", new.key)
    assert words(asked(talk, last, new.key)) == ["Two?"]
    assert talk.turns[0].answers["p1"].text == "a one"  # what was said stays on the page


def test_a_new_try_draws_by_another_seed():
    talk = Talk(FIVE[:3])
    own = Sampling(temperature=0.5, seed=2**31 - 1, max_tokens=5)
    talk.change("p2", sampling=own)
    turn, way = talk.ask("One?"), Way(Sampling(temperature=1, seed=7))
    drawn = lambda key, tries=0: talk.asked(turn, talk.pane(key), None, way, tries).sampling
    assert (drawn("p1").seed, drawn("p2")) == (7, own)
    assert drawn("p1", 1) == Sampling(temperature=1, seed=8) and drawn("p3").seed == 7
    assert drawn("p2", 1) == own.model_copy(update={"seed": 0})  # a seed stays within its bounds
    assert drawn("p1", 2).seed == 9
    assert not turn.tries and turn.panes["p2"].sampling == own  # to be asked changes nothing


def test_a_turn_is_answered_again_by_the_panes_as_they_are_now():
    talk = Talk(FIVE[:3])
    turn, way = talk.ask("One?", ["p1", "p2"]), Way(GREEDY, "Be brief.")
    said(turn, p1="a one", p2="b one")
    first = turn.answers["p2"]
    moved = talk.change("p1", at=point(0.5), point=True)
    assert turn.panes["p1"].at == FIVE[0]  # nobody has answered yet
    for n, pane in enumerate((moved, talk.pane("p3"))):
        asked = talk.asked(turn, pane, None, way, n)
        assert asked.at == pane.at and asked.messages[-1] == {"role": "user", "content": "One?"}
        turn.hear(pane, way, n, Answer(pane.at, asked.sampling, text=f"again {n}", done=True))
    assert turn.panes["p1"].at == point(0.5) == turn.answers["p1"].at and turn.order == ("p1", "p2", "p3")
    assert turn.answers["p1"].text == "again 0" and turn.answers["p2"] is first
    assert turn.tries == {"p1": 0, "p2": 0, "p3": 1}
    assert turn.ways == {"p1": way, "p2": Way(GREEDY), "p3": way}
    with pytest.raises(ChatError, match="turn is not there"):
        talk.turn(1)


def test_what_a_turn_was_answered_with_does_not_follow_the_panes():
    talk = Talk(FIVE[:2])
    turn = talk.ask("One?")
    said(turn, p1="a one", p2="b one")
    talk.change("p1", at=point(0.5), point=True, sampling=Sampling(seed=4))
    talk.shift("p2", -1)
    assert turn.panes == {"p1": Pane("p1", FIVE[0]), "p2": Pane("p2", FIVE[1])} and turn.order == ("p1", "p2")


def test_panes_are_seated_anew_under_keys_of_this_conversation():
    talk = Talk(FIVE)
    said(talk.ask("One?"), p1="a one", p4="d one")
    own = Sampling(seed=4)
    talk.seat([Pane("p4", point(0.3), True, own), Pane("l1", CORNERS["merged"], wide=True)])
    assert [(p.at, p.point, p.sampling, p.wide) for p in talk.panes] == [
        (point(0.3), True, own, False),
        (CORNERS["merged"], False, None, True),
    ]
    keys = [pane.key for pane in talk.panes]
    assert len({*keys, *talk.turns[0].panes}) == 7  # nobody takes over what another one said
    last = talk.ask("Two?")
    assert last.order == tuple(keys) and words(asked(talk, last, keys[0])) == ["Two?"]
    before = list(talk.panes)
    for wrong in ([], before[:1], [*before, *before, *before, before[0]]):
        with pytest.raises(ChatError, match=f"from {FEWEST} to {MOST} panes"):
            talk.seat(wrong)
    assert talk.panes == before


def test_of_earlier_turns_the_prompts_go_and_the_answers_stay():
    talk = Talk(FIVE[:2])
    for n in range(KEPT + 3):
        turn = talk.ask(f"Question {n}?")
        for pane in talk.panes:
            sent = Answer(
                pane.at, GREEDY, sent="sent", prompt=(1, 2), ids=(3,), text=f"answer {n}", tokens=1, done=True
            )
            turn.hear(pane, Way(GREEDY), 0, sent)
    kept = [turn.answers["p1"].prompt != () for turn in talk.turns]
    assert all(kept[-KEPT:]) and not any(kept[:2])
    for n, turn in enumerate(talk.turns):
        for found in turn.answers.values():
            assert (found.text, found.ids, found.tokens) == (f"answer {n}", (3,), 1)
            assert bool(found.sent) == bool(found.prompt)
    last = talk.ask("And now?")
    assert len(asked(talk, last, "p1")) == 2 * (KEPT + 3) + 1


def test_two_turns_of_the_same_words_are_two():
    talk = Talk(FIVE[:2])
    first = talk.ask("Who?")
    said(first, p1="I.")
    second = talk.ask("Who?")
    said(second, p1="I.")
    assert words(asked(talk, second, "p1")) == ["Who?", "I.", "Who?"] and words(asked(talk, first, "p1")) == ["Who?"]


def test_a_turn_that_is_taken_back_takes_all_after_it_along():
    talk = Talk(FIVE[:2])
    for prompt in ("One?", "Two?", "Three?", "Four?"):
        talk.ask(prompt)
    assert talk.cut(-1) == "Four?" and talk.cut(1) == "Two?"
    assert [turn.prompt for turn in talk.turns] == ["One?"]
    for place in (1, -2, 10**30):
        with pytest.raises(ChatError, match="turn is not there"):
            talk.cut(place)
    assert talk.cut(0) == "One?" and talk.turns == []
    with pytest.raises(ChatError):
        talk.cut(-1)


@given(st.integers(2, 6))
def test_a_blind_turn_has_all_its_panes_in_some_order(count):
    talk = Talk([point(i) for i in range(count)])
    turn = talk.ask("Who?", blind=True)
    assert sorted(turn.order) == sorted(turn.panes) == sorted(pane.key for pane in talk.panes)


def test_a_blind_order_is_drawn_anew_for_every_turn_and_others_are_as_they_stand():
    talk = Talk(FIVE)
    orders = {talk.ask("Who?", blind=True).order for _ in range(MOST_TURNS)}
    assert {order[0] for order in orders} == {"p1", "p2", "p3", "p4", "p5"}  # by chance not, once in a billion runs
    talk.turns.clear()
    assert talk.ask("Who?").order == tuple(pane.key for pane in talk.panes)


@pytest.mark.parametrize("vote", ["p1", TIE, BAD])
def test_a_blind_turn_hides_until_the_vote(vote):
    turn = Talk(FIVE).ask("Who?", blind=True)
    assert turn.blind and turn.hidden
    said(turn, **dict.fromkeys(turn.order, "I."))
    turn.cast(vote, NOW)
    assert turn.blind and not turn.hidden and (turn.vote, turn.voted) == (vote, NOW)
    assert not Talk(FIVE).ask("Who?").hidden


def test_a_question_to_one_pane_is_never_blind():
    turn = Talk(FIVE).ask("Who?", ["p4"], blind=True)
    assert not turn.blind and not turn.hidden


@pytest.mark.parametrize("vote", ["p3", "", "p9", "Tie", None, 0, ["p1"], "A"])
def test_only_one_of_the_answers_can_be_voted_for(vote):
    turn = Talk(FIVE[:2]).ask("Who?", blind=True)
    said(turn, p1="I.", p2="You.")
    with pytest.raises(ChatError, match="Vote for one of the answers"):
        turn.cast(vote, NOW)
    assert turn.hidden and (turn.vote, turn.voted) == ("", "")


@pytest.mark.parametrize("vote", ["p1", "p2", TIE, BAD])
def test_a_vote_waits_for_every_answer(vote):
    turn = Talk(FIVE[:2]).ask("Who?", blind=True)
    half = Answer(FIVE[1], GREEDY, text="Yo")
    for heard in ({}, {"p1": "I."}, {"p1": "I.", "p2": half}):
        for key, one in heard.items():
            turn.hear(turn.panes[key], Way(GREEDY), 0, one) if isinstance(one, Answer) else said(turn, **{key: one})
        with pytest.raises(ChatError, match="once all of them are there"):
            turn.cast(vote, NOW)
        assert turn.hidden and not turn.voted
    turn.hear(turn.panes["p2"], Way(GREEDY), 0, replace(half, done=True, error="It broke off."))
    turn.cast(vote, NOW)
    assert turn.vote == vote


def test_a_turn_has_one_vote_and_one_that_is_not_blind_none():
    turn = Talk(FIVE[:2]).ask("Who?", blind=True)
    said(turn, p1="I.", p2="You.")
    turn.cast("p1", NOW)
    for vote in ("p1", "p2", TIE, BAD, "nobody"):
        with pytest.raises(ChatError, match="has its vote already"):
            turn.cast(vote, "later")
    assert (turn.vote, turn.voted) == ("p1", NOW)
    shown = Talk(FIVE[:2]).ask("Who?")
    said(shown, p1="I.", p2="You.")
    with pytest.raises(ChatError, match="not blind"):
        shown.cast("p1", NOW)
    assert not shown.vote and not shown.chose("p1")


def test_a_vote_is_for_an_answer_and_not_for_what_stands_there_later():
    talk = Talk(FIVE[:3])
    turn = talk.ask("Who?", ["p1", "p2"], blind=True)
    said(turn, p1="I.", p2="You.")
    turn.cast("p2", NOW)
    assert turn.chose("p2") and not turn.chose("p1")
    voted = turn.answers["p2"]
    moved = talk.change("p2", at=point(0.25), point=True)
    turn.hear(moved, Way(GREEDY), 0, Answer(moved.at, GREEDY, text="We.", done=True))
    assert not turn.chose("p2")
    turn.hear(moved, Way(GREEDY), 0, voted)
    assert turn.chose("p2")


def test_another_answer_of_the_same_pane_is_not_the_one_that_was_voted_for():
    turn = Talk(FIVE[:2]).ask("Who?", blind=True)
    said(turn, p1="I.", p2="You.")
    assert not turn.chose("p1") and not turn.chose("p2")
    turn.cast("p1", NOW)
    voted = turn.answers["p1"]
    for other in ({"text": "We."}, {"sampling": Sampling(seed=1)}, {"at": point(0.5)}):
        turn.answers["p1"] = replace(voted, **other)
        assert not turn.chose("p1") and not turn.chose("p2")
    for vote in (TIE, BAD):
        tied = Talk(FIVE[:2]).ask("Who?", blind=True)
        said(tied, p1="I.", p2="You.")
        tied.cast(vote, NOW)
        assert not any(tied.chose(key) for key in ("p1", "p2", vote))


def test_what_a_pane_is_asked_goes_through_its_own_prompter():
    talk = Talk(FIVE[:2])
    turn, own = talk.ask("Who?"), SimpleNamespace()
    one, other = talk.panes
    assert talk.asked(turn, one, own, Way(GREEDY)).prompter is own
    assert talk.asked(turn, other, None, Way(GREEDY)).prompter is None
