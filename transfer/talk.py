"""A conversation with several panes: who sits where, what was asked, and what each of them answered.

Every pane has a history of its own: what it was asked and what it said itself. Nothing here runs a model.
"""

import itertools
import random
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from .chat import Answer, Asked
from .endpoint import Endpoint
from .errors import ChatError
from .plane import Mix
from .prompt import Message, Prompter
from .sampling import Sampling

FEWEST, MOST = 2, 6  # panes
MOST_TURNS = 100
KEPT = 8  # turns whose prompts are kept as they were sent
TIE, BAD = "tie", "bad"  # a vote for none: they are as good, or none is any good


@dataclass(frozen=True)
class Pane:
    """One place: a point or an endpoint, with a way of drawing of its own where it has one. A `point` was set by its
    coefficients and is asked like any merged model, even where it falls on a corner."""

    key: str
    at: Mix | Endpoint
    point: bool = False
    sampling: Sampling | None = None
    wide: bool = False


@dataclass(frozen=True)
class Way:
    """How all panes of a turn are asked: the shared sampling, the system prompt, through whose template, and whether each
    remembers what it said."""

    sampling: Sampling
    system: str = ""
    manner: str = "own"
    remember: bool = True


@dataclass(eq=False)
class Turn:
    """A prompt and what it was answered with, by the panes' keys, in the order in which they are shown. `panes` are those
    that answered, as they were then, `ways` how they were asked. A blind turn hides who is who until `vote` (a key, TIE or
    BAD) is given."""

    prompt: str
    panes: dict[str, Pane]
    order: tuple[str, ...]
    blind: bool = False
    vote: str = ""
    voted: str = ""  # when, in ISO 8601
    voted_for: Answer | None = None
    answers: dict[str, Answer] = field(default_factory=dict)
    ways: dict[str, Way] = field(default_factory=dict)
    tries: dict[str, int] = field(default_factory=dict)

    @property
    def hidden(self) -> bool:
        return self.blind and not self.vote

    def hear(self, pane: Pane, way: Way, tries: int, answer: Answer) -> None:
        """An answer of a pane as it is now, in the place of what stood there."""
        self.panes[pane.key], self.ways[pane.key], self.tries[pane.key] = pane, way, tries
        self.answers[pane.key] = answer
        if pane.key not in self.order:
            self.order += (pane.key,)

    def cast(self, vote: str, when: str) -> None:
        """Take a vote. Raises ChatError where it is none, or too early, or too late."""
        if not self.hidden:
            raise ChatError("This turn has its vote already." if self.blind else "This turn is not blind.")
        done = all(key in self.answers and self.answers[key].done for key in self.order)
        if vote not in (*self.order, TIE, BAD) or not done:
            raise ChatError("Vote for one of the answers, once all of them are there.")
        self.vote, self.voted = vote, when
        self.voted_for = self.answers.get(vote)

    def chose(self, key: str) -> bool:
        """Whether the vote was for the answer that stands there now."""
        said, now = self.voted_for, self.answers.get(key)
        return (
            key == self.vote
            and said is not None
            and now is not None
            and (said.at, said.text, said.sampling) == (now.at, now.text, now.sampling)
        )


