"""plotly figures out of tables. The only module that draws; basic traces only, and colours that read on light and dark."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from transfer.plane import LABELS

from .geometry import MEASURES, grouped
from .sweep import Row, best

INK, FAINT = "#7b8494", "rgba(128,138,155,0.22)"
COLOURS = {
    "source_base": "#8a94a6",
    "source_tuned": "#3f83d6",
    "target_base": "#d08a2c",
    "merged": "#8b5cf6",
    "target_tuned": "#2f9e6e",
}
BY_LABEL = {LABELS[role]: colour for role, colour in COLOURS.items()}
SEQUENTIAL = [[0, "#eef0fb"], [0.25, "#c3c4f4"], [0.5, "#9a8cf0"], [0.75, "#6d48d7"], [1, "#3b1a8f"]]
DIVERGING = [[0, "#b4561a"], [0.25, "#e8b98a"], [0.5, "#f2f2f5"], [0.75, "#a9a2ee"], [1, "#4c26b0"]]
SIGNED = ("cos_shift", "cos_reference")
LINES = ("#8b5cf6", "#3f83d6", "#d08a2c", "#2f9e6e", "#d0487e", "#2aa1b3", "#8a94a6", "#a3822b", "#6b7bd6", "#c0603f")


def dressed(figure: go.Figure, height: int, **layout) -> go.Figure:
    """The look that all figures share."""
    figure.update_layout(
        height=height,
        autosize=True,
        margin={"l": 56, "r": 16, "t": 40, "b": 44},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 12, "color": INK},
        hoverlabel={"font": {"family": "system-ui, sans-serif"}},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
        modebar={"remove": ["select2d", "lasso2d", "autoScale2d"], "bgcolor": "rgba(0,0,0,0)", "color": INK},
    )
    figure.update_layout(**layout)
    figure.update_xaxes(gridcolor=FAINT, zerolinecolor=FAINT, linecolor=FAINT)
    figure.update_yaxes(gridcolor=FAINT, zerolinecolor=FAINT, linecolor=FAINT)
    return figure


def heat_map(table: pd.DataFrame, name: str) -> go.Figure:
    """A measure by layer (across) and module kind (down), from the tensor table."""
    cells = grouped(table[table["layer"].notna()], ["layer", "kind"])
    grid = cells.pivot(index="kind", columns="layer", values=name)
    kinds = list(dict.fromkeys(table.loc[table["layer"].notna(), "kind"]))
    grid = grid.reindex(sorted(kinds))
    title = MEASURES[name][0]
    scale: dict[str, Any] = (
        {"colorscale": DIVERGING, "zmid": 0, "zmin": -1, "zmax": 1} if name in SIGNED else {"colorscale": SEQUENTIAL}
    )
    if name in SIGNED:
        most = float(np.nanmax(np.abs(grid.to_numpy(float)), initial=0.05))
        scale |= {"zmin": -most, "zmax": most}
    figure = go.Figure(
        go.Heatmap(
            z=grid.to_numpy(float),
            x=[str(layer) for layer in grid.columns],
            y=list(grid.index),
            hovertemplate="layer %{x}<br>%{y}<br>" + title + " = %{z:.4g}<extra></extra>",
            colorbar={"thickness": 10, "outlinewidth": 0, "tickformat": ".2g"},
            xgap=2,
            ygap=2,
            **scale,
        )
    )
    figure.update_yaxes(automargin=True, autorange="reversed", showgrid=False)
    figure.update_xaxes(title="layer", type="category", showgrid=False)
    return dressed(figure, max(440, 110 + 26 * len(grid)))


def depth_lines(table: pd.DataFrame, name: str) -> go.Figure:
    """A measure by depth: each layer as a whole in bold, and each module kind as a thin line."""
    inside = table[table["layer"].notna()]
    figure = go.Figure()
    title = MEASURES[name][0]
    by_kind = grouped(inside, ["layer", "kind"])
    for number, (kind, rows) in enumerate(by_kind.groupby("kind")):
        figure.add_scatter(
            x=rows["layer"].astype(int),
            y=rows[name].astype(float),
            name=str(kind),
            mode="lines+markers",
            line={"width": 1.2, "color": LINES[1 + number % (len(LINES) - 1)]},
            marker={"size": 4},
            opacity=0.75,
            hovertemplate=f"{kind}<br>layer %{{x}}: %{{y:.4g}}<extra></extra>",
        )
    whole = grouped(inside, "layer")
    figure.add_scatter(
        x=whole["layer"].astype(int),
        y=whole[name].astype(float),
        name="whole layer",
        mode="lines+markers",
        line={"width": 3.5, "color": LINES[0]},
        hovertemplate="whole layer %{x}: %{y:.4g}<extra></extra>",
    )
    figure.update_xaxes(title="layer", dtick=max(1, len(whole) // 12))
    figure.update_yaxes(title=title, automargin=True)
    legend = {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0, "font": {"size": 11}}
    return dressed(figure, 440, legend=legend, margin={"l": 56, "r": 16, "t": 40, "b": 150})


def plane_figure(total: pd.Series) -> go.Figure:
    """The transfer plane drawn to scale: m_s at the origin, Δ and δ at their lengths and angle, m'_t where it projects.

    `total` are the measures over all tensors (geometry.total).
    """
    delta, shift = float(total["norm_delta"]), float(total["norm_shift"])
    cosine = float(np.nan_to_num(total["cos_shift"]))
    up = np.array([shift, 0.0])
    out = delta * np.array([cosine, np.sqrt(max(0.0, 1 - cosine**2))])
    points = {"source_base": np.zeros(2), "source_tuned": out, "target_base": up, "merged": up + out}
    figure = go.Figure()
    for ends in (("source_base", "source_tuned"), ("target_base", "merged")):
        x, y = zip(*(points[e] for e in ends), strict=True)
        figure.add_scatter(
            x=x, y=y, mode="lines", line={"color": COLOURS["merged"], "width": 2.5}, hoverinfo="skip", showlegend=False
        )
    for ends in (("source_base", "target_base"), ("source_tuned", "merged")):
        x, y = zip(*(points[e] for e in ends), strict=True)
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines",
            line={"color": COLOURS["target_base"], "width": 1.5, "dash": "dot"},
            hoverinfo="skip",
            showlegend=False,
        )
    where = {
        "source_base": "bottom center",
        "target_base": "bottom center",
        "source_tuned": "top center",
        "merged": "top center",
    }
    for role, position in points.items():
        figure.add_scatter(
            x=[position[0]],
            y=[position[1]],
            mode="markers+text",
            text=[LABELS[role]],
            textposition=where[role],
            textfont={"color": INK},
            cliponaxis=False,
            marker={"size": 13, "color": COLOURS[role]},
            hovertemplate=f"{LABELS[role]}<extra></extra>",
            showlegend=False,
        )
    nearest, ahead = float(total["nearest_alpha"]), float(total["nearest_beta"])
    if np.isfinite(nearest) and np.isfinite(ahead):
        there = nearest * out + ahead * up
        away = f"{total['off_plane']:.0%} of ‖Δ_t‖ off the plane"
        figure.add_scatter(
            x=[there[0]],
            y=[there[1]],
            mode="markers+text",
            text=[f"  {LABELS['target_tuned'].replace(' ', '<br>  ')},<br>  projected"],
            textposition="middle right",
            textfont={"color": INK},
            cliponaxis=False,
            marker={"size": 11, "symbol": "circle-open", "line": {"width": 2.5}, "color": COLOURS["target_tuned"]},
            hovertemplate=f"nearest to {LABELS['target_tuned']}: α = {nearest:.2f}, β = {ahead:.2f}<br>{away}<extra></extra>",
            showlegend=False,
        )
    for middle, text, shift_by in (
        (out / 2, f"Δ {delta:.3g}", {"xshift": -8, "xanchor": "right"}),
        (up / 2, f"δ {shift:.3g}", {"yshift": 12}),
    ):
        figure.add_annotation(x=middle[0], y=middle[1], text=f"<b>{text}</b>", showarrow=False, **shift_by)
    high, wide = max(out[1], 1e-9), max(up[0], out[0], (up + out)[0]) - min(0.0, out[0])
    figure.update_xaxes(visible=False, range=[min(0.0, out[0]) - 0.32 * wide, max(up[0], (up + out)[0]) + 0.55 * wide])
    figure.update_yaxes(visible=False, range=[-0.3 * high, 1.25 * high])
    if max(high, wide) / max(min(high, wide), 1e-9) < 8:
        figure.update_yaxes(scaleanchor="x", scaleratio=1)
    return dressed(figure, 300, margin={"l": 8, "r": 8, "t": 8, "b": 8})


def sweep_figure(rows: Sequence[Row], axis: str) -> go.Figure:
    """Scores along a path with their standard errors; corners as dashed lines, the best step as a star."""
    names = list(dict.fromkeys(name for row in rows for name in row.scores)) or ["exact match"]
    figure = make_subplots(rows=len(names), cols=1, shared_xaxes=True, vertical_spacing=0.08)
    on_path = [r for r in rows if r.t is not None]
    for number, name in enumerate(names, 1):
        scored = [r for r in on_path if name in r.scores]
        figure.add_scatter(
            row=number,
            col=1,
            x=[r.t for r in scored],
            y=[r.scores[name].value for r in scored],
            error_y={"type": "data", "array": [r.scores[name].stderr for r in scored], "thickness": 1, "width": 3},
            mode="lines+markers",
            line={"color": COLOURS["merged"], "width": 3},
            name="along the path",
            showlegend=number == 1,
            hovertemplate=f"{axis} = %{{x:g}}<br>{name} %{{y:.4g}}<extra></extra>",
        )
        for row in rows:
            if row.t is None and name in row.scores:
                figure.add_scatter(
                    row=number,
                    col=1,
                    x=[
                        min([r.t for r in on_path if r.t is not None], default=0),
                        max([r.t for r in on_path if r.t is not None], default=1),
                    ],
                    y=[row.scores[name].value] * 2,
                    mode="lines",
                    line={"color": BY_LABEL.get(row.label, INK), "width": 1.5, "dash": "dash"},
                    name=row.label,
                    showlegend=number == 1,
                    hovertemplate=f"{row.label}<br>{name} %{{y:.4g}}<extra></extra>",
                )
        top = best(rows, name)
        if top:
            figure.add_scatter(
                row=number,
                col=1,
                x=[top.t],
                y=[top.scores[name].value],
                mode="markers",
                marker={"symbol": "star", "size": 17, "color": "#f2b632", "line": {"width": 1, "color": "#8a5a00"}},
                name="best",
                showlegend=number == 1,
                hovertemplate=f"best: {axis} = %{{x:g}}<br>{name} %{{y:.4g}}<extra></extra>",
            )
        figure.update_yaxes(title=name, row=number, col=1, automargin=True)
        if name == "exact match":
            figure.update_yaxes(range=[-0.04, 1.06], tickformat=".0%", row=number, col=1)
    figure.update_xaxes(title=axis, row=len(names), col=1)
    return dressed(figure, 120 + 230 * len(names))
