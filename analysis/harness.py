"""Tasks of lm-evaluation-harness by name, scored on the live model in place by the library's own code."""

import copy
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from numbers import Real
from typing import Any, TypeVar

import torch

from transfer.errors import TaskError, TransferscopeError
from transfer.live import LiveModel, first_line
from transfer.prompt import Prompter
from transfer.watch import watched

from .catalogue import Plan, library, plan, registry
from .forms import plainly
from .scores import KEPT, Score, Tick, digest_of

MOST = 20_000  # documents of a task
DRAWS = 1_000  # of a bootstrap, where the library has no formula for a standard error
LOGITS = 2**29  # numbers of output held at once, at most, with texts of a thousand tokens
SEED = 1234  # the library's own
LOADING, BUSY = threading.Lock(), threading.Lock()  # the library is not made for threads

T = TypeVar("T")


@dataclass(frozen=True)
class Harness:
    """The main metric of a task, or of a group of tasks with a common score, on its first `limit` documents (of each).

    With `chat` the library puts the model's template around its prompts, few-shot examples and all, where there is one. A
    prompt longer than the context loses its beginning, as the library has it. The first use in a process takes ten
    seconds, and a task's data comes from the Hub. `labels` are known once it has run.
    """

    task_name: str
    limit: int | None = None
    chat: bool = True
    include: str | None = field(default=None, kw_only=True, repr=False)  # a folder of tasks, for tests: never a user's
    _held: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Raises TaskError for a name that cannot be scored, in words that say why."""
        if self.limit is not None and not 1 <= self.limit <= MOST:
            raise TaskError(f"From 1 to {MOST:,} documents of {self.task_name[:80]} can be scored.")
        self._held["plan"] = plan(registry(self.include), self.task_name)

    @property
    def plan(self) -> Plan:
        return self._held["plan"]

    @property
    def name(self) -> str:
        how = "" if self.plan.filter == "none" else f" ({self.plan.filter})"
        return f"{self.task_name} {self.plan.metric}{how}" + plainly(self.chat)

    @property
    def unit(self) -> str:
        return "share" if self.plan.share else ""

    @property
    def lower(self) -> bool:
        return self.plan.lower

    @property
    def digest(self) -> str:
        return digest_of("harness", library().__version__, self.task_name, self.plan.key, self.limit, self.chat)

    @property
    def labels(self) -> Sequence[str]:
        return self._held.get("labels", ())

    def __call__(self, live: LiveModel, prompter: Prompter, tick: Tick = lambda: None) -> Score:
        """Raises TaskError, NotFinite, and what `tick` raises."""
        if "task" not in self._held:
            self._held["task"] = patiently(self._load, tick)
        with turn(tick):
            found = self._evaluate(live, prompter, tick)
        results, leaves = found["results"][self.task_name], self.plan.leaves
        if self.plan.key not in results:
            raise TaskError(f"lm-evaluation-harness gave no {self.plan.metric} of {self.task_name}.")
        value, stderr = results[self.plan.key], results.get(f"{self.plan.metric}_stderr,{self.plan.filter}")
        rows = [row for leaf in leaves for row in found["samples"][leaf] if row["filter"] == self.plan.filter]
        self._held["labels"] = tuple(str(row["arguments"][0][0])[-KEPT:] for row in rows)
        parts = [row.get(self.plan.metric) for row in rows]
        each = all(isinstance(part, Real) for part in parts) and math.isclose(sum(parts) / len(parts), value)
        return Score(
            self.name,
            float(value),
            float(stderr) if isinstance(stderr, Real) else math.nan,
            sum(found["n-samples"][leaf]["effective"] for leaf in leaves),
            tuple(map(float, parts)) if each else (),  # else it is no mean of theirs
            (),
            tuple(map(said, rows)) if each else (),
        )

    def _load(self) -> Any:
        """The library's tasks and groups of this name, with their data. Raises TaskError."""
        try:
            with LOADING:
                return registry(self.include).load([self.task_name])
        except Exception as error:
            raise TaskError(
                f"lm-evaluation-harness could not load {self.task_name}: {first_line(error).rstrip('.')}. Its data comes from the Hugging "
                "Face Hub; some tasks also need packages of their own."
            ) from error

    def _evaluate(self, live: LiveModel, prompter: Prompter, tick: Tick) -> dict[str, Any]:
        """The library's results on the model as it stands: what its simple_evaluate does, without its report on the machine."""
        from lm_eval.evaluator import evaluate

        loaded, chat = self._held["task"], self.chat and prompter.has_template
        leaves = loaded["tasks"].values()
        for leaf in leaves:
            leaf.set_fewshot_seed(seed=SEED)
            if leaf.get_config("num_fewshot") is None:
                leaf.set_config(key="num_fewshot", value=0)
        try:
            for leaf in leaves:
                leaf.construct_requests = ticking(type(leaf).construct_requests.__get__(leaf), tick)
                leaf.process_results = ticking(type(leaf).process_results.__get__(leaf), tick)
            with watched(live, self.name, tick), torch.random.fork_rng():
                torch.manual_seed(SEED)
                return evaluate(
                    lm=wrapped(live, prompter, tick),
                    task_dict=loaded,
                    limit=self.limit,
                    bootstrap_iters=DRAWS,
                    apply_chat_template=chat,
                    fewshot_as_multiturn=chat,
                )
        except (TransferscopeError, RuntimeError, MemoryError):  # the point's, or somebody's who stopped it
            raise
        except Exception as error:
            raise TaskError(
                f"lm-evaluation-harness could not score {self.task_name}: {first_line(error).rstrip('.')}."
            ) from error
        finally:
            for leaf in leaves:
                del leaf.construct_requests, leaf.process_results


