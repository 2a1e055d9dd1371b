"""The Sweep tab's first part: scores along a path."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from analysis.sweep import MOST_STEPS, Row, Step, along, closer, corners, known, sweep
from transfer.plane import Path

from . import files, offer, scoring
from .earlier import laid_beside, owner_of, remember
from .fields import dial, figure, unchecked
from .paths import BETWEEN, BOTTOM, FIELDS, NAMES, OWN, RAMP, SAME, TOP, Asked, asked
from .shared import Shared
from .swept import STOPPED, Swept, results
from .swept import figure as drawn
from .triple import Refs
from .work import Turn, background, notice, progress_bar, say

HINT = notice("Press Sweep: every step is scored beside the parents, and the best one marked.")
REFINED = 8  # steps more, at most, when the best is looked for


@dataclass
class Along:
    """The part's components."""

    path: gr.Dropdown
    start: gr.Number
    end: gr.Number
    count: gr.Slider
    refine: gr.Checkbox
    ends: list[gr.Number]
    ends_row: gr.Row
    schedule: gr.Radio
    factors: list[Any]
    run: gr.Button
    stop: gr.Button
    progress: gr.HTML
    plot: gr.Plot
    compare: gr.Dropdown
    table: gr.Dataframe
    flips: gr.HTML
    save: list[gr.DownloadButton]
    more: gr.Accordion
    offer: offer.Offer

    @property
    def fields(self) -> list[Any]:
        """In the order of Asked."""
        return [self.path, self.start, self.end, self.count, self.refine, *self.ends, self.schedule, *self.factors]

    @property
    def results(self) -> list[Any]:
        """What `run` and `glance` fill."""
        return [self.progress, self.plot, self.table, self.flips, *self.save, self.more, *self.offer.shown]


def build() -> Along:
    """Lay it out."""
    with gr.Row(elem_classes="ts-bar"):
        names = [(name, key) for key, name in NAMES.items()]
        path = unchecked(gr.Dropdown(names, value="strength", label="Path", elem_id="path", scale=4, min_width=240))
        start = figure(0.0, label="From", step=0.1, min_width=100, elem_id="from")
        end = figure(1.5, label="To", step=0.1, min_width=100, elem_id="to")
        count = dial(2, MOST_STEPS, 7, step=1, label="Steps", elem_id="steps", min_width=140, scale=2)
        run_ = gr.Button("Sweep", variant="primary", elem_id="sweep", min_width=100)
        stop = gr.Button("Stop", variant="stop", elem_id="stop-sweep", min_width=80)
    with gr.Row(elem_classes="ts-bar", visible=False) as ends_row:
        ends = [
            figure(value, label=label, step=0.1, min_width=80)
            for label, value in (("α of the start", 0.0), ("β of the start", 0.0), ("α of the end", 1.0), ("β of the end", 1.0))
        ]  # fmt: skip
    with gr.Accordion("Schedule over depth, and looking closer", open=False):
        with gr.Row(elem_classes="ts-wrap"):
            refine = gr.Checkbox(
                True, label=f"Look closer round the best (up to {REFINED} steps more, as far as the noise allows)",
                elem_id="refine",
            )  # fmt: skip
            schedule = unchecked(gr.Radio([SAME, RAMP, OWN], value=SAME, label="α over depth", elem_id="schedule"))
        with gr.Row(elem_classes="ts-bar"):
            low = figure(
                1.0,
                label="Ramp: factor of the first layer, and of embedding and head",
                step=0.1,
                min_width=120,
                visible=False,
            )
            high = figure(1.0, label="Ramp: factor of the last layer", step=0.1, min_width=120, visible=False)
            own = gr.Textbox(
                "", label="Factors, one a layer (and last of all: outside the layers)", placeholder="0, 0.5, 1, 1, 1",
                max_length=4000, min_width=240, scale=3, elem_id="factors", visible=False,
            )  # fmt: skip
    progress = gr.HTML(HINT, elem_id="sweep-told", padding=False)
    plot = gr.Plot(label="Scores along the path (click a step to take it along)", elem_id="sweep-plot")
    compare = unchecked(
        gr.Dropdown([], multiselect=True, label="Lay beside it: earlier sweeps", elem_id="earlier", visible=False)
    )
    bar = offer.build("path")
    with gr.Accordion("Every point, what changed, and files", open=False, visible=False) as more:
        table = gr.Dataframe(interactive=False, max_height=360, show_label=False, elem_id="sweep-table")
        flipped = gr.HTML("", padding=False, elem_id="flips")
        with gr.Row():
            save = files.buttons("sweep")
    return Along(
        path, start, end, count, refine, ends, ends_row, schedule, [low, high, own], run_, stop, progress, plot,
        compare, table, flipped, save, more, bar,
    )  # fmt: skip


