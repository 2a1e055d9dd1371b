"""What a server says in JSON: the pieces of an answer, the names of its models, the words of an error.

It is foreign, so no shape is relied on: what is odd counts as not said, and an answer has an end.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from .address import Endpoint
from .errors import ChatError
from .refusals import sentence

LONGEST = 1_000_000  # characters of an answer


@dataclass(frozen=True)
class Piece:
    """What came at one moment, and what is known by then. The last one has no text, and the reason for the end.

    `tokens` counts pieces of text until the server gives its own count; `finish` is "stop", "length", … or None where the
    server gives no reason; `model` is what the server calls itself; `without` names what it would not be told.
    """

    text: str = ""
    thought: bool = False  # said to itself, before the answer
    tokens: int = 0
    finish: str | None = None
    model: str = ""
    fingerprint: str = ""
    without: tuple[str, ...] = ()


class Reply:
    """An answer as far as it has come: `known` is its last piece, should it end here. Says each piece that has text."""

    def __init__(self, endpoint: Endpoint, say: Callable[[Piece], None], without: tuple[str, ...]):
        self.endpoint, self.say = endpoint, say
        self.known, self.length = Piece(without=without), 0

    def take(self, said: str) -> None:
        """Take in what one event brings. Raises ChatError for an error that it holds, and for what is no answer."""
        chunk = parsed(said)
        if not isinstance(chunk, dict):
            raise ChatError(f"{self.endpoint} sent what is no JSON of a chat{sentence(self.endpoint, said)}")
        if chunk.get("error") or chunk.get("object") == "error":
            words = sentence(self.endpoint, message(chunk))
            raise ChatError(f"{self.endpoint} broke off with an error of its own{words} What came until then is kept.")
        self.learn(model=self.name(chunk.get("model")), fingerprint=self.name(chunk.get("system_fingerprint")))
        choice = next(iter(listed(chunk.get("choices"))), {})
        delta = choice.get("delta") or choice.get("message")  # a whole message where it was asked for a stream in vain
        delta = delta if isinstance(delta, dict) else {}
        thoughts = delta.get("reasoning_content") or delta.get("reasoning")
        for text, thought in ((thoughts, True), (delta.get("content"), False)):
            if isinstance(text, str) and text:
                self.length += len(text)
                if self.length > LONGEST:
                    most = f"{LONGEST:,} characters and was cut off. What came until then is kept."
                    raise ChatError(f"{self.endpoint} has said more than {most}")
                self.learn(tokens=self.known.tokens + 1)
                self.say(replace(self.known, text=text, thought=thought, finish=None))
        usage = chunk.get("usage")
        count = usage.get("completion_tokens") if isinstance(usage, dict) else None
        is_count = type(count) is int and count > 0
        self.learn(finish=self.name(choice.get("finish_reason")), tokens=count if is_count else 0)

    def learn(self, **what: Any) -> None:
        self.known = replace(self.known, **{name: value for name, value in what.items() if value})

    def name(self, said: Any) -> str:
        return self.endpoint.clean(said) if isinstance(said, str) else ""


def names(endpoint: Endpoint, said: bytes) -> list[str]:
    """The models that a server lists. Raises ChatError."""
    found = parsed(said)
    data = found.get("data") if isinstance(found, dict) else None
    if not isinstance(data, list):
        raise ChatError(f"{endpoint} does not list its models as an OpenAI-compatible API does. Type the model's name.")
    ids = [item.get("id") for item in listed(data)]
    return [endpoint.clean(name) for name in ids if isinstance(name, str) and name]


def message(body: Any) -> str:
    """The words in an error's JSON, in whichever way servers put them: OpenAI's, FastAPI's or plainly."""
    if isinstance(body, list):  # FastAPI's, whose items also hold all that it was sent
        parts = [(" ".join(map(str, item.get("loc") or [])), str(item.get("msg") or "")) for item in listed(body)]
        return "; ".join(": ".join(filter(None, part)) for part in parts)
    if not isinstance(body, dict):
        return body if isinstance(body, str) else ""
    return next((words for key in ("error", "detail", "message") if (words := message(body.get(key)))), "")


def parsed(said: str | bytes) -> Any:
    """JSON's value; None for what is no JSON."""
    try:
        return json.loads(said)
    except (ValueError, RecursionError):
        return None


def listed(value: Any) -> list[dict]:
    """The objects of a JSON list; none where it is no list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
