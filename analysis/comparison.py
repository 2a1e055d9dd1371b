"""A comparison as it grows: a sampled first look, then the exact figures tensor by tensor until all are read."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from transfer.errors import PointError
from transfer.plane import LIMIT
from transfer.triple import Triple

from .geometry import PLACE, grouped, matrices, measure, piece_table, summed, tensor_table, total
from .gram import TensorGram, gram_pass
from .sample import FEWEST, half_widths, sample_pass, strata

LEAST = 1e-3  # |α|: below it αΔ is lost in any 16-bit dtype
BEAT = 0.4  # seconds between two pictures of a growing comparison
AT_ONCE = 64_000_000  # bytes in all: less is read whole before a sample would be seen


@dataclass(frozen=True)
class Comparison:
    """What is known so far, of `known` tensors out of `tensors`; `alpha` is the strength at which rounding was looked at.

    Tables are made when they are asked for.
    """

    grams: tuple[TensorGram, ...] = field(repr=False)
    tensors: int
    alpha: float = 1.0

    @cached_property
    def pieces(self) -> pd.DataFrame:
        return piece_table(self.grams)

    @cached_property
    def table(self) -> pd.DataFrame:
        """geometry.tensor_table: one row a tensor."""
        return tensor_table(self.pieces)

    @cached_property
    def exact(self) -> bool:
        return len(self.table) == self.tensors and bool((self.table["covered"] == self.table["numel"]).all())

    @property
    def known(self) -> int:
        """Tensors that have been read whole."""
        return int((self.table["covered"] == self.table["numel"]).sum())

    @property
    def share(self) -> float:
        """Of all weights, how many have been read, from 0 to 1."""
        return float(self.table["covered"].sum() / self.table["numel"].sum())

    @cached_property
    def total(self) -> pd.Series:
        """The measures over all tensors."""
        return total(self.table)

    @cached_property
    def gram(self) -> np.ndarray:
        """4 × 4 over the matrices (geometry.matrices)."""
        return matrices(self.table)

    def grouped(self, by: list[str]) -> pd.DataFrame:
        return grouped(self.table, by)

    def widths(self, by: list[str]) -> pd.DataFrame:
        """Half the width of each measure's 95 % interval, in the rows of grouped(by); zeros where all is exact."""
        if self.exact:
            groups = summed(self.table.assign(all=0), by)
            return pd.concat([groups[by], 0 * measure(groups).fillna(0)], axis=1)
        return half_widths(self.pieces, by)

    def frame(self) -> pd.DataFrame:
        """The table to take away: one row a tensor in the order of depth, and where it was sampled the half width of
        each measure's interval beside it, under its name and ±."""
        frame = pd.concat([self.table[PLACE], measure(self.table)], axis=1)
        if self.exact:
            return frame
        widths = self.widths(["tensor"]).drop(columns="tensor").add_suffix(" ±")
        return pd.concat([frame, self.table[["covered"]], widths], axis=1)


def compare(
    triple: Triple, tick: Callable[[], None] = lambda: None, alpha: float = 1.0, exact: bool | None = None
) -> Iterator[Comparison]:
    """Comparisons that know more and more; the last is exact, unless only a sample was asked for or can be had.

    `exact` None means: where all weights are on this disk. Closing the generator stops the work. Raises ReadError,
    HubError, PointError for an α that is none.
    """
    if not LEAST <= abs(alpha) <= LIMIT:
        raise PointError(
            f"Rounding is looked at for an α between −{LIMIT:g} and {LIMIT:g}, and at least {LEAST:g} from 0."
        )
    exact = not triple.missing if exact is None else exact
    tensors = sum(1 for t in triple.tensors if t.merged and t.numel)
    nbytes = triple.nbytes * len(triple.checkpoints)
    sampled: list[TensorGram] = []
    among = strata(triple)
    shown = time.monotonic()
    if not exact or nbytes > AT_ONCE:
        seen, ready = Counter[str](), set()
        for gram in sample_pass(triple, tick, alpha, among=among):
            sampled.append(gram)
            seen[gram.name] += 1
            if seen[gram.name] >= FEWEST or gram.covered == np.prod(gram.shape):
                ready.add(gram.name)
            if time.monotonic() - shown > BEAT and len(ready) == len(among):
                yield Comparison(tuple(sampled), tensors, alpha)
                shown = time.monotonic()
        yield Comparison(tuple(sampled), tensors, alpha)
    if exact:
        done: dict[str, TensorGram] = {}
        for gram in gram_pass(triple, tick, alpha):
            done[gram.name] = gram
            if time.monotonic() - shown > BEAT and sampled:
                read = {s.name: s for s in among if all(t.name in done for t in s.tensors)}
                whole = (done[t.name] for s in read.values() for t in s.tensors)
                yield Comparison((*whole, *(g for g in sampled if g.name not in read)), tensors, alpha)
                shown = time.monotonic()
        yield Comparison(tuple(done.values()), tensors, alpha)
