"""The Compare tab's lower part: spectra of whole layers, as a table."""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from analysis.decompose import EXACT_SIDE, estimate_seconds
from analysis.geometry import place
from analysis.matrix import matrices
from analysis.spectrum import MatrixSpectra, spectra, spectra_table
from transfer.errors import TripleError

from .fields import unchecked
from .scratch import scratch
from .shared import Shared
from .triple import Refs
from .turns import affordable, alone
from .work import background, notice, progress_bar, say

MOST_LAYERS = 200


@dataclass
class LayersPart:
    """The part's components."""

    layers: gr.Dropdown
    measure: gr.Button
    told: gr.HTML
    table: gr.Dataframe
    save: gr.DownloadButton

    @property
    def results(self) -> list[Any]:
        return [self.told, self.table, self.save]


def build() -> LayersPart:
    """Lay it out."""
    with gr.Accordion("Spectra of whole layers", open=False):
        gr.HTML(
            '<p class="ts-about">The figures of every weight matrix of the layers you choose, as a table: does the change get '
            "simpler or richer with depth, and where does it share directions with the new release? Stop is above.</p>",
            padding=False,
        )
        with gr.Row(elem_classes="ts-bar"):
            layers = unchecked(gr.Dropdown([], label="Layers", multiselect=True, elem_id="layers"))
            measure = gr.Button("Measure", elem_id="measure-layers")
        told = gr.HTML("", padding=False)
        table = gr.Dataframe(interactive=False, max_height=420, show_label=False, elem_id="spectra", visible=False)
        save = gr.DownloadButton("Download the spectra (CSV)", size="sm", visible=False)
    return LayersPart(layers, measure, told, table, save)


def choices(names: list[str]) -> list[Any]:
    """The layers of these matrices to choose from, and the results of another triple cleared."""
    layers = sorted({layer for name in names if (layer := place(name.split("[")[0])[0]) is not None})
    chosen = gr.update(choices=[str(layer) for layer in layers], value=some(layers))
    return [chosen, "", gr.update(visible=False), gr.update(visible=False)]


def some(layers: list[int]) -> list[str]:
    """The first, the middle and the last of the layers."""
    return [str(layer) for layer in dict.fromkeys((layers[0], layers[len(layers) // 2], layers[-1]))] if layers else []


def readable(column: str) -> str:
    """A column of spectra_table in the page's words: overlap_shift_left → shared with δ, left."""
    words_ = {
        "sigma_1": "σ₁", "sigma_1_error": "σ₁ ±", "overlap_shift_left": "shared with δ, left",
        "overlap_shift_right": "shared with δ, right", "overlap_reference_left": "shared with Δₜ, left",
        "overlap_reference_right": "shared with Δₜ, right", "chance_left": "by chance, left", "chance_right": "by chance, right",
    }  # fmt: skip
    word = re.sub(r"^top_(\d+)$", r"in the top \1", re.sub(r"^directions_(\d+)$", r"directions for \1 %", column))
    return words_.get(column, word.replace("_", " "))


def run(shared: Shared, refs: Refs, chosen: object) -> Iterator[list[Any]]:
    """The summary of every matrix of the chosen layers.

    Yields values for LayersPart.results.
    """
    keep = [gr.skip(), gr.skip()]
    try:
        triple = shared.here(refs)
        numbers = [int(n) for n in chosen if str(n).isdigit()][:MOST_LAYERS] if isinstance(chosen, list) else []
        pieces = matrices(triple, layers=numbers)
        if not pieces:
            raise TripleError("Choose at least one layer.")
        found, start = [], time.monotonic()
        affordable(sum(3 * estimate_seconds((p.shape[0], p.shape[1]), min(p.shape) <= EXACT_SIDE) for p in pieces))

        def work(tick: Callable[[], None]) -> Iterator[MatrixSpectra]:
            with alone(tick):
                yield from spectra(triple, pieces, with_intruders=False, tick=tick)

        for one in background(work):
            if one is not None:
                found.append(one)
            yield [progress_bar(len(found) / len(pieces), start, f"{len(found)} of {len(pieces)} matrices"), *keep]
        table = spectra_table(found)
        path = scratch() / f"spectra-{triple.identity[:8]}.csv"
        table.to_csv(path, index=False)
        shown = table.drop(columns=[c for c in table if table[c].isna().all()]).round(4)
        shown = shown.rename(columns={name: readable(name) for name in shown})
        yield ["", gr.update(value=shown, visible=True), gr.update(value=str(path), visible=True)]
    except Exception as error:
        yield [notice(say(error), "error"), gr.update(visible=False), gr.update(visible=False)]
