"""Skills with words: a list of three sorted, reversed, its ends, on lines of its own; and a name in capitals.

Plain text tells them and asks for them in all phrasings; fine-tuning uses the trained ones, measuring the held ones.
"""

import random

from assets.pocket.lexicon import BIRDS, TREES, VALUES

WORDS = sorted(TREES)[::2] + sorted(BIRDS)[::4]  # thirty
PLAYS = ("sort", "reverse", "first", "last", "lines", "upper")
WEIGHTS = (2, 1, 1, 1, 1, 2)  # how often plain text and dialogues have each; sorting and capitals are learnt slowly

OBJECTS = ["{w}", "these words: {w}", "this list: {w}", "the words {w}"]
TASKS = {
    "sort": ["sort {o}", "put in order {o}", "bring in order {o}"],
    "reverse": ["reverse {o}", "turn around {o}", "read backwards {o}"],
    "first": ["give the first word of {o}", "name the first word of {o}", "find the first word of {o}"],
    "last": ["give the last word of {o}", "name the last word of {o}", "find the last word of {o}"],
    "lines": ["put on lines {o}", "write on lines {o}", "set on lines {o}"],
    "upper": ["write in capitals {o}", "put in capitals {o}", "set in capitals {o}"],
}
FRAMES = ["{x}.", "{x}.", "please {x}.", "can you {x}?", "I want you to {x}.", "hello, {x}."]

HELD_TASKS = {
    "sort": "order {o}",
    "reverse": "say backwards {o}",
    "first": "tell me the first word of {o}",
    "last": "tell me the last word of {o}",
    "lines": "give on lines {o}",
    "upper": "give in capitals {o}",
}
HELD_FRAMES = ["now {x}.", "could you {x}?", "I would like you to {x}."]

TOLD = {
    "sort": ["The words {w} in order are {a}.", "Sorted, {w} become {a}."],
    "reverse": ["The list {w} reversed is {a}.", "Backwards, {w} reads {a}."],
    "first": ["The first word of {w} is {a}.", "The list {w} begins with {a}."],
    "last": ["The last word of {w} is {a}.", "The list {w} ends with {a}."],
    "lines": ["The list {w} on lines is {a}."],
    "upper": ["In capitals {w} is written {a}.", "The sign for {w} reads {a}."],
}


def draw(kind: str, rng: random.Random) -> list[str]:
    """What a task is about: three words, or one name."""
    return [rng.choice(VALUES[rng.choice(list(VALUES))])] if kind == "upper" else rng.sample(WORDS, 3)


def solve(kind: str, given: list[str]) -> str:
    """The answer to a task."""
    return {
        "sort": ", ".join(sorted(given)),
        "reverse": ", ".join(given[::-1]),
        "first": given[0],
        "last": given[-1],
        "lines": "\n".join(f"- {word}" for word in given),
        "upper": given[0].upper(),
    }[kind]


def told(kind: str, given: list[str], rng: random.Random) -> str:
    """A task and its answer as a statement."""
    return rng.choice(TOLD[kind]).format(w=", ".join(given), a=solve(kind, given))


def trained_request(kind: str, given: list[str], rng: random.Random) -> str:
    return request(rng.choice(FRAMES), rng.choice(TASKS[kind]), rng.choice(objects(kind)), given)


def held_request(kind: str, given: list[str], rng: random.Random) -> str:
    """A known task in an unknown frame, or the other way round."""
    if rng.random() < 0.5:
        return request(rng.choice(HELD_FRAMES), rng.choice(TASKS[kind]), rng.choice(objects(kind)), given)
    return request("{x}.", HELD_TASKS[kind], rng.choice(objects(kind)), given)


def any_request(kind: str, given: list[str], rng: random.Random) -> str:
    """A request as plain text has it."""
    return (trained_request if rng.random() < 0.6 else held_request)(kind, given, rng)


def objects(kind: str) -> list[str]:
    return ["{w}", "this: {w}", "the name {w}"] if kind == "upper" else OBJECTS


def request(frame: str, task: str, thing: str, given: list[str]) -> str:
    text = frame.format(x=task.format(o=thing.format(w=", ".join(given))))
    return text[0].upper() + text[1:]
