"""The fused loops of the Gram pass, compiled: from stored bits to inner products and counts in one read.

A block of 1024 weights at a time, so that the differences stay in the first cache. Differences are formed first, since
inner products of the raw weights cancel; a block's products are summed in float32 over the lanes of a vector register
(some tens of terms each), blocks in float64. The same in plain torch, for a GPU, is `tally_torch`.

For the compiler: slices from zero rather than offsets, which would be tested for being negative at every step; sums may
be reordered, but NaN stays NaN, and what rounds must not be reordered at all.
"""

import math

import numpy as np
import torch

from transfer.bits import to_bf16, to_bits, to_f16, to_float, wide
from transfer.pull import compiled, pull_all

BLOCK = 1024  # elements
VECTORS = ("base", "delta", "shift", "reference")  # m_s, Δ = m'_s − m_s, δ = m_t − m_s, Δ_t = m'_t − m_t
PAIRS = [(i, j) for i in range(4) for j in range(i, 4)]
ODD = ("odd_source_base", "odd_source_tuned", "odd_target_base", "odd_target_tuned")
# What is summed over weights: inner products of VECTORS, ‖round(m_t + αΔ) − (m_t + αΔ)‖² (TensorGram has it over α²), then counts.
SUMS = (
    *(f"g{i}{j}" for i, j in PAIRS),
    "residue",
    "n_unchanged",  # Δ = 0 exactly
    "n_lost",  # Δ ≠ 0, and m_t + αΔ rounded to the merged dtype is m_t rounded to it
    "n_with_shift", "n_against_shift",  # Δ and δ of one sign, of opposite signs
    "n_with_reference", "n_against_reference",  # Δ and Δ_t likewise
    *ODD,  # NaN or infinity in a checkpoint
)  # fmt: skip
MOST = "most"  # max |Δ|: a maximum, not a sum
FIELDS = (*SUMS, MOST)
COUNTS, BROKEN, PEAK = (FIELDS.index(name) for name in ("n_unchanged", ODD[0], MOST))
REFERENCE = [i for i, name in enumerate(FIELDS) if name[-1] == "3" or "reference" in name]  # what needs m'_t
LIMITS = {"BF16": 16, "F16": 13, "F32": 0, "F64": 0}  # merged dtype → bits of float32's mantissa that it lacks


@compiled(exact=True)
def rounded(x, lacking):
    """float32 → the nearest value of the merged dtype, as a float32."""
    return to_bf16(x) if lacking == 16 else to_f16(x) if lacking == 13 else x


@compiled(exact=True)
def less(a, b):
    """a − b, which is not to be reordered."""
    return a - b


@compiled
def rounding(target, delta, alpha, lacking):
    """How many of the changes α·Δ ≠ 0 vanish when m_t + αΔ is rounded, and the square of what rounding does to all."""
    lost, residue = np.uint32(0), np.float32(0)
    for i in range(len(delta)):
        y, step = np.float32(wide(target[i])), alpha * delta[i]
        merged, bare = rounded(y + step, lacking), rounded(y, lacking)  # m_t itself may be no value of the merged dtype
        lost += np.uint32((merged == bare) & (delta[i] != np.float32(0)))
        error = less(less(merged, y), step)  # in this order: m_t + αΔ in float32 would have been rounded already
        residue += error * error
    return lost, residue


@compiled(exact=True)
def odd(weights):
    """How many are NaN or infinite."""
    count = 0
    for i in range(len(weights)):
        if not math.isfinite(wide(weights[i])):
            count += 1
    return count


