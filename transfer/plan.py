"""How several panes will be answered, said before anything is loaded: which together as one batch, which at the same time, and
what memory that takes."""

from collections.abc import Sequence
from dataclasses import dataclass

from .endpoint import Endpoint
from .plane import Mix
from .stack import STACKED
from .store import Store
from .triple import Triple, size


@dataclass(frozen=True)
class Plan:
    """How so many panes will be answered: the groups that are decoded together, by the panes' numbers, how many groups at
    once, and the bytes of models in memory that takes, of how many that are set aside."""

    groups: tuple[tuple[int, ...], ...]
    at_once: int
    nbytes: int
    budget: int

    @property
    def in_turn(self) -> bool:
        return self.at_once < len(self.groups)

    @property
    def sentence(self) -> str:
        panes = sum(map(len, self.groups))
        if not panes:
            return ""
        room = f"{size(self.nbytes)} of the {size(self.budget)} set aside for models"
        if self.nbytes > self.budget:
            return f"One model takes {size(self.nbytes)}, and {size(self.budget)} are set aside for models here: none fits."
        if self.in_turn:
            few = "one model" if self.at_once == 1 else f"{self.at_once} models"
            return f"Memory holds {few} at a time ({room}): the panes answer in turn, and the model moves from point to point."
        batch = max(map(len, self.groups))
        if panes == 1:
            how = "One model"
        elif batch == panes:
            how = f"{panes} models, decoded together as one batch"
        elif batch > 1:
            how = f"{panes} models at the same time, {batch} of them as one batch"
        else:
            how = f"{panes} models at the same time"
        return f"{how}: {room}."


def plan(store: Store, triple: Triple, at: Sequence[Mix | Endpoint]) -> Plan:
    """How these panes would be answered; reads no weight. Raises TripleError for a point that the triple lacks."""
    by_config: dict[str, list[int]] = {}
    for number, mix in enumerate(at):
        if isinstance(mix, Mix):
            triple.need(mix)
            by_config.setdefault(triple.config_key(triple.config_role(mix)), []).append(number)
    groups: list[tuple[int, ...]] = []
    nbytes = 0
    for members in by_config.values():
        wide = (len(members) + 1) * triple.nbytes  # a stack, and the model that moves its rows
        if len(members) > 1 and triple.nbytes <= STACKED and wide + nbytes <= store.budget and store.stacks(triple):
            groups.append(tuple(members))
            nbytes += wide
        else:
            groups += [(number,) for number in members]
            nbytes += len({at[number] for number in members}) * triple.nbytes
    at_once = len(groups)
    if nbytes > store.budget:
        groups = sorted((number,) for members in by_config.values() for number in members)
        at_once = store.at_once(triple)
        nbytes = min(at_once, len(groups)) * triple.nbytes
    return Plan(tuple(groups), at_once, nbytes, store.budget)
