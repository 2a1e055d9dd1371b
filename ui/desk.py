"""What one visitor's Chat tab holds: a conversation, which pane the dials move, and the answers over α."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from analysis.votes import Vote
from transfer.chat import Answer, answer
from transfer.client import HOSTED
from transfer.errors import ChatError, TransferscopeError
from transfer.plan import plan
from transfer.plane import CORNERS, Control, Mix, Schedule, point
from transfer.prompt import MANNERS, Prompter
from transfer.sampling import Sampling
from transfer.store import Store
from transfer.talk import Pane, Talk, Way
from transfer.talk import Turn as Question
from transfer.triple import Triple

from .inputs import number, whole, words
from .work import Turn

ORDER = ("source_base", "source_tuned", "target_base", "merged", "target_tuned")
LONGEST = 20_000  # characters of a prompt
MOST_TOKENS = 1024 if HOSTED else 4096  # of an answer
SECONDS = 120.0 if HOSTED else float("inf")  # of all answers to one press: others wait for these models too
Voice = Callable[[Pane, str], Prompter | None]  # how a pane is asked, in a manner; None for an endpoint


def sampling_of(temperature: Any, top_p: Any, max_tokens: Any, seed: Any) -> Sampling:
    """Raises PointError that names the field."""
    return Sampling(
        temperature=number(temperature, "Temperature", 0, 2),
        top_p=number(top_p, "Top-p", 0.01, 1),
        max_tokens=whole(max_tokens, "Tokens at most", 1, MOST_TOKENS),
        seed=whole(seed, "Seed", 0, 2**31 - 1),
    )


def way_of(temperature: Any, top_p: Any, max_tokens: Any, seed: Any, system: Any, manner: Any, remember: Any) -> Way:
    """How questions are asked, as the form says. Raises PointError that names the field."""
    return Way(
        sampling_of(temperature, top_p, max_tokens, seed),
        words(system, "The system prompt", LONGEST).strip(),
        manner if manner in MANNERS else "own",
        bool(remember),
    )


@dataclass(frozen=True)
class Line:
    """Where the answers of a strip lie: a question, the pane, and all of its point but α."""

    question: Question
    key: str
    beta: float
    schedule: Schedule | None
    control: Control | None


def line_of(question: Question, pane: Pane) -> Line | None:
    """None for a pane that has no α: an endpoint, a point off the plane, or a corner by name, which may be asked otherwise."""
    at = pane.at
    if not isinstance(at, Mix) or not at.plane or (at.corner and not pane.point):
        return None
    return Line(question, pane.key, at.plane[1], at.schedule, at.control)


@dataclass
class Desk:
    """One for each session. `chosen` is the key of the pane that the dials move; `strip` has answers by α along `line`, all
    asked in the same way (`how`); `sent` is the place of an answer whose prompt is looked at; `owners` says which press may
    write into which answer; `votes`, each with what it was on, are kept whatever becomes of the turns; `editing` is the place of the turn that the
    next question takes."""

    triple: Triple
    talk: Talk
    chosen: str
    strip: dict[float, Answer] = field(default_factory=dict)
    line: Line | None = None
    how: tuple = ()
    sent: tuple[int, str] | None = None
    votes: list[tuple[Vote, dict[str, Any]]] = field(default_factory=list)
    editing: int | None = None
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

    def stop(self) -> None:
        """Whatever is being answered is over, as it stands; who still answers may write nothing more."""
        for question in self.talk.turns:
            for key in list(question.order):
                if self.owners.pop((id(question), key), None):
                    said = question.answers.get(key)
                    if said and not said.done:
                        question.answers[key] = replace(said, done=True, halted=True)

    def waiting(self, prompt: str, keys: Sequence[str], way: Way) -> bool:
        """Whether the last turn asks that very prompt of the same panes in the same way, and nobody has said a word to it yet."""
        last = self.talk.turns[-1] if self.talk.turns else None
        running = last is not None and any(place == id(last) for place, _ in list(self.owners))
        return (
            running
            and last is not None
            and last.prompt == prompt
            and sorted(last.order) == sorted(keys)
            and all(one == way for one in last.ways.values())
            and not any(a.tokens for a in last.answers.values())
        )

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
        self,
        store: Store,
        voice: Voice,
        turn: Turn,
        question: Question,
        keys: Sequence[str],
        way: Way,
        anew: bool = False,
    ) -> Iterator[None]:
        """Have a question answered by some panes as they are now; yields whenever there is more to see. `anew` draws by another
        seed. A later stream for the same pane takes over from this one. Raises ChatError where none can be asked."""
        panes = [self.talk.pane(key) for key in keys]
        tries = [question.tries.get(key, -anew) + anew for key in keys]
        asked = [
            self.talk.asked(question, pane, voice(pane, way.manner), way, n)
            for pane, n in zip(panes, tries, strict=True)
        ]
        for key in keys:
            self.owners[id(question), key] = turn
        mine = lambda key: self.owners.get((id(question), key)) is turn
        pictures: list[Answer] = []
        try:
            for pictures in turn.heed(answer(store, self.triple, asked), SECONDS):
                for pane, n, picture in zip(panes, tries, pictures, strict=True):
                    if mine(pane.key):
                        question.hear(pane, way, n, picture)
                yield
            if not pictures:  # stopped before the first one: what stood there stays
                for pane, n, one in zip(panes, tries, asked, strict=True):
                    if mine(pane.key) and pane.key not in question.answers:
                        question.hear(pane, way, n, Answer(one.at, one.sampling, done=True, halted=True))
        finally:
            for key in keys:
                if mine(key):
                    del self.owners[id(question), key]
                    last = question.answers.get(key)
                    if last and not last.done:
                        question.answers[key] = replace(last, done=True, halted=True)
        self.note()
        yield

    def note(self) -> None:
        """Put the chosen pane's answer to the last prompt on the strip, which begins anew for another line or way of asking."""
        question = self.talk.turns[-1] if self.talk.turns else None
        found = question.answers.get(self.chosen) if question and not question.hidden else None
        if not question or not found or not found.done or found.halted or found.error:
            return
        pane = question.panes[self.chosen]
        line = line_of(question, pane)
        if line and isinstance(pane.at, Mix) and pane.at.plane:
            self.begin(line, self.how_of(pane, question.ways[self.chosen], question.tries[self.chosen]))
            self.strip[pane.at.plane[0]] = found

    @staticmethod
    def how_of(pane: Pane, way: Way, tries: int) -> tuple:
        """What of a way of asking makes a difference to one pane."""
        return (pane.sampling or way.sampling, way.system, way.manner == "plain", way.remember, tries)

    def begin(self, line: Line, how: tuple) -> None:
        """Forget the strip unless it is this one."""
        if (line, how) != (self.line, self.how):
            self.strip, self.line, self.how = {}, line, how

    @property
    def shown_strip(self) -> dict[float, Answer]:
        """The strip, where it is of the chosen pane as it is now and of the last prompt."""
        question = self.talk.turns[-1] if self.talk.turns else None
        pane = next((p for p in self.talk.panes if p.key == self.chosen), None)
        if not question or question.hidden or not pane or self.line is None or self.line != line_of(question, pane):
            return {}
        return self.strip

    def take(self, alpha: float) -> None:
        """Put an answer of the strip, which is there already, into its pane. Raises ChatError."""
        found = self.shown_strip.get(alpha)
        if found is None or not found.done:
            raise ChatError("That answer is not there any more.")
        question = self.talk.turns[-1]
        pane = self.talk.change(self.chosen, at=found.at, point=True)
        sampling, system, plain, remember, tries = self.how
        way = Way(sampling, system, "plain" if plain else "own", remember)
        question.hear(pane, way, tries, found)

    def over(self, store: Store, voice: Voice, turn: Turn, alphas: Sequence[float], way: Way) -> Iterator[None]:
        """Have the last prompt answered by the chosen pane at every α, the strip; yields whenever there is more of it. Raises
        ChatError where the pane has no α."""
        question, pane = self.talk.turn(-1), replace(self.talk.pane(self.chosen), point=True)
        line = line_of(question, pane)
        if line is None or not isinstance(pane.at, Mix):
            raise ChatError(
                "This pane is no point of the plane, so it has no α. Choose another one for the dials with ⚙."
            )
        self.talk.change(pane.key, point=True)
        tries = question.tries.get(pane.key, 0)
        self.begin(line, self.how_of(pane, way, tries))
        strip, places = self.strip, [a for a in alphas if a not in self.strip or self.strip[a].halted]
        base = pane.at
        panes = [
            replace(pane, at=replace(point(a, line.beta), schedule=base.schedule, control=base.control)) for a in places
        ]
        asked = [self.talk.asked(question, one, voice(one, way.manner), way, tries) for one in panes]
        if not asked:
            return
        try:
            for pictures in turn.heed(answer(store, self.triple, asked), SECONDS):
                strip.update(zip(places, pictures, strict=True))
                yield
        finally:
            for alpha in places:
                if alpha in strip and not strip[alpha].done:  # what was said until then stays, and is asked for anew
                    strip[alpha] = replace(strip[alpha], done=True, halted=True)
