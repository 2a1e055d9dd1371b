"""One bounded store of live models, shared by everybody who uses the app.

A model is lent for as long as somebody answers with it. Who asks for a point that is in memory shares it; else a model
that nobody uses moves there: first of all one that stands at no corner, since corners are asked for again and again. Where
none is free a new one is built while memory lasts. Nobody's model moves under them.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from .errors import LiveError
from .live import LiveModel
from .plane import Mix
from .triple import Triple, free_memory, size

MOST = 8  # live models of one triple: six panes, and two for sweeps


@dataclass(eq=False)
class Entry:
    """A model of the store, or the place kept for one while it is built or moved (`ready` False)."""

    identity: str
    mix: Mix
    nbytes: int
    live: LiveModel | None = None
    ready: bool = False
    users: int = 0
    used: float = field(default_factory=time.monotonic)


class Store:
    """Live models by triple and point, at most `budget` bytes of them (default: 60 % of the memory free at the start)."""

    def __init__(self, budget: int | None = None):
        self.budget = budget or int(0.6 * free_memory())
        self._entries: list[Entry] = []
        self._changed = threading.Condition()

    def at_once(self, triple: Triple) -> int:
        """How many models of this triple fit at the same time."""
        return max(1, min(MOST, self.budget // max(1, triple.nbytes)))

    @contextmanager
    def lend(self, triple: Triple, mix: Mix, tick: Callable[[], None] = lambda: None) -> Iterator[LiveModel]:
        """A model of the triple at the point, for the length of a with-block. Waits for one where memory is full, and
        calls `tick` meanwhile, which may raise Cancelled.

        Raises LiveError where not even one fits, and what building or moving it raises.
        """
        entry = self._take(triple, mix, tick)
        try:
            if not entry.ready:
                try:
                    if entry.live is None:
                        entry.live = LiveModel(triple, mix)
                    else:
                        entry.live.move(mix)
                except BaseException:
                    with self._changed:
                        self._entries.remove(entry)
                    raise
                with self._changed:
                    entry.ready = True
                    self._changed.notify_all()
            assert entry.live is not None
            yield entry.live
        finally:
            with self._changed:
                entry.users -= 1
                entry.used = time.monotonic()
                self._changed.notify_all()

    def _take(self, triple: Triple, mix: Mix, tick: Callable[[], None]) -> Entry:
        """An entry that counts the caller as a user: ready, or the caller's to make ready."""
        if triple.nbytes > self.budget:
            raise LiveError(
                f"A live model of this triple takes {size(triple.nbytes)}, and {size(self.budget)} are set aside for models "
                "here. Compare and Export work all the same; to chat, use a machine with more memory."
            )
        with self._changed:
            while True:
                mine = [e for e in self._entries if e.identity == triple.identity]
                match = next((e for e in mine if e.mix == mix), None)
                if match and match.ready:
                    match.users += 1
                    return match
                idle = sorted((e for e in self._entries if e.ready and not e.users), key=lambda e: e.used)
                if not match:
                    movable = [e for e in idle if e.identity == triple.identity and e.live and e.live.fits(mix)]
                    roving = [e for e in movable if e.mix.corner is None]
                    held = sum(e.nbytes for e in self._entries)
                    full = len(mine) >= MOST or held + triple.nbytes > self.budget
                    if roving or (full and movable):
                        entry = (roving or movable)[0]
                        entry.mix, entry.ready, entry.users = mix, False, 1
                        return entry
                    if not full:
                        entry = Entry(triple.identity, mix, triple.nbytes, users=1)
                        self._entries.append(entry)
                        return entry
                    if idle:
                        self._entries.remove(idle[0])
                        continue
                self._changed.wait(0.2)
                tick()