def wrapped(live: LiveModel, prompter: Prompter, tick: Tick) -> Any:
    """The live model as the library takes one: it stops at the same tokens as elsewhere, and can be stopped between texts."""
    from lm_eval.models.huggingface import HFLM

    vocabulary = live.model.config.get_text_config().vocab_size
    lm: Any = HFLM(
        pretrained=live.model,
        tokenizer=copy.deepcopy(prompter.tokenizer),  # the library sets sides of padding as it goes
        batch_size=max(1, min(16, LOGITS // (vocabulary * 1024))),
        softmax_dtype="float32",  # in bfloat16 the likelihoods of whole texts would tie
        max_length=prompter.context if prompter.context < 2**31 else None,
    )
    generate = lm._model_generate
    lm._model_generate = lambda *given, **more: generate(*given, **{"eos_token_id": sorted(prompter.stops), **more})
    lm.tok_encode = ticking(lm.tok_encode, tick)
    for kind in ("loglikelihood", "loglikelihood_rolling", "generate_until"):
        setattr(lm, kind, partial(getattr(lm, kind), disable_tqdm=True))
    return lm


def said(row: dict[str, Any]) -> str:
    """What was answered to a document: the likeliest of several texts, or what was written."""
    given = row["filtered_resps"]
    if given and all(isinstance(answer, tuple | list) and len(answer) == 2 for answer in given):
        likeliest = max(range(len(given)), key=lambda i: given[i][0])
        return str(row["arguments"][likeliest][-1]).strip()[:KEPT] if len(given) > 1 else ""
    return str(given[0] if given else "").strip()[:KEPT]


def ticking(function: Callable[..., T], tick: Tick) -> Callable[..., T]:
    """The function, with a tick before every call."""

    def call(*given: Any, **more: Any) -> T:
        tick()
        return function(*given, **more)

    return call


@contextmanager
def turn(tick: Tick) -> Iterator[None]:
    """The library for oneself; waits with `tick`."""
    while not BUSY.acquire(timeout=0.2):
        tick()
    try:
        yield
    finally:
        BUSY.release()


def patiently(work: Callable[[], T], tick: Tick) -> T:
    """What `work` returns or raises. It runs in a thread of its own, so that `tick` may stop the wait for it."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    while True:
        try:
            return future.result(timeout=0.2)
        except NotYet:
            if future.done():
                raise
            tick()
