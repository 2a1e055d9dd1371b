"""The one pass: for each tensor the Gram matrix of {m_s, Δ, δ, Δ_t}, and with it every norm, cosine and distance.

Differences are formed first, in float32, since inner products of the raw weights cancel; products are summed in
float32 within a block of 256 and in float64 over the blocks.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from transfer.align import Aligned
from transfer.stream import TORCH, Reader, spread
from transfer.triple import Triple

BLOCK = 256  # elements
VECTORS = ("base", "delta", "shift", "reference")  # m_s, Δ = m'_s − m_s, δ = m_t − m_s, Δ_t = m'_t − m_t


@dataclass(frozen=True)
class TensorGram:
    """What the pass finds on one tensor.

    `gram` is 4 × 4 float64 in the order of VECTORS (NaN in the last row and column where there is no m'_t);
    `unchanged` counts weights with Δ = 0 exactly; `lost` those with Δ ≠ 0 that m_t + Δ, rounded to the merged dtype,
    leaves as they were; `residue` is ‖round(m_t + Δ) − (m_t + Δ)‖².
    """

    name: str
    shape: tuple[int, ...]
    gram: np.ndarray
    unchanged: int
    lost: int
    residue: float


def tensor_gram(reader: Reader, tensor: Aligned) -> TensorGram:
    """One tensor's figures. Raises ReadError, Cancelled."""
    known = "target_tuned" in tensor.parts
    gram = torch.zeros(4 if known else 3, 4 if known else 3, dtype=torch.float64)
    unchanged = lost = 0
    residue = 0.0
    for _, parts in reader.chunks(tensor, tensor.parts):
        parts = {role: part.float() for role, part in parts.items()}
        base, target = parts["source_base"], parts["target_base"]
        n, blocks = len(base), -(-len(base) // BLOCK)
        rows = torch.zeros(len(gram), blocks * BLOCK)
        rows[0, :n] = base
        delta = torch.sub(parts["source_tuned"], base, out=rows[1, :n])
        torch.sub(target, base, out=rows[2, :n])
        if known:
            torch.sub(parts["target_tuned"], target, out=rows[3, :n])
        stacked = rows.view(len(gram), blocks, BLOCK).transpose(0, 1)
        gram += torch.bmm(stacked, stacked.transpose(1, 2)).double().sum(0)
        merged = target + delta
        rounded = merged.to(TORCH[tensor.dtype]).float()
        still = delta == 0
        unchanged += int(still.sum())
        lost += int(((rounded == target) & ~still).sum())
        error = rounded.sub_(merged)
        residue += float(error @ error)
    full = np.full((4, 4), np.nan)
    full[: len(gram), : len(gram)] = gram.numpy()
    return TensorGram(tensor.name, tensor.shape, full, unchanged, lost, residue)


def gram_pass(triple: Triple, tick: Callable[[], None] = lambda: None) -> Iterator[TensorGram]:
    """Every merged tensor's figures, in the order in which threads finish them; closing it cancels, and so does a `tick`
    that raises.

    Raises ReadError where a file does not hold what its header says.
    """
    tensors = sorted((t for t in triple.tensors if t.merged), key=lambda t: -t.numel)
    with Reader(triple.checkpoints, tick) as reader:
        yield from spread(lambda tensor: tensor_gram(reader, tensor), tensors, reader.cancelled)
