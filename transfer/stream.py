"""Walk aligned tensors of several checkpoints in chunks: the only reader of weights.

Positioned reads into small buffers rather than mapped files: a mapped file that shrinks kills the process, a short
read is an error sentence. Memory is a few chunks a thread, whatever the model's size. Long work is a generator
here and above: it yields as it goes, and closing it cancels it.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import TypeVar

import numpy as np
import torch

from .align import Aligned, Part
from .checkpoint import Checkpoint, TensorInfo
from .errors import Cancelled, ReadError
from .plane import Mix

CHUNK = 32768  # elements: a few of them fit the cache, and torch keeps an operation of this size on one thread
THREADS = max(1, min(8, os.cpu_count() or 1))
TORCH = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U64": torch.uint64, "U32": torch.uint32,
    "U16": torch.uint16, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip

Item = TypeVar("Item")
Result = TypeVar("Result")


class Reader:
    """Positioned reads of tensors; safe to share between threads. Use as a context manager, or close it."""

    def __init__(self, checkpoints: dict[str, Checkpoint], tick: Callable[[], None] = lambda: None):
        """`tick` is called before every read, in whichever thread reads, and may raise Cancelled."""
        self.checkpoints, self.tick = checkpoints, tick
        self.cancelled = threading.Event()
        self._files: dict[tuple[str, str], int] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            while self._files:
                os.close(self._files.popitem()[1])

    def _open(self, role: str, file: str) -> int:
        with self._lock:
            if (role, file) not in self._files:
                path = self.checkpoints[role].folder / file
                try:
                    self._files[role, file] = os.open(path, os.O_RDONLY)
                except OSError as error:
                    raise ReadError(f"{path} cannot be opened: {error.strerror}.") from error
            return self._files[role, file]

    def read(self, role: str, info: TensorInfo, start: int, count: int) -> torch.Tensor:
        """Elements [start, start + count) of a tensor, flat, in the stored dtype.

        Raises ReadError where the file is shorter than its header says; Cancelled after a stop.
        """
        if self.cancelled.is_set():
            raise Cancelled("Stopped.")
        self.tick()
        out = torch.empty(count, dtype=TORCH[info.dtype])
        view = out.view(torch.uint8).numpy().data
        offset = info.offset + start * out.itemsize
        file, done = self._open(role, info.file), 0
        while done < len(view):
            got = os.preadv(file, [view[done:]], offset + done)
            if got <= 0:
                raise ReadError(
                    f"{self.checkpoints[role].folder / info.file} ended inside tensor {info.name}: it was changed while "
                    "being read. Fetch it again."
                )
            done += got
        return out

    def read_part(self, role: str, part: Part, columns: int, start: int, stop: int) -> torch.Tensor:
        """Like `read`, of the merged rows [start, stop) · columns; rows that the checkpoint lacks are zero."""
        if part.rows is None:
            return self.read(role, part.info, start * columns, (stop - start) * columns)
        rows = part.rows[start:stop]
        out = torch.zeros((stop - start) * columns, dtype=TORCH[part.info.dtype])
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
        for first, last in zip([0, *breaks], [*breaks, len(rows)], strict=True):
            if rows[first] >= 0:
                run = self.read(role, part.info, int(rows[first]) * columns, int(last - first) * columns)
                out[first * columns : last * columns] = run
        return out

    def chunks(self, tensor: Aligned, roles: Iterable[str]) -> Iterator[tuple[slice, dict[str, torch.Tensor]]]:
        """The tensor piece by piece: where a piece lies in the flat merged tensor, and each role's part of it."""
        parts = {role: tensor.parts[role] for role in roles}
        by_row = any(part.rows is not None for part in parts.values())
        columns = tensor.numel // tensor.shape[0] if by_row else 1
        length, step = (tensor.shape[0], max(1, CHUNK // columns)) if by_row else (tensor.numel, CHUNK)
        for start in range(0, length, step):
            stop = min(start + step, length)
            where = slice(start * columns, stop * columns)
            yield where, {role: self.read_part(role, part, columns, start, stop) for role, part in parts.items()}

    def mixed(self, tensor: Aligned, mix: Mix) -> Iterator[tuple[slice, torch.Tensor]]:
        """The tensor at a point, piece by piece, in the merged dtype."""
        weights = mix.parts if tensor.merged else {"target_base": 1.0}
        for where, parts in self.chunks(tensor, weights):
            yield where, blend(parts, weights, TORCH[tensor.dtype])


def blend(parts: dict[str, torch.Tensor], weights: dict[str, float], dtype: torch.dtype) -> torch.Tensor:
    """Σ coefficient · part: in float64, rounded once to the dtype. One part of that dtype at 1 passes bit by bit.

    Where m_s takes part the sum is taken as the plane's formula has it, (m_s + β·(m_t − m_s)) + α·(m'_s − m_s):
    differences are exact in float64, so where Δ is zero the merged model is m_t to the bit.
    """
    if list(weights.values()) == [1.0]:
        only = parts[next(iter(weights))]
        return only if only.dtype == dtype else round_once(only.double(), dtype)
    base = parts["source_base"].to(torch.float64) if "source_base" in weights else None
    total = base.clone() if base is not None else torch.zeros(len(next(iter(parts.values()))), dtype=torch.float64)
    for role in ("target_base", "source_tuned", "target_tuned"):
        if role in weights:
            term = parts[role].to(torch.float64)
            total.add_((term - base if base is not None else term).mul_(weights[role]))
    return round_once(total, dtype)


def round_once(exact: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """float64 → dtype to nearest even, with one rounding.

    torch goes to the 16-bit types by way of float32 and so rounds twice. Rounding to odd on the way undoes that
    (Boldo and Melquiond 2008): where float32 is inexact, take the neighbour whose last bit is set.
    """
    if dtype in (torch.float64, torch.float32):
        return exact.to(dtype)
    single = exact.to(torch.float32)
    back = single.to(torch.float64)
    bits = single.view(torch.int32)
    bits -= (back.abs() > exact.abs()).to(torch.int32)  # towards zero …
    bits |= (back != exact).to(torch.int32) & torch.isfinite(single).to(torch.int32)  # … then to odd
    return single.to(dtype)


def spread(
    function: Callable[[Item], Result], items: Iterable[Item], stop: threading.Event, threads: int = THREADS
) -> Iterator[Result]:
    """function(item) for all of them over threads, in the order in which they end. Closing it early sets `stop`."""
    pool = ThreadPoolExecutor(threads)
    waiting = {pool.submit(function, item) for item in items}
    try:
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    finally:
        if waiting:
            stop.set()
        pool.shutdown(cancel_futures=True)