@compiled
def tally(base, tuned, target, reference, alpha, lacking, out):
    """Add the figures of these weights to `out`, float64 in the order of FIELDS.

    The four arrays are flat, of one length and of one dtype: uint16 (the bits of bfloat16), int16 (of float16), float32 or
    float64.
    `lacking` is LIMITS[merged dtype]. Without m'_t give m_t for it: Δ_t is then zero.
    """
    strength, zero = np.float32(alpha), np.float32(0)
    delta, shift, ahead = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    for start in range(0, len(base), BLOCK):
        n = min(BLOCK, len(base) - start)
        s, f = base[start : start + n], tuned[start : start + n]
        t, r = target[start : start + n], reference[start : start + n]
        for i in range(n):
            x, y = wide(s[i]), wide(t[i])
            delta[i], shift[i], ahead[i] = wide(f[i]) - x, y - x, wide(r[i]) - y
        g00 = g01 = g02 = g03 = g11 = g12 = g13 = g22 = g23 = g33 = zero
        for i in range(n):
            x, d, v, a = np.float32(wide(s[i])), delta[i], shift[i], ahead[i]
            g00 += x * x
            g01 += x * d
            g02 += x * v
            g03 += x * a
            g11 += d * d
            g12 += d * v
            g13 += d * a
            g22 += v * v
            g23 += v * a
            g33 += a * a
        with_shift = against_shift = with_ahead = against_ahead = np.uint32(0)
        for i in range(n):
            p, q = delta[i] * shift[i], delta[i] * ahead[i]
            with_shift += np.uint32(p > zero)
            against_shift += np.uint32(p < zero)
            with_ahead += np.uint32(q > zero)
            against_ahead += np.uint32(q < zero)
        still, most = np.uint32(0), np.uint32(0)
        for i in range(n):
            size = to_bits(delta[i]) & np.uint32(0x7FFFFFFF)  # of positive floats the bits are in order
            still += np.uint32(size == np.uint32(0))
            most = size if size > most else most
        lost, residue = rounding(t, delta[:n], strength, lacking)
        sums = (g00, g01, g02, g03, g11, g12, g13, g22, g23, g33, residue)
        for k in range(11):
            out[k] += sums[k]
        counts = (still, lost, with_shift, against_shift, with_ahead, against_ahead)
        for k in range(6):
            out[COUNTS + k] += counts[k]
        out[PEAK] = max(out[PEAK], to_float(most))
        if to_bits(g00 + g11 + g22 + g33) & np.uint32(0x7F800000) == np.uint32(0x7F800000):
            out[BROKEN] += odd(s)
            out[BROKEN + 1] += odd(f)
            out[BROKEN + 2] += odd(t)
            out[BROKEN + 3] += odd(r)


@compiled
def walk(files, offsets, count, buffers, alpha, lacking, out):
    """`tally` of `count` weights straight from open files; the index of the file that ended too soon, or −1.

    `files` are three or four descriptors (int32; without m'_t three) and `offsets` the bytes where the weights begin
    (int64). `buffers`, of files × elements and of the stored dtype, are what is read at once.
    """
    n, step = len(files), buffers.shape[1]
    for start in range(0, count, step):
        size = min(step, count - start)
        ended = pull_all(files, offsets, start, size, buffers)
        if ended >= 0:
            return ended
        last = buffers[n - 1, :size] if n == 4 else buffers[2, :size]
        tally(buffers[0, :size], buffers[1, :size], buffers[2, :size], last, alpha, lacking, out)
    return -1


def warm() -> None:
    """Compile what a bfloat16 triple needs, or find it on the disk: some seconds that need not be the first visitor's."""
    for width in (3, 4):
        buffers: np.ndarray = np.empty((width, 1), np.uint16)
        walk(np.zeros(width, np.int32), np.zeros(width, np.int64), 0, buffers, 1.0, 16, np.zeros(len(FIELDS)))


def tally_torch(four: list[torch.Tensor], alpha: float, lacking: int, out: np.ndarray) -> None:
    """`tally` by torch on whatever device the four flat tensors are, of any floating dtype."""
    merged_dtype = {16: torch.bfloat16, 13: torch.float16, 0: torch.float32}[lacking]
    values = [x.double() if x.dtype == torch.float64 else x.float() for x in four]
    base, tuned, target, reference = values
    x = torch.stack([base.float(), (tuned - base).float(), (target - base).float(), (reference - target).float()])
    rows = torch.nn.functional.pad(x, (0, -x.shape[1] % BLOCK)).view(4, -1, BLOCK).transpose(0, 1)
    gram = torch.bmm(rows, rows.transpose(1, 2)).double().sum(0)
    _, delta, shift, ahead = x
    step = alpha * delta
    merged, bare = ((target.float() + move).to(merged_dtype).float() for move in (step, torch.zeros_like(step)))
    same, other = delta * shift, delta * ahead
    figures = [
        *(gram[i, j] for i, j in PAIRS),
        (merged - target.float() - step).double().square().sum(),
        (delta == 0).sum(),
        ((merged == bare) & (delta != 0)).sum(),
        (same > 0).sum(), (same < 0).sum(), (other > 0).sum(), (other < 0).sum(),
        *((~torch.isfinite(v)).sum() for v in values),
    ]  # fmt: skip
    out[:-1] += torch.stack([figure.double() for figure in figures]).cpu().numpy()
    out[-1] = max(out[-1], float(delta.abs().max()))
