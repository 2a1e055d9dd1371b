"""The Compare tab: what fine-tuning and the new release did to each layer and each kind of module."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr
import numpy as np
import pandas as pd

from analysis.geometry import MEASURES, by_tensor, tensor_table, total
from analysis.gram import gram_pass
from analysis.plots import geometry as plots
from analysis.plots.plane import plane_figure
from transfer.align import listed
from transfer.triple import Triple, size

from .markup import mathy, tiles
from .scratch import scratch
from .shared import Shared
from .triple import Refs
from .work import background, notice, progress_bar, say

AT_ONCE = 2_000_000_000  # bytes of checkpoints that are compared without being asked


@dataclass
class CompareTab:
    """The tab's components."""

    compare: gr.Button
    stop: gr.Button
    progress: gr.HTML
    tiles: gr.HTML
    measure: gr.Dropdown
    hint: gr.HTML
    heat: gr.Plot
    lines: gr.Plot
    table: gr.Dataframe
    save: gr.DownloadButton


def build() -> CompareTab:
    """Lay the tab out."""
    with gr.Row(elem_classes="ts-bar"):
        measure = gr.Dropdown(
            [(label, name) for name, (label, _) in MEASURES.items()],
            value="relative",
            label="Measure",
            elem_id="measure",
        )
        compare = gr.Button("Compare", variant="primary", elem_id="compare")
        stop = gr.Button("Stop", variant="stop", elem_id="stop-compare")
    progress = gr.HTML("", padding=False)
    told = gr.HTML("", elem_id="tiles", padding=False)
    hint = gr.HTML(explain("relative"), padding=False)
    with gr.Row():
        with gr.Column(min_width=340):
            heat = gr.Plot(label="By layer and module kind", elem_id="heat")
        with gr.Column(min_width=340):
            lines = gr.Plot(label="By depth", elem_id="lines")
    with gr.Accordion("Every tensor", open=False):
        table = gr.Dataframe(interactive=False, max_height=420, elem_id="tensors", show_label=False)
    save = gr.DownloadButton("Download the table (CSV)", size="sm", elem_id="save-table")
    return CompareTab(compare, stop, progress, told, measure, hint, heat, lines, table, save)


def explain(measure: str) -> str:
    label, hint = MEASURES.get(measure, ("", ""))
    return f'<p class="ts-about"><b>{mathy(label)}</b> {mathy(hint)}</p>'


def figures(table: pd.DataFrame | None, measure: str) -> list[Any]:
    """The line of explanation, the heat map and the lines for a measure."""
    if measure not in MEASURES or table is None:
        return [explain(measure), None, None]
    if not table["layer"].notna().any() or table_lacks(table, measure):
        lacking = notice("This measure needs a target fine-tuned model. Choose one on the Triple tab.", "note")
        return [explain(measure) + lacking, None, None]
    return [explain(measure), plots.heat_map(table, measure), plots.depth_lines(table, measure)]


def table_lacks(table: pd.DataFrame, measure: str) -> bool:
    """True where the measure needs m'_t and the triple has none."""
    return measure in ("cos_reference", "best_alpha") and bool(table["g33"].isna().all())


def run(shared: Shared, refs: Refs, measure: str) -> Iterator[list[Any]]:
    """Compare: progress while it runs; then tiles, figures, the plane and the table.

    Yields values for (progress, tiles, hint, heat, lines, table, save, plane).
    """
    keep = [gr.skip() for _ in range(7)]
    try:
        triple = shared.here(refs)
        table = shared.table(triple)
        if table is None:
            grams, start, done = [], time.monotonic(), 0
            whole = max(1, sum(t.numel for t in triple.tensors if t.merged))
            sizes = {t.name: t.numel for t in triple.tensors}
            shown = 0.0
            for gram in background(lambda tick: gram_pass(triple, tick)):
                if gram is not None:
                    grams.append(gram)
                    done += sizes[gram.name]
                if time.monotonic() - shown > 0.2:
                    shown = time.monotonic()
                    yield [progress_bar(done / whole, start, f"{len(grams)} of {len(sizes)} tensors compared"), *keep]
            table = tensor_table(grams)
            shared.keep(triple, table)
        sums = total(table)
        frame = by_tensor(table)
        shown_frame = frame.round(5).drop(columns=[c for c in frame if frame[c].isna().all()])
        yield [
            broken(table),
            tiles(sums),
            *figures(table, measure),
            shown_frame,
            saved(triple, frame),
            plane_figure(sums),
        ]
    except Exception as error:
        yield [notice(say(error), "error"), "", gr.skip(), None, None, None, gr.skip(), None]


def broken(table: pd.DataFrame) -> str:
    """A warning that names tensors with NaN or infinity in them; empty where there are none."""
    odd = table.loc[~np.isfinite(table[["g00", "g11", "g22"]].astype(float)).all(axis=1), "tensor"].tolist()
    if not odd:
        return ""
    return notice(
        f"{len(odd)} tensors hold NaN or infinity: {listed(odd)}. Totals over them are missing below.", "warning"
    )


def saved(triple: Triple, frame: pd.DataFrame) -> str:
    """The table as a CSV file in a folder of its own."""
    path = scratch() / f"compare-{triple.identity[:8]}.csv"
    frame.to_csv(path, index=False)
    return str(path)


def first(shared: Shared, refs: Refs, measure: str) -> Iterator[list[Any]]:
    """Compare without being asked, where that is a matter of seconds."""
    cleared = [None, None, None, gr.skip(), None]
    if not refs:
        yield ["", "", gr.skip(), *cleared]
        return
    try:
        triple = shared.triple(refs)
        if triple.missing:
            yield [
                notice(f"{size(triple.missing)} of weights are still on the Hub. Press Download on the Triple tab."),
                "",
                gr.skip(),
                *cleared,
            ]
            return
        asked = triple.nbytes * len(triple.checkpoints) > AT_ONCE
    except Exception as error:
        yield [notice(say(error), "error"), "", gr.skip(), *cleared]
        return
    if asked:
        yield [
            notice("Press Compare to read these checkpoints once and measure every tensor."),
            "",
            gr.skip(),
            *cleared,
        ]
    else:
        yield from run(shared, refs, measure)


def redraw(shared: Shared, refs: Refs, measure: str) -> list[Any]:
    """The figures of another measure, from the table at hand."""
    try:
        return figures(shared.table(shared.triple(refs)) if refs else None, measure)
    except Exception as error:
        return [notice(say(error), "error"), None, None]
