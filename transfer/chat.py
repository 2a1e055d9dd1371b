"""Stream answers from several points at once: one thread a pane, tokens through one queue, stop at once."""

import queue
import threading
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import torch
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from .errors import Cancelled, TransferscopeError
from .live import first_line
from .plane import Mix
from .prompt import Message, Prompter
from .sampling import Draw, Sampling
from .store import Store
from .triple import Triple

BEAT = 0.05  # seconds between two pictures of the panes, at least
WAIT = 0.25  # and at most: who listens can stop only where it is told something
START = object()  # a pane's first word: its model is there


@dataclass(frozen=True)
class Answer:
    """One pane at one moment. Times are in seconds since its model was asked."""

    mix: Mix
    text: str = ""
    tokens: int = 0
    seconds: float = 0.0
    first: float | None = None
    fingerprint: str = ""
    done: bool = False
    stopped: bool = False
    error: str = ""

    @property
    def speed(self) -> float:
        """Tokens per second after the first."""
        after = self.seconds - (self.first or 0)
        return (self.tokens - 1) / after if self.tokens > 1 and after > 0 else 0.0


class Choose(LogitsProcessor):
    """Draws of each row as it asked for, so that `generate` stays greedy."""

    def __init__(self, draws: Sequence[Draw]):
        self.draws = draws

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return torch.stack([draw(row) for draw, row in zip(self.draws, scores, strict=True)])


class Halt(StoppingCriteria):
    """Ends a generation once somebody pressed stop."""

    def __init__(self, event: threading.Event):
        self.event = event

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_) -> torch.Tensor:
        return torch.full((len(input_ids),), self.event.is_set(), device=input_ids.device)


class Post(BaseStreamer):
    """Hands every new token to a queue as (pane, token)."""

    def __init__(self, pane: int, out: queue.SimpleQueue):
        self.pane, self.out, self.prompt_seen = pane, out, False

    def put(self, value: torch.Tensor) -> None:
        if self.prompt_seen:
            self.out.put((self.pane, value.flatten().tolist()))
        self.prompt_seen = True

    def end(self) -> None:
        pass


@dataclass
class Run:
    """What the panes of one question share."""

    store: Store
    triple: Triple
    prompter: Prompter
    ids: list[int]
    sampling: Sampling
    out: queue.SimpleQueue = field(default_factory=queue.SimpleQueue)
    stop: threading.Event = field(default_factory=threading.Event)

    def tick(self) -> None:
        if self.stop.is_set():
            raise Cancelled("Stopped.")

    def pane(self, number: int, mix: Mix) -> None:
        """Answer in one pane; every way out leaves a last word in the queue."""
        try:
            if self.stop.is_set():
                return
            with self.store.lend(self.triple, mix, self.tick) as live:
                self.out.put((number, START))
                ids = torch.tensor([self.ids])
                draw = [Choose([Draw(self.sampling)])] if self.sampling.temperature else []
                with torch.inference_mode():
                    live.generate(
                        ids,
                        torch.ones_like(ids),
                        self.prompter,
                        self.sampling.max_tokens,
                        streamer=Post(number, self.out),
                        logits_processor=LogitsProcessorList(draw),
                        stopping_criteria=StoppingCriteriaList([Halt(self.stop)]),
                    )
                if not self.stop.is_set():  # last, since it reads every weight
                    self.out.put((number, live.fingerprint))
        except TransferscopeError as error:
            self.out.put((number, error))
        except Exception as error:
            self.out.put((number, TransferscopeError(f"This pane broke off: {first_line(error)}")))
        finally:
            self.out.put((number, None))


def answer(
    store: Store,
    triple: Triple,
    prompter: Prompter,
    mixes: Sequence[Mix],
    messages: Sequence[Message],
    sampling: Sampling,
) -> Generator[list[Answer], None, None]:
    """Put one prompt to several points; yields the panes as they grow, last of all with every pane done.

    All stream at the same time where memory holds all models, else in turn. Closing it stops them within a token.
    Raises ChatError for a prompt that cannot be asked; what goes wrong in one pane is told in that pane.
    """
    for mix in mixes:
        triple.need(mix)
    ids_in = prompter.encode(messages)
    room = min(sampling.max_tokens, prompter.context - len(ids_in))  # "at most" is no wish for more than fits
    run = Run(store, triple, prompter, ids_in, sampling.model_copy(update={"max_tokens": room}))
    panes = [Answer(mix) for mix in mixes]
    ids: list[list[int]] = [[] for _ in mixes]
    asked = [time.perf_counter()] * len(mixes)
    pool = ThreadPoolExecutor(min(len(mixes), store.at_once(triple)))
    try:
        for number, mix in enumerate(mixes):
            pool.submit(run.pane, number, mix)
        shown = 0.0
        yield list(panes)
        while not all(pane.done for pane in panes):
            try:
                number, news = run.out.get(timeout=WAIT)
            except queue.Empty:
                yield list(panes)
                continue
            now = time.perf_counter()
            pane, since = panes[number], now - asked[number]
            if news is START:
                asked[number] = now
            elif isinstance(news, str):
                pane = replace(pane, fingerprint=news)
            elif isinstance(news, list):
                ids[number] += news
                kept = [i for i in ids[number] if i not in prompter.stops]
                pane = replace(
                    pane, text=prompter.decode(kept), tokens=len(ids[number]), seconds=since, first=pane.first or since
                )
            elif isinstance(news, Exception):
                pane = replace(pane, error=str(news))
            else:
                ended = bool(pane.error) or (bool(ids[number]) and ids[number][-1] in prompter.stops)
                pane = replace(pane, done=True, stopped=ended)
            panes[number] = pane
            if now - shown >= BEAT or all(p.done for p in panes):
                shown = now
                yield list(panes)
    finally:
        run.stop.set()
        pool.shutdown(wait=False, cancel_futures=True)
