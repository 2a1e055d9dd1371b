"""One Gram pass over the Pocket family, from opened headers to the table of measures."""

import statistics
import time

from analysis.geometry import by_tensor, tensor_table, total
from analysis.gram import gram_pass
from ui.presets import read_presets
from ui.shared import Shared

RUNS = 9


def figures() -> dict[str, float]:
    triple = Shared().triple(read_presets()[0].refs)

    def once() -> float:
        start = time.perf_counter()
        table = tensor_table(gram_pass(triple))
        total(table), by_tensor(table)
        return time.perf_counter() - start

    once()
    return {"pocket_compare_seconds": statistics.median(once() for _ in range(RUNS))}
