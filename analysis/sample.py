"""A first look before the whole pass: random blocks of every tensor, with intervals from how the blocks differ.

Blocks are drawn evenly and without replacement from each tensor's grid of blocks, with a fixed seed. What is estimated
is a function of sums (a norm, a cosine), so its variance is the stratified jackknife's, the tensors being the strata:
v = Σ_h (1 − f_h)(B_h − 1)/B_h Σ_i (θ₍hi₎ − θ̄₍h₎)², where θ₍hi₎ leaves out block i of tensor h (Jones 1974; Wolter,
Introduction to Variance Estimation, 2007, section 4.6), with Satterthwaite's degrees of freedom.

That holds as far as the blocks are alike. What only a few rows of an embedding did is easily in no block at all; where
no block differs from another there is no interval, and where changes are rare it is too narrow.
"""

import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import t as student

from transfer.align import Aligned
from transfer.stream import Reader, spread
from transfer.triple import Triple

from .geometry import ADDED, ANY, measure, summed, tensor_table
from .gram import TensorGram, span_gram
from .kernel import SUMS

SIZE = 1024  # elements of a block
MOST = 64  # blocks of a tensor
BUDGET = 12_000  # blocks in all, which take about half a second
FEWEST = 3  # blocks of a tensor: the variance of two is no more than a rumour
WHOLE = 16  # blocks that are read at once rather than a few of them apart
REMOTE_SIZE, REMOTE_MOST = 4096, 6  # on the Hub a request costs more than its bytes


