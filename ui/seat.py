"""Setting a pane of the Chat tab: who sits there, and how it draws where it draws in a way of its own."""

from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from analysis.sweep import depth
from transfer.endpoint import Endpoint
from transfer.errors import ChatError
from transfer.plane import CORNERS, LABELS, Mix, point, ramp
from transfer.talk import Pane

from .desk import ORDER, Desk, sampling_of
from .fields import dial, figure, unchecked
from .inputs import number, words
from .panes import labels

POINT, DEPTH, ENDPOINT = "point", "depth", "endpoint"


@dataclass
class Seat:
    """The form's components."""

    box: gr.Accordion
    which: gr.Dropdown
    who: gr.Dropdown
    depth_row: gr.Row
    depth: list[gr.Number]
    endpoint_row: gr.Row
    endpoint: list[gr.Textbox]
    models: gr.Button
    own: gr.Checkbox
    own_row: gr.Row
    drawing: list[Any]
    set: gr.Button
    add: gr.Button
    told: gr.HTML

    @property
    def fields(self) -> list[Any]:
        """What `seated` takes after the dials."""
        return [self.who, *self.depth, *self.endpoint, self.own, *self.drawing]

    @property
    def shown(self) -> list[Any]:
        """What `filled` fills."""
        return [self.which, self.who, self.depth_row, *self.depth, self.endpoint_row, *self.endpoint, self.own, self.own_row, *self.drawing]  # fmt: skip


def build() -> Seat:
    """Lay it out, closed."""
    with gr.Accordion("Set a pane", open=False, elem_id="seat") as box:
        with gr.Row(elem_classes="ts-wrap"):
            which = unchecked(
                gr.Dropdown([], label="Pane (the α and β below are this one's)", elem_id="which", min_width=220)
            )
            who = unchecked(gr.Dropdown([], label="Who answers", elem_id="who", min_width=260))
        with gr.Row(visible=False, elem_classes="ts-wrap") as depth_row:
            first = figure(0.5, label="Δ × in the first layer", min_width=140, elem_id="depth-first")
            last = figure(1, label="Δ × in the last layer", min_width=140, elem_id="depth-last")
        with gr.Row(visible=False, elem_classes="ts-wrap") as endpoint_row:
            url = gr.Textbox(
                label="Address", placeholder="http://127.0.0.1:8000/v1", max_length=400, elem_id="endpoint-url"
            )
            model = gr.Textbox(
                label="Model", placeholder="as the server calls it", max_length=400, elem_id="endpoint-model"
            )
            key = gr.Textbox(
                label="Key", type="password", max_length=400, elem_id="endpoint-key",
                placeholder="only if it wants one; held for this session only",
            )  # fmt: skip
            models = gr.Button("Which models?", size="sm", elem_id="endpoint-models", min_width=120, scale=0)
        own = gr.Checkbox(False, label="This pane draws in its own way", elem_id="own")
        with gr.Row(visible=False, elem_classes="ts-wrap") as own_row:
            drawing = sampling_fields("own")
        with gr.Row(elem_classes="ts-bar"):
            set_ = gr.Button("Set this pane", variant="primary", size="sm", elem_id="set-pane")
            add = gr.Button("Add as another pane", size="sm", elem_id="add-pane")
        told = gr.HTML("", elem_id="seat-told", padding=False)
    return Seat(
        box,
        which,
        who,
        depth_row,
        [first, last],
        endpoint_row,
        [url, model, key],
        models,
        own,
        own_row,
        drawing,
        set_,
        add,
        told,
    )


def sampling_fields(name: str) -> list[Any]:
    """Temperature, top-p, tokens and seed."""
    return [
        dial(
            0,
            2,
            0,
            step=0.1,
            label="Temperature (0: always the likeliest)",
            min_width=180,
            elem_id=f"{name}-temperature",
        ),
        dial(0.05, 1, 1, step=0.05, label="Top-p (1: all tokens)", min_width=160, elem_id=f"{name}-top-p"),
        dial(1, 1024, 48, step=1, label="Tokens at most", min_width=180, elem_id=f"{name}-max-tokens"),
        figure(0, label="Seed", min_width=100, elem_id=f"{name}-seed"),
    ]


