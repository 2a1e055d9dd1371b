"""Stream answers from several panes at once: points of the plane and endpoints, tokens through one queue, stop at once.

Points of one config that are small enough are the rows of one batch; others answer each by itself, at the same time where
memory holds them all, else in turn.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from .decode import Row, decode
from .endpoint import Endpoint, stream
from .errors import Cancelled, ChatError, TransferscopeError
from .live import LiveModel, first_line
from .plan import plan
from .plane import Mix
from .prompt import Message, Prompter
from .sampling import Sampling
from .stack import NotStackable, Stack
from .store import Store
from .triple import Triple

BEAT = 0.05  # seconds between two looks at what the panes say
WAIT = 0.25  # and between two pictures at most: who listens can stop only where it is told something


@dataclass(frozen=True)
class Asked:
    """What one pane is asked, and who it is: a point, asked as `prompter` says, or an endpoint, which has a template of its
    own."""

    at: Mix | Endpoint
    messages: tuple[Message, ...]
    sampling: Sampling
    prompter: Prompter | None = None


@dataclass(frozen=True)
class Answer:
    """One pane at one moment. Times are in seconds since its model was asked; `prompt` and `ids` are token ids, and empty for
    an endpoint; `sent` is the exact text of the prompt and `manner` how it was made; `alike` how many panes were decoded in
    its batch."""

    at: Mix | Endpoint
    sampling: Sampling
    sent: str = ""
    manner: str = ""
    prompt: tuple[int, ...] = ()
    text: str = ""
    thought: str = ""  # what an endpoint said to itself before
    ids: tuple[int, ...] = ()
    tokens: int = 0
    seconds: float = 0.0
    first: float | None = None
    fingerprint: str = ""
    claims: str = ""  # what an endpoint says that it is
    without: tuple[str, ...] = ()  # and of the sampling, what it would not be told
    alike: int = 1
    done: bool = False
    stopped: bool = False  # it ended itself, and was not cut off at the number of tokens
    halted: bool = False  # somebody pressed stop
    error: str = ""

    @property
    def speed(self) -> float:
        """Tokens per second after the first."""
        after = self.seconds - (self.first or 0)
        return (self.tokens - 1) / after if self.tokens > 1 and after > 0 else 0.0


@dataclass
class Run:
    """What the panes of one question share. News of a pane is (number, what, value, when); tokens, which are many, wake
    nobody: who listens looks every BEAT."""

    store: Store
    triple: Triple
    asked: Sequence[Asked]
    rows: dict[int, Row]
    pool: ThreadPoolExecutor
    news: deque = field(default_factory=deque)
    rung: threading.Event = field(default_factory=threading.Event)
    stop: threading.Event = field(default_factory=threading.Event)

    def tell(self, number: int, what: str, value: Any) -> None:
        self.news.append((number, what, value, time.perf_counter()))
        if what != "token":
            self.rung.set()

    def tick(self) -> None:
        if self.stop.is_set():
            raise Cancelled("Stopped.")

    def begin(self, work: Callable[[], None], members: Sequence[int]) -> None:
        """Do the work of some panes in a thread; every way out leaves a last word of each in the queue."""

        def run() -> None:
            error: Exception | None = None
            try:
                self.tick()
                work()
            except NotStackable:
                for number in members:
                    self.begin(partial(self.alone, number), [number])
                return
            except TransferscopeError as found:
                error = found
            except Exception as found:
                error = TransferscopeError(f"This pane broke off: {first_line(found)}")
            for number in members:
                self.tell(number, "end", error)

        self.pool.submit(run)

    def together(self, members: Sequence[int]) -> None:
        """Answer in these panes as the rows of one batch."""
        with self.store.lend_stack(self.triple, [self.point(n) for n in members], self.tick) as stack:
            self.decode(stack, members)
            for row, number in enumerate(members):  # last, since it reads every weight
                self.tick()
                self.tell(number, "fingerprint", stack.fingerprint(row, self.tick))

    def alone(self, number: int) -> None:
        """Answer in a pane by a live model of its own."""
        with self.store.lend(self.triple, self.point(number), self.tick) as live:
            self.decode(live, [number])
            self.tick()
            self.tell(number, "fingerprint", live.fingerprinted(self.tick))

    def decode(self, held: LiveModel | Stack, members: Sequence[int]) -> None:
        for number in members:
            self.tell(number, "start", len(members))
        decode(
            held,
            [self.rows[number] for number in members],
            self.prompter(members[0]).pad,
            lambda row, token: self.tell(members[row], "token", token),
            self.tick,
        )

    def endpoint(self, number: int) -> None:
        """Answer in a pane by somebody else's server."""
        asked = self.asked[number]
        assert isinstance(asked.at, Endpoint)
        self.tell(number, "start", 1)
        for piece in stream(asked.at, asked.messages, asked.sampling, self.stop):
            self.tell(number, "piece", piece)

    def point(self, number: int) -> Mix:
        at = self.asked[number].at
        assert isinstance(at, Mix)
        return at

    def prompter(self, number: int) -> Prompter:
        prompter = self.asked[number].prompter
        assert prompter is not None
        return prompter


