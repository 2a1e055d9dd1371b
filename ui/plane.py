"""The Sweep tab's second part: a score over the plane."""

import html
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from analysis.landscape import axis, landscape
from analysis.plots.landscape import landscape_figure
from analysis.scores import Scorer
from analysis.sweep import Row, best, corners, items_table, sweep, sweep_table
from analysis.units import with_error
from transfer.plane import LIMIT
from transfer.triple import Triple

from . import files, offer, scoring
from .earlier import title
from .fields import dial, figure, unchecked
from .inputs import number, whole
from .shared import Shared
from .swept import shown_table, timed
from .triple import Refs
from .work import Turn, background, notice, progress_bar, say

MOST_EXTRA = 120
STOPPED = "Stopped. What was scored is kept: press Map to go on from there."
HINT = notice("Press Map: the score is measured over the whole plane, and finer where it changes most.")
FIELDS = ("a_low", "a_high", "a_count", "b_low", "b_high", "b_count", "extra")


@dataclass
class Plane:
    """The part's components."""

    fields: list[Any]
    run: gr.Button
    stop: gr.Button
    progress: gr.HTML
    shown: gr.Dropdown
    plot: gr.Plot
    table: gr.Dataframe
    save: list[gr.DownloadButton]
    more: gr.Accordion
    offer: offer.Offer

    @property
    def results(self) -> list[Any]:
        """What `run` fills."""
        return [self.progress, self.shown, self.plot, self.table, *self.save, self.more, *self.offer.shown]


def build() -> Plane:
    """Lay it out."""
    with gr.Row(elem_classes="ts-bar"):
        fields = [
            figure(-0.25, label="α from", step=0.25, min_width=100, elem_id="a-from"),
            figure(1.5, label="α to", step=0.25, min_width=100, elem_id="a-to"),
            dial(2, 21, 8, step=1, label="Values of α", min_width=120, elem_id="a-count", scale=2),
            figure(-0.25, label="β from", step=0.25, min_width=100, elem_id="b-from"),
            figure(1.5, label="β to", step=0.25, min_width=100, elem_id="b-to"),
            dial(2, 21, 8, step=1, label="Values of β", min_width=120, elem_id="b-count", scale=2),
            dial(0, MOST_EXTRA, 16, step=1, label="Finer points where it matters", min_width=150, elem_id="extra", scale=2),
        ]  # fmt: skip
        run_ = gr.Button("Map", variant="primary", elem_id="map", min_width=90)
        stop = gr.Button("Stop", variant="stop", elem_id="stop-map", min_width=80)
    progress = gr.HTML(HINT, elem_id="map-told", padding=False)
    shown = unchecked(gr.Dropdown([], label="Score on the map", visible=False, elem_id="map-score"))
    plot = gr.Plot(label="The plane by score (click a point to take it along)", elem_id="plane-map")
    bar = offer.build("map")
    with gr.Accordion("Every point, and files", open=False, visible=False) as more:
        table = gr.Dataframe(interactive=False, max_height=360, show_label=False, elem_id="map-table")
        with gr.Row():
            save = files.buttons("map")
    return Plane(fields, run_, stop, progress, shown, plot, table, save, more, bar)


def nothing() -> list[Any]:
    """The part as it is before the first map of a triple."""
    cleared = [HINT, gr.update(visible=False), None, None, *[gr.skip()] * 4, gr.update(visible=False)]
    return [*cleared, *offer.offered(None)]


def axes(fields: Sequence[Any]) -> tuple[list[float], list[float], int]:
    """Values of α and β, and how many points more. Raises PointError, TaskError."""
    a_low, a_high, a_count, b_low, b_high, b_count, extra = fields
    alphas = axis(
        number(a_low, "α from", -LIMIT, LIMIT),
        number(a_high, "α to", -LIMIT, LIMIT),
        whole(a_count, "Values of α", 2, 21),
        "α",
    )
    betas = axis(
        number(b_low, "β from", -LIMIT, LIMIT),
        number(b_high, "β to", -LIMIT, LIMIT),
        whole(b_count, "Values of β", 2, 21),
        "β",
    )
    return alphas, betas, whole(extra, "Points more", 0, MOST_EXTRA)