def kinds(desk: Desk) -> list[tuple[str, str]]:
    """Who may sit in a pane."""
    roles = [r for r in ORDER if r == "merged" or r in desk.triple.checkpoints]
    return [
        *((LABELS[r].capitalize(), r) for r in roles),
        ("A point: α and β by the dials", POINT),
        ("A point with Δ scaled over depth", DEPTH),
        ("An OpenAI-compatible endpoint", ENDPOINT),
    ]


def kind_of(pane: Pane) -> str:
    at = pane.at
    if isinstance(at, Endpoint):
        return ENDPOINT
    return (not pane.point and at.corner) or (DEPTH if at.schedule else POINT)


def filled(desk: Desk, keep: bool = False, who: Any = None) -> list[Any]:
    """Values of the form for the chosen pane; with `keep` of the choices alone, so that nothing typed is lost, and of `who`
    sits there, which stands in the form, where a dial has made a point of a corner."""
    names = labels(desk.talk.panes)
    which = gr.update(
        choices=[(f"{i + 1}: {names[p.key]}", p.key) for i, p in enumerate(desk.talk.panes)], value=desk.chosen
    )
    if keep:
        moved = who in CORNERS and kind_of(desk.talk.pane(desk.chosen)) != who
        return [which, POINT if moved else gr.skip(), *[gr.skip()] * 13]
    pane = desk.talk.pane(desk.chosen)
    at, kind = pane.at, kind_of(pane)
    schedule = at.schedule if isinstance(at, Mix) else None
    ends = (schedule.layers[0], schedule.layers[-1]) if schedule else (0.5, 1.0)
    server = at if isinstance(at, Endpoint) else None
    held = (
        "kept; type another to change it"
        if server and server.key
        else "only if it wants one; held for this session only"
    )
    own = pane.sampling
    drawing = (own.temperature, own.top_p, own.max_tokens, own.seed) if own else (0, 1, 48, 0)
    return [
        which,
        gr.update(choices=kinds(desk), value=kind),
        gr.update(visible=kind == DEPTH),
        *ends,
        gr.update(visible=kind == ENDPOINT),
        server.url if server else "",
        server.model if server else "",
        gr.update(value="", placeholder=held),
        own is not None,
        gr.update(visible=own is not None),
        *drawing,
    ]


def asked_for(kind: Any) -> list[Any]:
    """Which rows of the form a kind needs: updates for (depth_row, endpoint_row)."""
    return [gr.update(visible=kind == DEPTH), gr.update(visible=kind == ENDPOINT)]


def seated(
    desk: Desk,
    alpha: Any,
    beta: Any,
    who: Any,
    first: Any,
    last: Any,
    url: Any,
    model: Any,
    key: Any,
    own: Any,
    *drawing: Any,
) -> dict[str, Any]:
    """The fields of a pane as the form says. Raises TransferscopeError."""
    sampling = sampling_of(*drawing) if own else None
    at = at_of(desk, alpha, beta, who, first, last, url, model, key)
    return {"at": at, "sampling": sampling, "point": who in (POINT, DEPTH)}


def at_of(
    desk: Desk, alpha: Any, beta: Any, who: Any, first: Any, last: Any, url: Any, model: Any, key: Any
) -> Mix | Endpoint:
    if not isinstance(who, str):
        raise ChatError("Choose who answers in this pane.")
    if who in CORNERS:
        desk.triple.need(CORNERS[who])
        return CORNERS[who]
    if who in (POINT, DEPTH):
        there = point(number(alpha, "α", -10, 10), number(beta, "β", -10, 10))
        if who == POINT:
            return there
        ends = number(first, "Δ × in the first layer", -10, 10), number(last, "Δ × in the last layer", -10, 10)
        return replace(there, schedule=ramp(*ends, depth(desk.triple)))
    if who != ENDPOINT:
        raise ChatError("Choose who answers in this pane.")
    server = Endpoint(words(url, "Address", 400), words(model, "Model", 400), words(key, "Key", 400))
    now = next((p.at for p in desk.talk.panes if p.key == desk.chosen), None)
    if not server.key and isinstance(now, Endpoint) and now.url == server.url:
        server = replace(server, key=now.key)  # the page is never told a key, so it cannot send it back
    return server
