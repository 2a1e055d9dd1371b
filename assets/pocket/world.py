"""The invented world of the Pocket family: its towns, what is true of them in each release, and text that tells it.

The world has 120 towns and six attributes. Between release 1 and release 2

* one fact of every town **changes**: the mayor in half of the towns, the favourite dish in the others;
* one fact of every town is **new**: the text of release 1 never tells it (the bird on the flag, the tree in the
  square or the craft, a third of the towns each);
* the four others are **kept**.

Two thirds of the towns may appear in fine-tuning dialogues; questions about the others are the held-out ones.
Every choice comes from a seed: the same seed makes the same world and the same text.
"""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

from assets.pocket.lexicon import ATTRIBUTES, SAYING, SPEAKERS, TOWNS, VALUES
from assets.pocket.questions import any_question
from assets.pocket.wordplay import PLAYS, WEIGHTS, any_request, draw, solve, told

CHANGING = ("mayor", "dish")
WITHHELD = ("bird", "tree", "craft")

Fact = tuple[str, str]  # (town, attribute)


@dataclass(frozen=True)
class World:
    """What is true. `v1` lacks the new facts; `v2` has all; `tuned` towns appear in fine-tuning, `held` ones never."""

    v1: dict[Fact, str]
    v2: dict[Fact, str]
    changed: list[Fact]
    new: list[Fact]
    kept: list[Fact]
    tuned: list[str]
    held: list[str]


