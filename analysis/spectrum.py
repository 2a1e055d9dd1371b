"""Singular values of one weight matrix's Δ, and what follows: ranks, shared subspaces, intruder dimensions, entries.

Exact where the smaller side is short: eigenvalues of the float64 Gram matrix of that side. Longer ones get the top of
the spectrum from a randomised range finder with power iterations (Halko, Martinsson and Tropp 2011, algorithm 4.4),
whose last step and whose errors are computed in float64. One difference is in memory at a time, never a model.
"""

import functools
import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from transfer.align import Aligned, Part
from transfer.checkpoint import BITS
from transfer.errors import ReadError, TripleError
from transfer.plane import LABELS
from transfer.stream import Reader
from transfer.triple import Triple

from .geometry import place

EXACT_SIDE = 2048  # up to here the eigenvectors of one Gram matrix take about a second on two cores
BASIS_SIDE = 1024  # and up to here m_s's whole basis is worth its time, only to look for intruders
RANK, OVERSAMPLE, POWER, SEED = 128, 32, 4, 0  # of the randomised decomposition
SHARP = 12  # power iterations where single vectors are judged, and not the space that they span
RANKS = (1, 2, 4, 8, 16, 32, 64, 128)  # k of the subspaces that are compared
INTRUDERS, EPSILON = 10, 0.5  # Shuttleworth et al. 2024 look at the top 10 and at cosines under a half
LANCZOS = 32  # steps; an atom of the spectral measure shows far sooner than it converges
PROJECTED = 3e11  # products for a projection on a tall matrix's columns: some seconds
FIRM = 0.01  # a randomised vector known to this distance is as good as exact where cosines of a half matter
BLOCK = 1 << 22  # elements in float64 at a time
BINS = 121  # odd, so that zero is the middle of a bin

# Each vector is the first role's weights less the second's.
ROLES_OF = {
    "base": ("source_base",),
    "tuned": ("source_tuned",),
    "delta": ("source_tuned", "source_base"),
    "shift": ("target_base", "source_base"),
    "reference": ("target_tuned", "target_base"),
}  # fmt: skip

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


# --- which matrices, and how they are read ---------------------------------------------------------------------------


def slices(tensor: Aligned) -> list[Aligned]:
    """The matrices of a tensor, each as a tensor of two dimensions of its own.

    A stack of experts [E, a, b] is E matrices: each is a linear map by itself, and one at a time takes an E-th of the
    memory. They are called `name[0]` and so on. Filters [out, in, …] are one matrix [out, in · …]: those have four or more
    dimensions, or a last one of at most 8. Raises TripleError for a tensor without a spectrum.
    """
    shape = tensor.shape
    if len(shape) < 2 or not tensor.merged or tensor.numel == 0:
        why = "is a vector" if len(shape) == 1 else "is no matrix of weights"
        raise TripleError(f"{tensor.name} of shape {list(shape)} {why}, so it has no spectrum. Choose a weight matrix.")
    if len(shape) == 2:
        return [tensor]
    if len(shape) > 3 or shape[2] <= 8:
        return [replace(tensor, shape=(shape[0], tensor.numel // shape[0]))]
    return [one_of_stack(tensor, number) for number in range(shape[0])]


def one_of_stack(tensor: Aligned, number: int) -> Aligned:
    """Matrix `number` of a stack [E, a, b]. Raises TripleError where it is quantised: its scales serve the whole stack."""
    name, shape = f"{tensor.name}[{number}]", tensor.shape[1:]
    parts = {}
    for role, part in tensor.parts.items():
        if part.info.scale:
            raise TripleError(f"{tensor.name} is a quantised stack, of which no single matrix can be read.")
        begin = part.info.offset + number * math.prod(shape) * BITS[part.info.dtype] // 8
        parts[role] = Part(replace(part.info, name=name, shape=shape, offset=begin))
    return replace(tensor, name=name, shape=shape, parts=parts)


def matrices(
    triple: Triple, layers: Collection[int | None] | None = None, kinds: Collection[str] | None = None
) -> list[Aligned]:
    """The merged matrices of a triple, stacks taken apart, in the order of the file; without quantised stacks.

    `layers` and `kinds` choose by place, as `geometry.place` tells it; None is all of them.
    """
    found = []
    for tensor in triple.tensors:
        layer, kind = place(tensor.name)
        chosen = (layers is None or layer in layers) and (kinds is None or kind in kinds)
        packed = len(tensor.shape) > 2 and any(part.info.scale for part in tensor.parts.values())
        if chosen and tensor.merged and len(tensor.shape) > 1 and tensor.numel and not packed:
            found += slices(tensor)
    return found


def formed(reader: Reader, tensor: Aligned, vector: str) -> Iterator[tuple[slice, torch.Tensor]]:
    """A vector of the tensor piece by piece: float32, or float64 where a checkpoint stores that.

    Raises ReadError where a weight is NaN or infinite; Cancelled.
    """
    roles = ROLES_OF[vector]
    dtype = torch.float64 if any(tensor.parts[role].info.dtype == "F64" for role in roles) else torch.float32
    for where, parts in reader.chunks(tensor, roles):
        piece = parts[roles[0]].to(dtype)
        if len(roles) == 2:
            piece = piece - parts[roles[1]].to(dtype)
        if not torch.isfinite(piece).all():
            raise ReadError(unusable(tensor, parts))
        yield where, piece


def unusable(tensor: Aligned, parts: dict[str, torch.Tensor]) -> str:
    """The sentence for a piece whose difference is no finite number."""
    for role, part in parts.items():
        bad = part[~torch.isfinite(part)]
        if len(bad):
            kind = "NaN" if bad[0].isnan() else "infinite"
            return f"{tensor.name} of the {LABELS[role]} model holds {kind} weights, so it has no spectrum. Fetch it again."
    return f"{tensor.name} holds weights whose difference is too large for a number. Check both models."


def load(reader: Reader, tensor: Aligned, vector: str, device: str = "cpu") -> tuple[torch.Tensor, float]:
    """A vector of a two-dimensional tensor as a matrix [rows, columns] on the device, and ‖·‖_F² in float64.

    Raises ReadError, Cancelled.
    """
    role = ROLES_OF[vector][0]
    double = any(tensor.parts[r].info.dtype == "F64" for r in ROLES_OF[vector])
    if role not in tensor.parts:
        raise TripleError(f"The {LABELS[role]} model has no {tensor.name} that fits.")
    flat = torch.empty(tensor.numel, dtype=torch.float64 if double else torch.float32)
    energy = 0.0
    for where, piece in formed(reader, tensor, vector):
        flat[where] = piece
        wide = piece.double()
        energy += float(wide @ wide)
    return flat.view(tensor.shape).to(device), energy


# --- decompositions --------------------------------------------------------------------------------------------------


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


# --- what follows from the decompositions ----------------------------------------------------------------------------


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


# --- one tensor, and many --------------------------------------------------------------------------------------------


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
