"""The entries of one tensor's vector: how many are of which size, and how many were left as they are."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from transfer.align import Aligned
from transfer.stream import Reader

from .matrix import formed

BINS = 121  # odd, so that zero is the middle of a bin


@dataclass(frozen=True)
class Histogram:
    """The entries of one tensor's vector: counts [bins] int64 between edges [bins + 1], both ends counted in.

    Edges are even over ± the lesser of `max_abs` and six root mean squares; `outside` is the share of entries beyond.
    `zero` is the share of entries that are exactly 0. `excess_kurtosis` is 0 for a normal, and NaN where all are equal.
    """

    name: str
    vector: str
    numel: int
    edges: np.ndarray
    counts: np.ndarray
    outside: float
    zero: float
    mean: float
    std: float
    excess_kurtosis: float
    max_abs: float


def histogram(reader: Reader, tensor: Aligned, vector: str = "delta", bins: int = BINS) -> Histogram:
    """The entries of a vector of one tensor, of any shape, in two passes: the range, then counts and moments.

    Raises ReadError for weights that are no numbers, Cancelled.
    """
    n, most, sums, zeros = tensor.numel, 0.0, np.zeros(2), 0
    for _, piece in formed(reader, tensor, vector):
        wide = piece.double()
        most = max(most, float(wide.abs().amax()))
        sums += float(wide.sum()), float(wide @ wide)
        zeros += int((piece == 0).sum())
    mean, half = sums[0] / n, min(most, 6 * math.sqrt(sums[1] / n)) or 1.0
    counts, moments = torch.zeros(bins, dtype=torch.float64), np.zeros(2)
    for _, piece in formed(reader, tensor, vector):
        wide = piece.double()
        counts += torch.histc(wide, bins, -half, half)
        squares = (wide - mean).square_()
        moments += float(squares.sum()), float(squares @ squares)
    variance, fourth = moments / n
    kurtosis = fourth / variance**2 - 3 if variance > 0 else math.nan
    return Histogram(
        tensor.name,
        vector,
        n,
        np.linspace(-half, half, bins + 1),
        counts.numpy().astype(np.int64),
        1 - float(counts.sum()) / n,
        zeros / n,
        mean,
        math.sqrt(variance),
        kurtosis,
        most,
    )