class Talk:
    """The panes and turns of one conversation."""

    def __init__(self, at: Iterable[Mix | Endpoint] = ()):
        self._keys = itertools.count(1)
        self.panes: list[Pane] = [Pane(self._key(), one) for one in at]
        self.turns: list[Turn] = []
        self._lock = threading.RLock()  # several presses of one person may be under way

    def _key(self) -> str:
        return f"p{next(self._keys)}"

    def pane(self, key: str) -> Pane:
        """Raises ChatError for one that is not there (any more)."""
        found = next((pane for pane in self.panes if pane.key == key), None)
        if found is None:
            raise ChatError("That pane is not there any more. Choose another one.")
        return found

    def add(self, at: Mix | Endpoint, point: bool = False) -> Pane:
        """One more pane, at the end. Raises ChatError where there are six."""
        with self._lock:
            if len(self.panes) >= MOST:
                raise ChatError(f"There are {MOST} panes, and no room for more. Remove one first.")
            self.panes.append(Pane(self._key(), at, point))
            return self.panes[-1]

    def seat(self, panes: Sequence[Pane]) -> None:
        """These panes in the place of those that are there, under keys of this conversation. Raises ChatError."""
        if not FEWEST <= len(panes) <= MOST:
            raise ChatError(f"There are from {FEWEST} to {MOST} panes, and not {len(panes)}.")
        self.panes = [replace(pane, key=self._key()) for pane in panes]

    def remove(self, key: str) -> None:
        """Raises ChatError where only two are left."""
        with self._lock:
            pane = self.pane(key)
            if len(self.panes) <= FEWEST:
                raise ChatError(f"A comparison takes {FEWEST} panes at least. Set this one to something else instead.")
            self.panes.remove(pane)

    def change(self, key: str, **to: object) -> Pane:
        """Set a pane's fields; what it said before stays its history. Raises ChatError."""
        with self._lock:
            place = self.panes.index(self.pane(key))
            self.panes[place] = replace(self.panes[place], **to)  # type: ignore[arg-type]
            return self.panes[place]

    def shift(self, key: str, by: int) -> None:
        """Move a pane by so many places. Raises ChatError."""
        with self._lock:
            place = self.panes.index(self.pane(key))
            there = min(max(place + by, 0), len(self.panes) - 1)
            self.panes.insert(there, self.panes.pop(place))

    def ask(self, prompt: str, keys: Sequence[str] = (), blind: bool = False) -> Turn:
        """A new turn for these panes, or for all. Raises ChatError."""
        if not prompt.strip():
            raise ChatError("The prompt is empty. Type a question first.")
        if len(self.turns) >= MOST_TURNS:
            raise ChatError(f"This conversation has {MOST_TURNS} turns. Begin a new one.")
        chosen = [self.pane(key) for key in keys] or list(self.panes)
        order = [pane.key for pane in chosen]
        blind = blind and len(order) > 1  # there is nothing to compare one with
        if blind:
            random.SystemRandom().shuffle(order)
        for old in self.turns[:-KEPT]:  # every prompt holds all before it, and all of them would be too much to keep
            old.answers = {key: replace(said, sent="", prompt=()) for key, said in old.answers.items()}
        turn = Turn(prompt, {pane.key: pane for pane in chosen}, tuple(order), blind)
        self.turns.append(turn)
        return turn

    def turn(self, place: int) -> Turn:
        """Raises ChatError for one that is not there (any more)."""
        if not -len(self.turns) <= place < len(self.turns):
            raise ChatError("That turn is not there any more.")
        return self.turns[place]

    def cut(self, place: int) -> str:
        """Take back the turn at `place` and all after it; its prompt. Raises ChatError."""
        prompt = self.turn(place).prompt
        del self.turns[place:]
        return prompt

    def asked(self, turn: Turn, pane: Pane, prompter: Prompter | None, way: Way, tries: int = 0) -> Asked:
        """What a pane is asked in a turn: its own history before it, where it remembers, and its own sampling or the shared
        one, with a seed of its own for every new try."""
        sampling = pane.sampling or way.sampling
        seed = (sampling.seed + tries) % 2**31
        messages = [*([{"role": "system", "content": way.system}] if way.system.strip() else [])]
        before = self.turns[: self.turns.index(turn)] if way.remember and turn in self.turns else []
        messages += history(before, pane.key)
        messages.append({"role": "user", "content": turn.prompt})
        return Asked(pane.at, tuple(messages), sampling.model_copy(update={"seed": seed}), prompter)


def history(turns: Sequence[Turn], key: str) -> list[Message]:
    """What a pane was asked and what it said, where it said anything."""
    said: list[Message] = []
    for turn in turns:
        answer = turn.answers.get(key)
        if answer and answer.text.strip():
            said.append({"role": "user", "content": turn.prompt})
            said.append({"role": "assistant", "content": answer.text.strip()})
    return said
