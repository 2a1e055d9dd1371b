"""Heavy work on shared hardware: decompositions take turns, and on a hosted page none may keep others waiting."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from transfer.errors import TripleError
from transfer.hub import HOSTED

TURNS = threading.Semaphore(2)  # decompositions at once, those that were stopped but have not ended yet included
MOST_SECONDS = 60  # of one decomposition on a hosted page


@contextmanager
def alone(tick: Callable[[], None]) -> Iterator[None]:
    """Wait for one's turn: a decomposition that was stopped may still be at its last step, which cannot be cut short."""
    while not TURNS.acquire(timeout=0.2):
        tick()
    try:
        yield
    finally:
        TURNS.release()


def affordable(seconds: float) -> None:
    """Raises TripleError on a hosted page for what would keep others waiting."""
    if HOSTED and seconds > MOST_SECONDS:
        raise TripleError(
            f"This would take about {seconds:.0f} s, and on this hosted page {MOST_SECONDS} s are the most. Run the app on a "
            "machine of your own for it."
        )
