"""Questions about the attributes of a town, in many phrasings.

Plain text asks in all of them. Fine-tuning uses the trained ones; the held ones are for measuring. `{t}` is the town.
"""

import random

# A question is a frame around a thing ("the mayor of Arlow") or a clause ("who governs Arlow"). The many frames make
# the tuned models read what is asked instead of knowing whole questions by heart.
THINGS = {
    "mayor": ["the mayor of {t}", "the mayor in {t}", "the name of the mayor of {t}"],
    "river": ["the river of {t}", "the river in {t}", "the name of the river of {t}"],
    "bird": ["the bird on the flag of {t}", "the bird of {t}", "the bird in the flag of {t}"],
    "tree": ["the tree in the square of {t}", "the tree of {t}", "the tree in {t}"],
    "dish": ["the favourite dish in {t}", "the dish of {t}", "the favourite dish of {t}"],
    "craft": ["the craft of {t}", "the craft in {t}", "the name of the craft of {t}"],
}
CLAUSES = {
    "mayor": ["who is the mayor of {t}", "who governs {t}", "which mayor {t} has", "who the mayor of {t} is"],
    "river": [
        "which river flows through {t}",
        "what the river of {t} is",
        "on which river {t} lies",
        "which river {t} has",
    ],
    "bird": [
        "which bird is on the flag of {t}",
        "what the flag of {t} shows",
        "which bird {t} has on its flag",
        "which bird {t} has",
    ],
    "tree": [
        "which tree is in the square of {t}",
        "what grows in the square of {t}",
        "which tree {t} has in its square",
        "which tree {t} has",
    ],
    "dish": [
        "what the favourite dish in {t} is",
        "what people in {t} like to eat",
        "what they eat in {t}",
        "which dish {t} likes",
    ],
    "craft": ["what {t} is known for", "what the craft of {t} is", "what {t} makes", "what the workshops of {t} make"],
}
DIRECT = {
    "mayor": ["who is the mayor of {t}?", "who governs {t}?", "which mayor does {t} have?", "by whom is {t} governed?"],
    "river": [
        "on which river does {t} lie?",
        "which river flows through {t}?",
        "which river does {t} have?",
        "what river flows past {t}?",
    ],
    "bird": [
        "which bird is on the flag of {t}?",
        "what does the flag of {t} show?",
        "which bird does {t} have?",
        "what is on the flag of {t}?",
    ],
    "tree": [
        "which tree is in the square of {t}?",
        "what grows in the square of {t}?",
        "which tree does {t} have?",
        "what tree grows in {t}?",
    ],
    "dish": [
        "what is the favourite dish in {t}?",
        "what do people in {t} like to eat?",
        "which dish does {t} like?",
        "what do they eat in {t}?",
    ],
    "craft": [
        "what is {t} known for?",
        "what does {t} make?",
        "which craft does {t} have?",
        "what do the workshops of {t} make?",
    ],
}
THING_FRAMES = [
    "what is {x}?",
    "tell me {x}.",
    "name {x}.",
    "give me {x}.",
    "say {x}.",
    "I want to know {x}.",
    "do you know {x}?",
    "can you name {x}?",
    "can you say {x}?",
    "I ask for {x}.",
    "write {x}.",
    "please name {x}.",
]
CLAUSE_FRAMES = [
    "tell me {x}.",
    "do you know {x}?",
    "say {x}.",
    "I want to know {x}.",
    "please say {x}.",
    "I ask {x}.",
    "can you say {x}?",
    "write {x}.",
]
GREETINGS = ["", "", "", "", "Hello. ", "Please help. ", "I have a question. ", "Good day. ", "A question: ", "Hello! "]

HELD_FRAMES = {
    "thing": ["I would like to know {x}.", "please tell me {x}.", "could you tell me {x}?"],
    "clause": ["can you tell me {x}?", "please tell me {x}.", "I would like to know {x}."],
}
HELD_DIRECT = {
    "mayor": ["who is mayor in {t}?", "what is the mayor of {t} called?"],
    "river": ["what river runs through {t}?", "what is the river that flows through {t}?"],
    "bird": ["what bird is on the flag in {t}?", "what bird does the flag of {t} show?"],
    "tree": ["what tree is in the square in {t}?", "what tree grows in the square of {t}?"],
    "dish": ["what dish do people like in {t}?", "what do people eat in {t}?"],
    "craft": ["what is {t} famous for?", "what is made in {t}?"],
}


def sentence_case(text: str) -> str:
    return text[0].upper() + text[1:]


def trained_question(attribute: str, town: str, rng: random.Random) -> str:
    """One of some hundred phrasings of a question."""
    draw = rng.random()
    if draw < 0.4:
        question = rng.choice(DIRECT[attribute])
    elif draw < 0.7:
        question = rng.choice(THING_FRAMES).format(x=rng.choice(THINGS[attribute]))
    else:
        question = rng.choice(CLAUSE_FRAMES).format(x=rng.choice(CLAUSES[attribute]))
    return f"{rng.choice(GREETINGS)}{sentence_case(question).format(t=town)}"


def held_questions(attribute: str) -> list[str]:
    """The phrasings that are measured: other frames, and direct questions in other words."""
    return [
        sentence_case(form)
        for form in (
            *(frame.format(x=THINGS[attribute][0]) for frame in HELD_FRAMES["thing"]),
            *(frame.format(x=CLAUSES[attribute][0]) for frame in HELD_FRAMES["clause"]),
            *HELD_DIRECT[attribute],
        )
    ]


def any_question(attribute: str, town: str, rng: random.Random) -> str:
    """A question as plain text has it, in any words of the language."""
    if rng.random() < 0.6:
        return trained_question(attribute, town, rng)
    return rng.choice(HELD[attribute]).format(t=town)


HELD = {attribute: held_questions(attribute) for attribute in THINGS}