@dataclass(frozen=True)
class Stratum:
    """What blocks are drawn from: a tensor, or the like ones of a layer's experts, of one shape, taken together."""

    name: str
    tensors: tuple[Aligned, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        first = self.tensors[0].shape
        return first if len(self.tensors) == 1 else (len(self.tensors), *first)

    @property
    def numel(self) -> int:
        return len(self.tensors) * self.tensors[0].numel


def strata(triple: Triple) -> list[Stratum]:
    """The merged tensors one by one; where they are too many for that, experts that differ in their number alone are one
    stratum, called by ANY in its place."""
    tensors = [t for t in triple.tensors if t.merged and t.numel]
    if len(tensors) * FEWEST <= BUDGET:
        return [Stratum(t.name, (t,)) for t in tensors]
    groups: dict[tuple[str, tuple[int, ...]], list[Aligned]] = {}
    for tensor in tensors:
        layer, dot, rest = re.fullmatch(r"((?:.*?\.)?[0-9]+(?=\.|$)|)(\.?)(.*)", tensor.name).groups()  # type: ignore[union-attr]
        name = layer + dot + re.sub(r"(?<=\.)[0-9]+(?=\.)", ANY, rest)
        groups.setdefault((name, tensor.shape), []).append(tensor)
    return [Stratum(name if len(found) > 1 else found[0].name, tuple(found)) for (name, _), found in groups.items()]


Span = tuple[Aligned, int, int]


def blocks(stratum: Stratum, count: int, size: int, seed: int = 0) -> list[Span]:
    """Up to `count` random blocks of about `size` elements on each tensor's grid; all of a tensor that has few."""
    each, tensors = stratum.tensors[0], stratum.tensors
    size = max(1, size // each.grain) * each.grain
    there = -(-each.numel // size)
    if len(tensors) == 1 and there <= max(count, WHOLE):
        return [(each, 0, each.numel)]
    dice = np.random.default_rng([seed, zlib.crc32(stratum.name.encode())])
    drawn = dice.choice(there * len(tensors), min(count, there * len(tensors)), replace=False)
    places = [(tensors[int(i) // there], int(i) % there * size) for i in drawn]
    return [(tensor, start, min(start + size, tensor.numel)) for tensor, start in places]


def sample_pass(
    triple: Triple,
    tick: Callable[[], None] = lambda: None,
    alpha: float = 1.0,
    count: int | None = None,
    size: int | None = None,
    seed: int = 0,
    among: Sequence[Stratum] | None = None,
) -> Iterator[TensorGram]:
    """The figures of random blocks of every stratum, by its name, first blocks first. Closing it cancels.

    `count` is the number of blocks of a stratum and `size` their elements, by default what makes a first look quick: many
    small ones from a disk, fewer and larger ones from the Hub. `among` is strata(triple). Raises ReadError, HubError.
    """
    among = strata(triple) if among is None else among
    size = size or (REMOTE_SIZE if triple.missing else SIZE)
    most = REMOTE_MOST if triple.missing else MOST
    count = count or max(FEWEST, min(most, BUDGET // max(1, len(among))))
    drawn = [(turn, s, *span) for s in among for turn, span in enumerate(blocks(s, count, size, seed))]
    drawn.sort(key=lambda block: block[0])
    with Reader(triple.checkpoints, tick) as reader:

        def figures(block: tuple[int, Stratum, Aligned, int, int]) -> TensorGram:
            _, stratum, tensor, start, stop = block
            gram = span_gram(reader, tensor, start, stop, alpha)
            return TensorGram(stratum.name, stratum.shape, gram.covered, gram.figures)

        yield from spread(figures, drawn, reader.cancelled, reader.threads)


def half_widths(pieces: pd.DataFrame, by: list[str], level: float = 0.95) -> pd.DataFrame:
    """For every group of grouped(tensor_table(pieces), by): half the width of each measure's interval.

    0 where the tensors of a group are known whole; NaN where the blocks do not tell: one alone, none that differs from
    another, a measure that is undefined without one of them, and the maximum always. `pieces` is geometry.piece_table's.
    """
    tensors = tensor_table(pieces).assign(all=0)
    groups = summed(tensors, by)
    added = [name for name in ADDED if name not in by]
    code = tensors.groupby(by, dropna=False, sort=False).ngroup().to_numpy()
    home = dict(zip(tensors["tensor"], range(len(tensors)), strict=True))
    widths = pd.DataFrame(0.0, index=groups.index, columns=measure(groups.iloc[:1]).columns)

    part = pieces[pieces["covered"] < pieces["numel"]]
    h = part["tensor"].map(home).to_numpy(int)
    sampled = tensors["covered"].to_numpy(float) < tensors["numel"].to_numpy(float)
    number = np.bincount(h, minlength=len(tensors))
    guessed = np.isin(groups.index, code[sampled])  # groups that are not known whole
    widths[np.isin(groups.index, code[sampled & (number < 2)])] = np.nan
    widths.loc[guessed, "max_delta"] = np.nan
    usable = sampled[h] & (number[h] > 1)
    part, h = part[usable], h[usable]
    if part.empty:
        return pd.concat([groups[by], widths], axis=1)

    # Every group once more for each of its blocks, with that block left out.
    numel, covered = tensors["numel"].to_numpy(float)[h], tensors["covered"].to_numpy(float)[h]
    scaled = tensors[list(SUMS)].to_numpy()[h]
    rest = (scaled * (covered / numel)[:, None] - part[list(SUMS)].to_numpy()) * (
        numel / (covered - part["covered"]).to_numpy()
    )[:, None]
    without = groups.iloc[code[h]].reset_index(drop=True)
    without[list(SUMS)] += rest - scaled
    theta = measure(without[[*added, "most"]]).to_numpy(float)

    # Sums over the blocks of a tensor, then over the tensors of a group.
    def over(index: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
        out = np.zeros((count, values.shape[1]))
        np.add.at(out, index, values)
        return out

    mean = over(h, theta, len(tensors)) / np.maximum(number, 1)[:, None]
    share = (tensors["covered"] / tensors["numel"]).to_numpy(float)
    spread_ = over(h, (theta - mean[h]) ** 2, len(tensors))
    per_tensor = ((1 - share) * (number - 1) / np.maximum(number, 1))[:, None] * spread_
    variance = over(code, per_tensor, len(groups))
    freedom = over(
        code,
        np.divide(per_tensor**2, (number - 1)[:, None], where=(number > 1)[:, None], out=np.zeros_like(per_tensor)),
        len(groups),
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        width = student.ppf(0.5 + level / 2, variance**2 / freedom) * np.sqrt(variance)
    widths += np.where(variance > 0, width, np.where(guessed[:, None], np.nan, 0.0))
    return pd.concat([groups[by], widths], axis=1)
