"""The singular values of one matrix, with their errors, and its top singular vectors.

Exact where the smaller side is short: eigenvalues of the float64 Gram matrix of that side. Longer ones get the top of
the spectrum from a randomised range finder with power iterations (Halko, Martinsson and Tropp 2011, algorithm 4.4),
whose last step and whose errors are computed in float64.
"""

import functools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

EXACT_SIDE = 2048  # up to here the eigenvectors of one Gram matrix take about a second on two cores
RANK, OVERSAMPLE, POWER, SEED = 128, 32, 4, 0  # of the randomised decomposition
BLOCK = 1 << 22  # elements in float64 at a time

Tick = Callable[[], None]


def nothing() -> None:
    """The tick of work that nobody can stop."""


@dataclass(frozen=True)
class Spectrum:
    """Singular values of one matrix, in units of the weights.

    `values` are float64 and descending: all of them where `exact`, else the top. A true singular value lies within
    `errors[i]` of `values[i]`; randomised values are never above the true one of the same index. `energy` is ‖A‖_F²,
    summed in float64 over all entries.
    """

    shape: tuple[int, int]
    values: np.ndarray
    errors: np.ndarray
    energy: float
    exact: bool

    @property
    def side(self) -> int:
        return min(self.shape)

    @property
    def stable_rank(self) -> float:
        """‖A‖_F² / σ₁² (Rudelson and Vershynin 2007); NaN for a zero matrix. From above where randomised."""
        return self.energy / self.values[0] ** 2 if self.energy > 0 else math.nan

    @property
    def effective_rank(self) -> float:
        """exp of the entropy of σ / Σσ (Roy and Vetterli 2007); NaN for a zero matrix or where only the top is known."""
        if self.energy == 0 or len(self.values) < self.side:
            return math.nan
        share = self.values / self.values.sum()
        share = share[share > 0]
        return float(np.exp(-(share * np.log(share)).sum()))

    @property
    def captured(self) -> float:
        """The share of ‖A‖_F² that the known values hold: 1 where exact, NaN for a zero matrix."""
        return self.energy_in(len(self.values))

    def energy_in(self, r: int) -> float:
        """The share of ‖A‖_F² in the top r directions; NaN for a zero matrix or where r values are not known."""
        if self.energy == 0 or (r > len(self.values) and len(self.values) < self.side):
            return math.nan
        return float(min(1.0, (self.values[:r] ** 2).sum() / self.energy))

    def directions(self, share: float) -> float:
        """The least number of directions that hold this share of ‖A‖_F²; NaN where the known values do not reach it."""
        if self.energy == 0:
            return math.nan
        reached = np.cumsum(self.values**2) >= share * self.energy
        return float(reached.argmax() + 1) if reached.any() else math.nan


@dataclass(frozen=True)
class Top:
    """A decomposition at work: the spectrum with its top singular vectors, [rows, k] and [columns, k] float64.

    `residuals` [k] are ‖Av − σu‖; `basis` are all singular vectors of the smaller side, where they are known.
    """

    spectrum: Spectrum
    left: torch.Tensor
    right: torch.Tensor
    residuals: torch.Tensor
    basis: torch.Tensor | None = None

    @property
    def rank(self) -> int:
        """How many of the vectors stand above rounding."""
        values = self.spectrum.values[: self.left.shape[1]]
        return int((values > noise(self.spectrum.shape) * values[0]).sum())


def noise(shape: tuple[int, int]) -> float:
    """What share of σ₁ the singular values out of a float64 Gram matrix are rounded by at the worst: √((m + n)·ε)."""
    return math.sqrt(sum(shape) * torch.finfo(torch.float64).eps)


