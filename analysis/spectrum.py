"""What the singular values and vectors of Δ say, of one weight matrix or of many: ranks, shared subspaces, intruders.

One matrix is read and decomposed at a time.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from transfer.align import Aligned
from transfer.errors import TripleError
from transfer.stream import Reader
from transfer.triple import Triple

from .decompose import POWER, RANK, SEED, Spectrum, Tick, Top, decompose, nothing
from .geometry import place
from .intruders import Intruders, intruders
from .matrix import ROLES_OF, load, matrices, slices

BASIS_SIDE = 1024  # and up to here m_s's whole basis is worth its time, only to look for intruders
SHARP = 12  # power iterations where single vectors are judged, and not the space that they span
RANKS = (1, 2, 4, 8, 16, 32, 64, 128)  # k of the subspaces that are compared


@dataclass(frozen=True)
class Overlap:
    """How far the top-k subspaces of two matrices of one shape coincide: ‖U_kᵀW_k‖_F² / k (Hu et al. 2021).

    `ranks` are the k; `left` and `right` the overlaps of left and right singular vectors, 0 … 1, NaN where one of the
    two has no k directions above rounding; `left_chance` and `right_chance` what random subspaces share, k/rows and
    k/columns. Where the decomposition is randomised the subspaces are those it found.
    """

    ranks: np.ndarray
    left: np.ndarray
    right: np.ndarray
    left_chance: np.ndarray
    right_chance: np.ndarray


@dataclass(frozen=True)
class MatrixSpectra:
    """What is found on one matrix. `spectra` and `overlaps` go by name of the vector as in gram.VECTORS.

    `spectra` has "delta" and "shift", "reference" where there is an m'_t, and "base" and "tuned" where intruders were
    asked for. `overlaps` has Δ with "shift", and with "reference".
    """

    name: str
    shape: tuple[int, int]
    spectra: dict[str, Spectrum]
    overlaps: dict[str, Overlap]
    intruders: Intruders | None


def overlap(one: Top, other: Top) -> Overlap:
    """The shared part of the top-k subspaces of two matrices of one shape, for every k of RANKS that both have."""
    most = min(one.left.shape[1], other.left.shape[1])
    ranks = np.array([k for k in RANKS if k <= most])
    known = ranks <= min(one.rank, other.rank)

    def shared(a: torch.Tensor, b: torch.Tensor) -> np.ndarray:
        squares = (a[:, :most].T @ b[:, :most]).square().cumsum(0).cumsum(1).cpu().numpy()
        return np.where(known, np.minimum(squares[ranks - 1, ranks - 1] / ranks, 1), np.nan)

    rows, columns = one.spectrum.shape
    return Overlap(
        ranks, shared(one.left, other.left), shared(one.right, other.right), ranks / rows, ranks / columns
    )  # fmt: skip


def random_share(shape: tuple[int, int], r: int) -> float:
    """What share of its ‖A‖_F² a large matrix of independent entries holds in its top r directions.

    By the law of Marchenko and Pastur (1967) for the squared singular values, of ratio c = smaller / larger side: its
    density √((b − x)(x − a)) / (2πcx) between a, b = (1 ∓ √c)², summed over the largest r of the smaller side.
    """
    small, large = sorted(shape)
    root = math.sqrt(small / large)
    a, b = (1 - root) ** 2, (1 + root) ** 2
    turn = np.linspace(0, math.pi, 20_001)[1:-1]  # x falls from b to a; the ends' square roots are smooth in it
    x = (a + b) / 2 + (b - a) / 2 * np.cos(turn)
    density = (b - a) ** 2 / 4 * np.sin(turn) ** 2 / np.maximum(x, 1e-12)
    count, energy = np.cumsum(density), np.cumsum(density * x)
    return float(np.interp(r / small, count / count[-1], energy / energy[-1]))


def tensor_spectra(
    reader: Reader,
    tensor: Aligned,
    exact: bool | None = None,
    rank: int = RANK,
    with_intruders: bool = True,
    device: str = "cpu",
    seed: int = SEED,
    tick: Tick = nothing,
) -> MatrixSpectra:
    """Everything on one matrix. `exact` as in `decompose`; without intruders m_s and m'_s are not decomposed.

    Holds one float32 matrix at a time, and where it is exact two Gram matrices of the smaller side in float64.
    Raises TripleError where the tensor is no matrix or a stack of them, ReadError for weights that are no numbers,
    Cancelled.
    """
    each = slices(tensor)
    if len(each) > 1:
        raise TripleError(f"{tensor.name} is a stack of {len(each)} matrices. Choose one of them.")
    matrix = each[0]
    rows, columns = matrix.shape

    def taken(vector: str, exact: bool | None = exact, power: int = POWER) -> tuple[torch.Tensor, Top]:
        a, energy = load(reader, matrix, vector, device)
        return a, decompose(a, energy, exact, rank, seed, tick, power)

    known = [v for v in ("delta", "shift", "reference") if ROLES_OF[v][0] in matrix.parts]
    tops = {vector: replace(taken(vector)[1], basis=None) for vector in known}
    overlaps = {vector: overlap(tops["delta"], tops[vector]) for vector in known[1:]}
    spectra = {vector: top.spectrum for vector, top in tops.items()}
    found = None
    if with_intruders:
        whole = min(rows, columns) <= BASIS_SIDE if exact is None else exact
        tuned = replace(taken("tuned", whole, SHARP)[1], basis=None)
        a, base = taken("base", whole, SHARP)
        found = intruders(tuned, base, a, tick=tick)
        spectra |= {"base": base.spectrum, "tuned": tuned.spectrum}
    return MatrixSpectra(matrix.name, (rows, columns), spectra, overlaps, found)


def spectra(
    triple: Triple,
    tensors: Iterable[Aligned] | None = None,
    exact: bool | None = None,
    rank: int = RANK,
    with_intruders: bool = True,
    device: str = "cpu",
    tick: Tick = nothing,
) -> Iterator[MatrixSpectra]:
    """`tensor_spectra` of the chosen matrices one after another (None: of all), stacks taken apart.

    `tick` is called before every read and every block of a product; what it raises stops the work within a second or two,
    but for a forced exact decomposition of a large matrix. Raises ReadError, Cancelled, TripleError.
    """
    chosen = matrices(triple) if tensors is None else [piece for tensor in tensors for piece in slices(tensor)]
    with Reader(triple.checkpoints, tick) as reader:
        for tensor in chosen:
            yield tensor_spectra(reader, tensor, exact, rank, with_intruders, device, tick=tick)


def spectra_table(found: Iterable[MatrixSpectra], k: int = 16) -> pd.DataFrame:
    """One row a matrix: measures of Δ's spectrum, overlaps of the top k and intruder dimensions; NaN where undefined.

    Columns: tensor, layer, kind, shape, exact, sigma_1, sigma_1_error, stable_rank, effective_rank, captured, top_1 …
    top_64 (shares of ‖Δ‖_F²), directions_50, _90, _99, then for "shift" and "reference" overlap_…_left and _right with
    chance_left and chance_right (k/rows, k/columns), intruders and undecided (counts of the top 10).
    """
    rows = []
    for one in found:
        layer, kind = place(one.name.split("[")[0])
        delta = one.spectra["delta"]
        row = {
            "tensor": one.name,
            "layer": layer,
            "kind": kind,
            "shape": "×".join(map(str, one.shape)),
            "exact": delta.exact,
            "sigma_1": delta.values[0],
            "sigma_1_error": delta.errors[0],
            "stable_rank": delta.stable_rank,
            "effective_rank": delta.effective_rank,
            "captured": delta.captured,
        }
        row |= {f"top_{r}": delta.energy_in(r) for r in (1, 4, 16, 64)}
        row |= {f"directions_{share}": delta.directions(share / 100) for share in (50, 90, 99)}
        for vector in ("shift", "reference"):
            shared = one.overlaps.get(vector)
            at = shared.ranks == k if shared else np.zeros(0, bool)
            for side in ("left", "right"):
                row[f"overlap_{vector}_{side}"] = float(getattr(shared, side)[at][0]) if at.any() else math.nan
        row |= {"chance_left": min(1.0, k / one.shape[0]), "chance_right": min(1.0, k / one.shape[1])}
        row["intruders"] = one.intruders.certain if one.intruders else math.nan
        row["undecided"] = one.intruders.undecided if one.intruders else math.nan
        rows.append(row)
    table = pd.DataFrame(rows)
    if len(table):
        table["layer"] = table["layer"].astype("Int64")
    return table
