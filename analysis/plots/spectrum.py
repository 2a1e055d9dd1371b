"""One matrix's spectra, shared subspaces and entries, drawn; legible in a narrow column too."""

import numpy as np
import plotly.graph_objects as go

from ..decompose import Spectrum, noise
from ..entries import Histogram
from ..spectrum import MatrixSpectra
from .look import COLOURS, INK, dressed, mathy

SYMBOLS = {name: mathy(symbol) for name, symbol in {"delta": "Δ", "shift": "δ", "reference": "Δ_t"}.items()}
LOOKS = {"delta": COLOURS["merged"], "shift": COLOURS["target_base"], "reference": COLOURS["target_tuned"]}
MARGIN = {"l": 52, "r": 12, "t": 34, "b": 42}


def faint(colour: str) -> str:
    """A hex colour at a fifth of its strength."""
    return f"rgba({int(colour[1:3], 16)},{int(colour[3:5], 16)},{int(colour[5:7], 16)},0.2)"


def band(index: np.ndarray, spectrum: Spectrum, colour: str) -> go.Scatter:
    """Where the true singular values may lie: a filled outline of value ± error, kept above a tenth of the value for the
    logarithmic axis."""
    values, errors = spectrum.values[: len(index)], spectrum.errors[: len(index)]
    lower = np.maximum(values - errors, 0.1 * values)
    return go.Scatter(
        x=np.concatenate([index, index[::-1]]),
        y=np.concatenate([values + errors, lower[::-1]]),
        fill="toself",
        fillcolor=faint(colour),
        line={"width": 0},
        hoverinfo="skip",
        showlegend=False,
    )


def spectrum_figure(found: MatrixSpectra) -> go.Figure:
    """Singular values of Δ beside those of δ and Δ_t, both axes logarithmic; bands where they are randomised."""
    figure = go.Figure()
    for vector, colour in LOOKS.items():
        spectrum = found.spectra.get(vector)
        if spectrum is None or spectrum.energy == 0:
            continue
        count = int((spectrum.values > noise(spectrum.shape) * spectrum.values[0]).sum())  # the rest is rounding
        index = np.arange(1, count + 1)
        if not spectrum.exact:
            figure.add_trace(band(index, spectrum, colour))
        figure.add_scatter(
            x=index,
            y=spectrum.values[:count],
            name=SYMBOLS[vector],
            mode="lines+markers" if count < 24 else "lines",
            marker={"size": 5},
            line={"color": colour, "width": 2.5},
            customdata=spectrum.errors[:count],
            hovertemplate=f"{SYMBOLS[vector]}: σ of index %{{x}} = %{{y:.4g}} ± %{{customdata:.1g}}<extra></extra>",
        )
    drawn = [value for trace in figure.data for value in trace.y]
    decades = np.log10(max(drawn) / min(drawn)) if drawn else 0
    ticks = {"dtick": "D2"} if decades < 2.5 else {"dtick": max(1, round(decades / 5))}
    figure.update_xaxes(title="index", type="log", dtick=1)
    figure.update_yaxes(title="singular value", type="log", tickformat="~g", automargin=True, **ticks)
    return dressed(figure, 320, margin=MARGIN)


def overlap_figure(found: MatrixSpectra, side: str = "left") -> go.Figure:
    """What the top-k subspaces of Δ share with those of δ and of Δ_t, by k, beside chance; `side` "left" or "right"."""
    figure = go.Figure()
    for vector, shared in found.overlaps.items():
        figure.add_scatter(
            x=shared.ranks,
            y=getattr(shared, side),
            name=f"Δ, {SYMBOLS[vector]}",
            mode="lines+markers",
            marker={"size": 6},
            line={"color": LOOKS[vector], "width": 2.5},
            hovertemplate=f"Δ and {SYMBOLS[vector]}, top %{{x}}: %{{y:.1%}} shared<extra></extra>",
        )
    shared = next(iter(found.overlaps.values()))
    figure.add_scatter(
        x=shared.ranks,
        y=getattr(shared, f"{side}_chance"),
        name="chance",
        mode="lines",
        line={"color": INK, "width": 1.5, "dash": "dash"},
        hovertemplate="chance, top %{x}: %{y:.2%}<extra></extra>",
    )
    labels = [str(k) for k in shared.ranks]
    figure.update_xaxes(title=f"k, {side} singular vectors", type="log", tickvals=shared.ranks, ticktext=labels)
    figure.update_yaxes(title="overlap", range=[-0.03, 1.03], tickformat=".0%", automargin=True)
    return dressed(figure, 320, margin=MARGIN)


def histogram_figure(found: Histogram) -> go.Figure:
    """The density of a vector's entries beside a normal of the same mean and standard deviation."""
    symbol, colour = SYMBOLS[found.vector], LOOKS.get(found.vector, INK)
    width = float(found.edges[1] - found.edges[0])
    middle = (found.edges[1:] + found.edges[:-1]) / 2
    figure = go.Figure()
    figure.add_bar(
        x=middle,
        y=found.counts / (found.numel * width),
        width=width,
        name=symbol,
        marker={"color": colour, "line": {"width": 0}},
        opacity=0.75,
        customdata=found.counts,
        hovertemplate="near %{x:.3g}: %{customdata:,} entries<extra></extra>",
    )
    if found.std > 0:
        grid = np.linspace(found.edges[0], found.edges[-1], 201)
        normal = np.exp(-(((grid - found.mean) / found.std) ** 2) / 2) / (found.std * np.sqrt(2 * np.pi))
        figure.add_scatter(
            x=grid,
            y=normal,
            name="normal",
            mode="lines",
            line={"color": INK, "width": 2, "dash": "dash"},
            hoverinfo="skip",
        )
    figure.update_xaxes(title=f"entry of {symbol}", nticks=6, exponentformat="power")
    figure.update_yaxes(title="density", nticks=5, automargin=True)
    return dressed(figure, 320, margin=MARGIN, bargap=0)
