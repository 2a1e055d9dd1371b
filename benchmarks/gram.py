"""The Gram pass over four synthetic checkpoints: against the naive way, against reading alone, and on two threads.

GB/s count the bytes of all four. The naive way takes whole tensors in float32 and one product after another. The limit
is what a compiled loop reads out of the mapped files and only xors. All are on one thread but for the speed-up, each
the best of some runs that take turns, since other work comes and goes; files are in the page cache.
"""

import os
import threading
import time
from collections.abc import Callable

import numpy as np
import psutil
import torch
from safetensors import safe_open

from analysis.comparison import Comparison
from analysis.gram import gram_pass
from analysis.sample import sample_pass
from transfer.plane import ROLES
from transfer.pull import compiled
from transfer.triple import Triple

from . import synthetic

RUNS = 4
BILLIONS = float(os.environ.get("BILLIONS", "0.5"))


def naive(triple: Triple) -> None:
    """Every inner product of {m_s, Δ, δ, Δ_t}, tensor by tensor: what a notebook does."""
    files = {
        role: [safe_open(c.folder / file, framework="pt") for file in c.files] for role, c in triple.checkpoints.items()
    }
    where = {name: number for number, file in enumerate(files["source_base"]) for name in file.keys()}  # noqa: SIM118
    for name, number in where.items():
        s, f, t, r = (files[role][number].get_tensor(name).float() for role in ROLES)
        vectors = (s, f - s, t - s, r - t)
        for i in range(4):
            for j in range(i, 4):
                (vectors[i] * vectors[j]).sum().item()


@compiled
def xored(words):
    """All of an array's words, so that none is left unread."""
    found = np.uint64(0)
    for i in range(len(words)):
        found ^= words[i]
    return found


def read_mapped(triple: Triple) -> None:
    for checkpoint in triple.checkpoints.values():
        for file in checkpoint.files:
            words = np.memmap(checkpoint.folder / file, np.uint8, "r")
            xored(words[: len(words) // 8 * 8].view(np.uint64))


def anonymous(work: Callable[[], object]) -> float:
    """MB of anonymous memory that work takes above what there was before, at its peak."""
    process, stop, most = psutil.Process(), threading.Event(), 0

    def held() -> int:
        info = process.memory_info()
        return info.rss - info.shared

    before = held()

    def watch() -> None:
        nonlocal most
        while not stop.wait(0.002):
            most = max(most, held() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    work()
    stop.set()
    watcher.join()
    return most / 1e6


def figures() -> dict[str, float]:
    triple = synthetic.triple(BILLIONS)
    gigabytes = sum(c.nbytes for c in triple.checkpoints.values()) / 1e9
    tensors = len(triple.tensors)
    ways: dict[str, Callable[[], object]] = {
        "one": lambda: list(gram_pass(triple, threads=1)),
        "two": lambda: list(gram_pass(triple, threads=2)),
        "limit": lambda: read_mapped(triple),
        "sample": lambda: Comparison(tuple(sample_pass(triple)), tensors).widths(["tensor"]),
    }
    for work in ways.values():  # compiles, and fills the page cache
        work()
    memory = anonymous(ways["two"])
    torch.set_num_threads(1)
    best = dict.fromkeys([*ways, "naive"], float("inf"))
    for turn in range(RUNS):
        for name, work in {**ways, **({"naive": lambda: naive(triple)} if turn < 2 else {})}.items():
            start = time.perf_counter()
            work()
            best[name] = min(best[name], time.perf_counter() - start)
    return {
        "gram_gbps": gigabytes / best["one"],
        "gram_vs_naive": best["naive"] / best["one"],
        "gram_share_of_read_limit": best["limit"] / best["one"],
        "gram_two_thread_speedup": best["one"] / best["two"],
        "gram_anon_mb": memory,
        "sample_seconds": best["sample"],
    }
