"""Where two panes differ: one answer, read by both models, coloured token by token."""

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import exp
from typing import Any

import gradio as gr

from analysis.divergence import Divergence, Side, Token, divergence, first_difference, pieces
from transfer.chat import Answer
from transfer.errors import ChatError
from transfer.plane import Mix
from transfer.prompt import Prompter

from .desk import Desk
from .fields import unchecked
from .panes import labels, visible
from .shared import Shared
from .work import Turn, background, notice, say

HINT = (
    '<p class="ts-about">Both models read the same answer, each after its own prompt. The darker a token, the further apart are '
    "their expectations of it: the Kullback-Leibler divergence of the second from the first, in nats.</p>"
)
# The token under the pointer, or the one with the focus, tells what both models expected there.
HOVER = """
const show = event => {
    const token = event.target.closest('.ts-tok'), box = element.querySelector('.ts-tip');
    if (!token || !box) return;
    element.querySelectorAll('.ts-tok.ts-now').forEach(other => other.classList.remove('ts-now'));
    token.classList.add('ts-now');
    box.innerHTML = token.querySelector('template').innerHTML;
};
['mouseover', 'focusin', 'click'].forEach(name => element.addEventListener(name, show));
"""


@dataclass
class Differ:
    """The part's components."""

    one: gr.Dropdown
    other: gr.Dropdown
    whose: gr.Radio
    run: gr.Button
    shown: gr.HTML

    @property
    def choices(self) -> list[Any]:
        """What `choices` fills."""
        return [self.one, self.other]


def build() -> Differ:
    """Lay it out."""
    with gr.Row(elem_classes="ts-bar"):
        one = unchecked(gr.Dropdown([], label="First", elem_id="differ-one", min_width=180))
        other = unchecked(gr.Dropdown([], label="Second", elem_id="differ-other", min_width=180))
        whose = gr.Radio(
            [("first's answer", "one"), ("second's answer", "other")], value="one", label="On the", elem_id="whose"
        )
        run_ = gr.Button("Show", variant="primary", size="sm", elem_id="differ-run", min_width=90)
    shown = gr.HTML(HINT, elem_id="differ-shown", padding=False, js_on_load=HOVER)
    return Differ(one, other, whose, run_, shown)


def choices(desk: Desk, keep: bool = False) -> list[Any]:
    """The panes to choose from, and unless what is chosen is to be kept the chosen pane and another one."""
    names = labels(desk.talk.panes)
    listed = [(f"{i + 1}: {names[p.key]}", p.key) for i, p in enumerate(desk.talk.panes)]
    if keep:
        return [gr.update(choices=listed)] * 2
    mixes = {p.at.corner: p.key for p in desk.talk.panes if isinstance(p.at, Mix)}
    one = desk.chosen
    other = next((k for k in (mixes.get("target_tuned"), mixes.get("source_tuned")) if k and k != one), None)
    other = other or next((key for _, key in listed if key != one), one)
    return [gr.update(choices=listed, value=one), gr.update(choices=listed, value=other)]


def run(shared: Shared, session: str, desk: Desk, one: Any, other: Any, whose: Any) -> Iterator[str]:
    """Compare two panes on the last turn that both answered: yields HTML."""
    turn = Turn(shared.turns, f"{session} chat differ")
    try:
        place, first, second = both(desk, str(one), str(other))
        names = labels(list(desk.talk.turns[place].panes.values()))
        called = (names[str(one)], names[str(other)])
        prompter = shared.prompter(desk.triple)
        text = second if whose == "other" else first
        if not all(isinstance(a.at, Mix) for a in (first, second)):
            yield on(desk.talk.turns[place].prompt) + by_words(prompter, first, second, called)
            return
        sides = [Side(a.at, a.prompt, a.ids) for a in (first, second)]  # type: ignore[arg-type]
        yield notice("Reading the answer with both models …")
        work = background(
            lambda tick: iter([divergence(shared.store, desk.triple, prompter, sides[0], sides[1], text.ids, tick)])
        )
        for found in turn.heed(work):
            if found is not None:
                yield on(desk.talk.turns[place].prompt) + shown(found, called, called[whose == "other"])
    except Exception as error:
        yield notice(say(error), "error")


def on(prompt: str) -> str:
    """Which question it is about."""
    return f'<p class="ts-faint" dir="auto">On “{html.escape(prompt[:200])}”</p>'


