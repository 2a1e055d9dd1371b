"""Intruder dimensions: directions of m'_s that are like none of m_s (Shuttleworth et al. 2024).

Told without m_s's whole basis where that is long: a cosine that is known can say no, and a bound on all of them, known
or not, can say yes.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from .decompose import Tick, Top, gram, noise, nothing, times, times_transposed

INTRUDERS, EPSILON = 10, 0.5  # Shuttleworth et al. 2024 look at the top 10 and at cosines under a half
LANCZOS = 32  # steps; an atom of the spectral measure shows far sooner than it converges
PROJECTED = 3e11  # products for a projection on a tall matrix's columns: some seconds
FIRM = 0.01  # a randomised vector known to this distance is as good as exact where cosines of a half matter


@dataclass(frozen=True)
class Intruders:
    """Intruder dimensions of m'_s against m_s (Shuttleworth et al. 2024).

    A left singular vector u_j of m'_s, j < `examined`, is one where its cosine to every one of m_s's is below
    `epsilon`. `certain` are proven to be, `undecided` could not be told without m_s's whole basis. `cosines[j]` is the
    largest absolute cosine among the base's vectors that are known.
    """

    examined: int
    epsilon: float
    certain: int
    undecided: int
    cosines: np.ndarray


def wobble(top: Top, count: int) -> torch.Tensor:
    """How far each of the top left vectors may be off, as a distance 0 … √2: √2·residual / gap (Davis and Kahan 1970).

    The gap is to the nearest other value that was found.
    """
    if not len(top.residuals) or not top.residuals.any():
        return torch.zeros(count, dtype=torch.float64)
    values = torch.from_numpy(top.spectrum.values[: len(top.residuals)])
    apart = (values[:count, None] - values[None]).abs() - top.residuals[None]
    apart[range(count), range(count)] = math.inf
    gap = apart.min(1).values
    sine = torch.where(gap > 0, top.residuals[:count] / gap.clamp(min=1e-300), 1.0).clamp(max=1)
    return math.sqrt(2) * sine


def heaviest(
    a: torch.Tensor, vectors: torch.Tensor, tick: Tick, known: torch.Tensor, steps: int = LANCZOS
) -> torch.Tensor:
    """For each vector u [rows, k] a bound, from above, on |u · u_i| over the left singular vectors u_i of A; [k].

    `known` [rows, n] are some u_i that no u has a part in: Lanczos is kept off them, and so looks closer at the rest.

    u's squared cosines to them are the masses of its spectral measure under AAᵀ. `steps` of Lanczos from u give a
    Gauss quadrature of that measure, and no mass between two neighbouring nodes exceeds the sum of their two weights
    (Chebyshev, Markov and Stieltjes; Golub and Meurant 2010, chapter 3). What of u lies outside the columns of A would
    count as one mass at zero, and is taken away first.
    """
    steps = min(steps, a.shape[0])
    inside = within(a, vectors.double(), tick)
    lengths = inside.norm(dim=0)
    q, basis, diagonal, beside = inside / lengths.clamp(min=1e-300), [], [], []
    for _ in range(steps):
        basis.append(q)
        w = times(a, times_transposed(a, q.to(a.dtype), tick), tick).double()
        diagonal.append((q * w).sum(0))
        for _ in range(2):  # twice is enough (Kahan; Parlett 1998, section 6.9)
            w = w - known @ (known.T @ w)
            for old in basis:
                w = w - old * (old * w).sum(0)
        length = w.norm(dim=0)
        over = length <= 1e-6 * torch.stack(diagonal).abs().amax(0)  # float32 products: nothing but rounding is left
        beside.append(torch.where(over, 0.0, length))
        q = torch.where(over, 0.0, w / length.clamp(min=1e-300))
    jacobi = torch.diag_embed(torch.stack(diagonal, 1))
    off = torch.stack(beside[:-1], 1) if steps > 1 else torch.zeros(vectors.shape[1], 0, device=a.device)
    jacobi = jacobi + torch.diag_embed(off, 1) + torch.diag_embed(off, -1)
    weights = torch.linalg.eigh(jacobi).eigenvectors[:, 0].square()
    pairs = weights[:, 1:] + weights[:, :-1] if steps > 1 else weights
    return (pairs.amax(1).clamp(max=1).sqrt() * lengths).cpu()


def within(a: torch.Tensor, vectors: torch.Tensor, tick: Tick) -> torch.Tensor:
    """The vectors [rows, k] projected on the columns of A, by Cholesky of AᵀA; as they are where those fill the space,
    are not independent to rounding, or are too many for an answer while somebody waits."""
    rows, columns = a.shape
    if rows <= columns or rows * columns**2 > PROJECTED:
        return vectors
    factor, failed = torch.linalg.cholesky_ex(gram(a, tick))
    if failed:
        return vectors
    return times(a, torch.cholesky_solve(times_transposed(a, vectors, tick), factor), tick)


def intruders(
    tuned: Top, base: Top, matrix: torch.Tensor, count: int = INTRUDERS, epsilon: float = EPSILON, tick: Tick = nothing
) -> Intruders:
    """Intruder dimensions of m'_s against m_s, whose matrix is given too.

    With m_s's whole basis each cosine is known. Else a known cosine of at least ε says no; and a bound below ε on all of
    them says yes: those to m_s's firm vectors, and by `heaviest` to whatever else there is. Both leave room for how far
    randomised vectors may be off.
    """
    count = min(count, tuned.rank)
    looked = tuned.left[:, :count]
    if not count or not base.spectrum.energy:  # a zero base has no directions, and a zero m'_s none to look at
        return Intruders(count, epsilon, count, 0, np.zeros(count))
    if base.basis is not None:
        cosines = whole_cosines(base, matrix, looked, tick)
        return Intruders(count, epsilon, int((cosines < epsilon).sum()), 0, cosines)
    dots, shake = (base.left.T @ looked).cpu(), wobble(base, base.left.shape[1])[:, None]
    off = wobble(tuned, count)
    open_ = (dots.abs() - shake).amax(0) - off < epsilon
    certain = torch.zeros(count, dtype=torch.bool)
    if open_.any():
        firm = shake[:, 0] < FIRM
        known, parts = base.left[:, firm.to(looked.device)], dots[firm][:, open_]
        rest = looked[:, open_.to(looked.device)] - known @ parts.to(looked.device)
        most = heaviest(matrix, rest, tick, known) + (shake[firm] * parts).norm(dim=0)
        if firm.any():
            most = torch.maximum(most, (parts.abs() + shake[firm]).amax(0))
        certain[open_] = most + off[open_] < epsilon
    undecided = int((open_ & ~certain).sum())
    return Intruders(count, epsilon, int(certain.sum()), undecided, dots.abs().amax(0).numpy())


def whole_cosines(base: Top, matrix: torch.Tensor, looked: torch.Tensor, tick: Tick) -> np.ndarray:
    """The largest absolute cosine of each vector [rows, k] to all left singular vectors of the base; [k]."""
    assert base.basis is not None
    if matrix.shape[0] <= matrix.shape[1]:
        return (base.basis.T @ looked).abs().amax(0).cpu().numpy()
    # A tall matrix: the basis known is the right one, and u_i = A·v_i / σ_i.
    values = base.spectrum.values
    above = int((values > noise(base.spectrum.shape) * values[0]).sum())
    sizes = torch.from_numpy(values[:above].copy()).to(looked.device)
    images = base.basis[:, :above].T @ times_transposed(matrix, looked, tick)
    return (images.abs() / sizes[:, None]).amax(0).cpu().numpy()
