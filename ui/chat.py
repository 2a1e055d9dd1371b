"""The Chat tab: two to six panes side by side, asked together or one by one, over several turns; its layout, and which press
does what."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from . import blind, clicks, differ, seat
from .desk import LONGEST
from .fields import dial, unchecked
from .panes import EMPTY
from .presets import Suggestion
from .seen import ALL
from .talking import Chat
from .triple import Refs
from .work import notice, say


@dataclass
class ChatTab:
    """The tab's components."""

    chips: gr.Row
    suggested: list[gr.Button]
    lineup: gr.HTML
    seat: seat.Seat
    past: gr.HTML
    panes: gr.HTML
    told: gr.HTML
    sent: gr.HTML
    prompt: gr.Textbox
    to: gr.Dropdown
    ask: gr.Button
    stop: gr.Button
    alpha: gr.Slider
    beta: gr.Slider
    over: gr.Button
    strip: gr.HTML
    hide: gr.Checkbox
    remember: gr.Checkbox
    anew: gr.Button
    sampling: list[Any]
    system: gr.Textbox
    manner: gr.Radio
    differ: differ.Differ
    ballots: blind.Ballots
    link: gr.Textbox
    make_link: gr.Button
    query: gr.Textbox
    pending: gr.State
    listener: gr.HTML

    @property
    def dials(self) -> list[Any]:
        return [self.alpha, self.beta]

    @property
    def settings(self) -> list[Any]:
        """In the order of `way_of`, and whether the next turn is blind."""
        return [*self.sampling, self.system, self.manner, self.remember, self.hide]

    @property
    def views(self) -> list[Any]:
        """What `looked` fills."""
        return [self.lineup, self.past, self.panes, self.told, self.sent, self.strip]

    @property
    def forms(self) -> list[Any]:
        """What `formed` fills."""
        return [*self.dials, self.to, *self.seat.shown, *self.differ.choices]


def build(suggestions: list[Suggestion]) -> ChatTab:
    """Lay the tab out."""
    with gr.Row(elem_classes="ts-chips") as chips:
        suggested = [gr.Button(s.prompt, size="sm", elem_classes="ts-chip") for s in suggestions]
    line = gr.HTML("", elem_id="lineup", padding=False)
    chair = seat.build()
    past = gr.HTML("", elem_id="past", padding=False)
    panes = gr.HTML(EMPTY, elem_id="panes", padding=False)
    told = gr.HTML("", elem_id="chat-told", padding=False)
    sent = gr.HTML("", elem_id="sent", padding=False)
    with gr.Row(elem_classes="ts-ask", equal_height=True):
        prompt = gr.Textbox(
            placeholder="Ask all of them …", show_label=False, label="Prompt", scale=8, lines=1, max_lines=6,
            max_length=LONGEST, elem_id="prompt",
        )  # fmt: skip
        to = unchecked(
            gr.Dropdown(
                [("All panes", ALL)], value=ALL, show_label=False, label="To", scale=2, min_width=150, elem_id="ask-to"
            )
        )
        ask = gr.Button("Ask", variant="primary", scale=1, min_width=90, elem_id="ask")
        stop = gr.Button("Stop", variant="stop", scale=1, min_width=90, elem_id="stop-chat")
    with gr.Row(elem_classes="ts-bar ts-toggles"):
        blind_ = gr.Checkbox(False, label="Blind: hide who is who, and vote", elem_id="blind", min_width=230)
        remember = gr.Checkbox(True, label="Each pane remembers its own answers", elem_id="remember", min_width=250)
        anew = gr.Button("New conversation", size="sm", elem_id="anew", min_width=150)
    with gr.Row(elem_classes="ts-wrap"):
        alpha = dial(
            -0.5, 2, 1, step=0.05, label="α: how strongly the pane takes Δ", elem_id="alpha", scale=3, min_width=280
        )
        beta = dial(
            -0.5,
            2,
            1,
            step=0.05,
            label="β: from the old base (0) to the new (1)",
            elem_id="beta",
            scale=2,
            min_width=240,
        )
        over = gr.Button("Answer over α", size="sm", elem_id="over", min_width=120, scale=0, elem_classes="ts-low")
    strip = gr.HTML("", elem_id="strip", padding=False)
    with gr.Accordion("Sampling, system prompt and template", open=False, elem_id="sampling"):
        with gr.Row(elem_classes="ts-wrap"):
            sampling = seat.sampling_fields("all")
        system = gr.Textbox(label="System prompt", lines=2, max_length=LONGEST, elem_id="system")
        manner = gr.Radio(
            [
                ("Each model through its own chat template; a base without one goes on with the text", "own"),
                ("All through the source fine-tuned model's template", "tuned"),
                ("All go on with the plain text", "plain"),
            ],
            value="own", label="How models are asked", elem_id="manner",
        )  # fmt: skip
    with gr.Accordion("Where two panes differ, token by token", open=False, elem_id="differ"):
        differing = differ.build()
    with gr.Accordion("Votes and transcript", open=False, elem_id="ballots"):
        ballots = blind.build()
    with (
        gr.Accordion("Share these models, panes, prompt and settings", open=False, elem_id="share"),
        gr.Row(elem_classes="ts-bar", equal_height=True),
    ):
        linked = gr.Textbox(
            label="Link", interactive=False, buttons=["copy"], elem_id="link",
            scale=8, max_lines=3,
        )  # fmt: skip
        make_link = gr.Button("Make link", size="sm", elem_id="make-link", min_width=120)
    asked_for, pending, listener = gr.Textbox(visible=False), gr.State(None), clicks.deeds("alpha", "beta")
    return ChatTab(
        chips, suggested, line, chair, past, panes, told, sent, prompt, to, ask, stop, alpha, beta, over, strip, blind_, remember,
        anew, sampling, system, manner, differing, ballots, linked, make_link, asked_for, pending, listener,
    )  # fmt: skip


