"""The Compare tab: what fine-tuning and the new release did to each layer and each kind of module."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr
import numpy as np
import pandas as pd

from analysis.comparison import LEAST, Comparison, compare
from analysis.geometry import measure as measured
from analysis.lineage import kinships, swapped
from analysis.measures import MEASURES
from analysis.plots import geometry as plots
from analysis.plots.plane import plane_figure
from transfer.align import listed
from transfer.errors import PointError
from transfer.plane import LABELS, ROLES
from transfer.triple import Finding, Triple, size

from .fields import figure
from .inputs import number
from .markup import findings, mathy, plain, tiles
from .scratch import scratch
from .shared import Shared
from .triple import Refs
from .work import background, notice, progress_bar, say

AT_ONCE = 4_000_000_000  # bytes of checkpoints that are read whole without being asked
MOST_ROWS = 2000  # of the table on the page
REDRAWN = 3.0  # seconds between two drawings of the figures while exact ones come in


@dataclass
class CompareTab:
    """The tab's components."""

    compare: gr.Button
    stop: gr.Button
    alpha: gr.Number
    progress: gr.HTML
    tiles: gr.HTML
    measure: gr.Dropdown
    hint: gr.HTML
    heat: gr.Plot
    lines: gr.Plot
    kinds: gr.Plot
    outside: gr.Plot
    table: gr.Dataframe
    save: gr.DownloadButton

    @property
    def drawn(self) -> list[Any]:
        """What a measure is drawn into."""
        return [self.hint, self.heat, self.lines, self.kinds, self.outside]

    @property
    def results(self) -> list[Any]:
        """What a comparison fills, in the order of `Shown`."""
        return [self.progress, self.tiles, *self.drawn, self.table, self.save]


def build() -> CompareTab:
    """Lay the tab's first part out; one tensor's part is spectrum.build."""
    with gr.Row(elem_classes="ts-bar"):
        measure = gr.Dropdown(
            [(plain(m.label), name) for name, m in MEASURES.items()],
            value="relative",
            label="Measure",
            elem_id="measure",
        )
        alpha = figure(
            1.0,
            label="α for rounding",
            minimum=-10,
            maximum=10,
            step=0.1,
            elem_id="rounding-alpha",
            min_width=130,
            scale=1,
        )
        compare_ = gr.Button("Compare", variant="primary", elem_id="compare")
        stop = gr.Button("Stop", variant="stop", elem_id="stop-compare")
    progress = gr.HTML("", padding=False, elem_id="compare-progress")
    told = gr.HTML("", elem_id="tiles", padding=False)
    hint = gr.HTML(explain("relative"), padding=False, elem_id="measure-hint")
    with gr.Row(elem_classes="ts-pair"):
        with gr.Column(min_width=340):
            heat = gr.Plot(label="By layer and module kind (click a cell to open its tensor)", elem_id="heat")
        with gr.Column(min_width=340):
            lines = gr.Plot(label="By depth", elem_id="lines")
    with gr.Row(elem_classes="ts-pair"):
        with gr.Column(min_width=340):
            kinds = gr.Plot(label="How each kind is spread over the layers", elem_id="kinds")
        with gr.Column(min_width=340):
            outside = gr.Plot(label="Outside the layers: embedding, head and the rest", elem_id="outside")
    with gr.Accordion("Every tensor, as a table", open=False):
        table = gr.Dataframe(interactive=False, max_height=420, elem_id="tensors", show_label=False)
        save = gr.DownloadButton("Download the table (CSV)", size="sm", elem_id="save-table")
    return CompareTab(compare_, stop, alpha, progress, told, measure, hint, heat, lines, kinds, outside, table, save)


def explain(measure: str) -> str:
    """What a measure is, and what it means for the transfer."""
    shown = MEASURES[measure]
    return (
        f'<p class="ts-about"><b>{mathy(shown.label)}</b> {mathy(shown.about)}<br><span class="ts-hint">For your transfer: '
        f"{mathy(shown.hint)}</span></p>"
    )