def both(desk: Desk, one: str, other: str) -> tuple[int, Answer, Answer]:
    """The last turn in which both panes said something, and what they said. Raises ChatError."""
    if one == other:
        raise ChatError("Choose two different panes.")
    for place in range(len(desk.talk.turns) - 1, -1, -1):
        turn = desk.talk.turns[place]
        a, b = turn.answers.get(one), turn.answers.get(other)
        if a and b and a.tokens and b.tokens and a.done and b.done:
            if any(isinstance(x.at, Mix) and not x.prompt for x in (a, b)):
                raise ChatError("That was too many turns ago. Ask both of them something first.")
            if turn.hidden:
                raise ChatError("The last turn is blind. Vote first.")
            return place, a, b
    raise ChatError("These two panes have not answered the same question yet. Ask both of them something first.")


def by_words(prompter: Prompter, one: Answer, other: Answer, called: tuple[str, str]) -> str:
    """Where the texts part, for models whose weights are not here."""
    split = lambda text: prompter.tokenizer(text, add_special_tokens=False)["input_ids"]
    a, b = ([i for i in x.ids if i not in prompter.stops] or split(x.text) for x in (one, other))
    return (
        f"{parting(first_difference(a, b), pieces(prompter, a), pieces(prompter, b), called)}"
        '<p class="ts-faint">An endpoint tells its words and not what it expected, so there are no colours.</p>'
    )


def parting(place: int | None, one: Sequence[str], other: Sequence[str], called: tuple[str, str]) -> str:
    """The first token that differs, in a sentence."""
    if place is None:
        return '<p class="ts-about">Both gave the same answer, token by token.</p>'
    begun = "".join(one[:place])[-60:]
    word = lambda parts: f"“{visible(parts[place])}”" if place < len(parts) else "nothing more"
    return (
        f'<p class="ts-about">They part at token {place + 1}, after “…{html.escape(begun)}”: <b>{html.escape(called[0])}</b> says '
        f"{word(one)}, <b>{html.escape(called[1])}</b> {word(other)}.</p>"
    )


def shown(found: Divergence, called: tuple[str, str], whose: str) -> str:
    """The text in colours, and what both expected at the token where they are furthest apart."""
    if not found.tokens:
        return notice("There is nothing to read in this answer.")
    worst = found.largest(1)[0]
    marks = []
    for i, token in enumerate(found.tokens):
        apart = " ts-apart" if i == found.apart else ""
        now = " ts-now" if i == worst else ""
        marks.append(
            f'<span class="ts-tok{apart}{now}" tabindex="0" style="--far: {100 * (1 - exp(-token.kl)):.0f}%">{face(token.text)}'
            f"<template>{tip(token, called)}</template></span>"
        )
    cut = " Only its beginning is shown." if found.cut else ""
    place = "" if found.apart is None else f" The answers part at token {found.apart + 1}, which is underlined."
    return (
        f'<p class="ts-about">What {html.escape(whose)} answered, read by <b>{html.escape(called[0])}</b> and by '
        f"<b>{html.escape(called[1])}</b>: {found.mean:.2g} nats a token.{place}{cut}</p>"
        f'<p class="ts-toks">{"".join(marks)}</p><div class="ts-tip" aria-live="polite">{tip(found.tokens[worst], called)}</div>'
    )


def face(text: str) -> str:
    """A token as it reads, with line breaks and nothing made visible."""
    if not text.strip(" "):
        return html.escape(text) or "·"
    return html.escape(text).replace("\n", "⏎<br>")


def tip(token: Token, called: tuple[str, str]) -> str:
    """What both models expected in a token's place."""
    columns = []
    for name, chance, rank, top in zip(called, token.chance, token.rank, token.top, strict=True):
        rows = "".join(
            f"<tr{' class=ts-same' if text == token.text else ''}><td>{visible(text)}</td><td>{share(p)}</td></tr>"
            for text, p in top
        )
        columns.append(
            f"<div><b>{html.escape(name)}</b><span>{share(chance)} for this token, its "
            f"{'first' if rank == 0 else ordinal(rank + 1)} choice</span><table>{rows}</table></div>"
        )
    return (
        f"<p><b>“{visible(token.text)}”</b> KL {token.kl:.2g} nats, Jensen-Shannon {token.js:.2g} bits</p>"
        f'<div class="ts-tops">{"".join(columns)}</div>'
    )


def share(p: float) -> str:
    return f"{100 * p:.0f} %" if p >= 0.095 else f"{100 * p:.2g} %" if p >= 1e-4 else "under 0.01 %"


def ordinal(n: int) -> str:
    ending = "th" if 10 <= n % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n:,}{ending}"
