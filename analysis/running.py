"""How a live model is run while it is scored: in batches of like length that a machine does in about a second."""

from collections.abc import Callable, Iterator, Sequence

from transfer.live import LiveModel
from transfer.watch import watched

__all__ = ["at_once", "batches", "watched"]
WORK = 2**42  # bytes of weights times tokens: what a CPU may do in one pass, about a second in its largest part


def at_once(live: LiveModel, most: int) -> int:
    """How many tokens one pass should take: `most`, and on a CPU the fewer the larger the model is."""
    return most if live.device != "cpu" else max(1, min(most, WORK // live.nbytes))


def batches(
    lengths: Sequence[int], rows: int, tokens: int, fits: Callable[[list[int]], bool] = lambda batch: True
) -> Iterator[list[int]]:
    """Indices in batches of like length, the shortest first and the longest of a batch last: at most so many rows, and tokens
    with their padding, and whatever else `fits` says of the indices; a batch has one at least."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        grown = [*batch, i]
        if batch and not (len(grown) <= rows and len(grown) * lengths[i] <= tokens and fits(grown)):
            yield batch
            grown = [i]
        batch = grown
    if batch:
        yield batch
