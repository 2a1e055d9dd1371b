"""What the presses of the Chat tab do: each works on the desk of the session that pressed, and answers with what is then seen."""

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import gradio as gr

from analysis.sweep import depth
from transfer.endpoint import Endpoint
from transfer.endpoint import models as models_of
from transfer.errors import ChatError
from transfer.plane import Mix, point
from transfer.prompt import Prompter
from transfer.talk import Pane
from transfer.talk import Turn as Question

from . import blind, link, seat
from .desk import LONGEST, Desk, way_of
from .inputs import words
from .seen import ALL, SAME, VIEWS, Seen, Values
from .triple import Refs
from .work import Turn, halt, notice, say, supersede

LETTERS_A_SECOND = 400_000  # of HTML, in one stream of several
OVER = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)  # α of the whole strip
KEY = "chat"  # of the presses of this tab
EDITING = "Ask puts this prompt in the place of its turn, and takes back all turns after it. Press Edit once more to leave it."
OLD = "That button is out of date. Press it once more."
Pictures = Iterator[Values]


class Pace:
    """Pictures of long answers are large: the next one waits until a browser will have drawn the last one."""

    def __init__(self) -> None:
        self.at = 0.0

    def due(self) -> bool:
        return time.monotonic() >= self.at

    def sent(self, views: Values) -> Values:
        letters = sum(len(view) for view in views if isinstance(view, str))
        self.at = time.monotonic() + letters / LETTERS_A_SECOND
        return views


