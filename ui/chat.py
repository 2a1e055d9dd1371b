"""The Chat tab: two to six panes side by side, asked together or one by one, over several turns."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import gradio as gr

from transfer.errors import ChatError
from transfer.plane import Mix, point
from transfer.talk import BAD, TIE

from . import blind, clicks, differ, link, seat
from .desk import LONGEST, Desk, Settings, settings_of
from .fields import dial, unchecked
from .inputs import words
from .panes import EMPTY, labels, lineup, named, sent_html, strip_html, turn_html
from .presets import Suggestion
from .shared import Shared
from .triple import Refs
from .work import Turn, halt, notice, say

ALL = "all"
OVER = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)  # α of the whole strip
KEY = "chat"  # of the presses of this tab


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
        """In the order of `settings_of`."""
        return [*self.sampling, self.system, self.manner, self.hide, self.remember]

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
                [("All panes", ALL)], value=ALL, show_label=False, label="To", scale=2, min_width=150, elem_id="to"
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


def is_pocket(refs: Refs) -> bool:
    """Whether the suggested questions are about these models."""
    return any(refs.values()) and all(ref.startswith("pocket/") for ref in refs.values() if ref)


class Chat:
    """What the tab's presses do, for everybody: each works on the desk of the session that pressed."""

    def __init__(self, shared: Shared, suggestions: Sequence[Suggestion]):
        self.shared = shared
        self.known = {s.prompt: s for s in suggestions}

    # What is seen

    def looked(self, desk: Desk, told: str = "", system: str = "", past: bool = True) -> list[Any]:
        """Values for ChatTab.views; earlier turns only with `past`: nothing changes in them while the last one grows."""
        talk, known = desk.talk, self.known if is_pocket(refs_of(desk)) else {}
        hide = bool(talk.turns and talk.turns[-1].hidden)
        draw = lambda place, last: turn_html(talk, place, desk.triple, known, system, last)
        before: Any = "".join(draw(i, False) for i in range(len(talk.turns) - 1)) if past else gr.skip()
        now = draw(len(talk.turns) - 1, True) if talk.turns else EMPTY
        return [
            lineup(talk, desk.chosen, desk.planned(self.shared.store), hide) if past else gr.skip(),
            before,
            now,
            told,
            self.sent(desk) if past else gr.skip(),
            self.strip(desk, known),
        ]

    def strip(self, desk: Desk, known: dict[str, Suggestion]) -> str:
        if not desk.talk.turns or desk.talk.turns[-1].hidden:
            return ""
        pane = next((p for p in desk.talk.panes if p.key == desk.chosen), None)
        at = desk.dials
        shown = known.get(desk.talk.turns[-1].prompt.strip())
        return strip_html(desk.strip, at[0] if at else None, named(pane).name if pane else "", shown)

    def sent(self, desk: Desk) -> str:
        if desk.sent is None or desk.sent[0] >= len(desk.talk.turns):
            return ""
        turn = desk.talk.turns[desk.sent[0]]
        found, pane = turn.answers.get(desk.sent[1]), turn.panes.get(desk.sent[1])
        if not found or not pane or not found.prompt or turn.hidden:
            return ""
        texts = differ.texts(self.shared.prompter(desk.triple), found.prompt)
        return sent_html(found, labels([pane])[pane.key], texts)

    def formed(self, desk: Desk, keep: bool = False) -> list[Any]:
        """Values for ChatTab.forms; with `keep` of the choices alone, so that nothing typed is lost."""
        at = desk.dials
        names = labels(desk.talk.panes)
        to = gr.update(
            choices=[("All panes", ALL), *((f"{i + 1}: {names[p.key]}", p.key) for i, p in enumerate(desk.talk.panes))]
        )
        return [*(at or [gr.skip()] * 2), to, *seat.filled(desk, keep), *differ.choices(desk)]

    def blank(self, why: str) -> list[Any]:
        """The views where there is no triple to talk to."""
        return ["", "", EMPTY, notice(why, "error"), "", ""]

    # What is pressed

    def desk(self, session: str, refs: Refs) -> Desk:
        """Raises TransferscopeError where there is no triple that can answer."""
        return self.shared.desk(session, self.shared.here(refs))

    def opened(self, session: str, refs: Refs, pending: Any) -> list[Any]:
        """A newly chosen triple, with the panes of a link where one was followed: views, forms and no panes pending."""
        self.halt(session)
        try:
            desk = self.desk(session, refs)
            for pane in pending or ():
                if isinstance(pane.at, Mix):
                    desk.triple.need(pane.at)
            if pending:
                desk.talk.panes = list(pending)
                self.chosen_there(desk)
        except Exception as error:
            return [*self.blank(say(error)), *[gr.skip()] * FORMS, None]
        return [*self.looked(desk), *self.formed(desk), None]

    def taken(self, session: str, refs: Refs, place: Any) -> list[Any]:
        """A point that was found by scoring, into the chosen pane: views and forms."""
        try:
            desk = self.desk(session, refs)
            if not isinstance(desk.talk.pane(desk.chosen).at, Mix):
                desk.chosen = next(p.key for p in desk.talk.panes if isinstance(p.at, Mix))
            desk.talk.change(desk.chosen, at=point(*place), point=True)
        except Exception as error:
            return [*self.blank(say(error)), *[gr.skip()] * FORMS]
        return [*self.looked(desk), *self.formed(desk)]

    def linked(self, session: str, refs: Refs, prompt: Any, form: Sequence[Any]) -> str:
        """The query string that brings all this back. Raises gr.Error."""
        try:
            desk, settings = self.desk(session, refs), settings_of(*form)
            text = words(prompt, "The prompt", LONGEST).strip() or (
                desk.talk.turns[-1].prompt if desk.talk.turns else ""
            )
            return link.query(link.Setup(refs, tuple(desk.talk.panes), text, settings))
        except Exception as error:
            raise gr.Error(say(error), print_exception=False) from error

    def halt(self, session: str) -> None:
        """Stop whatever answers on this tab."""
        for key in [key for key in self.shared.turns if key.startswith(f"{session} {KEY}")]:
            halt(self.shared.turns, key)

    def asks(
        self, session: str, refs: Refs, prompt: Any, to: Any, dials: Sequence[Any], form: Sequence[Any]
    ) -> Iterator[list[Any]]:
        """Ask: yields values for (*views, prompt)."""
        self.halt(session)
        turn = Turn(self.shared.turns, f"{session} {KEY} ask")
        desk, question = None, None
        try:
            settings = settings_of(*form)
            text = words(prompt, "The prompt", LONGEST).strip()
            desk = self.desk(session, refs)
            if desk.dials is not None:  # the number was typed, and Ask was quicker than the dial came to rest
                desk.dial(*dials)
            keys = [] if to in (None, ALL, "") else [to]
            question = desk.talk.ask(text, keys, settings.blind)
            desk.sent = None
            yield [*self.looked(desk, system=settings.system), ""]
            for _ in desk.stream(self.shared.store, self.voice(desk), turn, question, question.order, settings):
                if turn.current:
                    yield [*self.looked(desk, system=settings.system, past=False), gr.skip()]
            yield [*self.looked(desk, system=settings.system), gr.skip()]
        except Exception as error:
            if desk and question and not question.answers and question in desk.talk.turns:
                desk.talk.turns.remove(question)
            told = say(error)
            yield [
                *(self.looked(desk, notice(told, "error")) if desk else self.blank(told)),
                prompt if isinstance(prompt, str) else "",
            ]

    def again(
        self, session: str, desk: Desk, key: str, place: int, keys: Sequence[str], settings: Settings, anew: bool
    ) -> Iterator[list[Any]]:
        """Answer the turn at `place` once more in some panes: yields views."""
        turn = Turn(self.shared.turns, f"{session} {KEY} {key}")
        question = desk.talk.again(place, keys, anew)
        for _ in desk.stream(self.shared.store, self.voice(desk), turn, question, keys, settings):
            if turn.current:
                yield self.looked(desk, system=settings.system, past=False)
        if turn.current:
            yield self.looked(desk, system=settings.system)

    def scrubs(self, session: str, refs: Refs, dials: Sequence[Any], form: Sequence[Any]) -> Iterator[list[Any]]:
        """A dial has come to rest: the chosen pane answers the last prompt again from there. Yields views."""
        desk = None
        try:
            settings = settings_of(*form)
            desk = self.desk(session, refs)
            if desk.talk.turns:
                desk.note(desk.talk.turns[-1], settings)  # what was said before it moved
            moved = desk.dial(*dials)
            if not desk.talk.turns or not moved:
                yield self.looked(desk, system=settings.system)
                return
            if desk.talk.turns[-1].hidden:
                raise ChatError("The last turn is blind. Vote first, then move the dials.")
            yield self.looked(desk, system=settings.system)
            yield from self.again(session, desk, "scrub", -1, [desk.chosen], settings, anew=False)
        except Exception as error:
            yield self.looked(desk, notice(say(error), "error")) if desk else self.blank(say(error))

    def repeats(self, session: str, refs: Refs, form: Sequence[Any]) -> Iterator[list[Any]]:
        """The chosen pane, which was set anew, answers the last prompt again: yields views."""
        desk = None
        try:
            settings = settings_of(*form)
            desk = self.desk(session, refs)
            if desk.talk.turns and not desk.talk.turns[-1].hidden:
                yield from self.again(session, desk, "scrub", -1, [desk.chosen], settings, anew=False)
            else:
                yield self.looked(desk, system=settings.system)
        except Exception as error:
            yield self.looked(desk, notice(say(error), "error")) if desk else self.blank(say(error))

    def fills(self, session: str, refs: Refs, dials: Sequence[Any], form: Sequence[Any]) -> Iterator[list[Any]]:
        """The last prompt over α, in one batch: yields views."""
        turn = Turn(self.shared.turns, f"{session} {KEY} over")
        desk = None
        try:
            settings = settings_of(*form)
            desk = self.desk(session, refs)
            if not desk.talk.turns or desk.talk.turns[-1].hidden:
                raise ChatError(
                    "Ask something first: it is then answered over α." if not desk.talk.turns else "Vote first."
                )
            if desk.dials is not None:
                desk.dial(*dials)
            yield self.looked(desk, notice("Answering over α …"), settings.system)
            for _ in desk.over(self.shared.store, self.voice(desk), turn, OVER, settings):
                if turn.current:
                    yield self.looked(desk, notice("Answering over α …"), settings.system, past=False)
            yield self.looked(desk, system=settings.system)
        except Exception as error:
            yield self.looked(desk, notice(say(error), "error")) if desk else self.blank(say(error))

    def acts(
        self, session: str, refs: Refs, mark: Any, dials: Sequence[Any], form: Sequence[Any]
    ) -> Iterator[list[Any]]:
        """A button within the panes: yields values for (*views, *forms, prompt, seat.box)."""
        rest: list[Any] = [*[gr.skip()] * FORMS, gr.skip(), gr.skip()]
        try:
            desk = self.desk(session, refs)
        except Exception as error:
            yield [*self.blank(say(error)), *rest]
            return
        try:
            settings = settings_of(*form)
            what, *given = mark if isinstance(mark, list) and mark else [""]
            if what == "rest":
                for views in self.scrubs(session, refs, dials, form):
                    yield [*views, *rest]
                yield [*[gr.skip()] * VIEWS, gr.skip(), gr.skip(), *self.formed(desk)[2:], gr.skip(), gr.skip()]
            elif what == "retry":
                place, key = int(given[0]), str(given[1])
                question = desk.talk.turn(place)
                now = {p.key for p in desk.talk.panes}
                keys = [key] if key else [k for k in question.order if k in now]
                if place != len(desk.talk.turns) - 1 or question.hidden or not keys:
                    raise ChatError("Only the last turn can be answered again, and a blind one after your vote.")
                for views in self.again(session, desk, f"retry {key}", place, keys, settings, anew=True):
                    yield [*views, *rest]
            elif what == "take":
                yield [*self.take(desk, float(given[0]), settings), *self.formed(desk), gr.skip(), gr.skip()]
            else:
                prompt, box = self.act(session, desk, str(what), given)
                yield [*self.looked(desk, system=settings.system), *self.formed(desk), prompt, box]
        except (ValueError, TypeError, LookupError):
            yield [*self.looked(desk, notice("That button is out of date. Press it once more.", "error")), *rest]
        except Exception as error:
            yield [*self.looked(desk, notice(say(error), "error")), *rest]

    def act(self, session: str, desk: Desk, what: str, given: Sequence[Any]) -> tuple[Any, Any]:
        """What changes at once; values for (prompt, seat.box). Raises TransferscopeError."""
        prompt, box = gr.skip(), gr.skip()
        talk = desk.talk
        if what == "set":
            key, box = talk.pane(str(given[0])).key, gr.update(open=True)
            if key != desk.chosen:
                desk.chosen, desk.strip, desk.strip_of = key, {}, ()
        elif what == "shift":
            talk.shift(str(given[0]), int(given[1]))
        elif what == "wide":
            pane = talk.pane(str(given[0]))
            talk.change(pane.key, wide=not pane.wide)
        elif what == "remove":
            talk.remove(str(given[0]))
            self.chosen_there(desk)
        elif what == "add":
            desk.chosen, box = talk.add(point(0.5), point=True).key, gr.update(open=True)
        elif what in ("edit", "undo"):
            self.halt(session)
            prompt = talk.cut(int(given[0]) if what == "edit" else -1)
            desk.sent, desk.strip, desk.strip_of = None, {}, ()
        elif what == "vote":
            self.vote(talk.turn(int(given[0])), str(given[1]))
        elif what == "sent":
            talk.turn(int(given[0]))
            desk.sent = (int(given[0]), str(given[1]))
        elif what == "unsent":
            desk.sent = None
        else:
            raise ChatError("That button is out of date. Press it once more.")
        return prompt, box

    @staticmethod
    def vote(question: Any, choice: str) -> None:
        if not question.blind or question.vote:
            raise ChatError("This turn has its vote already." if question.blind else "This turn is not blind.")
        if choice not in (*question.order, TIE, BAD) or not all(a.done for a in question.answers.values()):
            raise ChatError("Vote for one of the answers, once all of them are there.")
        question.vote, question.voted = choice, datetime.now(UTC).isoformat(timespec="seconds")

    @staticmethod
    def chosen_there(desk: Desk) -> None:
        """The dials are some pane's."""
        if all(p.key != desk.chosen for p in desk.talk.panes):
            points = [p for p in desk.talk.panes if isinstance(p.at, Mix)]
            merged = [p for p in points if p.at == point(1) or p.point]
            desk.chosen, desk.strip, desk.strip_of = (merged or points or desk.talk.panes)[-1].key, {}, ()

    def take(self, desk: Desk, alpha: float, settings: Settings) -> list[Any]:
        """An answer of the strip, which is there already, into its pane: views."""
        found = desk.strip.get(alpha)
        if found is None or not desk.talk.turns:
            raise ChatError("That answer is not there any more.")
        desk.talk.change(desk.chosen, at=found.at, point=True)
        question = desk.talk.turns[-1]
        question.panes[desk.chosen] = desk.talk.pane(desk.chosen)
        question.answers[desk.chosen] = found
        return self.looked(desk, system=settings.system)

    def seats(self, session: str, refs: Refs, more: bool, dials: Sequence[Any], fields: Sequence[Any]) -> list[Any]:
        """Set the chosen pane as the form says, or add one (`more`): views and forms."""
        try:
            desk = self.desk(session, refs)
        except Exception as error:
            return [*self.blank(say(error)), *[gr.skip()] * FORMS]
        try:
            set_to = seat.seated(desk, *dials, *fields)
            if more:
                desk.chosen = desk.talk.add(set_to["at"]).key
            desk.talk.change(desk.chosen, **set_to)
            return [*self.looked(desk), *self.formed(desk)]
        except Exception as error:
            return [*self.looked(desk, notice(say(error), "error")), *[gr.skip()] * FORMS]

    def chooses(self, session: str, refs: Refs, which: Any) -> list[Any]:
        """Another pane for the dials and the form: views and forms."""
        try:
            desk = self.desk(session, refs)
            self.act(session, desk, "set", [which])
            return [*self.looked(desk), *self.formed(desk)]
        except Exception as error:
            return [*[gr.skip()] * 3, notice(say(error), "error"), gr.skip(), gr.skip(), *[gr.skip()] * FORMS]

    def begins(self, session: str, refs: Refs) -> list[Any]:
        """A new conversation with the same panes: views."""
        self.halt(session)
        try:
            desk = self.desk(session, refs)
        except Exception as error:
            return self.blank(say(error))
        desk.talk.turns.clear()
        desk.sent, desk.strip, desk.strip_of = None, {}, ()
        return self.looked(desk)

    def voice(self, desk: Desk) -> Any:
        return lambda pane, manner: self.shared.voice(desk.triple, pane, manner)