def figures(found: Comparison | None, measure: str) -> list[Any]:
    """The line of explanation and the four figures of a measure."""
    nothing = [None, None, None, None]
    if measure not in MEASURES:
        return [notice(f"There is no measure {measure!r}.", "error"), *nothing]
    if found is None:
        return [explain(measure), *nothing]
    if MEASURES[measure].yardstick and bool(found.table["g33"].isna().all()):
        lacking = notice("This measure needs a target fine-tuned model. Choose one on the Triple tab.", "note")
        return [explain(measure) + lacking, *nothing]
    if not np.isfinite(measure_of(found, measure)).any():
        lacking = notice("This measure is undefined here: Δ or δ is zero in every tensor.", "note")
        return [explain(measure) + lacking, *nothing]
    if not found.table["layer"].notna().any():
        return [explain(measure), *nothing[:3], plots.outside_bars(found, measure)]
    drawn = (plots.heat_map, plots.depth_lines, plots.kind_boxes, plots.outside_bars)
    return [explain(measure), *(draw(found, measure) for draw in drawn)]


def measure_of(found: Comparison, name: str) -> np.ndarray:
    """A measure of every tensor."""
    return measured(found.table)[name].to_numpy(float)


class Shown:
    """Values for CompareTab.results, the plane and the kinship, of which most are left as they are most of the time."""

    def __init__(self, **values: Any):
        self.values = values

    def row(self) -> list[Any]:
        drawn = self.values.get("drawn", [gr.skip()] * 5)
        rest = {
            name: self.values.get(name, gr.skip()) for name in ("progress", "tiles", "table", "save", "plane", "kin")
        }
        return [rest["progress"], rest["tiles"], *drawn, rest["table"], rest["save"], rest["plane"], rest["kin"]]


NOTHING = {"drawn": [gr.skip(), None, None, None, None], "table": None, "plane": None, "kin": ""}


def run(shared: Shared, refs: Refs, measure: str, alpha: object, exact: bool | None = None) -> Iterator[list[Any]]:
    """Compare: a sampled first look within a second or so, then the exact figures as they come.

    Yields values for CompareTab.results, the plane and the kinship.
    """
    try:
        triple = shared.triple(refs)
        strength = number(alpha, "α for rounding", -10, 10)
        if abs(strength) < LEAST:
            raise PointError(f"α for rounding must not be 0 or nearer to it than {LEAST:g}: nothing is added there.")
        found = shared.comparison(triple, strength)
        if found is None or (exact is not False and not triple.missing and not found.exact):
            start, drawn = time.monotonic(), -REDRAWN
            for step in background(lambda tick: compare(triple, tick, strength, exact), newest=True):
                if step is None:  # a stop is heard at a yield alone
                    yield Shown().row()
                    continue
                found = step
                if found.exact:
                    break
                again = time.monotonic() - drawn > REDRAWN
                if again:
                    drawn = time.monotonic()
                yield Shown(
                    progress=doing(found, start),
                    tiles=tiles(found),
                    **(
                        {"drawn": figures(found, measure), "plane": plane_figure(found.total), "kin": kin(found)}
                        if again
                        else {}
                    ),
                ).row()
            if found is None:
                raise PointError("These checkpoints have no tensor that fine-tuning could have changed.")
            shared.keep(triple, found)
        frame = found.frame()
        yield Shown(
            progress=remarks(triple, found),
            tiles=tiles(found),
            drawn=figures(found, measure),
            table=shown_table(frame),
            save=saved(triple, frame),
            plane=plane_figure(found.total),
            kin=kin(found),
        ).row()
    except Exception as error:  # what is shown stays
        yield Shown(progress=notice(say(error), "error")).row()


def kinds_of_kin(found: Comparison) -> list[Finding]:
    """What the weights say of each child and its parent."""
    levels = {"same": "note", "near": "ok", "far": "warning", "unrelated": "warning", "unknown": "note"}
    told = [Finding(levels[k.verdict], k.sentence) for k in kinships(found.gram)]
    turned = swapped(found.gram)
    return [Finding("warning", turned), *told] if turned else told


def kin(found: Comparison) -> str:
    """The same as further lines of the preflight."""
    return findings(kinds_of_kin(found))


def remarks(triple: Triple, found: Comparison) -> str:
    """What stands above the figures: how much of the weights they rest on, what is broken, what makes no sense."""
    whole = notice(f"All {found.tensors:,} tensors read: the figures are exact.", "ok")
    lacking = [t.name for t in triple.tensors if triple.has_reference and t.merged and "target_tuned" not in t.parts]
    said = broken(found) + (whole if found.exact else sampled(triple, found))
    if found.exact and found.total["norm_delta"] == 0:
        said += notice(
            "Δ is zero: the source fine-tuned model is the source base, so there is nothing to transfer.", "warning"
        )
    if lacking:
        said += notice(
            f"The target fine-tuned model has no {listed(lacking)} that fits: measures with it are missing where these count.",
            "warning",
        )
    return said + "".join(notice(f.text, "warning") for f in kinds_of_kin(found) if f.level == "warning")