def run(shared: Shared, session: str, refs: Refs, *fields: Any) -> Iterator[list[Any]]:
    """Map the plane: yields values for Plane.results; what is scored stays."""
    turn = Turn(shared.turns, f"{session} plane")
    keep = [gr.skip()] * 14
    try:
        triple = shared.here(refs)
        form = len(fields) - len(FIELDS)
        scorers, (alphas, betas, extra) = scoring.chosen(*fields[:form]), axes(fields[form:])
        rows: list[Row] = []
        began, total, drawn = time.monotonic(), len(alphas) * len(betas) + extra + len(corners(triple)), 0.0
        scoring.bounded(scorers, total)
        yield [progress_bar(0, began, "Starting"), *keep[1:]]
        prompter = shared.prompter(triple)

        def work(tick: Any) -> Iterator[Row]:
            yield from sweep(shared.store, triple, prompter, corners(triple), scorers, shared.results, tick)
            yield from landscape(shared.store, triple, prompter, alphas, betas, scorers, extra, shared.results, tick)

        for row in turn.heed(background(work)):
            if row is None:
                yield keep
                continue
            rows.append(row)
            plot = gr.skip()
            if time.monotonic() - drawn > 1.0:
                plot, drawn = landscape_figure(rows, scorers[0]), time.monotonic()
            bar = progress_bar(len(rows) / total, began, f"{len(rows)} of at most {total} points, {row.label}")
            yield [bar, gr.skip(), plot, *keep[3:]]
        if not turn.current:
            return
        if not rows:
            yield [notice(STOPPED), *keep[1:]]
            return
        shared.show(f"{session} plane", (rows, scorers))
        names = [s.name for s in scorers]
        frame, map_ = sweep_table(rows, scorers), landscape_figure(rows, scorers[0])
        told = notice(STOPPED) * turn.halted + summary(triple, rows, scorers, time.monotonic() - began)
        paths = files.saved(
            frame, map_, items_table(rows, scorers), slug(triple), f"{title(triple)}: {names[0]} over the plane"
        )
        choice = gr.update(choices=names, value=names[0], visible=len(names) > 1)
        yield [
            told,
            choice,
            map_,
            shown_table(frame, rows),
            *paths,
            gr.update(visible=True),
            *to_take(rows, scorers[0]),
        ]
    except Exception as error:
        yield [notice(say(error), "error"), *keep[1:]]


def summary(triple: Triple, rows: Sequence[Row], scorers: Sequence[Scorer], seconds: float) -> str:
    """The best point by each score, and the points that broke."""
    found = [f"{title(triple)}."]
    for scorer in scorers:
        top = best(rows, scorer)
        if top:
            found.append(f"Best {scorer.name} at {top.mix}: {with_error(top.scores[scorer.name], scorer.unit)}.")
    told = notice("\n".join([*found, timed(rows, seconds)]), "ok")
    broke = [row for row in rows if row.error]
    shown = "".join(notice(row.error, "error") for row in broke[:3])
    return told + shown + (notice(f"{len(broke) - 3} more points broke.", "error") if len(broke) > 3 else "")


def to_take(rows: Sequence[Row], scorer: Scorer) -> list[Any]:
    """The best point of the map, to take along."""
    top = best(rows, scorer)
    return offer.offered(top.mix, f"is the best point by {html.escape(scorer.name)}.") if top else offer.offered(None)


def slug(triple: Triple) -> str:
    """A name for files."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", f"plane {title(triple)}").strip("-")[:80]


def redraw(shared: Shared, session: str, name: Any) -> Any:
    """The map on the page by another of its scores."""
    rows, scorers = shared.shown(f"{session} plane") or ([], [])
    chosen = next((s for s in scorers if s.name == name), None)
    return landscape_figure(rows, chosen) if chosen else gr.skip()
