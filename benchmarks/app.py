"""From launch to the first page that shows Pocket compared, in a real browser."""

import statistics
import tempfile
import time
from pathlib import Path

from tests import running

RUNS = 3


def once() -> float:
    """Seconds from starting the process until the browser shows the transfer plane of the compared family."""
    with tempfile.TemporaryDirectory() as folder, running.browser() as chromium:
        page = chromium.new_page(viewport={"width": 1440, "height": 900})
        start = time.perf_counter()
        with running.app(Path(folder) / "log.txt") as address:
            page.goto(address)
            page.wait_for_selector("#plane .js-plotly-plot .scatterlayer")
            return time.perf_counter() - start


def figures() -> dict[str, float]:
    return {"app_ready_seconds": statistics.median(once() for _ in range(RUNS))}
