"""What the family is measured on: held-out questions as JSON Lines tasks, and held-out text.

Questions are about towns that never stood in a fine-tuning dialogue, in phrasings that never stood in one.
"""

import json
import random
from pathlib import Path

from assets.pocket.chat import STYLES, Turn, ask, skill, styled
from assets.pocket.questions import HELD
from assets.pocket.release import write_whole
from assets.pocket.wordplay import PLAYS
from assets.pocket.world import Fact, World, Writer

KINDS = ("changed", "new", "kept", "instruction")
FILES = {"changed": "changed.jsonl", "new": "new.jsonl", "kept": "kept.jsonl", "instruction": "instructions.jsonl"}
QUICK = 15  # of each kind in pocket.jsonl


def fact_items(world: World, kind: str, facts: list[Fact], limit: int, rng: random.Random) -> list[dict]:
    """Every fact in three of its held phrasings, or as many as `limit`; the answer is release 2's."""
    held = set(world.held)
    pairs = [(fact, form) for fact in sorted(facts) if fact[0] in held for form in rng.sample(HELD[fact[1]], 3)]
    pairs = pairs if len(pairs) <= limit else rng.sample(pairs, limit)
    return [
        {
            "id": f"{kind}-{number:03}",
            "prompt": form.format(t=fact[0]),
            "answer": styled(fact[1], fact[0], world.v2[fact], None),
            "kind": kind,
        }
        for number, (fact, form) in enumerate(pairs)
    ]


def instruction_items(world: World, each: int, rng: random.Random) -> list[dict]:
    """`each` tasks of every style and skill. A style is asked for with a kept fact; any value in it is right."""
    held = set(world.held)
    kept = [fact for fact in sorted(world.kept) if fact[0] in held]
    turns: list[tuple[str, Turn]] = []
    for style in STYLES:
        turns += [(style, ask(fact, world.v2[fact], rng, style, held=True)) for fact in rng.sample(kept, each)]
    for kind in PLAYS:
        turns += [(kind, skill(kind, rng, held=True)) for _ in range(each)]
    return [
        {
            "id": f"instruction-{name}-{number:03}",
            "prompt": turn.prompt,
            "answer": turn.answers[0] if len(turn.answers) == 1 else list(turn.answers),
            "kind": "instruction",
        }
        for number, (name, turn) in enumerate(turns)
    ]


def make_exam(world: World, seed: int = 11) -> dict[str, list[dict]]:
    """Items by kind: 120 each of changed, new and kept facts, 162 instructions."""
    rng = random.Random(f"exam {seed}")
    return {
        "changed": fact_items(world, "changed", world.changed, 120, rng),
        "new": fact_items(world, "new", world.new, 120, rng),
        "kept": fact_items(world, "kept", world.kept, 120, rng),
        "instruction": instruction_items(world, 18, rng),
    }


def old_answers(world: World, items: list[dict]) -> list[str]:
    """For items of the kind `changed`: what release 1 would have answered."""
    sentences = {styled(f[1], f[0], world.v2[f], None): styled(f[1], f[0], world.v1[f], None) for f in world.changed}
    return [sentences[item["answer"]] for item in items]


def held_text(world: World, count: int = 100) -> list[str]:
    """Plain documents of release 2 from a seed that no training uses."""
    writer = Writer(world, 2, "held-out text")
    return [writer.document().strip() for _ in range(count)]


def write_exam(world: World, folder: Path) -> dict[str, list[dict]]:
    """Writes the tasks and the text; the quick task `pocket.jsonl` has the first of each kind, spread out."""
    exam = make_exam(world)
    folder.mkdir(parents=True, exist_ok=True)
    files = {FILES[kind]: items for kind, items in exam.items()}
    files["pocket.jsonl"] = [item for kind in KINDS for item in exam[kind][:: len(exam[kind]) // QUICK][:QUICK]]
    for name, items in files.items():
        write_whole(folder / name, "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items))
    write_whole(folder / "text-v2.txt", "\n\n".join(held_text(world)) + "\n")
    return exam
