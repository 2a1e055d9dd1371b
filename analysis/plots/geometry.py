"""What a comparison found, drawn: a measure by layer and module kind, by depth, by kind, and outside the layers.

Every mark that is one tensor carries its name as the first item of its `customdata`, for the page to act on a click.
"""

import html
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ..comparison import Comparison
from ..geometry import PLACE, measure
from ..measures import MEASURES, Measure, margin, written
from .look import DIVERGING, INK, LINES, SEQUENTIAL, dressed, mathy

BESIDE = ("relative", "cos_shift", "cos_reference", "best_alpha")  # what a hover says beside the chosen measure
KIND_ORDER = ("attn", "self_attn", "linear_attn", "moe", "mlp")  # as data flows through a layer; norms come last


def rank(kind: str) -> tuple:
    """Sorts module kinds: queries, keys, values and output of the attention, the MLP's in and out, then norms."""
    parts = kind.rpartition(": ")[2].split(".")
    group = KIND_ORDER.index(parts[0]) if parts[0] in KIND_ORDER else len(KIND_ORDER)
    flow = ("q_", "k_", "v_", "query", "qkv", "o_", "dense", "gate", "router", "up", "w1", "w3", "c_fc", "down", "w2")
    place = next((i for i, start in enumerate(flow) if parts[min(1, len(parts) - 1)].startswith(start)), len(flow))
    return ":" in kind, group, place, kind


def ticks(shown: Measure) -> str:
    return {"share": ".2~p", "signed": ".3~f", "strength": ".2~f"}.get(shown.form, ".3~g")


def mode(name: str) -> str:
    """Whether an axis of the measure may go below zero."""
    return "normal" if MEASURES[name].form in ("signed", "strength") else "nonnegative"


def colours(shown: Measure, values: np.ndarray) -> dict[str, Any]:
    """The colour scale of a heat map: from pale to dark, or from one colour to another around the measure's middle."""
    finite = values[np.isfinite(values)]
    if shown.middle is None or not len(finite):
        nothing = not finite.any()  # one value for all is no range
        return {"colorscale": SEQUENTIAL, **({"zmin": 0, "zmax": 1} if nothing else {})}
    far = max(float(np.abs(finite - shown.middle).max()), 1e-3)
    return {"colorscale": DIVERGING, "zmin": shown.middle - far, "zmax": shown.middle + far}


def cells(found: Comparison, name: str) -> pd.DataFrame:
    """One row for each layer and module kind inside the layers: the measure, its interval, and whose it is."""
    inside = found.table["layer"].notna()
    by = ["layer", "kind"]
    grid = found.grouped(by)[[*by, *dict.fromkeys([*BESIDE, name])]].assign(width=found.widths(by)[name].to_numpy())
    first = found.table[inside].drop_duplicates(by)[["tensor", "shape", *by]]
    count = found.table[inside].groupby(by, sort=False).size().rename("count").reset_index()
    return grid[grid["layer"].notna()].merge(first, on=by).merge(count, on=by)


def told(row: Any, name: str) -> str:
    """What hovering over one cell says beneath its name."""
    value, width = float(getattr(row, name)), float(row.width)
    more = f" and {row.count - 1} like it" if row.count > 1 else ""
    rest = [
        f"{mathy(MEASURES[n].label)} {written(n, v)}"
        for n in BESIDE
        if n != name and np.isfinite(v := float(getattr(row, n)))
    ]
    shown = f"<b>{mathy(MEASURES[name].label)} = {written(name, value)}</b> {margin(name, width)}"
    return f"{html.escape(row.tensor)}{more}<br>{row.shape}<br>{shown}<br>{' · '.join(rest)}"


def heat_map(found: Comparison, name: str) -> go.Figure:
    """A measure by layer (across) and module kind (down)."""
    rows = cells(found, name)
    kinds = sorted(rows["kind"].unique(), key=rank)
    layers = sorted(rows["layer"].unique())
    shape = (len(kinds), len(layers))
    values, hover, tensors = np.full(shape, np.nan), np.full(shape, "", object), np.full(shape, "", object)
    for row in rows.itertuples():
        at = kinds.index(row.kind), layers.index(row.layer)
        values[at], hover[at], tensors[at] = getattr(row, name), told(row, name), row.tensor
    figure = go.Figure(
        go.Heatmap(
            z=values,
            x=[str(layer) for layer in layers],
            y=[html.escape(kind) for kind in kinds],
            text=hover,
            customdata=tensors,
            hovertemplate="<b>layer %{x}, %{y}</b><br>%{text}<extra></extra>",
            colorbar={"thickness": 10, "outlinewidth": 0, "tickformat": ticks(MEASURES[name])},
            xgap=1 if len(layers) > 40 else 2,
            ygap=2,
            **colours(MEASURES[name], values),
        )
    )
    figure.update_yaxes(automargin=True, autorange="reversed", showgrid=False)
    figure.update_xaxes(title="layer", type="category", showgrid=False, nticks=24, tickangle=0)
    return dressed(figure, max(440, 110 + 26 * len(kinds)))


