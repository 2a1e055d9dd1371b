"""What one visitor's Chat tab holds: a conversation, which pane the dials move, and the answers over α."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from transfer.chat import Answer, answer, plan
from transfer.errors import ChatError, TransferscopeError
from transfer.plane import CORNERS, Mix, point
from transfer.prompt import MANNERS
from transfer.sampling import Sampling
from transfer.store import Store
from transfer.talk import Talk
from transfer.talk import Turn as Question
from transfer.triple import Triple

from .inputs import number, whole, words
from .work import Turn

ORDER = ("source_base", "source_tuned", "target_base", "merged", "target_tuned")
LONGEST = 20_000  # characters of a prompt


@dataclass(frozen=True)
class Settings:
    """How questions are asked, as the form says."""

    sampling: Sampling
    system: str = ""
    manner: str = "own"
    blind: bool = False
    remember: bool = True


def sampling_of(temperature: Any, top_p: Any, max_tokens: Any, seed: Any) -> Sampling:
    """Raises PointError that names the field."""
    return Sampling(
        temperature=number(temperature, "Temperature", 0, 2),
        top_p=number(top_p, "Top-p", 0.01, 1),
        max_tokens=whole(max_tokens, "Tokens at most", 1, 4096),
        seed=whole(seed, "Seed", 0, 2**31 - 1),
    )


def settings_of(
    temperature: Any, top_p: Any, max_tokens: Any, seed: Any, system: Any, manner: Any, blind: Any, remember: Any
) -> Settings:
    """Raises PointError that names the field."""
    return Settings(
        sampling_of(temperature, top_p, max_tokens, seed),
        words(system, "The system prompt", LONGEST).strip(),
        manner if manner in MANNERS else "own",
        bool(blind),
        bool(remember),
    )


@dataclass
class Desk:
    """One for each session. `chosen` is the key of the pane that the dials move; `strip` has the answers of a pane to the
    last prompt by α, all else (`strip_of`) being equal; `sent` is the place of an answer whose prompt is looked at."""

    triple: Triple
    talk: Talk
    chosen: str
    strip: dict[float, Answer] = field(default_factory=dict)
    strip_of: tuple = ()
    sent: tuple[int, str] | None = None
    owners: dict[tuple[int, str], Turn] = field(default_factory=dict)

    @staticmethod
    def new(triple: Triple) -> "Desk":
        """All corners that the triple has, and the merged model, which the dials move."""
        talk = Talk(CORNERS[role] for role in ORDER if role == "merged" or role in triple.checkpoints)
        return Desk(triple, talk, next(p.key for p in talk.panes if p.at == CORNERS["merged"]))

    def dial(self, alpha: Any, beta: Any) -> bool:
        """Set the chosen pane to a point, unless it is there; a schedule stays. Whether it moved. Raises TransferscopeError."""
        pane = self.talk.pane(self.chosen)
        there = point(number(alpha, "α", -10, 10), number(beta, "β", -10, 10))
        if not isinstance(pane.at, Mix):
            raise ChatError(
                "This pane is an endpoint, and α and β cannot move it. Choose another pane for them with ⚙."
            )
        if pane.at.schedule or pane.at.control:
            there = replace(there, schedule=pane.at.schedule, control=pane.at.control)
        if there == pane.at:  # a corner by name stays one
            return False
        self.talk.change(pane.key, at=there, point=True)
        return True

    @property
    def dials(self) -> tuple[float, float] | None:
        """(α, β) of the chosen pane; None where it is off the plane."""
        pane = next((p for p in self.talk.panes if p.key == self.chosen), None)
        return pane.at.plane if pane and isinstance(pane.at, Mix) else None

    def planned(self, store: Store) -> str:
        """How the panes will be answered, or why not."""
        try:
            outside = sum(not isinstance(p.at, Mix) for p in self.talk.panes)
            said = plan(store, self.triple, [p.at for p in self.talk.panes]).sentence
            beside = f"{outside} endpoint{'s' if outside > 1 else ''} beside." if outside else ""
            return f"{said} {beside}".strip()
        except TransferscopeError as error:
            return str(error)

    def stream(
        self, store: Store, prompter: Any, turn: Turn, question: Question, keys: Sequence[str], settings: Settings
    ) -> Iterator[None]:
        """Have a question answered by some panes; yields whenever there is more to see. `prompter(pane, manner)` gives how a
        pane is asked. A later stream for the same pane takes over from this one. Raises ChatError where none can be asked."""
        asked = []
        for key in keys:
            how = prompter(question.panes[key], settings.manner)
            asked.append(self.talk.asked(question, key, how, settings.sampling, settings.system, settings.remember))
            self.owners[id(question), key] = turn
        mine = [False] * len(keys)
        try:
            for pictures in turn.heed(answer(store, self.triple, asked)):
                mine = [self.owners.get((id(question), key)) is turn for key in keys]
                question.answers.update((k, a) for k, a, own in zip(keys, pictures, mine, strict=True) if own)
                yield
        finally:
            for key in keys:
                if self.owners.get((id(question), key)) is turn:
                    del self.owners[id(question), key]
                    last = question.answers.get(key)
                    if last and not last.done:
                        question.answers[key] = replace(last, done=True, halted=True)
        if self.chosen in keys:
            self.note(question, settings)
        yield

    def note(self, question: Question, settings: Settings) -> None:
        """Put the chosen pane's answer on the strip, which begins anew with another prompt, β or way of asking."""
        found, pane = question.answers.get(self.chosen), question.panes.get(self.chosen)
        if question.hidden or not found or not pane or not isinstance(pane.at, Mix) or not pane.at.plane:
            return
        alpha, beta = pane.at.plane
        self.begin_strip(question, beta, pane.at, settings)
        if found.done and not found.halted:
            self.strip[alpha] = found

    def begin_strip(self, question: Question, beta: float, at: Mix, settings: Settings) -> None:
        """Forget the strip unless it is of the same."""
        tries = question.tries.get(self.chosen, 0)
        own = question.panes[self.chosen].sampling
        same = (id(question), self.chosen, beta, at.schedule, at.control, tries, own, settings.sampling, settings.system,
                settings.manner, settings.remember)  # fmt: skip
        if same != self.strip_of:
            self.strip, self.strip_of = {}, same

    def over(
        self, store: Store, prompter: Any, turn: Turn, alphas: Sequence[float], settings: Settings
    ) -> Iterator[None]:
        """Have the last prompt answered by the chosen pane at every α, the strip; yields whenever there is more of it. Raises
        ChatError where the pane is not on the plane."""
        question, pane = self.talk.turn(-1), self.talk.pane(self.chosen)
        if not isinstance(pane.at, Mix) or not pane.at.plane:
            raise ChatError(
                "This pane is no point of the plane, so it has no α. Choose another one for the dials with ⚙."
            )
        beta = pane.at.plane[1]
        question.panes.setdefault(self.chosen, pane)
        self.begin_strip(question, beta, pane.at, settings)
        strip, places = self.strip, [alpha for alpha in alphas if alpha not in self.strip]
        points = [replace(point(a, beta), schedule=pane.at.schedule, control=pane.at.control) for a in places]
        there = [replace(pane, at=mix, point=True) for mix in points]
        asked = [
            replace(
                self.talk.asked(
                    question, self.chosen, prompter(one, settings.manner), settings.sampling, settings.system, settings.remember
                ),
                at=one.at,
            )
            for one in there
        ]  # fmt: skip
        if not asked:
            return
        try:
            for pictures in turn.heed(answer(store, self.triple, asked)):
                strip.update(zip(places, pictures, strict=True))
                yield
        finally:
            for alpha in places:
                if alpha in strip and not strip[alpha].done:
                    del strip[alpha]
