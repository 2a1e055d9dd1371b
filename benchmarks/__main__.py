"""Run every benchmark of this folder, print its figures, and write them as one flat object of name → number."""

import json
import platform
from pathlib import Path

from . import alpha, app, chat, compare, gram, hub, sweep

RESULTS = Path(__file__).with_name("results.json")


def main() -> None:
    figures: dict[str, float] = {}
    for module in (app, compare, gram, hub, sweep, chat, alpha):
        print((module.__doc__ or "").splitlines()[0])
        for name, value in module.figures().items():
            figures[name] = round(value, 4)
            print(f"  {name} = {value:.4g}")
    RESULTS.write_text(json.dumps(figures, indent=2) + "\n")
    print(f"Written to {RESULTS.name}; {platform.machine()}, Python {platform.python_version()}.")


main()