def run(shared: Shared, session: str, refs: Refs, earlier: Any, *fields: Any) -> Iterator[list[Any]]:
    """Sweep: yields values for Along.results as points are scored; what is scored stays.

    `fields` are those of the scoring form, then of this one.
    """
    keep = [gr.skip()] * 14
    turn = Turn(shared.turns, f"{session} along")
    try:
        triple = shared.here(refs)
        form = len(fields) - len(FIELDS)
        wanted, scorers = asked(triple, *fields[form:]), scoring.chosen(*fields[:form])
        began, total, rows = time.monotonic(), len(triple.checkpoints) + len(wanted.at), list[Row]()
        scoring.bounded(scorers, total)
        yield [progress_bar(0, began, "Starting"), *keep[1:]]
        prompter = shared.prompter(triple)
        others = laid_beside(shared.results, session, earlier, triple, wanted, scorers)

        def work(tick: Any) -> Iterator[Row]:
            how: tuple[Any, ...] = (scorers, shared.results, tick)
            yield from sweep(shared.store, triple, prompter, corners(triple), *how)
            if wanted.refine and isinstance(wanted.path, Path):
                yield from closer(
                    shared.store, triple, prompter, wanted.path, wanted.at, scorers, REFINED, shared.results, tick
                )
            else:
                yield from sweep(shared.store, triple, prompter, along(wanted.path, wanted.at), *how)

        last = 0.0
        for row in turn.heed(background(work)):
            if row is None:
                yield keep
                continue
            rows.append(row)
            bar = progress_bar(min(1.0, len(rows) / total), began, doing(rows, total))
            plot = gr.skip()
            if time.monotonic() - last > 0.5 and row.t is not None:
                plot, last = drawn(Swept(triple, wanted, scorers, rows), others), time.monotonic()
            yield [bar, plot, *keep[2:]]
        if not turn.current:
            return
        if not rows:
            yield [notice(STOPPED), *keep[1:]]
            return
        swept = Swept(triple, wanted, scorers, rows, time.monotonic() - began, turn.halted)
        remember(shared.results, owner_of(session), triple, wanted.name, wanted.axis, rows, scorers)
        shared.show(f"{session} along", swept)
        yield results(swept, others)
    except Exception as error:
        yield [notice(say(error), "error"), *keep[1:]]


def glance(shared: Shared, session: str, refs: Refs, earlier: Any, *fields: Any) -> list[Any]:
    """What is known already of the sweep that the form asks for, without scoring anything: values for Along.results."""
    try:
        if not refs or (triple := shared.triple(refs)).missing:
            return nothing()
        form = len(fields) - len(FIELDS)
        wanted, scorers = asked(triple, *fields[form:]), scoring.chosen(*fields[:form])
        rows = known(
            triple, [*corners(triple), *along(wanted.path, wanted.at), *between(wanted)], scorers, shared.results
        )
        found = sum(row.t in wanted.at for row in rows if row.t is not None)
        if found < 2:
            return nothing()
        swept = Swept(triple, wanted, scorers, rows)
        shared.show(f"{session} along", swept)
        shown = results(swept, laid_beside(shared.results, session, earlier, triple, wanted, scorers))
        if found < len(wanted.at):
            told = f"{found} of {len(wanted.at)} steps were scored before. Press Sweep to go on where it stopped."
            shown[0] = notice(told)
        return shown
    except Exception:  # the form is half filled, say: Sweep will tell
        return nothing()


def between(wanted: Asked) -> list[Step]:
    """Where looking closer may have scored: halves and quarters of the steps."""
    if not wanted.refine or not isinstance(wanted.path, Path):
        return []
    pairs = zip(wanted.at[:-1], wanted.at[1:], strict=True)
    return along(wanted.path, [round(a + (b - a) * part, 6) for a, b in pairs for part in (0.25, 0.5, 0.75)])


def redraw(shared: Shared, session: str, earlier: Any) -> Any:
    """The figure of the sweep on the page, beside other earlier ones."""
    swept = shared.shown(f"{session} along")
    if swept is None:
        return gr.skip()
    return drawn(swept, laid_beside(shared.results, session, earlier, swept.triple, swept.wanted, swept.scorers))


def nothing() -> list[Any]:
    """The part as it is before the first sweep of a triple."""
    return [HINT, None, None, "", *[gr.skip()] * 4, gr.update(visible=False), *offer.offered(None)]


def doing(rows: list[Row], total: int) -> str:
    """The line under the bar."""
    now = rows[-1].label
    if len(rows) > total:
        return f"looking closer round the best: {now}"
    return f"{len(rows)} of {total} points, {now}{' (known already)' if rows[-1].known else ''}"


def plan(path: Any) -> list[Any]:
    """What a path shows of the form: ends for two points, no range over depth; and the range that suits it."""
    layered = path in (BOTTOM, TOP)
    end = gr.update(visible=not layered, value=1.5 if path == "strength" else 1.0)
    return [gr.update(visible=path == BETWEEN), gr.update(visible=not layered), end]


def scheduled(kind: Any) -> list[Any]:
    """The fields that a schedule has."""
    return [*[gr.update(visible=kind == RAMP)] * 2, gr.update(visible=kind == OWN)]
