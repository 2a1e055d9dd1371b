"""Pocket compared, from opened headers to the tables of measures."""

import statistics
import time

from analysis.comparison import compare
from ui.presets import read_presets
from ui.shared import Shared

RUNS = 9


def figures() -> dict[str, float]:
    triple = Shared().triple(read_presets()[0].refs)

    def once() -> float:
        start = time.perf_counter()
        *_, found = compare(triple)
        assert found.exact and len(found.frame()) and found.total["norm_delta"] > 0
        return time.perf_counter() - start

    once()
    return {"pocket_compare_seconds": statistics.median(once() for _ in range(RUNS))}
