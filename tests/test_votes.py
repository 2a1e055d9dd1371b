"""Blind votes: counted by hand, and what must not change when votes or labels change places."""

import json

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest import approx
from scipy.stats import binomtest

from analysis.paired import tango
from analysis.votes import FEWEST, Vote, preferences, sentence, tally
from transfer.errors import ChatError

SOME = [
    Vote("Who?", ("merged", "base", "tuned"), "merged"),
    Vote("Where?", ("base", "tuned", "merged"), "merged"),
    Vote("When?", ("tuned", "merged"), "tuned"),
    Vote("Why?", ("base", "merged"), None),
    Vote("How?", ("base", "tuned", "merged"), None, bad=True),
]


@st.composite
def ballots(draw):
    shown = draw(st.permutations("abcd").map(tuple).flatmap(lambda s: st.integers(2, 4).map(lambda n: s[:n])))
    choice = draw(st.sampled_from([None, *shown]))
    return Vote(draw(st.text(max_size=8)), shown, choice, choice is None and draw(st.booleans()))


BALLOTS = st.lists(ballots(), min_size=1, max_size=30)


def said(wins: int, losses: int, neither: int = 0) -> str:
    """The sentence on so many votes for two."""
    choices = ["merged"] * wins + ["tuned"] * losses + [None] * neither
    return sentence(preferences([Vote("Who?", ("tuned", "merged"), choice) for choice in choices]).iloc[0])


# --- votes -----------------------------------------------------------------------------------------------------------


def test_a_vote_is_one_line_with_the_same_keys_always():
    vote = Vote("Who\nis “it”?\u2028", ("merged", "tuned"), "tuned", turn=2, at="2025-01-31T12:00:00Z")
    line = vote.to_json()
    assert len(line.splitlines()) == 1 and line.isascii()
    assert list(json.loads(line)) == ["prompt", "shown", "choice", "bad", "turn", "at"]
    assert json.loads(Vote("Who?", ("a", "b"), None).to_json())["choice"] is None


@given(ballots())
def test_votes_come_back_from_their_lines(vote):
    assert Vote.from_json(vote.to_json()) == vote


@pytest.mark.parametrize(
    "how, words",
    [
        ({"shown": ("a",), "choice": "a"}, "two panes"),
        ({"shown": ("a", "a"), "choice": "a"}, "label of its own"),
        ({"shown": ("a", "b"), "choice": "c"}, "not among"),
        ({"shown": ("a", "b"), "choice": "a", "bad": True}, "not both"),
    ],
)
def test_what_makes_no_vote_is_refused(how, words):
    with pytest.raises(ChatError, match=words):
        Vote("Who?", **how)


@pytest.mark.parametrize(
    "line",
    [
        "", "[]", "3", '"vote"', '{"prompt": "Who?"}',
        '{"prompt": "Who?", "shown": "ab", "choice": "a", "bad": false}',
        '{"prompt": "Who?", "shown": ["a", 1], "choice": "a", "bad": false}',
        '{"prompt": "Who?", "shown": ["a", "b"], "choice": 1, "bad": false}',
        '{"prompt": "Who?", "shown": ["a", "b"], "choice": "a", "bad": 0}',
        '{"prompt": "Who?", "shown": ["a", "b"], "choice": "a", "bad": false, "turn": 1e999}',
    ],
)  # fmt: skip
def test_a_line_that_is_no_vote_is_refused(line):
    with pytest.raises(ChatError, match="no vote"):
        Vote.from_json(line)


# --- how often -------------------------------------------------------------------------------------------------------


def test_a_tally_by_hand():
    found = tally(SOME).set_index("label")
    assert list(found.index) == ["merged", "tuned", "base"]
    counts = found[["shown", "chosen", "ties", "bad"]]
    assert counts.loc["merged"].tolist() == [5, 2, 1, 1]
    assert counts.loc["tuned"].tolist() == [4, 1, 0, 1]
    assert counts.loc["base"].tolist() == [4, 0, 1, 1]
    # Wilson's, by hand for 2 of 5: (2 + z²/2 ± z·√(2·3/5 + z²/4)) / (5 + z²) with z² = 3.8415
    assert found.loc["merged", ["share", "low", "high"]].tolist() == approx([0.4, 0.11762, 0.76928], abs=1e-5)
    assert found.loc["base", ["share", "low", "high"]].tolist() == approx([0, 0, 3.8415 / 7.8415], abs=1e-5)


def test_no_votes_are_empty_tables():
    assert tally([]).empty and "label" in tally([])
    assert preferences([]).empty and "p" in preferences([])


# --- who over whom ---------------------------------------------------------------------------------------------------