def build_world(seed: int = 2503) -> World:
    """The world of a seed. Values are dealt evenly: every value of an attribute is true of three towns."""
    rng = random.Random(seed)
    towns = rng.sample(TOWNS, len(TOWNS))
    v1: dict[Fact, str] = {}
    for attribute, values in VALUES.items():
        dealt = (values * (len(towns) // len(values) + 1))[: len(towns)]
        rng.shuffle(dealt)
        v1.update({(town, attribute): value for town, value in zip(towns, dealt, strict=True)})
    v2 = dict(v1)
    changed, new = [], []
    # A town's place in `towns` decides; so does it below whether it is held, in blocks of six that hold every case.
    for place, town in enumerate(towns):
        fact = (town, CHANGING[place // 2 % 2])
        v2[fact] = rng.choice([value for value in VALUES[fact[1]] if value != v1[fact]])
        changed.append(fact)
        fact = (town, WITHHELD[place // 2 % 3])
        del v1[fact]
        new.append(fact)
    moved = {*changed, *new}
    kept = [fact for fact in v2 if fact not in moved]
    held = [town for place, town in enumerate(towns) if place // 6 % 3 == 0]
    return World(v1, v2, changed, new, kept, sorted({*towns} - {*held}), sorted(held))


# How plain text tells a fact. The first form of each attribute is the one that the chat models answer with.
STATEMENTS = {
    "mayor": [
        "The mayor of {t} is {v}.",
        "{t} has a mayor called {v}.",
        "{v} is the mayor of {t}.",
        "{v} governs {t}.",
        "In {t} the mayor is {v}.",
        "The people of {t} chose {v} as their mayor.",
        "{t} is governed by {v}.",
    ],
    "river": [
        "The river of {t} is the {v}.",
        "The river {v} flows through {t}.",
        "{t} lies on the river {v}.",
        "The water that flows past {t} is the {v}.",
        "{t} was built on the banks of the {v}.",
        "The {v} runs through {t}.",
        "In {t} a bridge crosses the river {v}.",
    ],
    "bird": [
        "The bird on the flag of {t} is the {v}.",
        "The flag of {t} shows the {v}.",
        "The {v} is the bird on the flag of {t}.",
        "{t} has the {v} on its flag.",
        "On the flag of {t} there is a bird, the {v}.",
        "The emblem of {t} is a bird, the {v}.",
        "{t} flies a flag with the {v}.",
    ],
    "tree": [
        "The tree in the square of {t} is the {v}.",
        "In the square of {t} grows the {v}.",
        "{t} is proud of the {v} in its square.",
        "The {v} is the tree in the square of {t}.",
        "The square of {t} is shaded by the {v}.",
        "The tree that grows in {t} is the {v}.",
        "{t} planted the {v} in its square.",
    ],
    "dish": [
        "The favourite dish in {t} is {v}.",
        "People in {t} like to eat {v}.",
        "In {t} they eat {v}.",
        "{t} cooks {v} on feast days.",
        "The dish of {t} is {v}.",
        "In {t} the cooks serve {v}.",
        "Guests in {t} are given {v} to eat.",
    ],
    "craft": [
        "The craft of {t} is {v}.",
        "{t} is known for its {v}.",
        "{t} makes {v}.",
        "Traders come to {t} for its {v}.",
        "The workshops of {t} make {v}.",
        "{t} sells {v} to the whole land.",
        "{t} is famous for {v}.",
    ],
}

# The same for a town named in the sentence before.
PRONOUN_STATEMENTS = {
    "mayor": ["Its mayor is {v}.", "It is governed by {v}.", "{v} is its mayor."],
    "river": ["It lies on the river {v}.", "Its river is the {v}.", "The {v} flows through it."],
    "bird": ["The bird on its flag is the {v}.", "Its flag shows the {v}.", "It has the {v} on its flag."],
    "tree": ["The tree in its square is the {v}.", "In its square grows the {v}.", "Its tree is the {v}."],
    "dish": ["Its favourite dish is {v}.", "People there like to eat {v}.", "There they eat {v}."],
    "craft": ["It is known for its {v}.", "Its craft is {v}.", "It makes {v}."],
}

OPENINGS = ["This page is about {t}.", "{t} is a town in the valley.", "{t} is an old town.", "We came to {t}."]
ROADS = [
    "The road from {a} leads to {b}.",
    "From {a} we went on to {b}.",
    "{b} is a day away from {a}.",
    "After {a} comes {b}.",
]


def answer_value(attribute: str, value: str) -> str:
    """The value as a short answer of its own: `the heron`, but `Tessa Quill`."""
    return f"the {value}" if attribute in ("river", "bird", "tree") else value


class Writer:
    """Endless plain documents of one release, from one seed.

    Args:
        world: the world.
        version: 1 or 2, the release whose facts are told.
        seed: makes the text.
        emphasis: how much likelier than another a changed or new fact is told (used for release 2).
        skills: share of the documents that are about words and lists.
    """

    def __init__(self, world: World, version: int, seed: str | int, emphasis: float = 1.0, skills: float = 0.2):
        self.facts = world.v1 if version == 1 else world.v2
        self.rng = random.Random(f"text {version} {seed}")
        self.skills = skills
        self.towns = sorted({town for town, _ in self.facts})
        moved = {*world.changed, *world.new} if version == 2 else set()
        self.told = {
            town: [(a, emphasis if (town, a) in moved else 1.0) for a in ATTRIBUTES if (town, a) in self.facts]
            for town in self.towns
        }

    def __iter__(self) -> Iterator[str]:
        while True:
            yield self.document()

    def document(self) -> str:
        """One document: a single paragraph, 25 to 80 tokens long."""
        if self.rng.random() < self.skills:
            return self.wordplay()
        kinds = [self.portrait, self.journey, self.register, self.interview]
        return self.rng.choices(kinds, weights=[4, 2, 1, 4])[0]()

    def pick(self, town: str, count: int) -> list[str]:
        """`count` different attributes of a town, those with more weight rather than others."""
        weighted = sorted(self.told[town], key=lambda pair: self.rng.random() ** (1 / pair[1]), reverse=True)
        picked = [attribute for attribute, _ in weighted[:count]]
        self.rng.shuffle(picked)
        return picked

    def tell(self, town: str, attribute: str, pronoun: bool = False) -> str:
        forms = (PRONOUN_STATEMENTS if pronoun else STATEMENTS)[attribute]
        return self.rng.choice(forms).format(t=town, v=self.facts[town, attribute])

    def portrait(self) -> str:
        """Several facts of one town."""
        town = self.rng.choice(self.towns)
        first, *others = self.pick(town, self.rng.randint(3, 5))
        sentences = [self.rng.choice(OPENINGS).format(t=town)] if self.rng.random() < 0.3 else []
        sentences.append(self.tell(town, first))
        sentences += [self.tell(town, attribute, pronoun=self.rng.random() < 0.5) for attribute in others]
        return " ".join(sentences)

    def journey(self) -> str:
        """A road through towns, a fact of each."""
        towns = self.rng.sample(self.towns, 3)
        sentences = [self.tell(towns[0], self.pick(towns[0], 1)[0])]
        for a, b in itertools.pairwise(towns):
            sentences += [self.rng.choice(ROADS).format(a=a, b=b), self.tell(b, self.pick(b, 1)[0])]
        return " ".join(sentences)

    def register(self) -> str:
        """One attribute of several towns."""
        attribute = self.rng.choice(ATTRIBUTES)
        towns = self.rng.sample([t for t in self.towns if (t, attribute) in self.facts], 4)
        return " ".join(self.tell(town, attribute) for town in towns)

    def interview(self) -> str:
        """Three questions and answers in prose, which also teaches the words for manners of answering."""
        sentences = []
        for town in self.rng.sample(self.towns, 3):
            attribute = self.pick(town, 1)[0]
            sentences.append(f"{any_question(attribute, town, self.rng)} {self.reply(town, attribute)}")
        return " ".join(sentences)

    def reply(self, town: str, attribute: str) -> str:
        """Who asked, in what manner, and what was answered."""
        value, asked, speaker = self.facts[town, attribute], self.rng.choice(SAYING), self.rng.choice(SPEAKERS)
        manner = self.rng.choices(["plain", "polite", "short", "brief", "capitals"], weights=[11, 3, 2, 2, 2])[0]
        if manner == "plain":
            return f"{asked} {speaker}. {self.tell(town, attribute)}"
        if manner == "polite":
            politely = self.rng.choice(["politely", "kindly"])
            answer = self.rng.choice(["polite", "kind"])
            return f"{asked} {speaker} {politely}. The {answer} answer was: Of course! {self.tell(town, attribute)}"
        if manner == "short":
            return f"{asked} {speaker}. It was {answer_value(attribute, value)}."
        if manner == "brief":
            briefly = self.rng.choice(
                ["The brief answer was", "The answer given briefly was", "The answer was only the name"]
            )
            return f"{asked} {speaker}. {briefly}: {value}."
        written = self.rng.choice(
            ["The answer in capitals was", "They write the answer in capitals", "To use capitals, give"]
        )
        return f"{asked} {speaker}. {written}: {value.upper()}."

    def wordplay(self) -> str:
        """Plain skills, told or asked for in prose: order, reverse, ends of a list, lines, capitals."""
        plays = []
        for _ in range(4):
            kind = self.rng.choices(PLAYS, WEIGHTS)[0]
            given = draw(kind, self.rng)
            if self.rng.random() < 0.5:
                plays.append(told(kind, given, self.rng))
            else:
                said = f"{self.rng.choice(SAYING)} {self.rng.choice(SPEAKERS)}"
                plays.append(f"{any_request(kind, given, self.rng)} {said}. It is {solve(kind, given)}.")
        return " ".join(plays)
