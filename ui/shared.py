"""What everybody on the page shares: opened triples, comparisons and live models, each in one bounded store.

A session holds the names of its checkpoints and nothing else; what is made of them is found here by identity.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from analysis.comparison import Comparison
from analysis.controls import Permuted, permuted
from analysis.results import Results
from transfer.checkpoint import Checkpoint, find_folder, open_folder
from transfer.errors import CheckpointError, TransferscopeError, TripleError
from transfer.hub import HOSTED, looks_like_hub_id, open_hub
from transfer.live import open_tokenizer
from transfer.plane import ROLES, Mix
from transfer.prompt import Prompter, prompter_for
from transfer.store import Store
from transfer.talk import Pane
from transfer.triple import Triple, open_checkpoint, open_triple, size

from .desk import Desk
from .presets import pocket_folder
from .work import Turn, halt

MOST_DESKS = 64 if HOSTED else 512


class Shelf:
    """The last few results by key. Two who ask for the same thing at once wait for one making of it."""

    def __init__(self, most: int):
        self.most = most
        self._items: OrderedDict[Hashable, tuple[threading.Lock, list]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        with self._lock:
            lock, box = self._items.setdefault(key, (threading.Lock(), []))
            self._items.move_to_end(key)
            while len(self._items) > self.most:
                self._items.popitem(last=False)
        with lock:
            if not box:
                box.append(make())
            return box[0]

    def put(self, key: Hashable, item: Any) -> None:
        """In the place of what was there."""
        with self._lock:
            self._items.pop(key, None)
        self.get(key, lambda: item)

    def peek(self, key: Hashable) -> Any | None:
        """What is there already, or None."""
        with self._lock:
            _, box = self._items.get(key, (None, []))
        return box[0] if box else None


def open_ref(ref: str) -> Checkpoint:
    """A checkpoint by what stands in the form: `pocket/…`, a folder (not on a hosted page), or a Hub id."""
    folder = pocket_folder(ref)
    if folder is not None:
        if not folder.is_dir():
            raise CheckpointError(f"There is no {ref} in the demo family.")
        return replace(open_folder(folder), ref=ref)
    if HOSTED:
        if not looks_like_hub_id(ref):
            raise CheckpointError(f"{ref!r} is not a Hub id. On this hosted page give ids like owner/name.")
        return open_hub(ref)
    return open_checkpoint(ref)


def stamp(ref: str) -> tuple[str, int]:
    """A reference with the time of the last change to a file of its folder, where it is one."""
    folder = pocket_folder(ref) or (None if HOSTED else find_folder(ref))
    try:
        return ref, max((p.stat().st_mtime_ns for p in folder.iterdir() if p.is_file()), default=0) if folder else 0
    except OSError:
        return ref, 0


@dataclass
class Shared:
    """One for the whole app."""

    store: Store = field(default_factory=Store)
    turns: dict[str, Turn] = field(default_factory=dict)  # by session and button, its latest press
    results: Results = field(default_factory=Results)
    _triples: Shelf = field(default_factory=lambda: Shelf(32))
    desks: dict[str, Desk] = field(default_factory=dict)  # by session, the longest unused first
    _tokenizers: Shelf = field(default_factory=lambda: Shelf(16))
    _desks_lock: threading.Lock = field(default_factory=threading.Lock)
    _prompters: Shelf = field(default_factory=lambda: Shelf(32))
    _looks: Shelf = field(default_factory=lambda: Shelf(64))
    _shown: Shelf = field(default_factory=lambda: Shelf(32))
    _controls: Shelf = field(default_factory=lambda: Shelf(16))
    _comparisons: Shelf = field(default_factory=lambda: Shelf(16))

    def triple(self, refs: Mapping[str, str]) -> Triple:
        """The opened triple of these references. Raises TransferscopeError."""
        if not any(refs.values()):
            raise TripleError("The models in the form have not been checked. Press Check on the Triple tab first.")
        clean = {role: str(refs.get(role) or "").strip() for role in ROLES}
        return self._triples.get(tuple(stamp(ref) for ref in clean.values()), lambda: open_triple(clean, open_ref))

    def here(self, refs: Mapping[str, str]) -> Triple:
        """Like `triple`, with all weights on this disk. Raises TripleError where some are still on the Hub."""
        triple = self.triple(refs)
        if triple.missing:
            raise TripleError(
                f"{size(triple.missing)} of weights are still on the Hub. Press Download on the Triple tab first."
            )
        return triple

    def forget(self) -> None:
        """Open every triple anew next time: something has been downloaded."""
        self._triples = Shelf(32)

    def prompter(self, triple: Triple) -> Prompter:
        """How all points are asked in the same words, as they are when they are scored."""
        return self._prompters.get(triple.identity, lambda: Prompter(triple, opened=self.tokenizer))

    def voice(self, triple: Triple, pane: Pane, manner: str) -> Prompter | None:
        """How a pane is asked in a chat; None for an endpoint, which knows that itself."""
        mix = pane.at
        if not isinstance(mix, Mix):
            return None
        manner = "tuned" if pane.point and manner == "own" else manner
        key = (triple.identity, mix.corner or "", manner)
        return self._prompters.get(key, lambda: prompter_for(triple, mix, manner, self.tokenizer))

    def tokenizer(self, triple: Triple, role: str) -> Any:
        """The tokenizer of a role: large ones take a while and some memory."""
        return self._tokenizers.get(
            (str(triple.checkpoints[role].folder), triple.checkpoints[role].identity),
            lambda: open_tokenizer(triple, role),
        )

    def desk(self, session: str, triple: Triple) -> Desk:
        """What a session's Chat tab holds; a new one for another triple. Those longest unused make way."""
        with self._desks_lock:
            found = self.desks.pop(session, None)
            if found is None or found.triple.identity != triple.identity:
                found = Desk.new(triple)
            self.desks[session] = found
            going = list(self.desks)[:-MOST_DESKS]
        for one in going:
            self.leave(one)
        return found

    def leave(self, session: str) -> None:
        """Stop what a session began, and forget what it held."""
        for key in [key for key in list(self.turns) if key.startswith(f"{session} ")]:  # no other's that begins alike
            halt(self.turns, key)
            self.turns.pop(key, None)
        with self._desks_lock:
            self.desks.pop(session, None)

    def comparison(self, triple: Triple, alpha: float | None) -> Comparison | None:
        """The best comparison made before, exact or sampled; at whatever α where None is asked for."""
        return self._comparisons.peek((triple.identity, alpha, True)) or self._comparisons.peek(
            (triple.identity, alpha, False)
        )

    def keep(self, triple: Triple, found: Comparison) -> None:
        for alpha in (found.alpha, None):
            self._comparisons.get((triple.identity, alpha, found.exact), lambda: found)

    def controls(self, triple: Triple) -> Permuted | None:
        """What the cosines are by chance; None where weights are still on the Hub, or there is nothing to permute."""
        if triple.missing:
            return None
        try:
            return self._controls.get(triple.identity, lambda: permuted(triple))
        except TransferscopeError:
            return None

    def show(self, key: Hashable, what: Any) -> None:
        """Keep what stands on a page, in the place of what stood there before."""
        self._shown.put(key, what)

    def shown(self, key: Hashable) -> Any | None:
        return self._shown.peek(key)

    def looked(self, key: Hashable) -> Any | None:
        """What was found on one tensor before."""
        return self._looks.peek(key)

    def look(self, key: Hashable, found: Any) -> None:
        self._looks.get(key, lambda: found)
