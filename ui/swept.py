"""What a sweep along a path leaves on the page: its summary, figure, table, items and files."""

import html
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
import pandas as pd

from analysis.plots.sweep import Other, sweep_figure
from analysis.scores import Scorer
from analysis.search import optimum
from analysis.sweep import Row, best, items_table, sweep_table
from transfer.triple import Triple

from . import files, offer, scoring
from .earlier import title
from .flips import flipped
from .paths import AXES, BOTTOM, TOP, Asked
from .work import notice

STOPPED = "Stopped. What was scored is kept: press Sweep to go on from there."


@dataclass(frozen=True)
class Swept:
    """A sweep as far as it has come: `rows` of references and steps, of which the latter are in order."""

    triple: Triple
    wanted: Asked
    scorers: Sequence[Scorer]
    rows: Sequence[Row]
    seconds: float = 0.0
    stopped: bool = False

    @property
    def references(self) -> list[Row]:
        return [row for row in self.rows if row.t is None]

    @property
    def steps(self) -> list[Row]:
        return sorted((row for row in self.rows if row.t is not None), key=lambda row: row.t or 0.0)

    @property
    def about(self) -> str:
        """What was swept, in a line."""
        return f"{title(self.triple)} · {self.wanted.name}"


def figure(swept: Swept, others: Mapping[str, Sequence[Other]] | None = None) -> Any:
    span = (swept.wanted.at[0], swept.wanted.at[-1])
    return sweep_figure(swept.rows, swept.scorers, swept.wanted.axis, span, others)


def results(swept: Swept, others: Mapping[str, Sequence[Other]] | None = None) -> list[Any]:
    """Values for Along.results."""
    rows = [*swept.references, *swept.steps]
    said = summary(swept)
    told = notice(said, "ok" if any_right(rows, swept.scorers) else "note")
    if swept.stopped:
        told = notice(STOPPED) + (told if swept.steps else "")
    told += "".join(notice(note) for note in scoring.notes(swept.scorers))
    told += "".join(notice(row.error, "error") for row in rows if row.error)
    drawn, frame = figure(swept, others), sweep_table(rows, swept.scorers)
    name = re.sub(r"[^A-Za-z0-9.]+", "-", f"sweep {title(swept.triple)} {swept.wanted.name}").strip("-")[:80]
    paths = files.saved(frame, drawn, items_table(rows, swept.scorers), name, swept.about, said)
    return [
        told, drawn, shown_table(frame, rows), flipped(rows, swept.scorers, swept.wanted.axis), *paths,
        gr.update(visible=True), *to_take(swept),
    ]  # fmt: skip


def shown_table(frame: pd.DataFrame, rows: Sequence[Row]) -> pd.DataFrame:
    """The table for the page: without what the files have for programs."""
    plain = all(row.mix.plain for row in rows)
    aside = [c for c in frame if c.endswith(" n") or c == "seconds" or (c == "mix" and plain)]
    aside += [] if frame["error"].any() else ["error"]
    shown = frame.drop(columns=[*aside, "step"]).rename(columns={"alpha": "α", "beta": "β"})
    return shown.round(4)


def any_right(rows: Sequence[Row], scorers: Sequence[Scorer]) -> bool:
    """False where shares were scored and no step of the path had anything right."""
    shares = [s.name for s in scorers if s.unit == "share"]
    scored = [row.scores[name].value for row in rows if row.t is not None for name in shares if name in row.scores]
    return not scored or max(scored) > 0


def summary(swept: Swept) -> str:
    """What was swept, the best step by each score and how sure that is, and the time: a line each."""
    found = [f"{swept.about}."]
    for scorer in swept.scorers:
        scored = {r.t: r.scores[scorer.name] for r in swept.steps if r.t is not None and scorer.name in r.scores}
        if not any_right(swept.steps, [scorer]):
            found.append(f"{scorer.name}: nothing right anywhere on this path.")
        elif any(math.isfinite(s.value) for s in scored.values()):
            sentence = optimum(scored, scorer.lower, scorer.unit, swept.wanted.axis).sentence
            if swept.wanted.axis in (AXES[BOTTOM], AXES[TOP]):  # beyond all layers there is nothing
                sentence = sentence.partition(" It is the ")[0]
            found.append(f"{scorer.name}: {sentence}")
    return "\n".join([*found, timed(swept.rows, swept.seconds)])


def timed(rows: Sequence[Row], seconds: float) -> str:
    """How many points there are, and how long they took."""
    scored = sum(not row.known for row in rows)
    if not scored:
        return f"{len(rows)} points, all of them known from before."
    now = f", {scored} of them scored now" if scored < len(rows) else ""
    return f"{len(rows)} points{now}, in {seconds:.0f} s."


def to_take(swept: Swept) -> list[Any]:
    """The best step by the first scorer as a point to take along."""
    scorer = swept.scorers[0]
    top = best(swept.rows, scorer) if any_right(swept.steps, [scorer]) else None
    if top is None:
        return offer.offered(None)
    return offer.offered(top.mix, f"is the best step by {html.escape(scorer.name)}.")
