"""What the Gram pass found, drawn: a measure by layer and module kind, and by depth."""

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ..geometry import MEASURES, grouped
from .look import DIVERGING, LINES, SEQUENTIAL, dressed

SIGNED = ("cos_shift", "cos_reference")


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
