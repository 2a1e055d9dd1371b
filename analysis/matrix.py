"""The weight matrices of a triple, and how a vector of one is read: piece by piece, or as a whole.

Stacks of experts are taken apart and filters laid flat, so that what is decomposed has two dimensions. One difference
is in memory at a time, never a model.
"""

import math
from collections.abc import Collection, Iterator
from dataclasses import replace

import torch

from transfer.align import Aligned, Part
from transfer.errors import ReadError, TripleError
from transfer.plane import LABELS
from transfer.stream import Reader
from transfer.tensors import BITS
from transfer.triple import Triple

from .geometry import place

# Each vector is the first role's weights less the second's.
ROLES_OF = {
    "base": ("source_base",),
    "tuned": ("source_tuned",),
    "delta": ("source_tuned", "source_base"),
    "shift": ("target_base", "source_base"),
    "reference": ("target_tuned", "target_base"),
}  # fmt: skip


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
