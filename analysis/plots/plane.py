"""The transfer plane, drawn to scale."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from transfer.plane import LABELS

from .look import COLOURS, INK, dressed


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
            text=[
                f"  {LABELS['target_tuned']},<br>  projected from<br>  {total['off_plane']:.0%} of ‖Δ<sub>t</sub>‖ away"
            ],
            textposition="middle right",
            textfont={"color": INK},
            cliponaxis=False,
            marker={"size": 11, "symbol": "circle-open", "line": {"width": 2.5}, "color": COLOURS["target_tuned"]},
            hovertemplate=f"nearest to {LABELS['target_tuned']}: α = {nearest:.2f}, β = {ahead:.2f}<br>{away}<extra></extra>",
            showlegend=False,
        )
    best = float(total["best_alpha"])
    if np.isfinite(best):
        star = up + best * out
        figure.add_scatter(
            x=[star[0]],
            y=[star[1]],
            mode="markers",
            marker={"symbol": "star", "size": 15, "color": "#f2b632", "line": {"width": 1, "color": "#8a5a00"}},
            hovertemplate=f"best α = {best:.2f}: the merged model nearest to {LABELS['target_tuned']}<br>"
            f"at α = 1 {total['miss']:.0%} of ‖Δ_t‖ are still to go<extra></extra>",
            showlegend=False,
        )
        figure.add_annotation(
            x=star[0], y=star[1], text=f"best α {best:.2f}", showarrow=False, xshift=-14, xanchor="right"
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