def shown_table(frame: pd.DataFrame) -> pd.DataFrame:
    """The table for the page: the measures by the names that they have there, four digits, and so many rows. The file has
    all of it."""
    names = {name: plain(m.label) for name, m in MEASURES.items() if not frame[name].isna().all()}
    widths = {f"{name} ±": f"± {label}" for name, label in names.items() if f"{name} ±" in frame}
    shown = frame.head(MOST_ROWS)[["tensor", "shape", *names, *widths]]
    digits = shown[[*names, *widths]].map(lambda v: float(f"{v:.4g}"))
    return pd.concat([shown[["tensor", "shape"]], digits], axis=1).rename(columns=names | widths)


def doing(found: Comparison, start: float) -> str:
    """The line above the figures while they are still being made."""
    if found.known < 0.5 * found.tensors and found.share < 0.2:
        look = f"First look from {found.share:.1%} of the weights, with 95 % intervals"
        return progress_bar(found.share, start, look, forecast=False)
    return progress_bar(found.share, start, f"{found.known} of {found.tensors} tensors read whole; the rest is sampled")


def sampled(triple: Triple, found: Comparison) -> str:
    """What stands above figures that stay estimates."""
    next_ = (
        "Press Compare to read them all."
        if not triple.missing
        else f"The rest ({size(triple.missing)}) is on the Hub: press Download on the Triple tab for the exact figures."
    )
    return notice(
        f"An estimate from {found.share:.2%} of the weights, in random blocks of every tensor, with 95 % intervals (±). {next_}"
    )


def broken(found: Comparison) -> str:
    """A warning that names the tensors with NaN or infinity in them, and the model; empty where there are none."""
    told = []
    for role in ROLES:
        count = found.table[f"odd_{role}"].fillna(0)
        if (count > 0).any():
            names = found.table.loc[count > 0, "tensor"].tolist()
            told.append(
                f"{int(count.sum()):,} weights of the {LABELS[role]} model are NaN or infinite, in {listed(names)}."
            )
    if not told and np.isfinite(found.table[["g00", "g11", "g22"]].to_numpy(float)).all():
        return ""
    told = told or ["Some weights are too large for their squares to be added up in float32."]
    return notice(f"{' '.join(told)} Totals over them are missing below.", "warning")


def saved(triple: Triple, frame: pd.DataFrame) -> str:
    """The table as a CSV file in a folder of its own."""
    path = scratch() / f"compare-{triple.identity[:8]}.csv"
    frame.to_csv(path, index=False)
    return str(path)


def first(shared: Shared, refs: Refs, measure: str, alpha: object) -> Iterator[list[Any]]:
    """Compare without being asked, as far as that is a matter of seconds: all of a small triple, a sample of a large one,
    and nothing that is still on the Hub."""
    if not refs:
        yield Shown(progress="", tiles="", **NOTHING).row()
        return
    try:
        triple = shared.triple(refs)
        small = triple.nbytes * len(triple.checkpoints) <= AT_ONCE
    except Exception as error:
        yield Shown(progress=notice(say(error), "error"), tiles="", **NOTHING).row()
        return
    if triple.missing:
        ask = "Press Compare for a first look at samples of them, or Download on the Triple tab for the exact figures."
        line = notice(f"{size(triple.missing)} of weights are still on the Hub. {ask}")
        yield Shown(progress=line, tiles="", **NOTHING).row()
    else:
        if shared.comparison(triple, None) is None:
            yield Shown(
                progress=notice("Reading weights …"), tiles="", **NOTHING
            ).row()  # not beside another triple's figures
        yield from run(shared, refs, measure, alpha, None if small else False)


def redraw(shared: Shared, refs: Refs, measure: str, alpha: object) -> list[Any]:
    """The figures of another measure, from the comparison at hand."""
    try:
        found = shared.comparison(shared.triple(refs), number(alpha, "α for rounding", -10, 10)) if refs else None
        return figures(found, measure)
    except Exception as error:
        return [notice(say(error), "error"), *[gr.skip()] * 4]
