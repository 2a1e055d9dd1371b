"""Long work behind a page: it runs in a thread, the page hears of it four times a second, and closing it stops it.

gradio closes a generator only where it yields; so the page's generator yields often, whatever the work is doing.
"""

import html
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TypeVar

from transfer.errors import Cancelled, TransferscopeError

BEAT = 0.25  # seconds
Item = TypeVar("Item")
log = logging.getLogger("transferscope")


def background(make: Callable[[Callable[[], None]], Iterator[Item]], newest: bool = False) -> Iterator[Item | None]:
    """The items of make(tick) as they come, and None on every beat without one; with `newest`, of those that came
    meanwhile the last alone.

    The work calls `tick` often: it raises Cancelled once the page has gone or stopped. An error in the work is raised
    here, in its turn.
    """
    stop, out = threading.Event(), queue.SimpleQueue()  # type: ignore[var-annotated]
    end = object()

    def tick() -> None:
        if stop.is_set():
            raise Cancelled("Stopped.")

    def run() -> None:
        work: Iterator[Item] | None = None
        try:
            work = make(tick)
            for item in work:
                out.put(item)
                tick()
        except Exception as error:
            out.put(error)
        else:
            out.put(end)
        finally:
            if work is not None and hasattr(work, "close"):
                work.close()

    threading.Thread(target=run, daemon=True).start()
    try:
        while True:
            try:
                item = out.get(timeout=BEAT)
            except queue.Empty:
                yield None
                continue
            following = None
            while newest and not out.empty() and item is not end and not isinstance(item, Exception):
                following = out.get()
                if following is end or isinstance(following, Exception):
                    break
                item, following = following, None
            for step in (item, following):
                if step is end:
                    return
                if isinstance(step, Exception):
                    raise step
                if step is not None:
                    yield step
    finally:
        stop.set()


class Turn:
    """One press of a button in one session: a later press, or Stop, ends what it began.

    gradio's own `cancels` would also take a press that comes right after Stop, and leave no time for a last word.
    """

    def __init__(self, turns: dict[str, "Turn"], key: str):
        """Takes the turn from an earlier press of that key."""
        self.turns, self.key, self.halted = turns, key, False
        self.over = threading.Event()  # nothing of it is under way
        self.over.set()
        turns[key] = self

    @property
    def current(self) -> bool:
        """False once a later press has taken over: say nothing more then."""
        return self.turns.get(self.key) is self

    def heed(self, work: Iterator[Item], seconds: float = float("inf")) -> Iterator[Item]:
        """The items of `work` as long as the turn lasts, and so many seconds at most; then the work is closed."""
        self.over.clear()
        began = time.monotonic()
        try:
            with closing(work):  # type: ignore[type-var]
                for item in work:
                    self.halted = self.halted or time.monotonic() - began > seconds
                    if self.halted or not self.current:
                        return
                    yield item
        finally:
            self.over.set()


def supersede(turns: dict[str, Turn], key: str, patience: float = 2) -> None:
    """End what an earlier press began, and wait until its last picture is out: it would else come after ours."""
    before = turns.get(key)
    Turn(turns, key)
    if before:
        before.over.wait(patience)


def halt(turns: dict[str, Turn], key: str) -> None:
    """Stop was pressed."""
    turn = turns.get(key)
    if turn:
        turn.halted = True


def say(error: BaseException) -> str:
    """An error as the page shows it: our own in its words; any other by its kind, with the rest in the server's log."""
    if isinstance(error, TransferscopeError):
        return str(error)
    log.exception("unexpected", exc_info=error)
    return f"Something unexpected went wrong ({type(error).__name__}). The server's log has the details."


def notice(text: str, level: str = "note") -> str:
    """A line of text in a box; `level` is "ok", "note", "warning" or "error"."""
    return f'<div class="ts-notice ts-{level}" role="status">{html.escape(text)}</div>'


def progress_bar(done: float, started: float, doing: str, forecast: bool = True) -> str:
    """A bar for a share done between 0 and 1, with the time left as the past suggests it."""
    past = time.monotonic() - started
    left = past / done * (1 - done) if forecast and done > 0.02 else None
    rest = (
        ""
        if left is None or done >= 1
        else f" · about {left:.0f} s left"
        if left < 90
        else f" · about {left / 60:.0f} min left"
    )
    return (
        f'<div class="ts-progress" role="progressbar" aria-valuenow="{100 * done:.0f}" aria-valuemin="0" aria-valuemax="100">'
        f'<span style="width:{100 * min(done, 1):.1f}%"></span></div><div class="ts-faint">{html.escape(doing)}{rest}</div>'
    )