VIEWS = 6  # values of `looked`
FORMS = 2 + 1 + 15 + 3  # and of `formed`
ORIGIN = "query => query ? location.origin + location.pathname + '?' + query : ''"


def wire(tab: ChatTab, chat: Chat, refs: gr.State, private: dict[str, Any]) -> dict[str, Any]:
    """Which press does what. What asks, as the arguments of an event, for presses of other tabs."""
    shared = chat.shared
    with_dials, dials = [refs, *tab.dials], len(tab.dials)
    heavy: dict[str, Any] = {"concurrency_limit": 16, "concurrency_id": "chat", "trigger_mode": "multiple", **private}
    session = lambda request: str(request.session_hash)

    def ask(request: gr.Request, refs: Refs, prompt: Any, to: Any, *rest: Any) -> Iterator[list[Any]]:
        yield from chat.asks(session(request), refs, prompt, to, rest[:dials], rest[dials:])

    def fresh(request: gr.Request, refs: Refs, prompt: Any, *rest: Any) -> Iterator[list[Any]]:
        chat.begins(session(request), refs)
        yield from chat.asks(session(request), refs, prompt, ALL, rest[:dials], rest[dials:])

    # gradio hands over the event only where it comes first, so the request is taken from it
    def act(event: gr.EventData, request: gr.Request, refs: Refs, *rest: Any) -> Iterator[list[Any]]:
        yield from chat.acts(session(request), refs, event.mark, rest[:dials], rest[dials:])

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

    def linked(request: gr.Request, refs: Refs, prompt: Any, *form: Any) -> str:
        return chat.linked(session(request), refs, prompt, form)

    def stop(request: gr.Request) -> None:
        chat.halt(session(request))

    asking: dict[str, Any] = {
        "fn": ask,
        "inputs": [refs, tab.prompt, tab.to, *tab.dials, *tab.settings],
        "outputs": [*tab.views, tab.prompt],
        **heavy,
    }
    anew = {**asking, "fn": fresh, "inputs": [refs, tab.prompt, *tab.dials, *tab.settings]}
    tab.ask.click(**asking)
    tab.prompt.submit(**asking)
    for button in tab.suggested:
        button.click(lambda text: text, button, tab.prompt, **private).then(**anew)
    acted = tab.listener.select(
        act, [*with_dials, *tab.settings], [*tab.views, *tab.forms, tab.prompt, tab.seat.box], **heavy
    )
    acted.then(counted, refs, tab.ballots.shown, **private)
    tab.over.click(over, [*with_dials, *tab.settings], tab.views, **heavy)
    both = [*tab.views, *tab.forms]
    tab.seat.set.click(set_pane, [*with_dials, *tab.seat.fields], both, **private)
    tab.seat.add.click(add_pane, [*with_dials, *tab.seat.fields], both, **private)
    tab.seat.which.input(choose, [refs, tab.seat.which], both, **private)
    tab.seat.who.input(seat.asked_for, tab.seat.who, [tab.seat.depth_row, tab.seat.endpoint_row], **private)
    tab.seat.own.input(lambda on: gr.update(visible=bool(on)), tab.seat.own, tab.seat.own_row, **private)
    tab.anew.click(begin, refs, tab.views, **private).then(counted, refs, tab.ballots.shown, **private)
    chosen = [refs, tab.differ.one, tab.differ.other, tab.differ.whose]
    tab.differ.run.click(compare, chosen, tab.differ.shown, **heavy)
    files = [tab.ballots.text, tab.ballots.name]
    for button, made in ((tab.ballots.votes, votes), (tab.ballots.transcript, transcript)):
        button.click(made, refs, files, **private).then(None, files, None, js=blind.SAVE, **private)
    made = tab.make_link.click(linked, [refs, tab.prompt, *tab.settings], tab.query, **private)
    made.then(None, tab.query, tab.link, js=ORIGIN, **private)
    # Not by `cancels`: a generator that is cut cannot say what was stopped.
    tab.stop.click(stop, None, None, queue=False, **private)
    return anew


def refs_of(desk: Desk) -> Refs:
    return {role: checkpoint.ref for role, checkpoint in desk.triple.checkpoints.items()}


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
