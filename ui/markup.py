"""The pieces of HTML that gradio has no component for. Every word of a person or a model is escaped here."""

import html
import math
import re
from collections.abc import Sequence

from analysis.comparison import Comparison
from analysis.measures import MEASURES, margin, written
from transfer.plane import LABELS, SYMBOLS, Mix
from transfer.triple import Finding, Triple, size

SUBSCRIPTED = re.compile(r"(?<![A-Za-z0-9])(m|m'|Δ)_([st])(?![A-Za-z0-9])")  # and no name that has _s in it
MARKS = {"ok": "✓", "note": "·", "warning": "!", "error": "×"}

HERO = """
<div class="ts-hero">
  <svg class="ts-logo" viewBox="0 0 48 48" aria-hidden="true">
    <path d="M8 38 L8 14 M32 38 L32 14" class="ts-logo-delta"/><path d="M8 38 L32 38 M8 14 L32 14" class="ts-logo-shift"/>
    <circle cx="8" cy="38" r="5" fill="#8a94a6"/><circle cx="8" cy="14" r="5" fill="#3f83d6"/>
    <circle cx="32" cy="38" r="5" fill="#d08a2c"/><circle cx="32" cy="14" r="7" fill="#8b5cf6"/>
  </svg>
  <div>
    <h1>Transferscope</h1>
    <p>See what an old fine-tune would do to a new base model, before paying for it again.</p>
  </div>
  <div class="ts-formula" aria-label="merged = target base + alpha times (source fine-tuned minus source base)">
    <b class="merged">merged</b> = <b class="target_base">target base</b> + α · (<b class="source_tuned">source fine-tuned</b>
    − <b class="source_base">source base</b>)
  </div>
</div>
"""


def mathy(symbol: str) -> str:
    """m'_s with its subscript set as one."""
    return SUBSCRIPTED.sub(r"\1<sub>\2</sub>", html.escape(symbol, quote=False))


def plain(symbol: str) -> str:
    """The same where no markup is taken: a subscript of its own character."""
    return symbol.replace("_s", "ₛ").replace("_t", "ₜ")


def report(triple: Triple) -> str:
    """The preflight in plain words: what each role holds, then what was found."""
    cards = "".join(
        f'<div class="ts-model {role}"><span>{LABELS[role]} <i>{mathy(SYMBOLS[role])}</i></span>'
        f"<b>{html.escape(c.name)}</b><small>{c.parameters / 1e6:,.2f} M parameters · {'/'.join(c.dtypes)} · {size(c.nbytes)}"
        f"{' · not downloaded' if c.missing else ''}</small></div>"
        for role, c in triple.checkpoints.items()
    )
    return f'<div class="ts-models">{cards}</div>{findings(triple.findings)}'


def findings(found: Sequence[Finding]) -> str:
    rows = "".join(
        f'<li class="ts-{f.level}"><span aria-hidden="true">{MARKS[f.level]}</span>{html.escape(f.text)}</li>'
        for f in found
    )
    return f'<ul class="ts-findings">{rows}</ul>'


def tiles(found: Comparison) -> str:
    """The totals of a comparison, each with its interval, where it was sampled, and with what it tells."""
    names = ["relative", "norm_delta", "norm_shift", "cos_shift", "cos_reference", "best_alpha", "lost"]
    widths = found.widths(["all"]).iloc[0]
    out = []
    for name in names:
        value, width = float(found.total[name]), float(widths[name])
        if math.isnan(value):
            continue
        shown = MEASURES[name]
        label = shown.label + (f" at α = {found.alpha:g}" if name == "lost" else "")
        out.append(
            f'<div class="ts-tile"><span>{mathy(label)}</span><b>{written(name, value)} <i>{margin(name, width)}</i></b>'
            f"<small>{mathy(shown.about)}</small></div>"
        )
    return f'<div class="ts-tiles">{"".join(out)}</div>'


def strength(mix: Mix) -> str:
    """A merged model by its formula: m_t + 0.8·Δ, or m_s + 0.8·Δ + 0.5·δ where β is not 1."""
    alpha, beta = mix.plane or (0.0, 1.0)
    base = mathy("m_t") if beta == 1 else mathy("m_s")
    terms = [(alpha, "Δ")] + ([] if beta == 1 else [(beta, "δ")])
    return base + "".join(f" {'−' if c < 0 else '+'} {abs(c):g}·{vector}" for c, vector in terms)
