"""One visitor of the Chat tab, without a browser: presses, and what gradio would then show."""

import json
import re
import threading
from html import unescape

import gradio as gr

from ui.panes import LETTERS
from ui.presets import read_presets, read_suggestions
from ui.seen import FORMS, VIEWS
from ui.talking import Chat

from .running import free_port

POCKET, FAR = (preset.refs for preset in read_presets())
SHOWN = read_suggestions()
MAYOR, DISH, CRAFT = SHOWN[:3]
FIVE = ("source_base", "source_tuned", "target_base", "merged", "target_tuned")
LONG = "town " * 400
KEY = "sk-q7Zx93"
NOBODY = f"http://127.0.0.1:{free_port()}/v1"
FORM = {
    "temperature": 0, "top_p": 1, "max_tokens": 14, "seed": 0, "system": "", "manner": "own", "remember": True, "blind": False,
}  # fmt: skip
SEAT = {
    "who": "point", "first": 0.5, "last": 1, "url": "", "model": "", "key": "", "own": False,
    "temperature": 0, "top_p": 1, "max_tokens": 24, "seed": 0,
}  # fmt: skip
SKIP = gr.skip()
WHO = VIEWS + 2 + 1 + 1  # the place, among views and forms, of who sits in the chosen pane


class Person:
    """One session, and what stands on its page."""

    def __init__(self, shared, session, refs=POCKET):
        self.chat, self.session, self.refs = Chat(shared, SHOWN), session, refs
        self.dials, self.prompt, self.who = [1, 1], "", None
        self.lineup = self.past = self.panes = self.told = self.sent = self.strip = ""
        self.open()

    @property
    def desk(self):
        return self.chat.desk(self.session, self.refs)

    @property
    def turn(self):
        return self.desk.talk.turns[-1]

    @property
    def texts(self):
        """What each pane said last."""
        return {key: found.text.strip() for key, found in self.turn.answers.items()}

    def see(self, values):
        """What gradio does with values: those that are skipped leave the page as it is."""
        for name, value in zip(("lineup", "past", "panes", "told", "sent", "strip"), values, strict=False):
            if value != SKIP:
                setattr(self, name, value)
        for i, value in enumerate(values[VIEWS : VIEWS + 2] if len(values) >= VIEWS + FORMS else []):
            if value != SKIP:
                self.dials[i] = value
        if len(values) >= VIEWS + FORMS and values[WHO] != SKIP:
            self.who = values[WHO]["value"] if isinstance(values[WHO], dict) else values[WHO]
        if len(values) in (VIEWS + 1, VIEWS + FORMS + 2) and values[-1 if len(values) == VIEWS + 1 else -2] != SKIP:
            self.prompt = values[-1 if len(values) == VIEWS + 1 else -2]
        return values

    def all(self, work):
        return [self.see(values) for values in work]

    def open(self, refs=None, pending=None):
        self.refs = refs or self.refs
        return self.see(self.chat.opened(self.session, self.refs, pending))

    def asks(self, prompt, to="all", dials=None, **form):
        """A question, picture by picture."""
        self.prompt = prompt
        for values in self.chat.asks(self.session, self.refs, prompt, to, dials or self.dials, self.form(form)):
            yield self.see(values)

    def ask(self, prompt, to="all", dials=None, **form):
        return list(self.asks(prompt, to, dials, **form))

    def form(self, form):
        return list({**FORM, **form}.values())

    def act(self, *mark, **form):
        return self.all(self.acts(list(mark), **form))

    def acts(self, mark, **form):
        return self.chat.acts(self.session, self.refs, mark, self.who, self.prompt, self.dials, self.form(form))

    def rest(self, alpha, beta=1.0, **form):
        """The dials come to rest there."""
        self.dials = [alpha, beta]
        return self.act("rest", **form)

    def over(self, **form):
        return self.all(self.chat.fills(self.session, self.refs, self.dials, self.form(form)))

    def seat(self, more=False, **fields):
        """The chosen pane is set, or another added."""
        values = list({**SEAT, **fields}.values())
        *seen, told = self.chat.seats(self.session, self.refs, more, self.dials, values)
        self.see(seen)
        self.told = told or self.told  # what is wrong with the form stands beside it
        return seen

    def vote(self, key):
        """Press what votes for this pane, as the page has it."""
        about = f"Vote for model {LETTERS[self.turn.order.index(key)]}" if key in self.turn.order else key
        found = re.search(rf'data-act="([^"]*)" aria-label="{about}"', self.panes)
        return self.act(*json.loads(unescape(found[1])))

    def cards(self):
        return re.findall(r"<article.*?</article>", self.panes, re.DOTALL)


def halted(person) -> None:
    """Stop is pressed, by another thread, as it is."""
    thread = threading.Thread(target=person.chat.halt, args=(person.session,))
    thread.start()
    thread.join()
