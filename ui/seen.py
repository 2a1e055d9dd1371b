"""What is seen of a Chat tab: a desk as values for the tab's views and forms."""

from collections.abc import Sequence
from typing import Any

import gradio as gr

from analysis.divergence import pieces

from . import differ, seat
from .desk import Desk
from .panes import EMPTY, labels, lineup, named, sent_html, strip_html, turn_html
from .presets import Suggestion, is_pocket
from .shared import Shared
from .work import notice, say

ALL = "all"
VIEWS = 6  # values of `looked`
FORMS = 2 + 1 + 15 + 2  # and of `formed`
Values = list[Any]
SAME: list[Any] = [gr.skip()] * FORMS


class Seen:
    """For everybody: every picture is made of a desk alone."""

    def __init__(self, shared: Shared, suggestions: Sequence[Suggestion]):
        self.shared = shared
        self.known = {s.prompt: s for s in suggestions}

    def looked(self, desk: Desk, told: str = "", past: bool = True) -> Values:
        """Values for ChatTab.views; earlier turns only with `past`: nothing changes in them while the last one grows."""
        talk = desk.talk
        known = self.known if is_pocket({role: c.ref for role, c in desk.triple.checkpoints.items()}) else {}
        draw = lambda place, last: turn_html(talk, place, desk.triple, known, last)
        hide = bool(talk.turns and talk.turns[-1].hidden)
        return [
            lineup(talk, desk.chosen, desk.planned(self.shared.store), hide) if past else gr.skip(),
            "".join(draw(i, False) for i in range(len(talk.turns) - 1)) if past else gr.skip(),
            draw(len(talk.turns) - 1, True) if talk.turns else EMPTY,
            told if told or past else gr.skip(),  # a picture of what grows wipes nothing away
            self.sent(desk) if past else gr.skip(),
            self.strip(desk, known),
        ]

    def strip(self, desk: Desk, known: dict[str, Suggestion]) -> str:
        answers, at = desk.shown_strip, desk.dials
        if not answers:
            return ""
        shown = known.get(desk.talk.turns[-1].prompt.strip())
        return strip_html(answers, at[0] if at else None, named(desk.talk.pane(desk.chosen)).name, shown)

    def sent(self, desk: Desk) -> str:
        if desk.sent is None or desk.sent[0] >= len(desk.talk.turns):
            return ""
        turn = desk.talk.turns[desk.sent[0]]
        found, pane = turn.answers.get(desk.sent[1]), turn.panes.get(desk.sent[1])
        if not found or not pane or not found.prompt or turn.hidden:
            return ""
        texts = pieces(self.shared.prompter(desk.triple), found.prompt)
        return sent_html(found, labels([pane])[pane.key], texts)

    def formed(self, desk: Desk, keep: bool = False, who: Any = None, gone: bool = False) -> Values:
        """Values for ChatTab.forms; with `keep` of the choices alone, so that nothing typed is lost. A pane that is `gone` is
        not asked any more."""
        at, names = desk.dials, labels(desk.talk.panes)
        panes = [(f"{i + 1}: {names[p.key]}", p.key) for i, p in enumerate(desk.talk.panes)]
        dials = [gr.skip()] * 2 if keep or at is None else list(at)
        listed = [("All panes", ALL), *panes]
        to = gr.update(choices=listed, value=ALL) if gone else gr.update(choices=listed)
        return [*dials, to, *seat.filled(desk, keep, who), *differ.choices(desk, keep)]

    def blank(self, why: str) -> Values:
        """The views where there is no triple to talk to."""
        return ["", "", EMPTY, notice(why, "error"), "", ""]

    def wrong(self, desk: Desk | None, error: Exception) -> Values:
        """The views with what went wrong, and nothing lost."""
        return self.looked(desk, notice(say(error), "error")) if desk else self.blank(say(error))