class Chat(Seen):
    """For everybody; `form` is always the settings: those of `way_of`, and whether the next turn is blind."""

    def desk(self, session: str, refs: Refs) -> Desk:
        """Raises TransferscopeError where there is no triple that can answer."""
        return self.shared.desk(session, self.shared.here(refs))

    def found(self, session: str, refs: Refs) -> tuple[Desk | None, Values]:
        """The desk; without one the views that say why."""
        try:
            return self.desk(session, refs), []
        except Exception as error:
            return None, self.blank(say(error))

    def voice(self, desk: Desk) -> Any:
        def asked(pane: Pane, manner: str) -> Prompter | None:
            return self.shared.voice(desk.triple, pane, manner)

        return asked

    def turn(self, session: str, what: str) -> Turn:
        """A press of this kind takes over from an earlier one."""
        return Turn(self.shared.turns, f"{session} {KEY} {what}")

    def halt(self, session: str) -> None:
        """Stop whatever answers on this tab."""
        for key in self.pressed(session):
            halt(self.shared.turns, key)

    def pressed(self, session: str) -> list[str]:
        """The keys of this tab's presses."""
        return [key for key in list(self.shared.turns) if key.startswith(f"{session} {KEY} ")]

    def opened(self, session: str, refs: Refs, pending: Any) -> Values:
        """A newly chosen triple, with the panes of a link where one was followed: views, forms and no panes pending."""
        for key in self.pressed(session):  # what still answers is of other models, and has no last word here
            supersede(self.shared.turns, key)
        desk, views = self.found(session, refs)
        if desk is None:
            return [*views, *SAME, pending if self.waiting(refs) else None]
        desk.stop()
        try:
            for pane in pending or ():
                self.seatable(desk, pane)
            if pending:
                desk.talk.seat(pending)
                self.chosen_there(desk)
        except Exception as error:
            return [*self.wrong(desk, error), *self.formed(desk), None]
        return [*self.looked(desk), *self.formed(desk), None]

    def waiting(self, refs: Refs) -> bool:
        """Whether weights are still on the Hub: the panes of a link wait for them."""
        try:
            return bool(self.shared.triple(refs).missing)
        except Exception:  # there is no such triple at all
            return False

    @staticmethod
    def seatable(desk: Desk, pane: Pane) -> None:
        """Raises TransferscopeError for a pane that this triple cannot have."""
        if isinstance(pane.at, Mix):
            desk.triple.need(pane.at)
            if pane.at.schedule and len(pane.at.schedule.layers) > max(1, depth(desk.triple)):
                raise ChatError(f"These models have {depth(desk.triple)} layers, and the link's schedule has more.")

    def taken(self, session: str, refs: Refs, mix: Mix) -> Values:
        """A point that was found by scoring, into the chosen pane: views and forms."""
        desk, views = self.found(session, refs)
        if desk is None:
            return [*views, *SAME]
        try:
            points = [p.key for p in desk.talk.panes if isinstance(p.at, Mix)]
            if not points:
                raise ChatError("All panes are endpoints. Set one of them to a point first.")
            desk.chosen = desk.chosen if desk.chosen in points else points[-1]
            desk.triple.need(mix)
            desk.talk.change(desk.chosen, at=mix, point=mix.plane is not None)
        except Exception as error:
            return [*self.wrong(desk, error), *SAME]
        return [*self.looked(desk), *self.formed(desk)]

    def linked(self, session: str, refs: Refs, prompt: Any, form: Sequence[Any]) -> tuple[str, str]:
        """The query string that brings all this back, and what is to be said."""
        try:
            desk, way = self.desk(session, refs), way_of(*form[:-1])
            text = words(prompt, "The prompt", LONGEST).strip() or (
                desk.talk.turns[-1].prompt if desk.talk.turns else ""
            )
            return link.query(link.Setup(refs, tuple(desk.talk.panes), text, way, bool(form[-1]))), ""
        except Exception as error:
            return "", notice(say(error), "error")

    def asks(
        self, session: str, refs: Refs, prompt: Any, to: Any, dials: Sequence[Any], form: Sequence[Any]
    ) -> Pictures:
        """Ask: yields values for (*views, prompt)."""
        given = prompt if isinstance(prompt, str) else ""
        desk, views = self.found(session, refs)
        if desk is None:
            yield [*views, given]
            return
        try:
            way = way_of(*form[:-1])
            text = words(prompt, "The prompt", LONGEST).strip()
            if not text:
                raise ChatError("The prompt is empty. Type a question first.")
        except Exception as error:  # what is being answered goes on
            yield [*self.wrong(desk, error), given]
            return
        keys = [pane.key for pane in desk.talk.panes] if to in (None, ALL, "") else [to]
        if desk.waiting(text, keys, way):  # a double click
            yield [*self.looked(desk, past=False), gr.skip()]
            return
        self.halt(session)
        desk.stop()
        turn = self.turn(session, "ask")
        question, before, editing = None, list(desk.talk.turns), desk.editing
        try:
            if desk.dials is not None:  # the number was typed, and Ask was quicker than the dial came to rest
                desk.dial(*dials)
            if desk.editing is not None:
                desk.talk.cut(desk.editing)
                desk.editing = None
            question = desk.talk.ask(text, [] if to in (None, ALL, "") else [to], bool(form[-1]))
            desk.sent = None
            yield [*self.looked(desk), ""]
            pace = Pace()
            for _ in desk.stream(self.shared.store, self.voice(desk), turn, question, question.order, way):
                if turn.current and pace.due():
                    yield [*pace.sent(self.looked(desk, past=False)), gr.skip()]
            if turn.current:
                yield [*self.looked(desk), gr.skip()]
        except Exception as error:
            if not question or not question.answers:
                desk.talk.turns[:], desk.editing = before, editing
            yield [*self.wrong(desk, error), given]

    def again(
        self, desk: Desk, turn: Turn, question: Question, keys: Sequence[str], form: Sequence[Any], anew: bool
    ) -> Pictures:
        """Answer a question once more in some panes: yields views."""
        yield self.looked(desk)
        pace = Pace()
        for _ in desk.stream(self.shared.store, self.voice(desk), turn, question, keys, way_of(*form[:-1]), anew):
            if turn.current and pace.due():
                yield pace.sent(self.looked(desk, past=False))
        if turn.current:
            cold = anew and not any(question.answers[k].sampling.temperature for k in keys if k in question.answers)
            yield self.looked(
                desk, notice("At temperature 0 every try takes the likeliest tokens again.") if cold else ""
            )

    def scrubs(self, session: str, desk: Desk, dials: Sequence[Any], form: Sequence[Any]) -> Pictures:
        """A dial has come to rest: the chosen pane answers the last prompt again from there. Yields views; raises
        TransferscopeError."""
        way_of(*form[:-1])  # before anything moves
        question = desk.talk.turns[-1] if desk.talk.turns else None
        if question and question.hidden:
            raise ChatError("The last turn is blind. Vote first, then move the dials.")
        moved = desk.dial(*dials)
        then = question.panes.get(desk.chosen) if question else None
        if question and (moved or (then and then.at != desk.talk.pane(desk.chosen).at)):
            turn = self.turn(session, "scrub")  # what asks nobody takes over from nobody
            yield from self.again(desk, turn, question, [desk.chosen], form, anew=False)
        else:
            yield self.looked(desk)

    def repeats(self, session: str, refs: Refs, form: Sequence[Any]) -> Pictures:
        """The chosen pane, which was set anew, answers the last prompt again: yields views."""
        desk, views = self.found(session, refs)
        if desk is None:
            yield views
            return
        try:
            way_of(*form[:-1])
            question = desk.talk.turns[-1] if desk.talk.turns else None
            said = question.answers.get(desk.chosen) if question else None
            now = desk.talk.pane(desk.chosen)
            then = question.panes.get(desk.chosen) if question else None
            same = then and (then.at, then.point, then.sampling) == (now.at, now.point, now.sampling)
            if said and same and not said.error and not (said.done and said.halted):
                yield self.looked(desk)  # it has answered that already
            elif question and not question.hidden:
                turn = self.turn(session, "scrub")
                yield from self.again(desk, turn, desk.talk.turns[-1], [desk.chosen], form, anew=False)
            else:
                yield self.looked(desk)
        except Exception as error:
            yield self.wrong(desk, error)

    def fills(self, session: str, refs: Refs, dials: Sequence[Any], form: Sequence[Any]) -> Pictures:
        """The last prompt over α, in one batch: yields views."""
        turn = self.turn(session, "over")
        desk, views = self.found(session, refs)
        if desk is None:
            yield views
            return
        try:
            way = way_of(*form[:-1])
            if not desk.talk.turns or desk.talk.turns[-1].hidden:
                raise ChatError(
                    "The last turn is blind. Vote first."
                    if desk.talk.turns
                    else "Ask something first: it is then answered over α."
                )
            doing = notice("Answering over α …")
            yield self.looked(desk, doing)
            pace = Pace()
            for _ in desk.over(self.shared.store, self.voice(desk), turn, OVER, way):
                if turn.current and pace.due():
                    yield pace.sent(self.looked(desk, doing, past=False))
            if turn.current:
                yield self.looked(desk)
        except Exception as error:
            yield self.wrong(desk, error)

    def acts(
        self, session: str, refs: Refs, mark: Any, who: Any, typed: Any, dials: Sequence[Any], form: Sequence[Any]
    ) -> Pictures:
        """A button within the panes, or a dial at rest; `who` stands in the form for the chosen pane, and `typed` in
        the prompt box. Yields values for (*views,
        *forms, prompt, seat.box)."""
        rest: Values = [*SAME, gr.skip(), gr.skip()]
        desk, views = self.found(session, refs)
        if desk is None:
            yield [*views, *rest]
            return
        try:
            what, *given = mark if isinstance(mark, list) and mark else [""]
            if what == "rest":
                for views in self.scrubs(session, desk, dials, form):
                    yield [*views, *rest]
                yield [*[gr.skip()] * VIEWS, *self.formed(desk, True, who), gr.skip(), gr.skip()]
            elif what == "retry":
                for views in self.retries(session, desk, int(given[0]), str(given[1]), form):
                    yield [*views, *rest]
            elif what == "take":
                desk.take(float(given[0]))
                yield [*self.looked(desk), *self.formed(desk), gr.skip(), gr.skip()]
            else:
                prompt, box = self.act(session, desk, str(what), given)
                keep = what not in ("set", "add", "remove")
                if what == "undo" and typed:
                    prompt = gr.skip()
                told = notice(EDITING) if desk.editing is not None else ""
                yield [*self.looked(desk, told), *self.formed(desk, keep, gone=what == "remove"), prompt, box]
                if what == "add" and desk.talk.turns and not desk.talk.turns[-1].hidden:
                    yield from self.joined(session, desk, form, rest)
        except (ValueError, TypeError, LookupError, ArithmeticError):
            yield [*self.looked(desk, notice(OLD, "error")), *rest]
        except Exception as error:
            yield [*self.wrong(desk, error), *rest]

    def joined(self, session: str, desk: Desk, form: Sequence[Any], rest: Values) -> Pictures:
        """A new pane answers the last prompt too."""
        turn = self.turn(session, "scrub")
        for views in self.again(desk, turn, desk.talk.turns[-1], [desk.chosen], form, anew=False):
            yield [*views, *rest]

    def retries(self, session: str, desk: Desk, place: int, key: str, form: Sequence[Any]) -> Pictures:
        """The last turn once more by another seed, in one pane or in all: yields views. Raises TransferscopeError."""
        question = desk.talk.turn(place)
        if question is not desk.talk.turns[-1] or question.hidden:
            raise ChatError("Only the last turn can be answered again, and a blind one after your vote.")
        now = {pane.key for pane in desk.talk.panes}
        keys = [desk.talk.pane(key).key] if key else [k for k in question.order if k in now]
        if not keys:
            raise ChatError("None of the panes that answered is there any more. Ask anew.")
        turn = self.turn(session, f"retry {key}")
        yield from self.again(desk, turn, question, keys, form, anew=True)

    def act(self, session: str, desk: Desk, what: str, given: Sequence[Any]) -> tuple[Any, Any]:
        """What changes at once; values for (prompt, seat.box). Raises TransferscopeError."""
        prompt, box = gr.skip(), gr.skip()
        talk = desk.talk
        if what == "set":
            desk.chosen, box = talk.pane(str(given[0])).key, gr.update(open=True)
            desk.note()
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
        elif what == "edit":
            place = int(given[0])
            prompt = "" if place == desk.editing else talk.turn(place).prompt
            desk.editing = None if place == desk.editing else place
        elif what == "undo":
            self.halt(session)
            desk.stop()
            prompt = talk.cut(-1)
            desk.sent = desk.editing = None
        elif what == "vote":
            question, choice = talk.turn(int(given[0])), given[1]
            question.cast(question.order[choice] if isinstance(choice, int) else str(choice), now())
            desk.votes.append(blind.vote_of(question, int(given[0]) % len(talk.turns)))
            desk.note()
        elif what == "sent":
            talk.turn(int(given[0]))
            desk.sent = (int(given[0]), str(given[1]))
        elif what == "unsent":
            desk.sent = None
        else:
            raise ChatError(OLD)
        return prompt, box

    @staticmethod
    def chosen_there(desk: Desk) -> None:
        """The dials are some pane's."""
        if all(p.key != desk.chosen for p in desk.talk.panes):
            points = [p for p in desk.talk.panes if isinstance(p.at, Mix)]
            merged = [p for p in points if p.at == point(1) or p.point]
            desk.chosen = (merged or points or desk.talk.panes)[-1].key
            desk.note()

    def seats(self, session: str, refs: Refs, more: bool, dials: Sequence[Any], fields: Sequence[Any]) -> Values:
        """Set the chosen pane as the form says, or add one (`more`): views, forms and what is wrong with it."""
        desk, views = self.found(session, refs)
        if desk is None:
            return [*views, *SAME, ""]
        try:
            set_to = seat.seated(desk, *dials, *fields)
            if more:
                desk.chosen = desk.talk.add(set_to["at"]).key
            desk.talk.change(desk.chosen, **set_to)
            return [*self.looked(desk), *self.formed(desk), ""]
        except Exception as error:
            return [*self.looked(desk), *SAME, notice(say(error), "error")]

    def offers(self, session: str, refs: Refs, dials: Sequence[Any], fields: Sequence[Any]) -> str:
        """Which models the endpoint in the form names."""
        try:
            at = seat.seated(self.desk(session, refs), *dials, *fields)["at"]
            names = models_of(at) if isinstance(at, Endpoint) else []
            if not names:
                return notice(
                    "It answers, and names no models. Leave the name empty, or give the one that it was started with."
                )
            return notice("It offers " + ", ".join(names[:20]) + (" …" if len(names) > 20 else "."))
        except Exception as error:
            return notice(say(error), "error")

    def chooses(self, session: str, refs: Refs, which: Any) -> Values:
        """Another pane for the dials and the form: views and forms."""
        desk, views = self.found(session, refs)
        if desk is None:
            return [*views, *SAME]
        try:
            self.act(session, desk, "set", [which])
        except Exception as error:
            return [*self.wrong(desk, error), *SAME]
        return [*self.looked(desk), *self.formed(desk)]

    def begins(self, session: str, refs: Refs) -> Values:
        """A new conversation with the same panes: views."""
        self.halt(session)
        desk, views = self.found(session, refs)
        if desk is None:
            return views
        desk.stop()
        desk.talk.turns.clear()
        desk.sent = desk.editing = None
        return self.looked(desk)

    def forgets(self, session: str, refs: Refs) -> str:
        """All votes away: what then stands in their place."""
        desk, _ = self.found(session, refs)
        if desk is None:
            return blind.NONE
        desk.votes.clear()
        return blind.tallied(desk)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
