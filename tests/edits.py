"""Changes to a checkpoint's files, to make them right in another way, or wrong."""

import json
from pathlib import Path

from transfer.checkpoint import INDEX, SINGLE

WHOLE = "weights.safetensors"


def change(folder: Path, name: str, **values) -> None:
    """Write values into a JSON file."""
    path = folder / name
    old = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(old | values))


def write_index(folder: Path, weight_map: object) -> None:
    """An index, and the one file under another name: beside an index transformers reads `model.safetensors`, and so do we."""
    (folder / SINGLE).rename(folder / WHOLE)
    change(folder, INDEX, weight_map=weight_map)