def pieces(length: int, width: int) -> Iterator[slice]:
    """Slices of a side of this length, such that a block of them, `width` across, has about BLOCK elements."""
    step = max(1, BLOCK // max(width, 1))
    yield from (slice(start, start + step) for start in range(0, length, step))


def times(a: torch.Tensor, x: torch.Tensor, tick: Tick) -> torch.Tensor:
    """A·x in x's dtype, A in blocks of rows."""
    out = torch.empty(a.shape[0], x.shape[1], dtype=x.dtype, device=x.device)
    for rows in pieces(*a.shape):
        tick()
        out[rows] = a[rows].to(x.dtype) @ x
    return out


def times_transposed(a: torch.Tensor, y: torch.Tensor, tick: Tick) -> torch.Tensor:
    """Aᵀ·y in y's dtype, A in blocks of rows."""
    out = torch.zeros(y.shape[1], a.shape[1], dtype=y.dtype, device=y.device)
    for rows in pieces(*a.shape):
        tick()
        out.addmm_(y[rows].T, a[rows].to(y.dtype))  # yᵀA: a few columns are six times as fast as in Aᵀy
    return out.T


def gram(a: torch.Tensor, tick: Tick) -> torch.Tensor:
    """AAᵀ or AᵀA, whichever is smaller, in float64."""
    tall = a.shape[0] > a.shape[1]
    wide = a if tall else a.T
    out = torch.zeros(wide.shape[1], wide.shape[1], dtype=torch.float64, device=a.device)
    for where in pieces(*wide.shape):
        tick()
        block = wide[where].double()
        out.addmm_(block.T, block)
    return out


def orthonormal(x: torch.Tensor) -> torch.Tensor:
    return torch.linalg.qr(x).Q


def exact_values(eigenvalues: torch.Tensor, shape: tuple[int, int], energy: float) -> Spectrum:
    """The spectrum out of the ascending eigenvalues of a Gram matrix.

    Those are off by at most η = (m + n)·ε·σ₁² (float64's ε), and σ so by min(√η, η/σ): values under 1e-6 of σ₁ or so
    are rounding.
    """
    values = eigenvalues.flip(0).clamp(min=0).sqrt().cpu().numpy()
    eta = (noise(shape) * values[0]) ** 2
    errors = np.minimum(math.sqrt(eta), eta / np.maximum(values, np.finfo(float).tiny))
    return Spectrum(shape, values, errors, energy, exact=True)


def decompose_exactly(a: torch.Tensor, energy: float, rank: int, tick: Tick) -> Top:
    """All singular values and the top vectors, by the eigenvectors of the smaller side's Gram matrix."""
    squares = gram(a, tick)
    tick()
    eigenvalues, basis = torch.linalg.eigh(squares)
    spectrum = exact_values(eigenvalues, (a.shape[0], a.shape[1]), energy)
    basis = basis.flip(1)
    near = basis[:, :rank]
    tick()
    # An eigenvector is good to rounding; the other side's are its images, made orthogonal once more.
    far = times(a, near, tick) if a.shape[0] > a.shape[1] else times_transposed(a, near, tick)
    q, r = torch.linalg.qr(far)
    far = q * torch.where(r.diagonal() < 0, -1.0, 1.0)
    left, right = (far, near) if a.shape[0] > a.shape[1] else (near, far)
    return Top(spectrum, left, right, torch.zeros(left.shape[1], dtype=torch.float64), basis)


def decompose_top(a: torch.Tensor, energy: float, rank: int, seed: int, tick: Tick, power: int = POWER) -> Top:
    """The top singular triplets by a randomised range finder (Halko, Martinsson and Tropp 2011).

    Values are those of QᵀA in float64, so by interlacing never above the true ones of their index. A true singular
    value lies within ‖Av − σu‖ of each, as Aᵀu = σv holds exactly (Parlett 1998, theorem 4.5.1, on [[0, A], [Aᵀ, 0]]).
    """
    width = min(rank + OVERSAMPLE, *a.shape)
    random = torch.Generator().manual_seed(seed)
    start = torch.randn(a.shape[1], width, generator=random, dtype=a.dtype).to(a.device)
    q = orthonormal(times(a, start, tick))
    for _ in range(power):  # made orthonormal each time, or the small directions drown in the large
        q = orthonormal(times_transposed(a, q, tick))
        q = orthonormal(times(a, q, tick))
    q = orthonormal(q.double())
    v, values, inner = torch.linalg.svd(times_transposed(a, q, tick), full_matrices=False)
    left, right, values = q @ inner[:rank].T, v[:, :rank], values[:rank]
    residuals = (times(a, right, tick) - left * values).norm(dim=0)
    errors = residuals + torch.finfo(torch.float64).eps * math.sqrt(sum(a.shape)) * values[:1]
    spectrum = Spectrum((a.shape[0], a.shape[1]), values.cpu().numpy(), errors.cpu().numpy(), energy, exact=False)
    if rank >= spectrum.side:
        spectrum = replace(spectrum, exact=True)
    return Top(spectrum, left, right, residuals.cpu())


def decompose(
    a: torch.Tensor,
    energy: float,
    exact: bool | None = None,
    rank: int = RANK,
    seed: int = SEED,
    tick: Tick = nothing,
    power: int = POWER,
) -> Top:
    """The spectrum of a matrix [rows, columns], float32 or float64, and its top `rank` singular vectors.

    `energy` is ‖A‖_F². `exact` None is exact where the smaller side is at most EXACT_SIDE. Forced beyond it, the values are
    exact and the vectors those of the randomised decomposition. Raises what `tick` raises.
    """
    shape, side = (a.shape[0], a.shape[1]), min(a.shape)
    rank = min(rank, side)
    if energy == 0:
        nil = np.zeros(side)
        empty = torch.zeros(0, dtype=torch.float64)
        left, right = (torch.eye(n, rank, dtype=torch.float64, device=a.device) for n in shape)
        return Top(Spectrum(shape, nil, nil, 0.0, exact=True), left, right, empty)
    if side <= EXACT_SIDE and exact is not False:
        return decompose_exactly(a, energy, rank, tick)
    top = decompose_top(a, energy, rank, seed, tick, power)
    if not exact:
        return top
    squares = gram(a, tick)
    tick()
    return replace(top, spectrum=exact_values(torch.linalg.eigvalsh(squares), shape, energy))


@functools.cache
def pilot(device: str) -> tuple[float, float]:
    """Seconds of a float64 product and of the eigenvalues of 1024 × 1024, measured once."""
    a = torch.randn(1024, 1024, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(device)

    def seconds(work: Callable[[], torch.Tensor]) -> float:
        took = []
        for _ in range(4):  # the quickest counts: the first warms up, and others may be at work
            begin = time.perf_counter()
            float(work().sum())  # waits for a GPU
            took.append(time.perf_counter() - begin)
        return min(took)

    return seconds(lambda: a @ a), seconds(lambda: torch.linalg.eigvalsh(a + a.T))


def estimate_seconds(shape: tuple[int, int], exact: bool = True, device: str = "cpu") -> float:
    """About how long one matrix of this shape takes to decompose once it is read; exact ones within a factor of two.

    Scales by operations from a product and a small eigenvalue problem that are timed on this machine the first time.
    """
    product, eigenvalues = pilot(device)
    small, large = sorted(shape)
    rate = 2 * 1024**3 / product  # float64 operations a second; float32 ones are about twice as fast
    subspace = 2 * small * large * (RANK + OVERSAMPLE) * (POWER + 3) / rate
    if not exact:
        return subspace
    vectors = 3 if small <= EXACT_SIDE else 1
    return 2 * small**2 * large / rate + vectors * eigenvalues * (small / 1024) ** 3 + subspace
