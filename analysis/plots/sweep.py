"""Scores along a path, drawn."""

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..sweep import Row, best
from .look import BY_LABEL, COLOURS, INK, dressed


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