class Growing:
    """The answer of one pane as it grows."""

    def __init__(self, asked: Asked, answer: Answer):
        self.asked, self.answer = asked, answer
        self.since = time.perf_counter()
        self.ids: list[int] = []
        self.finish: str | None = None  # why an endpoint says that it ended

    def hear(self, what: str, value: Any, now: float) -> None:
        """Take in a piece of news."""
        past = now - self.since
        change: dict[str, Any]
        if what == "start":
            self.since, change = now, {"alike": value}
        elif what == "token" and value is None:
            change = {"error": f"The model's outputs are not finite (NaN or infinity) at {self.asked.at}. A smaller "
                      "coefficient may do, or one of the checkpoints is damaged."}  # fmt: skip
        elif what == "token":
            self.ids.append(value)
            change = {"tokens": len(self.ids), "seconds": past, "first": self.answer.first or past}
        elif what == "piece":
            said = "thought" if value.thought else "text"
            change = {
                said: getattr(self.answer, said) + value.text, "tokens": value.tokens, "seconds": past, "claims": value.model,
                "first": self.answer.first or (past if value.text else None), "without": value.without,
            }  # fmt: skip
            self.finish = value.finish
        elif what == "fingerprint":
            change = {"fingerprint": value}
        else:
            change = {"done": True}
            if value and not self.answer.error:
                change["error"] = str(value)
            if isinstance(self.asked.at, Endpoint):
                change["stopped"] = not value and self.finish != "length"
        self.answer = replace(self.answer, **change)

    def picture(self) -> Answer:
        """The answer as it stands."""
        prompter = self.asked.prompter
        if prompter and len(self.ids) > len(self.answer.ids):
            ended = self.ids[-1] in prompter.stops
            text = prompter.decode([i for i in self.ids if i not in prompter.stops])
            self.answer = replace(self.answer, ids=tuple(self.ids), text=text, stopped=ended)
        return self.answer


def is_long(asked: Asked) -> bool:
    """Whether something was said before."""
    return any(message["role"] == "assistant" for message in asked.messages)


def fit(rows: dict[int, Row], members: Sequence[int], number: int, prompter: Prompter | None) -> bool:
    """Whether a row's positions stay within its context for as long as the longest row of its batch goes on."""
    longest = max(rows[n].most for n in members)
    return prompter is None or len(rows[number].prompt) + longest <= prompter.context


def answer(store: Store, triple: Triple, asked: Sequence[Asked]) -> Generator[list[Answer], None, None]:
    """Ask several panes; yields them as they grow, last of all with every pane done. Closing it stops them within a layer, or a piece of a
    tensor where a model is moved.

    What goes wrong in one pane is told in that pane: a prompt that is too long for it too. Raises ChatError where no pane can
    be asked, and TripleError for a point that the triple lacks.
    """
    planned = plan(store, triple, [a.at for a in asked])
    panes, rows = [], {}
    texts: dict[tuple, str | ChatError] = {}  # a template that loops takes its two seconds once
    for number, one in enumerate(asked):
        panes.append(Growing(one, Answer(one.at, one.sampling)))
        try:
            if one.prompter is None:
                if not one.messages or not one.messages[-1]["content"].strip():
                    raise ChatError("The prompt is empty. Type a question first.")
                continue
            same = (one.prompter.template, tuple(map(str, one.messages)))
            if same not in texts:
                texts[same] = one.prompter.told(one.messages)
            sent = texts[same]
            if isinstance(sent, ChatError):
                raise sent
            ids = one.prompter.bounded(one.prompter.tokens(sent), 1)
            room = min(
                one.sampling.max_tokens, one.prompter.context - len(ids)
            )  # "at most" is no wish for more than fits
            rows[number] = Row(ids, one.sampling, frozenset(one.prompter.stops), room)
            panes[-1].answer = Answer(one.at, one.sampling, sent, one.prompter.manner, tuple(ids))
        except ChatError as error:
            more = (
                " The conversation so far counts too: begin a new one."
                if is_long(one) and "tokens" in str(error)
                else ""
            )
            panes[-1].answer = Answer(one.at, one.sampling, done=True, error=f"{error}{more}")
    if all(pane.answer.done for pane in panes):
        raise ChatError(panes[0].answer.error if panes else "There is no pane to ask. Add one.")
    outside = [n for n, one in enumerate(asked) if one.prompter is None and not panes[n].answer.done]
    workers = min(len(asked), max(planned.at_once, store.at_once(triple))) + len(outside)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="pane")
    run = Run(store, triple, asked, rows, pool)
    try:
        for number in outside:
            run.begin(partial(run.endpoint, number), [number])
        for group in planned.groups:
            members = [number for number in group if number in rows]
            if len(members) > 1 and all(fit(rows, members, number, asked[number].prompter) for number in members):
                run.begin(partial(run.together, members), members)
            else:
                for number in members:
                    run.begin(partial(run.alone, number), [number])
        yield [pane.picture() for pane in panes]
        told = time.perf_counter()
        while not all(pane.answer.done for pane in panes):
            run.rung.wait(BEAT)
            run.rung.clear()
            heard = bool(run.news)
            while run.news:
                number, what, value, when = run.news.popleft()
                panes[number].hear(what, value, when)
            now = time.perf_counter()
            if heard or now - told >= WAIT:
                told = now
                yield [pane.picture() for pane in panes]
    finally:
        run.stop.set()
        pool.shutdown(wait=False, cancel_futures=True)
