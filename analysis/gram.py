"""The one pass: for each tensor the Gram matrix of {m_s, Δ, δ, Δ_t} and what is counted beside it.

Every norm, cosine and distance follows from it in closed form. The loops are in kernel.py; here is what they are run
over: spans of tensors, spread over threads.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from transfer.align import Aligned
from transfer.stream import SPAN, THREADS, Reader, spread
from transfer.triple import Triple

from .kernel import FIELDS, LIMITS, PAIRS, REFERENCE, tally, tally_torch, walk

ROLES = ("source_base", "source_tuned", "target_base", "target_tuned")
STEP = 65536  # elements read at once: four checkpoints' stay in the second cache
DEVICE_STEP = 1 << 22  # the same on a GPU, where a call costs more than the cache


@dataclass(frozen=True)
class TensorGram:
    """What is known of one tensor: `figures` are float64 in the order of kernel.FIELDS (NaN for what needs m'_t, where
    there is none), summed over `covered` of its elements."""

    name: str
    shape: tuple[int, ...]
    covered: int
    figures: np.ndarray

    @property
    def gram(self) -> np.ndarray:
        """4 × 4 float64 in the order of kernel.VECTORS."""
        full = np.empty((4, 4))
        for k, (i, j) in enumerate(PAIRS):
            full[i, j] = full[j, i] = self.figures[k]
        return full

    def __add__(self, other: "TensorGram") -> "TensorGram":
        figures = self.figures + other.figures
        figures[-1] = np.fmax(self.figures[-1], other.figures[-1])
        return TensorGram(self.name, self.shape, self.covered + other.covered, figures)

    def __getitem__(self, field: str) -> float:
        return float(self.figures[FIELDS.index(field)])


def stored(parts: list[torch.Tensor]) -> list[np.ndarray]:
    """Flat tensors as arrays of one dtype that the kernel takes: the bits of 16-bit floats, else float32 or float64."""
    dtypes = {part.dtype for part in parts}
    if dtypes == {torch.bfloat16} or dtypes == {torch.float16}:
        bare = np.uint16 if torch.bfloat16 in dtypes else np.int16
        return [part.view(torch.int16).numpy().view(bare) for part in parts]
    return [part.to(torch.float64 if torch.float64 in dtypes else torch.float32).numpy() for part in parts]


def span_gram(
    reader: Reader, tensor: Aligned, start: int, stop: int, alpha: float = 1.0, device: str = "cpu"
) -> TensorGram:
    """The figures of elements [start, stop) of a tensor. Raises ReadError, Cancelled."""
    roles = [role for role in ROLES if role in tensor.parts]
    figures, lacking = np.zeros(len(FIELDS)), LIMITS[tensor.dtype]
    direct = reader.direct(tensor, roles, start) if device == "cpu" else None
    if direct:
        buffers: np.ndarray = np.empty((len(roles), min(STEP, stop - start)), direct.dtype)
        ended = walk(direct.files, direct.offsets, stop - start, buffers, alpha, lacking, figures)
        if ended >= 0:
            raise reader.short(roles[ended], tensor.parts[roles[ended]].info)
    else:
        step = STEP if device == "cpu" else DEVICE_STEP
        for _, parts in reader.chunks(tensor, roles, start, stop, step):
            four = [*parts.values(), *[parts["target_base"]] * (4 - len(parts))]
            if device == "cpu":
                tally(*stored(four), alpha, lacking, figures)
            else:
                tally_torch([part.to(device) for part in four], alpha, lacking, figures)
    figures[FIELDS.index("residue")] /= alpha**2
    if tensor.dtype == "F64":  # float32 cannot tell what float64 would lose
        figures[FIELDS.index("n_lost")] = figures[FIELDS.index("residue")] = 0.0
    if "target_tuned" not in roles:
        figures[REFERENCE] = np.nan
    return TensorGram(tensor.name, tensor.shape, stop - start, figures)


def gram_pass(
    triple: Triple,
    tick: Callable[[], None] = lambda: None,
    alpha: float = 1.0,
    threads: int = THREADS,
    device: str = "cpu",
) -> Iterator[TensorGram]:
    """Every merged tensor's figures, the largest first, in the order in which threads finish them.

    `alpha`, which is not 0, is the strength at which losses to rounding are counted. Closing the generator cancels, and so does a `tick`
    that raises. Raises ReadError where a file does not hold what its header says.
    """
    tensors = sorted((t for t in triple.tensors if t.merged and t.numel), key=lambda t: -t.numel)
    spans = [(t, *span) for t in tensors for span in t.spans(SPAN)]
    left = {t.name: t.numel for t in tensors}
    found: dict[str, TensorGram] = {}
    with Reader(triple.checkpoints, tick) as reader:
        for gram in spread(
            lambda s: span_gram(reader, *s, alpha=alpha, device=device), spans, reader.cancelled, threads
        ):
            whole = found.pop(gram.name) + gram if gram.name in found else gram
            if whole.covered == left[gram.name]:
                yield whole
            else:
                found[gram.name] = whole