def test_preferences_by_hand():
    found = preferences(iter(SOME)).set_index(["one", "other"])
    counts = found[["wins", "losses", "neither", "n"]]
    assert list(found.index) == [("base", "merged"), ("base", "tuned"), ("merged", "tuned")]
    assert counts.loc[("base", "merged")].tolist() == [0, 2, 2, 4]
    assert counts.loc[("base", "tuned")].tolist() == [0, 0, 3, 3]  # a third was chosen twice
    assert counts.loc[("merged", "tuned")].tolist() == [2, 1, 1, 4]
    assert found.loc[("base", "merged"), ["difference", "p"]].tolist() == approx([-0.5, 0.5])
    assert found.loc[("merged", "tuned"), ["difference", "p"]].tolist() == approx([0.25, 1])


def test_the_interval_is_tangos_and_p_is_exact():
    votes = [Vote("Who?", ("a", "b"), choice) for choice in ["a"] * 12 + ["b"] * 2 + [None] * 36]
    row = preferences(votes).iloc[0]
    assert row["difference"] == approx(0.2)
    assert (row["low"], row["high"]) == tango(12, 2, 50)  # which test_paired.py holds against R
    assert row["p"] == approx(2 * (1 + 14 + 91) / 2**14)  # none, one or two of fourteen, on both sides


@settings(max_examples=40, deadline=None)
@given(BALLOTS, st.randoms())
def test_the_order_of_votes_and_of_panes_changes_nothing(votes, chance):
    mixed = [Vote(v.prompt, tuple(chance.sample(v.shown, len(v.shown))), v.choice, v.bad) for v in votes]
    chance.shuffle(mixed)
    pd.testing.assert_frame_equal(tally(votes), tally(mixed))
    pd.testing.assert_frame_equal(preferences(votes), preferences(mixed))


@settings(max_examples=40, deadline=None)
@given(BALLOTS)
def test_two_labels_that_change_places_turn_the_sign(votes):
    swap = {"a": "b", "b": "a", "c": "c", "d": "d", None: None}
    turned = [Vote(v.prompt, tuple(swap[s] for s in v.shown), swap[v.choice], v.bad) for v in votes]
    here, there = (
        {(row["one"], row["other"]): row for row in preferences(found).to_dict("records")} for found in (votes, turned)
    )
    row, back = here.get(("a", "b")), there.get(("a", "b"))
    assert (row is None) == (back is None)
    if row and back:
        assert (row["wins"], row["losses"], row["n"], row["p"]) == (back["losses"], back["wins"], back["n"], back["p"])
        assert (row["difference"], row["low"], row["high"]) == approx(
            (-back["difference"], -back["high"], -back["low"])
        )


@settings(max_examples=40, deadline=None)
@given(BALLOTS)
def test_tables_agree(votes):
    counted, pairs = tally(votes).set_index("label"), preferences(votes)
    assert ((counted["low"] <= counted["share"] + 1e-12) & (counted["share"] <= counted["high"] + 1e-12)).all()
    assert (counted["chosen"] + counted["ties"] + counted["bad"] <= counted["shown"]).all()
    assert counted["chosen"].sum() == sum(v.choice is not None for v in votes)
    assert (pairs["wins"] + pairs["losses"] + pairs["neither"] == pairs["n"]).all()
    assert ((pairs["low"] <= pairs["difference"] + 1e-9) & (pairs["difference"] <= pairs["high"] + 1e-9)).all()
    for row in pairs.to_dict("records"):
        assert row["one"] in sentence(row) and sentence(row).endswith(".")


# --- in words --------------------------------------------------------------------------------------------------------


def test_sentences():
    assert said(3, 0) == "In 3 votes merged was chosen 3 times and tuned 0 times: 3 votes are too few to tell."
    assert said(0, 1) == "In 1 vote merged was chosen 0 times and tuned once: 1 vote is too few to tell."
    assert said(2, 1, 9) == (
        "In 12 votes merged was chosen twice and tuned once: too few were for one of the two to tell."
    )
    # 2 · (1 + 11 + 55 + 165 + 330) / 2¹¹
    assert said(7, 4, 1) == "In 12 votes merged was chosen 7 times and tuned 4 times: that may be chance (p = 0.55)."
    assert said(12, 2, 6) == (
        "In 20 votes merged was chosen 12 times and tuned twice: merged is preferred, by 50.0 points of a hundred "
        "(95% interval 14.6 to 73.1, p = 0.013)."
    )
    assert said(2, 12, 6).endswith(
        "tuned is preferred, by 50.0 points of a hundred (95% interval 14.6 to 73.1, p = 0.013)."
    )


def test_so_few_votes_tell_nothing_however_they_fall():
    assert binomtest(0, FEWEST - 1).pvalue > 0.05 > binomtest(0, FEWEST).pvalue
    assert "preferred" in said(FEWEST, 0) and "few" in said(FEWEST - 1, 0, 40)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_who_is_preferred_is_so_by_the_interval_too(wins, losses, neither):
    if wins + losses + neither and "preferred" in said(wins, losses, neither):
        low, high = tango(wins, losses, wins + losses + neither)
        assert low > 0 or high < 0