ORIGIN = "query => query ? location.origin + location.pathname + '?' + query : ''"


def wire(tab: ChatTab, chat: Chat, refs: gr.State, private: dict[str, Any]) -> dict[str, Any]:
    """Which press does what. What asks, as the arguments of an event, for presses of other tabs."""
    shared = chat.shared
    with_dials, dials = [refs, *tab.dials], len(tab.dials)
    heavy: dict[str, Any] = {"concurrency_limit": 16, "concurrency_id": "chat", "trigger_mode": "multiple", **private}
    session = lambda request: str(request.session_hash)

    def ask(request: gr.Request, refs: Refs, prompt: Any, to: Any, *rest: Any) -> Iterator[list[Any]]:
        yield from chat.asks(session(request), refs, prompt, to, rest[:dials], rest[dials:])

    def shown(request: gr.Request, refs: Refs, prompt: Any, *rest: Any) -> Iterator[list[Any]]:
        *form, _, hide = rest[dials:]  # a suggested question is asked by itself
        yield from chat.asks(session(request), refs, prompt, ALL, rest[:dials], [*form, False, hide])

    def act(
        event: gr.EventData, request: gr.Request, refs: Refs, who: Any, typed: Any, *rest: Any
    ) -> Iterator[list[Any]]:
        yield from chat.acts(session(request), refs, event.mark, who, typed, rest[:dials], rest[dials:])

    def over(request: gr.Request, refs: Refs, *rest: Any) -> Iterator[list[Any]]:
        yield from chat.fills(session(request), refs, rest[:dials], rest[dials:])

    def set_pane(request: gr.Request, refs: Refs, *rest: Any) -> list[Any]:
        return chat.seats(session(request), refs, False, rest[:dials], rest[dials:])

    def add_pane(request: gr.Request, refs: Refs, *rest: Any) -> list[Any]:
        return chat.seats(session(request), refs, True, rest[:dials], rest[dials:])

    def choose(request: gr.Request, refs: Refs, which: Any) -> list[Any]:
        return chat.chooses(session(request), refs, which)

    def begin(request: gr.Request, refs: Refs) -> list[Any]:
        return chat.begins(session(request), refs)

    def compare(request: gr.Request, refs: Refs, one: Any, other: Any, whose: Any) -> Iterator[str]:
        try:
            desk = chat.desk(session(request), refs)
        except Exception as error:
            yield notice(say(error), "error")
        else:
            yield from differ.run(shared, session(request), desk, one, other, whose)

    def counted(request: gr.Request, refs: Refs) -> str:
        try:
            return blind.tallied(chat.desk(session(request), refs))
        except Exception as error:
            return notice(say(error), "error")

    def votes(request: gr.Request, refs: Refs) -> tuple[str, str]:
        return blind.votes_file(chat.desk(session(request), refs)), "votes.jsonl"

    def transcript(request: gr.Request, refs: Refs) -> tuple[str, str]:
        return blind.transcript_file(chat.desk(session(request), refs)), "transcript.jsonl"

    def offers(request: gr.Request, refs: Refs, *rest: Any) -> str:
        return chat.offers(session(request), refs, rest[:dials], rest[dials:])

    def linked(request: gr.Request, refs: Refs, prompt: Any, *form: Any) -> tuple[str, str]:
        return chat.linked(session(request), refs, prompt, form)

    def forget(request: gr.Request, refs: Refs) -> str:
        return chat.forgets(session(request), refs)

    def stop(request: gr.Request) -> None:
        chat.halt(session(request))

    asking: dict[str, Any] = {
        "fn": ask,
        "inputs": [refs, tab.prompt, tab.to, *tab.dials, *tab.settings],
        "outputs": [*tab.views, tab.prompt],
        **heavy,
    }
    anew = {**asking, "fn": shown, "inputs": [refs, tab.prompt, *tab.dials, *tab.settings]}
    tab.ask.click(**asking)
    tab.prompt.submit(**asking)
    for button in tab.suggested:
        button.click(lambda text: text, button, tab.prompt, **private).then(**anew)
    acted = tab.listener.select(
        act,
        [refs, tab.seat.who, tab.prompt, *tab.dials, *tab.settings],
        [*tab.views, *tab.forms, tab.prompt, tab.seat.box],
        **heavy,
    )
    acted.then(counted, refs, tab.ballots.shown, **private)
    tab.over.click(over, [*with_dials, *tab.settings], tab.views, **heavy)
    both = [*tab.views, *tab.forms]
    seats = {"inputs": [*with_dials, *tab.seat.fields], "outputs": [*both, tab.seat.told], **private}
    for button, seated in ((tab.seat.set, set_pane), (tab.seat.add, add_pane)):
        button.click(seated, **seats).then(**again(tab, chat, refs, private))
    tab.seat.models.click(offers, [*with_dials, *tab.seat.fields], tab.seat.told, **private)
    tab.seat.which.input(choose, [refs, tab.seat.which], both, **private)
    tab.seat.who.input(seat.asked_for, tab.seat.who, [tab.seat.depth_row, tab.seat.endpoint_row], **private)
    tab.seat.own.input(lambda on: gr.update(visible=bool(on)), tab.seat.own, tab.seat.own_row, **private)
    tab.anew.click(begin, refs, tab.views, **private).then(counted, refs, tab.ballots.shown, **private)
    chosen = [refs, tab.differ.one, tab.differ.other, tab.differ.whose]
    tab.differ.run.click(compare, chosen, tab.differ.shown, **heavy)
    tab.ballots.forget.click(forget, refs, tab.ballots.shown, **private)
    files = [tab.ballots.text, tab.ballots.name]
    for button, made in ((tab.ballots.votes, votes), (tab.ballots.transcript, transcript)):
        button.click(made, refs, files, **private).then(None, files, None, js=blind.SAVE, **private)
    made = tab.make_link.click(linked, [refs, tab.prompt, *tab.settings], [tab.query, tab.told], **private)
    made.then(None, tab.query, tab.link, js=ORIGIN, **private)
    # Not by `cancels`: a generator that is cut cannot say what was stopped.
    tab.stop.click(stop, None, None, queue=False, **private)
    return anew


def again(tab: ChatTab, chat: Chat, refs: gr.State, private: dict[str, Any]) -> dict[str, Any]:
    """What has the chosen pane answer the last prompt once more, as the arguments of an event."""

    def answered(request: gr.Request, refs: Refs, *form: Any) -> Iterator[list[Any]]:
        yield from chat.repeats(str(request.session_hash), refs, form)

    return {
        "fn": answered,
        "inputs": [refs, *tab.settings],
        "outputs": tab.views,
        "trigger_mode": "multiple",
        **private,
    }
