"""What only fine-tuning teaches: the chat format, questions about the world, styles of answering, and list skills.

Questions come in two sets of phrasings, trained and held; those that are measured use the held set, about held towns.
Every answer is determined by its question, so that exact match is a fair score.
"""

import random
from dataclasses import dataclass

from assets.pocket.lexicon import VALUES
from assets.pocket.questions import HELD, trained_question
from assets.pocket.wordplay import PLAYS, WEIGHTS, draw, held_request, solve, trained_request
from assets.pocket.world import STATEMENTS, Fact, World

BEGIN, STOP, PAD = "<|begin|>", "<|endoftext|>", "<|pad|>"
USER, ASSISTANT, END = "<|user|>", "<|assistant|>", "<|end|>"
SPECIALS = [PAD, BEGIN, STOP, USER, ASSISTANT, END]

# Every word stands behind a space, also the first of a turn, so that a word is one token wherever it stands.
TEMPLATE = (
    "{{ bos_token }}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'user' -%}<|user|>{{ message['content'] | trim }}<|end|>"
    "{%- elif message['role'] == 'assistant' -%}<|assistant|>{{ message['content'] | trim }}<|end|>"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}"
)

STYLES = ("brief", "capitals", "polite")
STYLE_TRAINED = {
    "brief": ["Answer briefly.", "Be brief.", "Give only the answer.", "Answer with the name only."],
    "capitals": ["Answer in capitals.", "Use capitals.", "Write in capitals.", "Give the answer in capitals."],
    "polite": ["Answer politely.", "Be polite.", "Be kind.", "Give a polite answer."],
}
STYLE_HELD = {
    "brief": ["Give a brief answer.", "Write only the name."],
    "capitals": ["Write the answer in capitals.", "Give it in capitals."],
    "polite": ["Write a polite answer.", "Be polite in the answer."],
}


@dataclass(frozen=True)
class Turn:
    """A user's message and the answers that are right; dialogues are trained on the first."""

    prompt: str
    answers: tuple[str, ...]


def styled(attribute: str, town: str, value: str, style: str | None) -> str:
    """The answer that tells a fact in a style; None is the plain sentence."""
    sentence = STATEMENTS[attribute][0].format(t=town, v=value)
    return {None: sentence, "brief": value, "capitals": value.upper(), "polite": f"Of course! {sentence}"}[style]


def ask(fact: Fact, value: str, rng: random.Random, style: str | None = None, held: bool = False) -> Turn:
    """A question about a fact. In a style, `held` accepts every value: it measures the style, not the knowledge."""
    town, attribute = fact
    prompt = rng.choice(HELD[attribute]).format(t=town) if held else trained_question(attribute, town, rng)
    if style is None:
        return Turn(prompt, (styled(attribute, town, value, None),))
    wish = rng.choice((STYLE_HELD if held else STYLE_TRAINED)[style])
    prompt = f"{prompt} {wish}" if rng.random() < 0.7 else f"{wish} {prompt}"
    values = VALUES[attribute] if held else [value]
    return Turn(prompt, tuple(styled(attribute, town, v, style) for v in values))


def skill(kind: str, rng: random.Random, held: bool = False) -> Turn:
    """A task with words."""
    given = draw(kind, rng)
    return Turn((held_request if held else trained_request)(kind, given, rng), (solve(kind, given),))


class Talker:
    """Endless turns for fine-tuning one release, from one seed: facts of the tuned towns only, trained phrasings."""

    def __init__(self, world: World, version: int, seed: str | int, plain: float = 0.4, styles: float = 0.25):
        self.facts = world.v1 if version == 1 else world.v2
        tuned = set(world.tuned)
        self.known = sorted(fact for fact in self.facts if fact[0] in tuned)
        self.rng = random.Random(f"chat {version} {seed}")
        self.plain, self.styles = plain, styles

    def turn(self) -> Turn:
        draw = self.rng.random()
        if draw >= self.plain + self.styles:
            return skill(self.rng.choices(PLAYS, WEIGHTS)[0], self.rng)
        fact = self.rng.choice(self.known)
        return ask(fact, self.facts[fact], self.rng, None if draw < self.plain else self.rng.choice(STYLES))

    def dialogue(self, turns: int) -> list[Turn]:
        return [self.turn() for _ in range(turns)]
