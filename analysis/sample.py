"""A first look before the whole pass: random blocks of every tensor, with intervals from how the blocks differ.

Blocks are drawn evenly and without replacement from each tensor's grid of blocks, with a fixed seed. What is estimated
is a function of sums (a norm, a cosine), so its variance is the stratified jackknife's, the tensors being the strata:
v = Σ_h (1 − f_h)(B_h − 1)/B_h Σ_i (θ₍hi₎ − θ̄₍h₎)², where θ₍hi₎ leaves out block i of tensor h (Jones 1974; Wolter,
Introduction to Variance Estimation, 2007, section 4.6), with Satterthwaite's degrees of freedom.
"""

import zlib
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from scipy.stats import t as student

from transfer.align import Aligned
from transfer.stream import Reader, spread
from transfer.triple import Triple

from .geometry import ADDED, measure, summed, tensor_table
from .gram import TensorGram, span_gram
from .kernel import SUMS

SIZE = 1024  # elements of a block
MOST = 32  # blocks of a tensor
BUDGET = 12_000  # blocks in all, which take about half a second
FEWEST = 3  # blocks of a tensor: the variance of two is no more than a rumour
REMOTE_SIZE, REMOTE_MOST = 4096, 6  # on the Hub a request costs more than its bytes


def blocks(tensor: Aligned, count: int, size: int, seed: int = 0) -> list[tuple[int, int]]:
    """Up to `count` random blocks of about `size` elements on a grid; all of a tensor that has no more than these."""
    size = max(1, size // tensor.grain) * tensor.grain
    there = -(-tensor.numel // size)
    if there <= count:
        return [(0, tensor.numel)]
    drawn = np.random.default_rng([seed, zlib.crc32(tensor.name.encode())]).choice(there, count, replace=False)
    return [(int(i) * size, min((int(i) + 1) * size, tensor.numel)) for i in drawn]


def sample_pass(
    triple: Triple,
    tick: Callable[[], None] = lambda: None,
    alpha: float = 1.0,
    count: int | None = None,
    size: int | None = None,
    seed: int = 0,
) -> Iterator[TensorGram]:
    """The figures of random blocks of every merged tensor, first blocks first. Closing it cancels.

    `count` is the number of blocks of a tensor and `size` their elements, by default what makes a first look quick: many
    small ones from a disk, fewer and larger ones from the Hub. Raises ReadError, HubError.
    """
    tensors = [t for t in triple.tensors if t.merged and t.numel]
    size = size or (REMOTE_SIZE if triple.missing else SIZE)
    most = REMOTE_MOST if triple.missing else MOST
    count = count or max(FEWEST, min(most, BUDGET // max(1, len(tensors))))
    drawn = [(turn, t, *span) for t in tensors for turn, span in enumerate(blocks(t, count, size, seed))]
    drawn.sort(key=lambda block: block[0])
    with Reader(triple.checkpoints, tick) as reader:
        yield from spread(lambda b: span_gram(reader, *b[1:], alpha=alpha), drawn, reader.cancelled, reader.threads)


def half_widths(pieces: pd.DataFrame, by: list[str], level: float = 0.95) -> pd.DataFrame:
    """For every group of grouped(tensor_table(pieces), by): half the width of each measure's interval.

    0 where the tensors of a group are known whole, NaN where one has a single block. `pieces` is geometry.piece_table's.
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
    widths[np.isin(groups.index, code[sampled & (number < 2)])] = np.nan
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
    widths += np.where(variance > 0, width, 0.0)
    return pd.concat([groups[by], widths], axis=1)
