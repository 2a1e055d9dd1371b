"""The Chat tab: one prompt, all corners and the merged model side by side."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from transfer.chat import Answer, answer
from transfer.errors import ChatError
from transfer.plane import CORNERS, LABELS, point
from transfer.sampling import Sampling

from .fields import dial, figure
from .inputs import number, whole, words
from .markup import EMPTY_PANES, panes
from .presets import Suggestion
from .shared import Shared
from .triple import Refs
from .work import Turn, notice, say

ORDER = ("source_base", "source_tuned", "target_base", "merged", "target_tuned")


@dataclass
class ChatTab:
    """The tab's components."""

    prompt: gr.Textbox
    ask: gr.Button
    stop: gr.Button
    alpha: gr.Slider
    beta: gr.Slider
    shown: gr.CheckboxGroup
    temperature: gr.Slider
    max_tokens: gr.Slider
    seed: gr.Number
    chips: gr.Row
    suggested: list[gr.Button]
    panes: gr.HTML


def build(suggestions: list[Suggestion]) -> ChatTab:
    """Lay the tab out."""
    with gr.Row(elem_classes="ts-chips") as chips:
        suggested = [gr.Button(s.prompt, size="sm", elem_classes="ts-chip") for s in suggestions]
    with gr.Row(elem_classes="ts-ask", equal_height=True):
        prompt = gr.Textbox(
            placeholder="Ask all of them …",
            show_label=False,
            label="Prompt",
            scale=8,
            lines=1,
            max_lines=6,
            max_length=20_000,
            elem_id="prompt",
        )
        ask = gr.Button("Ask", variant="primary", scale=1, min_width=90, elem_id="ask")
        stop = gr.Button("Stop", variant="stop", scale=1, min_width=90, elem_id="stop-chat")
    with gr.Row(elem_classes="ts-wrap"):
        alpha = dial(
            -0.5,
            2,
            1,
            step=0.05,
            label="α: how strongly the merged model takes Δ",
            elem_id="alpha",
            scale=3,
            min_width=280,
        )
        beta = dial(
            -0.5, 2, 1, step=0.05, label="β: how far from the old base (0) to the new (1)", elem_id="beta", scale=2,
            min_width=240,
        )  # fmt: skip
    with gr.Accordion("Panes and sampling", open=False):
        names = [(LABELS[r], r) for r in ORDER]
        shown = gr.CheckboxGroup(names, value=list(ORDER), label="Panes", elem_id="panes-shown")
        with gr.Row():
            temperature = dial(0, 2, 0, step=0.1, label="Temperature (0: always the likeliest token)", min_width=200)
            max_tokens = dial(1, 1024, 48, step=1, label="Tokens at most", min_width=200, elem_id="max-tokens")
            seed = figure(0, label="Seed", min_width=100, elem_id="seed")
    cards = gr.HTML(EMPTY_PANES, elem_id="panes", padding=False)
    return ChatTab(prompt, ask, stop, alpha, beta, shown, temperature, max_tokens, seed, chips, suggested, cards)


def run(
    shared: Shared,
    suggestions: list[Suggestion],
    session: str,
    refs: Refs,
    prompt: Any,
    alpha: Any,
    beta: Any,
    shown: Any,
    temperature: Any,
    max_tokens: Any,
    seed: Any,
) -> Iterator[str]:
    """Ask: yields the panes as HTML while they stream, until a later question of the same session is asked."""
    turn = Turn(shared.turns, session)
    try:
        question = words(prompt, "The prompt", 20_000).strip()
        if not question:
            raise ChatError("The prompt is empty. Type a question first.")
        sampling = Sampling(
            temperature=number(temperature, "Temperature", 0, 2),
            max_tokens=whole(max_tokens, "Tokens at most", 1, 4096),
            seed=whole(seed, "Seed", 0, 2**31 - 1),
        )
        triple = shared.here(refs)
        merged = point(number(alpha, "α", -10, 10), number(beta, "β", -10, 10))
        names = [r for r in ORDER if r in (shown or []) and (r == "merged" or r in triple.checkpoints)]
        if not names:
            raise ChatError("No pane is chosen. Tick at least one under “Panes and sampling”.")
        mixes = [merged if name == "merged" else CORNERS[name] for name in names]
        models = [triple.checkpoints[name].name if name != "merged" else "" for name in names]
        known = next((s for s in suggestions if s.prompt == question and is_pocket(refs)), None)
        why, expect = (known.why, known.expect) if known else ("", "")
        messages = [{"role": "user", "content": question}]
        stream = answer(shared.store, triple, shared.prompter(triple), mixes, messages, sampling)
        answers: list[Answer] = []
        for answers in turn.heed(stream):
            yield panes(answers, names, models, question, why, expect)
        if turn.halted and turn.current and answers:
            yield panes(answers, names, models, question, why, expect, halted=True)
    except Exception as error:
        yield notice(say(error), "error")


def is_pocket(refs: Refs) -> bool:
    """Whether the suggested questions are about these models."""
    return any(refs.values()) and all(ref.startswith("pocket/") for ref in refs.values() if ref)
