"""One bounded store of live models, shared by everybody who uses the app.

A model is lent for as long as somebody answers with it. Who asks for a point that is in memory shares it; else a model
that nobody uses moves there: first of all one that stands at no corner, since corners are asked for again and again. Where
none is free a new one is built while memory lasts. Nobody's model moves under them.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from .errors import LiveError
from .live import LiveModel, Tick, idle
from .plane import Mix
from .stack import NotStackable, Stack
from .triple import Triple, free_memory, size

MOST = 8  # live models of one triple: six panes, and two for sweeps


@dataclass(eq=False)
class Entry:
    """A model of the store, or the place kept for one while it is built or moved (`ready` False): a live model at one point,
    or a stack at several."""

    identity: str
    mixes: tuple[Mix, ...]
    nbytes: int
    held: LiveModel | Stack | None = None
    ready: bool = False
    users: int = 0
    used: float = field(default_factory=time.monotonic)

    @property
    def wide(self) -> bool:
        return len(self.mixes) > 1

    def prepare(self, triple: Triple, tick: Tick) -> None:
        """Build what is held, or move it."""
        if isinstance(self.held, Stack):
            self.held.move(self.mixes, tick)
        elif self.held is not None:
            self.held.move(self.mixes[0], tick)
        else:
            self.held = Stack(triple, self.mixes, tick) if self.wide else LiveModel(triple, self.mixes[0], tick=tick)

    def fits(self, mixes: tuple[Mix, ...]) -> bool:
        """Whether what is held can move there."""
        if isinstance(self.held, Stack):
            return len(mixes) > 1 and self.held.fits(mixes)
        return self.held is not None and len(mixes) == 1 and self.held.fits(mixes[0])


class Store:
    """Live models by triple and point, at most `budget` bytes of them (default: 60 % of the memory free at the start)."""

    def __init__(self, budget: int | None = None):
        self.budget = budget or int(0.6 * free_memory())
        self._entries: list[Entry] = []
        self._changed = threading.Condition()
        self._unstackable: set[str] = set()

    def at_once(self, triple: Triple) -> int:
        """How many models of this triple fit at the same time."""
        return max(1, min(MOST, self.budget // max(1, triple.nbytes)))

    def stacks(self, triple: Triple) -> bool:
        """Whether models of this triple can be stacked, as far as is known."""
        return triple.identity not in self._unstackable

    @contextmanager
    def lend(self, triple: Triple, mix: Mix, tick: Tick = idle) -> Iterator[LiveModel]:
        """A model of the triple at the point, for the length of a with-block. Waits for one where memory is full, and
        calls `tick` meanwhile, and while it is made ready; that may raise Cancelled.

        Raises LiveError where not even one fits, and what building or moving it raises.
        """
        with self._lend(triple, (mix,), tick) as held:
            assert isinstance(held, LiveModel)
            yield held

    @contextmanager
    def lend_stack(self, triple: Triple, mixes: Sequence[Mix], tick: Tick = idle) -> Iterator[Stack]:
        """A stack of the triple at the points, two at least, in that order; else as `lend`. Raises NotStackable too."""
        try:
            with self._lend(triple, tuple(mixes), tick) as held:
                assert isinstance(held, Stack)
                yield held
        except NotStackable:
            self._unstackable.add(triple.identity)
            raise

    @contextmanager
    def _lend(self, triple: Triple, mixes: tuple[Mix, ...], tick: Tick) -> Iterator[LiveModel | Stack]:
        entry = self._take(triple, mixes, tick)
        try:
            if not entry.ready:
                try:
                    entry.prepare(triple, tick)
                except BaseException:
                    with self._changed:
                        self._entries.remove(entry)
                    raise
                with self._changed:
                    entry.ready = True
                    self._changed.notify_all()
            assert entry.held is not None
            yield entry.held
        finally:
            with self._changed:
                entry.users -= 1
                entry.used = time.monotonic()
                self._changed.notify_all()

    def _take(self, triple: Triple, mixes: tuple[Mix, ...], tick: Tick) -> Entry:
        """An entry that counts the caller as a user: ready, or the caller's to make ready."""
        nbytes = triple.nbytes * (len(mixes) + 1 if len(mixes) > 1 else 1)  # a stack has a model that moves its rows
        if nbytes > self.budget:
            raise LiveError(
                f"A live model of this triple takes {size(nbytes)}, and {size(self.budget)} are set aside for models "
                "here. Compare and Export work all the same; to chat, use a machine with more memory."
            )
        with self._changed:
            while True:
                mine = [e for e in self._entries if e.identity == triple.identity]
                match = next((e for e in mine if e.mixes == mixes), None)
                if match and match.ready:
                    match.users += 1
                    return match
                idle = sorted((e for e in self._entries if e.ready and not e.users), key=lambda e: e.used)
                if not match:
                    movable = [e for e in idle if e.identity == triple.identity and e.fits(mixes)]
                    roving = [e for e in movable if e.wide or e.mixes[0].corner is None]
                    held = sum(e.nbytes for e in self._entries)
                    many, full = len(mine) >= MOST, len(mine) >= MOST or held + nbytes > self.budget
                    if roving or (full and movable):
                        # A stack moves row by row: the one with the fewest other rows first.
                        entry = min(
                            roving or movable, key=lambda e: sum(a != b for a, b in zip(e.mixes, mixes, strict=True))
                        )
                        entry.mixes, entry.ready, entry.users = mixes, False, 1
                        return entry
                    if not full:
                        entry = Entry(triple.identity, mixes, nbytes, users=1)
                        self._entries.append(entry)
                        return entry
                    going = [e for e in idle if e in mine] if many else idle
                    if going:
                        self._entries.remove(going[0])
                        continue
                self._changed.wait(0.2)
                tick()
