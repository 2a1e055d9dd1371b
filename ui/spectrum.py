"""The Compare tab's lower part: one tensor looked into, spectra of whole layers, and the fingerprint of a lineage."""

import html
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr
import numpy as np

from analysis import lineage
from analysis.geometry import place
from analysis.plots.spectrum import histogram_figure, overlap_figure, spectrum_figure
from analysis.spectrum import (
    Histogram,
    MatrixSpectra,
    estimate_seconds,
    histogram,
    matrices,
    slices,
    spectra,
    spectra_table,
    tensor_spectra,
)
from transfer.errors import TripleError
from transfer.plane import LABELS
from transfer.stream import Reader
from transfer.triple import Triple

from .fields import unchecked
from .inputs import words
from .markup import mathy
from .scratch import scratch
from .shared import Shared
from .triple import Refs
from .work import background, notice, progress_bar, say

MOST_LAYERS = 200
AT_ONCE = 1_000_000  # elements of a matrix that is looked into without being asked
# A click on a cell of a figure tells us the tensor's name, which every mark carries as the first of its custom data. The
# figure forgets its listeners when it is drawn anew, hence the look every so often.
LISTEN = """
const listen = () => document.querySelectorAll('#heat, #lines, #kinds, #outside').forEach(box => {
    const figure = box.querySelector('.js-plotly-plot');
    if (!figure || !figure.on || figure._ts === figure._ev) return;
    figure._ts = figure._ev;
    figure.on('plotly_click', event => {
        const data = event.points[0].customdata;
        const name = Array.isArray(data) ? data[0] : data;
        if (name) trigger('select', {tensor: name});
    });
});
setInterval(listen, 400);
"""
SCROLL = "() => setTimeout(() => document.querySelector('#one-tensor').scrollIntoView({behavior: 'smooth'}), 150)"


@dataclass
class SpectrumPart:
    """The part's components."""

    listener: gr.HTML
    tensor: gr.Dropdown
    look: gr.Button
    exactly: gr.Button
    stop: gr.Button
    told: gr.HTML
    drawn: gr.Row
    spectrum: gr.Plot
    overlap: gr.Plot
    entries: gr.Plot
    side: gr.Radio
    layers: gr.Dropdown
    measure: gr.Button
    layers_told: gr.HTML
    table: gr.Dataframe
    save: gr.DownloadButton
    kinship: gr.Button
    kinship_told: gr.HTML

    @property
    def figures(self) -> list[Any]:
        return [self.told, self.drawn, self.spectrum, self.overlap, self.entries, self.exactly]


def build() -> SpectrumPart:
    """Lay it out."""
    listener = gr.HTML("", js_on_load=LISTEN, padding=False, elem_classes="ts-nothing")
    gr.HTML(
        '<h2 class="ts-h2" id="one-tensor">One tensor, looked into</h2><p class="ts-about">Click a cell above, or choose a '
        "tensor. Few directions that hold most of Δ mean a simple change; directions shared with δ, beyond chance, mean "
        "that fine-tuning and the new release pull at the same features.</p>",
        padding=False,
    )
    with gr.Row(elem_classes="ts-bar"):
        tensor = unchecked(gr.Dropdown([], label="Tensor", elem_id="tensor", filterable=True))
        look = gr.Button("Look into it", elem_id="look")
        exactly = gr.Button("Exactly", visible=False, elem_id="exactly")
        stop = gr.Button("Stop", variant="stop", elem_id="stop-spectrum")
    told = gr.HTML("", padding=False, elem_id="spectrum-told")
    with gr.Row(visible=False) as drawn:
        with gr.Column(min_width=300):
            spectrum = gr.Plot(label="Singular values", elem_id="spectrum")
        with gr.Column(min_width=300):
            overlap = gr.Plot(label="Directions shared", elem_id="overlap")
            side = gr.Radio(["left", "right"], value="left", show_label=False, container=False, elem_id="side")
        with gr.Column(min_width=300):
            entries = gr.Plot(label="Entries of Δ", elem_id="entries")
    with gr.Accordion("Spectra of whole layers", open=False):
        with gr.Row(elem_classes="ts-bar"):
            layers = unchecked(gr.Dropdown([], label="Layers", multiselect=True, elem_id="layers"))
            measure = gr.Button("Measure", elem_id="measure-layers")
        layers_told = gr.HTML("", padding=False)
        table = gr.Dataframe(interactive=False, max_height=420, show_label=False, elem_id="spectra", visible=False)
        save = gr.DownloadButton("Download the spectra (CSV)", size="sm", visible=False)
    with gr.Accordion("Is it really a child of this base?", open=False):
        gr.HTML(
            '<p class="ts-about">The totals above answer it by distance, which permuting a model\'s units would hide. The '
            "fingerprint (singular values of each head's attention products) survives that and fine-tuning.</p>",
            padding=False,
        )
        kinship = gr.Button("Compare fingerprints", elem_id="fingerprints")
        kinship_told = gr.HTML("", padding=False, elem_id="kinship")
    return SpectrumPart(
        listener, tensor, look, exactly, stop, told, drawn, spectrum, overlap, entries, side, layers, measure, layers_told, table,
        save, kinship, kinship_told,
    )  # fmt: skip


