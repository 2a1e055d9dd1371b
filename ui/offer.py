"""A point that was found by scoring, offered to Chat and to Export."""

import html
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from transfer.errors import PointError
from transfer.plane import Control, Mix, Schedule, point

from .inputs import number


@dataclass
class Offer:
    """The bar's components; `place` holds a Mix or None."""

    place: gr.State
    bar: gr.Row
    told: gr.HTML
    chat: gr.Button
    export: gr.Button

    @property
    def shown(self) -> list[Any]:
        """What `offered` fills."""
        return [self.place, self.bar, self.told, self.chat, self.export]


def build(name: str) -> Offer:
    """Lay it out; hidden until there is a point."""
    place = gr.State(None)
    with gr.Row(elem_classes="ts-offer", visible=False) as bar:
        told = gr.HTML("", padding=False, elem_id=f"{name}-offer")
        chat = gr.Button("Chat with it", size="sm", elem_id=f"{name}-to-chat", min_width=110, scale=0)
        export = gr.Button("Export it", size="sm", elem_id=f"{name}-to-export", min_width=110, scale=0)
    return Offer(place, bar, told, chat, export)


def offered(mix: Mix | None, why: str = "") -> list[Any]:
    """Values for Offer.shown: the bar for a point, or none. A control goes nowhere, and only α and β go to Export."""
    if mix is None:
        return [None, gr.update(visible=False), "", *[gr.skip()] * 2]
    if mix.control:
        said, mix = "This is a control, with Δ in wrong places: it is scored, and goes nowhere.", None
    elif mix.plain and mix.plane:
        said = f"<b>α = {mix.plane[0]:g}, β = {mix.plane[1]:g}</b> {why}"
    else:
        said = f"<b>{html.escape(shortly(mix))}</b> {why}"
    whole = bool(mix and mix.plain and mix.plane)
    bar = [gr.update(visible=True), f'<p class="ts-point">{said}</p>']
    return [mix, *bar, gr.update(visible=mix is not None), gr.update(visible=whole)]


def shortly(mix: Mix) -> str:
    """A point in few words."""
    if not mix.schedule or not mix.plane:
        return str(mix)
    return f"α = {mix.plane[0]:g}, β = {mix.plane[1]:g}, Δ scaled over depth"


def clicked(mark: Any) -> list[Any]:
    """The bar for a mark that was clicked; as it was where the mark is no point."""
    try:
        if mark == ["off"]:
            return offered(replace(point(1), control=Control("delta")))
        if mark[0] == "mix":
            numbers = [number(value, "A coefficient", -100, 100) for value in mark[1:1000]]
            schedule = Schedule(tuple(numbers[5:]), numbers[4]) if len(numbers) > 4 else None
            a, b, c, d = numbers[:4]
            return offered(Mix((a, b, c, d), schedule), "is the point that you clicked.")
        alpha, beta = mark
        there = point(number(alpha, "α", -10, 10), number(beta, "β", -10, 10))
        return offered(there, "is the point that you clicked.")
    except (PointError, TypeError, ValueError, LookupError):
        return [gr.skip()] * 5
