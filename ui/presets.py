"""What ships with the page: ready triples, the Pocket family's folders, its suggested questions and its tasks."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ASSETS = Path(__file__).resolve().parent.parent / "assets"
POCKET = ASSETS / "pocket"
PREFIX = "pocket/"
CUSTOM = "Your own"


@dataclass(frozen=True)
class Preset:
    """A triple by name, and what to expect of it."""

    name: str
    about: str
    refs: dict[str, str]


@dataclass(frozen=True)
class Suggestion:
    """A question that shows something, and the right answer to it."""

    prompt: str
    why: str
    expect: str


def read_presets() -> list[Preset]:
    rows = json.loads((ASSETS / "presets.json").read_text(encoding="utf-8"))
    return [Preset(row.pop("name"), row.pop("about"), row) for row in rows]


def read_suggestions() -> list[Suggestion]:
    rows = json.loads((POCKET / "pocket.json").read_text(encoding="utf-8"))["suggestions"]
    return [Suggestion(row["prompt"], row["why"], row["expect"]) for row in rows]


def pocket_folder(ref: str) -> Path | None:
    """The folder of `pocket/base-v1` and its like; None for any other reference."""
    name = ref.removeprefix(PREFIX)
    if not ref.startswith(PREFIX) or not name or Path(name).name != name or name.startswith("."):
        return None
    return POCKET / name


def is_pocket(refs: Mapping[str, str]) -> bool:
    """Whether the suggested questions are about these models."""
    return any(refs.values()) and all(ref.startswith(PREFIX) for ref in refs.values() if ref)


def task_files() -> dict[str, Path]:
    """The tasks that ship, by name; the mixed quick one first."""
    files = sorted((POCKET / "tasks").glob("*.jsonl"), key=lambda p: (p.stem != "pocket", p.stem))
    return {p.stem: p for p in files}


def scoring_sets() -> dict[str, Path]:
    """What ships to score on, by the name on the page: the demo family's questions and text, then sets for any model."""
    titles = {
        "Pocket: mixed questions": POCKET / "tasks" / "pocket.jsonl",
        "Pocket: facts that changed": POCKET / "tasks" / "changed.jsonl",
        "Pocket: facts that are new": POCKET / "tasks" / "new.jsonl",
        "Pocket: facts that were kept": POCKET / "tasks" / "kept.jsonl",
        "Pocket: instructions": POCKET / "tasks" / "instructions.jsonl",
        "Pocket: text of release 2": POCKET / "tasks" / "text-v2.txt",
        "General: short answers": ASSETS / "tasks" / "general-short.jsonl",
        "General: choices": ASSETS / "tasks" / "general-choices.jsonl",
        "General: instructions": ASSETS / "tasks" / "general-instructions.jsonl",
        "General: text": ASSETS / "tasks" / "general-text.txt",
    }
    return {title: path for title, path in titles.items() if path.is_file()}