def depth_lines(found: Comparison, name: str) -> go.Figure:
    """A measure by depth: each layer as a whole in bold, with its interval, and each module kind as a thin line."""
    figure = go.Figure()
    rows = cells(found, name)
    for number, kind in enumerate(sorted(rows["kind"].unique(), key=rank)):
        line = rows[rows["kind"] == kind].sort_values("layer")
        figure.add_scatter(
            x=line["layer"].astype(int),
            y=line[name].astype(float),
            customdata=line["tensor"],
            text=[told(row, name) for row in line.itertuples()],
            name=html.escape(kind),
            mode="lines+markers",
            line={"width": 1.2, "color": LINES[1 + number % (len(LINES) - 1)]},
            marker={"size": 4},
            opacity=0.75,
            hovertemplate=f"<b>layer %{{x}}, {html.escape(kind)}</b><br>%{{text}}<extra></extra>",
        )
    whole = found.grouped(["layer"]).assign(width=found.widths(["layer"])[name].to_numpy()).dropna(subset="layer")
    whole = whole.sort_values("layer")
    figure.add_scatter(
        x=whole["layer"].astype(int),
        y=whole[name].astype(float),
        error_y={
            "type": "data",
            "array": whole["width"].fillna(0),
            "thickness": 1.5,
            "width": 3,
            "visible": bool((whole["width"] > 0).any()),
        },
        text=[f"{written(name, v)} {margin(name, w)}" for v, w in zip(whole[name], whole["width"], strict=True)],
        name="whole layer",
        mode="lines+markers",
        line={"width": 3.5, "color": LINES[0]},
        hovertemplate="<b>layer %{x} as a whole</b><br>" + mathy(MEASURES[name].label) + " = %{text}<extra></extra>",
    )
    neutral(figure, name, "y")
    figure.update_xaxes(title="layer", dtick=max(1, len(whole) // 12))
    figure.update_yaxes(
        title=mathy(MEASURES[name].label), automargin=True, rangemode=mode(name), tickformat=ticks(MEASURES[name])
    )
    legend = {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0, "font": {"size": 11}}
    return dressed(
        figure, max(440, 110 + 26 * rows["kind"].nunique()), legend=legend, margin={"l": 56, "r": 16, "t": 40, "b": 150}
    )


def kind_boxes(found: Comparison, name: str) -> go.Figure:
    """How a measure is spread over the layers, for every module kind."""
    rows = cells(found, name)
    kinds = sorted(rows["kind"].unique(), key=rank, reverse=True)
    figure = go.Figure()
    for number, kind in enumerate(reversed(kinds)):
        dots = rows[rows["kind"] == kind]
        figure.add_box(
            x=dots[name].astype(float),
            y=[html.escape(kind)] * len(dots),
            customdata=dots["tensor"],
            text=[f"layer {row.layer}: {written(name, getattr(row, name))}" for row in dots.itertuples()],
            name=html.escape(kind),
            orientation="h",
            boxpoints="all",
            jitter=0.5,
            pointpos=0,
            fillcolor="rgba(139,92,246,0.12)",
            line={"width": 1.2, "color": LINES[1 + number % (len(LINES) - 1)]},
            marker={"size": 4},
            hoveron="points",
            hovertemplate=f"<b>{html.escape(kind)}</b><br>%{{text}}<extra></extra>",
            showlegend=False,
        )
    neutral(figure, name, "x")
    figure.update_yaxes(
        automargin=True, categoryorder="array", categoryarray=[html.escape(kind) for kind in kinds], showgrid=False
    )
    figure.update_xaxes(
        title=mathy(MEASURES[name].label), rangemode=mode(name), tickformat=ticks(MEASURES[name]), automargin=True
    )
    return dressed(figure, max(300, 90 + 30 * len(kinds)))


def outside_bars(found: Comparison, name: str) -> go.Figure | None:
    """The measure for embedding, head and whatever else is in no layer; None where there is nothing."""
    table = found.table[found.table["layer"].isna()]
    if table.empty:
        return None
    rows = pd.concat([table[PLACE], measure(table)], axis=1)
    widths = found.widths(["tensor"]).set_index("tensor").loc[rows["tensor"], name].to_numpy(float)
    values = rows[name].to_numpy(float)
    labels = rows["tensor"].str.removesuffix(".weight").str.removeprefix("model.").map(html.escape).tolist()
    figure = go.Figure(
        go.Bar(
            x=values,
            y=labels,
            orientation="h",
            customdata=rows["tensor"],
            text=[f"{written(name, v)} {margin(name, w)}" for v, w in zip(values, widths, strict=True)],
            hovertext=[f"{html.escape(t)}<br>{s}" for t, s in zip(rows["tensor"], rows["shape"], strict=True)],
            hovertemplate="%{hovertext}<br>" + mathy(MEASURES[name].label) + " = %{text}<extra></extra>",
            error_x={
                "type": "data",
                "array": np.nan_to_num(widths),
                "thickness": 1.5,
                "width": 3,
                "color": INK,
                "visible": bool((widths > 0).any()),
            },
            marker={"color": LINES[1]},
            width=0.55,
            textposition="none",
        )
    )
    neutral(figure, name, "x")
    figure.update_yaxes(automargin=True, autorange="reversed", showgrid=False)
    figure.update_xaxes(
        title=mathy(MEASURES[name].label), rangemode=mode(name), tickformat=ticks(MEASURES[name]), automargin=True
    )
    return dressed(figure, max(300, 90 + 30 * len(rows)))


def neutral(figure: go.Figure, name: str, axis: str) -> None:
    """A dotted line at the value that tells nothing, where it lies within the figure."""
    middle = MEASURES[name].middle
    if middle is not None:
        line = {"dash": "dot", "color": INK, "width": 1}
        (figure.add_hline if axis == "y" else figure.add_vline)(middle, line=line)
