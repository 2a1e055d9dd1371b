"""A conversation's set-up as a query string, and back: models, panes, prompt, sampling. Never a key, and never an answer.

    ?source_base=…&source_tuned=…&target_base=…&target_tuned=…
    &panes=source_base;target_base;0.8,1;1,1~1,0.5,0.75,1;http://127.0.0.1:8000/v1|name
    &prompt=…&system=…&manner=own&temperature=0.7&top_p=1&max_tokens=48&seed=3&blind=1&remember=0

A pane is a corner's name, α,β, the same with a schedule (the factor outside of the layers, then one for each), or an
endpoint's address and model; after a ! its own temperature, top-p, tokens and seed. What a link leaves out is as on a fresh page.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlencode

from transfer.endpoint import Endpoint
from transfer.errors import ChatError
from transfer.plane import CORNERS, ROLES, Mix, Schedule, point
from transfer.sampling import Sampling
from transfer.talk import FEWEST, MOST, Pane, Way

from .desk import LONGEST, sampling_of, way_of
from .inputs import number, words

LONGEST_LINK = 60_000  # characters
DEFAULTS = Sampling(max_tokens=48)
MOST_LAYERS = 1000  # of a schedule


@dataclass(frozen=True)
class Setup:
    """What a link restores. No panes: those of a fresh page."""

    refs: Mapping[str, str]
    panes: tuple[Pane, ...]
    prompt: str
    way: Way
    blind: bool = False


def query(setup: Setup) -> str:
    """The query string, without its question mark. Raises ChatError for what no link can hold."""
    one = setup.way
    fields = {
        **{role: setup.refs.get(role, "") for role in ROLES},
        "panes": ";".join(map(pane_text, setup.panes)),
        "prompt": setup.prompt,
        "system": one.system,
        "manner": one.manner,
        **{name: repr(value) for name, value in one.sampling.model_dump().items()},
        "blind": "1" if setup.blind else "",
        "remember": "" if one.remember else "0",
    }
    text = urlencode({name: value for name, value in fields.items() if value})
    if len(text) > LONGEST_LINK:
        raise ChatError(
            f"The link would have {len(text):,} characters; at most {LONGEST_LINK:,} are read. Shorten the prompt."
        )
    return text


def parse(text: str) -> Setup | None:
    """What a query string asks for; None where it names no models. Raises TransferscopeError that names the field."""
    if len(text) > LONGEST_LINK:
        raise ChatError(f"This link has {len(text):,} characters; at most {LONGEST_LINK:,} are read.")
    try:
        given = {name: values[-1] for name, values in parse_qs(text.lstrip("?"), max_num_fields=100).items()}
    except ValueError as error:
        raise ChatError("This link has too many fields to be one of ours.") from error
    if not any(given.get(role) for role in ROLES):
        return None
    fields: list[Any] = [given.get(name, value) for name, value in DEFAULTS.model_dump().items()]
    fields += [given.get("system", ""), given.get("manner", "own"), given.get("remember") != "0"]
    way = way_of(*fields)
    panes = panes_of(given["panes"].split(";")) if given.get("panes") else ()
    refs = {role: words(given.get(role, ""), role, 400) for role in ROLES}
    return Setup(refs, panes, words(given.get("prompt", ""), "The prompt", LONGEST), way, given.get("blind") == "1")


def pane_text(pane: Pane) -> str:
    """A pane in a link. Raises ChatError for one that cannot be told there."""
    own = "!" + ",".join(repr(value) for value in pane.sampling.model_dump().values()) if pane.sampling else ""
    return who_text(pane) + own


def who_text(pane: Pane) -> str:
    """Who sits there. Raises ChatError."""
    at = pane.at
    if isinstance(at, Endpoint):
        return quote(f"{at.url}|{at.model}", safe=":/|")
    if at.corner and not pane.point:
        return at.corner
    if at.control or not at.plane:
        raise ChatError(f"A link cannot tell the pane at {at}. Set it to a point, then make the link.")
    text = ",".join(map(repr, at.plane))
    if at.schedule:
        text += "~" + ",".join(map(repr, (at.schedule.outside, *at.schedule.layers)))
    return text


def panes_of(texts: Sequence[str]) -> tuple[Pane, ...]:
    """Raises TransferscopeError."""
    if not FEWEST <= len(texts) <= MOST:
        raise ChatError(f"This link asks for {len(texts)} panes, and there are from {FEWEST} to {MOST}.")
    found = []
    for i, text in enumerate(texts):
        who, _, own = text.strip().partition("!")
        numbers = own.split(",") if own else []
        if numbers and len(numbers) != 4:
            raise ChatError(f"This link has a pane “{text[:60]}” whose sampling is not four numbers.")
        found.append(Pane(f"l{i}", *seat_of(who), sampling=sampling_of(*numbers) if numbers else None))
    return tuple(found)


def seat_of(text: str) -> tuple[Mix | Endpoint, bool]:
    """Who sits in a pane, and whether as a point. Raises TransferscopeError."""
    if text in CORNERS:
        return CORNERS[text], False
    if text.startswith(("http://", "https://", "http%3A", "https%3A")):
        url, _, model = unquote(text).partition("|")
        return Endpoint(url, words(model, "Model", 400)), False
    place, _, factors = text.partition("~")
    try:
        alpha, beta = place.split(",")
    except ValueError as error:
        raise ChatError(
            f"This link has a pane “{text[:60]}” that is neither a corner, nor α,β, nor an address."
        ) from error
    mix = point(number(alpha, "α", -10, 10), number(beta, "β", -10, 10))
    if not factors:
        return mix, True
    if factors.count(",") > MOST_LAYERS:
        raise ChatError(f"This link has a schedule of more than {MOST_LAYERS:,} layers.")
    outside, *layers = (number(f, "A factor of a schedule", -10, 10) for f in factors.split(","))
    return Mix(mix.coefficients, Schedule(tuple(layers), outside)), True