def choices(shared: Shared, refs: Refs) -> list[Any]:
    """The tensors and layers of a triple to choose from, and everything of another one cleared."""
    try:
        triple = shared.triple(refs) if refs else None
    except Exception:  # the page says it elsewhere
        triple = None
    names = [piece.name for piece in matrices(triple)] if triple else []
    layers = sorted({layer for name in names if (layer := place(name.split("[")[0])[0]) is not None})
    cleared = ["", gr.update(visible=False), None, None, None, gr.update(visible=False)]
    chosen = gr.update(choices=names, value=names[0] if names else None)
    table = [
        gr.update(choices=[str(layer) for layer in layers], value=[]),
        "",
        gr.update(visible=False),
        gr.update(visible=False),
        "",
    ]
    return [chosen, *cleared, *table]


def piece(triple: Triple, name: str) -> Any:
    """One matrix of a triple by its name; a stack's first where only the stack is named. Raises TripleError."""
    for tensor in triple.tensors:
        if tensor.merged and name.split("[")[0] == tensor.name:
            found = slices(tensor)
            return next((one for one in found if one.name == name), found[0])
    raise TripleError(f"This triple has no tensor {name!r} that is merged. Choose one from the list.")


def run(shared: Shared, refs: Refs, name: object, side: str, exact: bool = False) -> Iterator[list[Any]]:
    """One tensor's spectra, shared directions and entries.

    Yields values for SpectrumPart.figures.
    """
    keep = [gr.skip()] * 5
    try:
        triple = shared.here(refs)
        matrix = piece(triple, words(name, "Tensor", 400))
        found = shared.looked((triple.identity, matrix.name, exact))
        if found is None:
            shape = f"{matrix.shape[0]}×{matrix.shape[1]}"
            seconds = 3 * estimate_seconds(matrix.shape, exact)
            yield [notice(f"Decomposing {matrix.name} ({shape}) … about {max(1, seconds):.0f} s"), *keep]

            def work(tick: Any) -> Iterator[tuple[MatrixSpectra, Histogram]]:
                with Reader(triple.checkpoints, tick) as reader:
                    entries = histogram(reader, matrix)
                    yield tensor_spectra(reader, matrix, True if exact else None, tick=tick), entries

            for step in background(work):
                found = step or found
            shared.look((triple.identity, matrix.name, exact), found)
        if found is None:
            raise TripleError(f"Nothing was found on {matrix.name}.")
        matrix_spectra, entries = found
        yield [
            told(matrix_spectra, entries),
            gr.update(visible=True),
            spectrum_figure(matrix_spectra),
            overlap_figure(matrix_spectra, side if side in ("left", "right") else "left"),
            histogram_figure(entries),
            gr.update(visible=not matrix_spectra.spectra["delta"].exact),
        ]
    except Exception as error:
        yield [notice(say(error), "error"), gr.update(visible=False), None, None, None, gr.update(visible=False)]


def glance(shared: Shared, refs: Refs, name: object, side: str) -> Iterator[list[Any]]:
    """Look into the first tensor without being asked, where that takes no time."""
    try:
        triple = shared.triple(refs)
        small = not triple.missing and piece(triple, words(name, "Tensor", 400)).numel <= AT_ONCE
    except Exception:  # no triple, or one without a matrix: the page says it elsewhere
        small = False
    if small:
        yield from run(shared, refs, name, side)
    else:
        yield [gr.skip()] * 6


