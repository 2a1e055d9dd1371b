"""Scores along paths, drawn."""

import math
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..scores import Score, Scorer
from ..sweep import Row, best
from .look import BY_LABEL, COLOURS, INK, LINES, dressed

EACH = 210  # pixels of one score's panel
STAR = {"symbol": "star", "size": 17, "color": "#f2b632", "line": {"width": 1, "color": "#8a5a00"}}

Other = tuple[str, Mapping[float, Score]]  # an earlier curve: whose it is, and its scores by step


def sweep_figure(
    rows: Sequence[Row],
    scorers: Sequence[Scorer],
    axis: str,
    span: tuple[float, float] | None = None,
    others: Mapping[str, Sequence[Other]] | None = None,
) -> go.Figure:
    """Scores along a path with their standard errors; corners as dashed lines, the best step as a star.

    `span` are the ends of the axis where not all steps are scored yet, `others` earlier curves by the score's name. Every
    step carries its α and β as custom data.
    """
    drawn = [s for s in scorers if any(s.name in row.scores for row in rows)] or list(scorers)
    figure = make_subplots(
        rows=len(drawn),
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.2 / len(drawn),
        subplot_titles=[s.name for s in drawn],
    )
    figure.update_annotations(x=0, xanchor="left", font={"size": 13})
    on_path = sorted((r for r in rows if r.t is not None), key=lambda r: r.t or 0)
    ends = [r.t for r in on_path if r.t is not None]
    low, high = span or (min(ends, default=0.0), max(ends, default=1.0))
    for number, scorer in enumerate(drawn, 1):
        where = {"row": number, "col": 1}
        scored = [r for r in on_path if scorer.name in r.scores]
        for row in rows:
            if row.t is None and scorer.name in row.scores:
                figure.add_scatter(
                    **where, x=[low, high], y=[row.scores[scorer.name].value] * 2, mode="lines",
                    line={"color": BY_LABEL.get(row.label, INK), "width": 1.5, "dash": "dash"}, name=row.label,
                    legendgroup=row.label, showlegend=number == 1,
                    hovertemplate=f"{row.label}<br>{scorer.name} %{{y:.4~g}}<extra></extra>",
                )  # fmt: skip
        for colour, (title, known) in zip(LINES[4:] * 20, (others or {}).get(scorer.name, ()), strict=False):
            at = sorted(known)
            figure.add_scatter(
                **where, x=at, y=[known[t].value for t in at], mode="lines+markers", name=title, legendgroup=title,
                error_y=bars([known[t] for t in at]), line={"color": colour, "width": 1.8, "dash": "dot"},
                showlegend=number == 1, hovertemplate=f"{title}<br>{axis} = %{{x:.4~g}}: %{{y:.4~g}}<extra></extra>",
            )  # fmt: skip
        figure.add_scatter(
            **where, x=[r.t for r in scored], y=[r.scores[scorer.name].value for r in scored],
            customdata=[place(r) for r in scored],
            error_y=bars([r.scores[scorer.name] for r in scored]), mode="lines+markers",
            line={"color": COLOURS["merged"], "width": 3}, name="along the path", legendgroup="path",
            showlegend=number == 1, hovertemplate=f"{axis} = %{{x:.4~g}}<br>{scorer.name} %{{y:.4~g}}<extra></extra>",
        )  # fmt: skip
        top = best(rows, scorer)
        if top:
            figure.add_scatter(
                **where, x=[top.t], y=[top.scores[scorer.name].value], mode="markers", marker=STAR, name="best",
                customdata=[place(top)],
                legendgroup="best", showlegend=number == 1,
                hovertemplate=f"best: {axis} = %{{x:.4~g}}<br>{scorer.name} %{{y:.4~g}}<extra></extra>",
            )  # fmt: skip
        unit = {"share": "right", "nats": "nats a token"}.get(scorer.unit, "")
        figure.update_yaxes(title={"text": unit, "font": {"size": 11}}, **where, automargin=True)
        if scorer.unit == "share":
            figure.update_yaxes(range=[-0.04, 1.06], tickformat=".0%", **where)
    margin = 0.04 * (high - low)
    figure.update_xaxes(range=[low - margin, high + margin])
    figure.update_xaxes(title=axis, row=len(drawn), col=1)
    legend = {"orientation": "h", "yanchor": "bottom", "y": 1 + 34 / (EACH * len(drawn)), "x": 0}
    return dressed(figure, 150 + EACH * len(drawn), legend=legend, margin={"l": 56, "r": 16, "t": 84, "b": 44})


def place(row: Row) -> list:
    """A step as custom data: α and β; else "mix" and its coefficients, with the schedule's factor outside of the layers and
    those of the layers; "off" for a control, which is only scored."""
    mix = row.mix
    if mix.control:
        return ["off"]
    if mix.plain and mix.plane:
        return list(mix.plane)
    return ["mix", *mix.coefficients, *((mix.schedule.outside, *mix.schedule.layers) if mix.schedule else ())]


def bars(scores: Sequence[Score]) -> dict:
    """Standard errors as error bars; none where there is none."""
    errors = [0.0 if math.isnan(s.stderr) else s.stderr for s in scores]
    return {"type": "data", "array": errors, "thickness": 1, "width": 3}
