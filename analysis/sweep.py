"""Scores along a path: loss on text and exact match on a task at every step, with the corners as reference lines."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from transfer.errors import Cancelled, ChatError, TaskError
from transfer.plane import CORNERS, LABELS, ROLES, Mix, Path
from transfer.prompt import Prompter
from transfer.store import Store
from transfer.triple import Triple

from .tasks import Score, Task, exact_match, loss

MOST_STEPS = 41


@dataclass(frozen=True)
class Row:
    """One point that was scored: a step of the path (`t` in its own unit), or a corner as a reference (`t` None)."""

    mix: Mix
    label: str
    t: float | None
    scores: dict[str, Score]
    seconds: float
    error: str = ""


def steps(start: float, end: float, count: int) -> list[float]:
    """Evenly spaced values, both ends included. Raises TaskError for a count or a range that makes no sweep."""
    if not 2 <= count <= MOST_STEPS:
        raise TaskError(f"A sweep has from 2 to {MOST_STEPS} steps.")
    if not (-10 <= start < end <= 10):
        raise TaskError("A sweep runs from a smaller number to a larger one, both between −10 and 10.")
    return [round(start + (end - start) * i / (count - 1), 6) for i in range(count)]


def sweep(
    store: Store,
    triple: Triple,
    prompter: Prompter,
    path: Path,
    at: Sequence[float],
    task: Task | None,
    text: str | None,
    tick: Callable[[], None] = lambda: None,
) -> Iterator[Row]:
    """Score the corners, then every step; a row as soon as it is known.

    A model that breaks at one point (out of memory, say) gives a row with its error, and the rest goes on. `tick` is
    called between batches and may raise Cancelled to stop. Raises TaskError where there is nothing to score on.
    """
    if task is None and not text:
        raise TaskError("Choose a task or a text to score on.")
    corners = [role for role in ROLES if role in triple.checkpoints]
    points: list[tuple[Mix, str, float | None]] = [(CORNERS[role], LABELS[role], None) for role in corners]
    points += [(path.at(t), f"{t:g}", t) for t in at]
    known: dict[Mix, Row] = {}
    for mix, label, t in points:
        tick()
        if mix not in known:
            known[mix] = score_point(store, triple, prompter, mix, task, text, tick)
        found = known[mix]
        yield Row(mix, label, t, found.scores, found.seconds, found.error)


def score_point(
    store: Store,
    triple: Triple,
    prompter: Prompter,
    mix: Mix,
    task: Task | None,
    text: str | None,
    tick: Callable[[], None],
) -> Row:
    """All scores of one point."""
    scores: dict[str, Score] = {}
    seconds = 0.0
    try:
        with store.lend(triple, mix, tick) as live:
            seconds = live.seconds
            if task is not None:
                scores["exact match"] = exact_match(live, prompter, task, tick=tick)
            if text:
                scores["loss"] = loss(live, prompter, text, tick=tick)
    except (Cancelled, ChatError, TaskError):  # the whole sweep's, not this point's
        raise
    except Exception as error:
        return Row(mix, "", None, scores, seconds, f"{mix}: {error}")
    return Row(mix, "", None, scores, seconds)


def sweep_table(rows: Sequence[Row], task: Task | None = None) -> pd.DataFrame:
    """One row a point: label, step, coefficients, and every score with its standard error; exact match also by kind."""
    out = []
    for row in rows:
        line: dict[str, object] = {"point": row.label, "step": row.t, "mix": str(row.mix)}
        for name, s in row.scores.items():
            line |= {name: s.value, f"{name} ± se": s.stderr, f"{name} n": s.n}
            if name == "exact match" and task is not None:
                line |= {f"exact match: {kind}": value for kind, value in by_kind(s, task).items()}
        line["error"] = row.error
        out.append(line)
    return pd.DataFrame(out)


def by_kind(found: Score, task: Task) -> dict[str, float]:
    """The mean of each kind of item."""
    kinds: dict[str, list[float]] = {}
    for item, part in zip(task.items, found.parts, strict=True):
        if item.kind:
            kinds.setdefault(item.kind, []).append(part)
    return {kind: sum(parts) / len(parts) for kind, parts in kinds.items()}


def best(rows: Sequence[Row], name: str) -> Row | None:
    """The best step of the path by a score: the lowest loss, or the highest of anything else; the first of equals."""
    scored = [r for r in rows if r.t is not None and name in r.scores and math.isfinite(r.scores[name].value)]
    if not scored:
        return None
    sign = -1 if name == "loss" else 1
    return max(scored, key=lambda r: sign * r.scores[name].value)
