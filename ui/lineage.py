"""The Compare tab's lower part: the fingerprint of a lineage."""

import html
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from analysis import lineage
from transfer.plane import LABELS

from .shared import Shared
from .triple import Refs
from .turns import alone
from .work import background, notice, progress_bar, say

ANSWERS = {"kin": "one lineage.", "none": "no common lineage to be seen.", "unclear": "the fingerprints do not decide."}


@dataclass
class LineagePart:
    """The part's components."""

    compare: gr.Button
    told: gr.HTML


def build() -> LineagePart:
    """Lay it out."""
    with gr.Accordion("Is it really a child of this base?", open=False):
        gr.HTML(
            '<p class="ts-about">The totals above answer it by distance, which permuting a model\'s units would hide. The '
            "fingerprint (singular values of each head's attention products) survives that and fine-tuning.</p>",
            padding=False,
        )
        compare = gr.Button("Compare fingerprints", elem_id="fingerprints")
        told = gr.HTML("", padding=False, elem_id="kinship")
    return LineagePart(compare, told)


def run(shared: Shared, refs: Refs) -> Iterator[str]:
    """Every child beside its parent by fingerprint, and the plain answer out of both checks."""
    try:
        triple = shared.here(refs)
        roles = list(triple.checkpoints)
        prints: dict[str, Any] = {}
        start = time.monotonic()

        def work(tick: Any) -> Iterator[tuple[str, Any]]:
            with alone(tick):
                for role in roles:
                    yield role, lineage.fingerprint(triple.checkpoints[role], tick=tick)

        for step in background(work):
            if step is not None:
                prints[step[0]] = step[1]
            yield progress_bar(len(prints) / len(roles), start, f"{len(prints)} of {len(roles)} models read")
        found = shared.comparison(triple, None)
        kin = {(k.child, k.parent): k for k in lineage.kinships(found.gram)} if found else {}
        out = []
        for child, parent in lineage.PAIRS:
            if child in prints:
                likeness = lineage.resemblance(prints[child], prints[parent])
                near = kin.get((child, parent))
                good = likeness.verdict == "kin" and (near is None or near.verdict in ("same", "near"))
                answer = lineage.verdict(near, likeness)
                pair = f"{LABELS[child].capitalize()} and {LABELS[parent]}: {ANSWERS[likeness.verdict]}"
                out.append(notice(pair, "ok" if good else "warning"))
                out += [f'<p class="ts-about">{html.escape(t)}</p>' for t in dict.fromkeys((answer, likeness.sentence))]
        yield "".join(out)
    except Exception as error:
        yield notice(say(error), "error")