def told(found: MatrixSpectra, entries: Histogram) -> str:
    """What is found on one matrix, in tiles."""
    delta, k = found.spectra["delta"], 16
    if delta.energy == 0:
        return notice(f"{found.name}: fine-tuning changed nothing here, so there is nothing to decompose.")
    tiles = [
        (
            "stable rank",
            f"{delta.stable_rank:.3g}",
            f"‖Δ‖² / σ₁²: how many directions as strong as the first it would take. At most {delta.side}.",
        ),
    ]
    if np.isfinite(delta.effective_rank):
        tiles.append(
            (
                "effective rank",
                f"{delta.effective_rank:.4g}",
                f"exp of the entropy of the singular values, of {delta.side}.",
            )
        )
    for r in (4, 64):
        if r < delta.side and np.isfinite(delta.energy_in(r)):
            tiles.append(
                (
                    f"in the top {r}",
                    f"{delta.energy_in(r):.1%}",
                    f"of ‖Δ‖². A random matrix would have about {r / delta.side:.1%} or a little more.",
                )
            )
    for vector, symbol in (("shift", "δ"), ("reference", "Δ_t")):
        shared = found.overlaps.get(vector)
        if shared is not None and (at := np.flatnonzero(shared.ranks == k)).size and np.isfinite(shared.left[at[0]]):
            i = at[0]
            tiles.append(
                (
                    f"shared with {symbol}",
                    f"{shared.left[i]:.1%}",
                    f"of the top {k} left directions; by chance {shared.left_chance[i]:.1%}.",
                )
            )
    if found.intruders is not None:
        some = found.intruders
        undecided = f", {some.undecided} undecided" if some.undecided else ""
        tiles.append(
            (
                "intruders",
                f"{some.certain}{undecided}",
                f"of the top {some.examined} directions of m'_s are like none of m_s (cosine under {some.epsilon:g}).",
            )
        )
    tiles.append(
        (
            "unchanged",
            f"{entries.zero:.1%}",
            f"of the entries; the others have a spread of {entries.std:.2g}, at most {entries.max_abs:.2g}, excess kurtosis {entries.excess_kurtosis:.2g}.",
        )
    )
    cards = "".join(
        f'<div class="ts-tile"><span>{mathy(label)}</span><b>{value}</b><small>{mathy(about)}</small></div>'
        for label, value, about in tiles
    )
    how = (
        "" if delta.exact
        else f" Singular values are the top {len(delta.values)}, by a randomised decomposition: σ₁ = {delta.values[0]:.4g} ± {delta.errors[0]:.1g}, "
        f"{delta.captured:.1%} of ‖Δ‖² captured. Press Exactly for all of them."
    )  # fmt: skip
    shape = f"{found.shape[0]}×{found.shape[1]}"
    return f'<p class="ts-about"><b>{html.escape(found.name)}</b> {shape}.{mathy(how)}</p><div class="ts-tiles">{cards}</div>'


def turn(shared: Shared, refs: Refs, name: object, side: str) -> Any:
    """The other side's shared directions, of the tensor at hand."""
    try:
        triple = shared.triple(refs)
        key = piece(triple, words(name, "Tensor", 400)).name
        found = shared.looked((triple.identity, key, True)) or shared.looked((triple.identity, key, False))
        return overlap_figure(found[0], side) if found and side in ("left", "right") else gr.skip()
    except Exception:  # nothing has been looked into yet
        return gr.skip()


def run_layers(shared: Shared, refs: Refs, chosen: object) -> Iterator[list[Any]]:
    """The summary of every matrix of the chosen layers.

    Yields values for (layers_told, table, save).
    """
    keep = [gr.skip(), gr.skip()]
    try:
        triple = shared.here(refs)
        numbers = [int(n) for n in chosen if str(n).isdigit()][:MOST_LAYERS] if isinstance(chosen, list) else []
        pieces = matrices(triple, layers=numbers)
        if not pieces:
            raise TripleError("Choose at least one layer.")
        found, start = [], time.monotonic()
        yield [progress_bar(0, start, f"0 of {len(pieces)} matrices"), *keep]
        for one in background(lambda tick: spectra(triple, pieces, tick=tick)):
            if one is not None:
                found.append(one)
                yield [progress_bar(len(found) / len(pieces), start, f"{len(found)} of {len(pieces)} matrices"), *keep]
        table = spectra_table(found)
        path = scratch() / f"spectra-{triple.identity[:8]}.csv"
        table.to_csv(path, index=False)
        shown = table.drop(columns=[c for c in table if table[c].isna().all()]).round(4)
        yield ["", gr.update(value=shown, visible=True), gr.update(value=str(path), visible=True)]
    except Exception as error:
        yield [notice(say(error), "error"), gr.update(visible=False), gr.update(visible=False)]


def run_fingerprints(shared: Shared, refs: Refs) -> Iterator[str]:
    """Every child beside its parent by fingerprint, and the plain answer out of both checks."""
    try:
        triple = shared.here(refs)
        roles = list(triple.checkpoints)
        prints: dict[str, Any] = {}
        start = time.monotonic()

        def work(tick: Any) -> Iterator[tuple[str, Any]]:
            for role in roles:
                yield role, lineage.fingerprint(triple.checkpoints[role], tick=tick)

        yield progress_bar(0, start, "Reading the attention of each model")
        for step in background(work):
            if step is not None:
                prints[step[0]] = step[1]
                yield progress_bar(len(prints) / len(roles), start, f"{LABELS[step[0]]} read")
        found = shared.comparison(triple, 1.0)
        kin = {(k.child, k.parent): k for k in lineage.kinships(found.gram)} if found else {}
        out = []
        for child, parent in lineage.PAIRS:
            if child in prints:
                likeness = lineage.resemblance(prints[child], prints[parent])
                answer = lineage.verdict(kin.get((child, parent)), likeness)
                good = likeness.verdict == "kin" and (not kin or kin[child, parent].verdict in ("same", "near"))
                out.append(
                    notice(
                        f"{answer} {likeness.sentence if answer != likeness.sentence else ''}",
                        "ok" if good else "warning",
                    )
                )
        yield "".join(out)
    except Exception as error:
        yield notice(say(error), "error")
