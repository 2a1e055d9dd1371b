"""Which tensor, and which of its rows, stands for which across the checkpoints of a triple.

Tensors go by the names in the files, never by a list of architectures. The rows of the embedding and the head are
matched by token string: the merged vocabulary is that of the source fine-tuned model, and a row that a base lacks is
zero in it (Lin et al. 2025, section 3, as in the paper's code), so that a new row is the source fine-tuned one's.
"""

from dataclasses import dataclass, field

import numpy as np

from .checkpoint import Checkpoint
from .errors import TripleError
from .tensors import FLOATS, TensorInfo

SOURCES = ("source_base", "source_tuned", "target_base")


@dataclass(frozen=True)
class Part:
    """Where one checkpoint keeps a tensor; `rows[i]` is its row for merged row i, −1 where it has none (None: i itself)."""

    info: TensorInfo
    rows: np.ndarray | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Aligned:
    """One tensor of the merged model with its part in each checkpoint.

    `merged` is False for what is copied whole from the target base: integers, and tensors that the sources lack.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    parts: dict[str, Part]
    merged: bool = True

    @property
    def numel(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def grain(self) -> int:
        """Elements that are read together: a row, where rows have been matched by token; else one."""
        by_row = any(part.rows is not None for part in self.parts.values())
        return self.numel // self.shape[0] if by_row else 1

    def spans(self, size: int) -> list[tuple[int, int]]:
        """The elements as spans of about that many, on borders of the grain."""
        each = max(1, size // self.grain) * self.grain
        return [(start, min(start + each, self.numel)) for start in range(0, self.numel, each)]


@dataclass(frozen=True)
class Alignment:
    """All tensors of the merged model, and in sentences what was copied, left out or matched by token."""

    tensors: tuple[Aligned, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def find(checkpoint: Checkpoint, name: str, is_vocabulary: bool) -> TensorInfo | None:
    """The tensor of that name; where the head is tied and so not in the file, the embedding."""
    info = checkpoint.tensors.get(name)
    if info is None and is_vocabulary and checkpoint.tied:
        tied = checkpoint.vocabulary_tensors
        info = tied[0] if len(tied) == 1 else None
    return info


def row_maps(checkpoints: dict[str, Checkpoint]) -> tuple[dict[str, np.ndarray | None], list[str]]:
    """For each role: the row of every merged row (int64, −1 for none), or None where rows stand in the same order.

    Raises TripleError where the sizes differ and a tokenizer.json is missing, so that rows cannot be matched.
    """
    tuned = checkpoints["source_tuned"]
    size = tuned.rows
    notes: list[str] = []
    if not tuned.vocabulary_tensors:  # nothing to match, and a size that no tensor vouches for
        return dict.fromkeys(checkpoints), notes
    maps: dict[str, np.ndarray | None] = {"source_tuned": None}
    reference = tuned.vocabulary()
    tokens: list[str | None] = [None] * size
    for token, row in (reference or {}).items():
        if row < size:
            tokens[row] = token
    for role, checkpoint in checkpoints.items():
        if role == "source_tuned":
            continue
        rows = checkpoint.rows
        vocabulary = checkpoint.vocabulary()
        if vocabulary == reference or vocabulary is None or reference is None:
            if (vocabulary is None or reference is None) and rows != size:
                lacking = tuned if reference is None else checkpoint
                raise TripleError(
                    f"{checkpoint.ref} has {rows:,} vocabulary rows and {tuned.ref} has {size:,}; to match them by token "
                    f"we need the file tokenizer.json in {lacking.ref}, and it is missing."
                )
            # Rows beyond the tokenizer are padding, and padding goes by its index.
            maps[role] = None if rows == size else np.where(np.arange(size) < rows, np.arange(size), -1)
            continue
        found = np.array([vocabulary.get(t, -1) if t is not None else -1 for t in tokens], dtype=np.int64)
        found[found >= rows] = -1
        known = sum(t is not None for t in tokens)
        padding = np.array([t is None for t in tokens]) & (np.arange(size) < rows)
        padding &= ~np.isin(np.arange(size), list(vocabulary.values()))
        found[padding] = np.flatnonzero(padding)
        maps[role] = None if rows == size and np.array_equal(found, np.arange(size)) else found
        if maps[role] is not None:
            matched = int(sum((found >= 0) & ~padding))
            left = len(set(vocabulary) - set(reference))
            notes.append(
                f"Vocabulary rows of {checkpoint.name} are matched by token: {matched:,} of {known:,} found"
                + (f", {left:,} of its own tokens left out." if left else ".")
            )
    return maps, notes


def align(checkpoints: dict[str, Checkpoint]) -> Alignment:
    """Match the tensors of three checkpoints, or of four. Raises TripleError that names what does not fit."""
    target, tuned = checkpoints["target_base"], checkpoints["source_tuned"]
    names = dict.fromkeys(target.tensors)
    vocabulary = {t.name for c in checkpoints.values() for t in c.vocabulary_tensors}
    if not tuned.tied:
        # A head of its own in the source fine-tuned model stays one, also where the target base ties it.
        names.update(dict.fromkeys(t.name for t in tuned.vocabulary_tensors))
    maps, notes = row_maps(checkpoints)
    tensors, warnings, misfits, copied = [], [], [], []
    for name in names:
        is_vocabulary = name in vocabulary
        infos = {role: find(c, name, is_vocabulary) for role, c in checkpoints.items()}
        home = infos["target_base"]
        if home is None or home.values not in FLOATS or any(infos[role] is None for role in SOURCES):
            if home is not None:
                copied.append(name)
                tensors.append(Aligned(name, home.shape, home.values, {"target_base": Part(home)}, merged=False))
            continue
        parts = {}
        for role, info in infos.items():
            if info is None:
                continue
            rows = maps[role] if is_vocabulary else None
            shape = infos["source_tuned"].shape if is_vocabulary else home.shape  # type: ignore[union-attr]
            fits = info.shape[1:] == shape[1:] if is_vocabulary else info.shape == shape
            if is_vocabulary and info.shape[0] != checkpoints[role].rows:
                fits = False  # the rows that the config promises are not there
            if fits and info.values in FLOATS:
                parts[role] = Part(info, rows)
            elif role != "target_tuned":
                misfits.append(
                    f"{name} is {list(info.shape)} {info.dtype} in {checkpoints[role].name}, not {list(shape)}"
                )
        tensors.append(Aligned(name, shape, home.values, parts))
    if misfits:
        raise TripleError(
            f"{len(misfits)} tensors differ in shape, so Δ cannot be added: {'; '.join(misfits[:4])}"
            f"{' …' * (len(misfits) > 4)}. Choose releases of one architecture and size."
        )
    if not any(t.merged for t in tensors):
        raise TripleError(
            f"No tensor name of {target.name} is found in both sources. These are different architectures, or one of "
            "them was saved with another prefix."
        )
    lacking = [t.name for t in tensors if t.merged and "target_tuned" not in t.parts]
    if "target_tuned" in checkpoints and lacking:
        warnings.append(
            f"The target fine-tuned model lacks {len(lacking)} of these tensors or has them in another shape."
        )
    floats = [name for name in copied if target.tensors[name].values in FLOATS]
    if floats:
        warnings.append(f"{len(floats)} tensors are in the target base alone and are copied from it: {listed(floats)}.")
    if any(
        not checkpoints[role].tied and set(t.name for t in checkpoints[role].vocabulary_tensors) - set(names)
        for role in SOURCES
    ):
        warnings.append(
            "A base has a head of its own and the merged model ties it to the embedding: that head is left out."
        )
    unused = [n for n in tuned.tensors if n not in names and n not in vocabulary]
    if unused:
        warnings.append(
            f"{len(unused)} tensors of the source fine-tuned model have no place in the target: {listed(unused)}."
        )
    return Alignment(tuple(tensors), tuple(notes), tuple(warnings))


def listed(names: list[str], most: int = 3) -> str:
    """The first few names."""
    return ", ".join(names[:most]) + (" …" if len(names) > most else "")
