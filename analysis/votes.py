"""Blind votes on answers that stood side by side: who was chosen how often, and who over whom.

Panes of one vote answered the same question, so they are compared vote by vote, as scores are item by item. The intervals
take votes as independent: the same question asked again tells less than a new one, and each pair has its 95 % alone.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import pandas as pd
from scipy.stats import binomtest

from transfer.errors import ChatError

from .paired import LEVEL, flips, paired
from .scores import mean_score
from .units import between, minus, step

FEWEST = 6  # votes for one of two that the sign test needs to call anything: 2 · 0.5⁶ is below 5 %, 2 · 0.5⁵ is not


@dataclass(frozen=True)
class Vote:
    """One vote. `shown` holds the panes' labels in the order in which they stood, `choice` the label that was chosen, or
    None for a tie; `bad` says of a tie that all were bad. `turn` counts the questions of a conversation from 1, `at` is
    the time in ISO 8601, or empty.

    Raises ChatError where that makes no vote.
    """

    prompt: str
    shown: tuple[str, ...]
    choice: str | None
    bad: bool = False
    turn: int = 1
    at: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "shown", tuple(self.shown))
        if len(self.shown) < 2 or len(set(self.shown)) < len(self.shown):
            raise ChatError("A vote takes two panes or more, each with a label of its own.")
        if self.choice is not None and self.choice not in self.shown:
            raise ChatError(f"“{self.choice}” was not among the panes shown, so it cannot be chosen.")
        if self.bad and self.choice is not None:
            raise ChatError("A vote chooses a pane, or calls all of them bad, not both.")

    def to_json(self) -> str:
        """One line of JSON Lines, in ASCII, with the keys prompt (string), shown (list of strings), choice (string or
        null), bad (boolean), turn (integer), at (string), in this order."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(line: str) -> "Vote":
        """The vote of a line that `to_json` wrote; turn and at may be missing. Raises ChatError."""
        try:
            row = json.loads(line)
            prompt, shown, choice, bad = (row[key] for key in ("prompt", "shown", "choice", "bad"))
            turn, at = row.get("turn", 1), row.get("at", "")
            words = [prompt, *shown, at] + ([] if choice is None else [choice])
            kinds = isinstance(shown, list) and isinstance(bad, bool) and isinstance(turn, int)
            if not (kinds and all(isinstance(word, str) for word in words)):
                raise TypeError
            return Vote(prompt, tuple(shown), choice, bad, turn, at)
        except (ValueError, TypeError, LookupError) as error:
            raise ChatError(
                f"This line is no vote: {line[:80]!r}. Each needs prompt, shown, choice and bad, as the page writes them."
            ) from error


def tally(votes: Iterable[Vote]) -> pd.DataFrame:
    """One row a label, the most often chosen first: `shown`, `chosen`, `ties` and `bad` count votes, `share` is
    chosen / shown with its 95 % interval `low` to `high` (Wilson 1927). Among k panes 1/k is chance, not a half."""
    votes = list(votes)
    rows = []
    for label in {label for vote in votes for label in vote.shown}:
        mine = [vote for vote in votes if label in vote.shown]
        chosen, bad = sum(vote.choice == label for vote in mine), sum(vote.bad for vote in mine)
        ties = sum(vote.choice is None for vote in mine) - bad
        low, high = binomtest(chosen, len(mine)).proportion_ci(LEVEL, method="wilson")
        rows.append((label, len(mine), chosen, ties, bad, chosen / len(mine), float(low), float(high)))
    columns = ["label", "shown", "chosen", "ties", "bad", "share", "low", "high"]
    return pd.DataFrame(sorted(rows, key=lambda r: (-r[5], r[0])), columns=columns)


def preferences(votes: Iterable[Vote]) -> pd.DataFrame:
    """One row for every two labels that stood in a vote together, in alphabetical order: `one`, `other`; of `n` votes
    `wins` chose the one, `losses` the other and `neither` none of the two (ties, all bad, or a third).

    `difference` is (wins − losses) / n with the 95 % interval `low` to `high` for paired shares (Tango 1998), and `p` the
    exact two-sided sign test on the votes for one of the two (McNemar's).
    """
    votes = list(votes)
    pairs = {pair for vote in votes for pair in combinations(sorted(vote.shown), 2)}
    rows = []
    for one, other in sorted(pairs):
        choices = [vote.choice for vote in votes if one in vote.shown and other in vote.shown]
        mine, theirs = (mean_score("votes", [float(c == label) for c in choices]) for label in (one, other))
        wins, losses, n = choices.count(one), choices.count(other), len(choices)
        found = paired(mine, theirs)
        figures = (found.value, found.low, found.high, flips(theirs, mine).p)
        rows.append((one, other, wins, losses, n - wins - losses, n, *figures))
    columns = ["one", "other", "wins", "losses", "neither", "n", "difference", "low", "high", "p"]
    return pd.DataFrame(rows, columns=columns)


def sentence(row: "pd.Series | Mapping[str, Any]") -> str:
    """A row of `preferences` in words. Preferred is who wins the sign test at 5 %; fewer than FEWEST votes for one of the
    two are too few for it, however they fall."""
    wins, losses, n = (int(row[key]) for key in ("wins", "losses", "n"))
    votes = "1 vote" if n == 1 else f"{n} votes"
    counts = f"In {votes} {row['one']} was chosen {times(wins)} and {row['other']} {times(losses)}"
    if n < FEWEST:
        return f"{counts}: {votes} {'is' if n == 1 else 'are'} too few to tell."
    if wins + losses < FEWEST:
        return f"{counts}: too few were for one of the two to tell."
    p = minus(f"{row['p']:.2g}")
    if row["p"] >= 1 - LEVEL:
        return f"{counts}: that may be chance (p = {p})."
    better = row["one"] if wins > losses else row["other"]
    ends = (row["low"], row["high"]) if wins > losses else (-row["high"], -row["low"])
    by = step(row["difference"], "share")
    return f"{counts}: {better} is preferred, by {by} of a hundred (95% interval {between(*ends, 'share')}, p = {p})."


def times(count: int) -> str:
    """How often, in a word where there is one."""
    return {1: "once", 2: "twice"}.get(count, f"{count} times")
