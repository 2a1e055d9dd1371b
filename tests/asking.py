"""Asking an endpoint as a pane does, for its answer or for the sentence that comes instead."""

import threading

import pytest

from transfer.endpoint import Endpoint, Piece, stream
from transfer.errors import ChatError
from transfer.sampling import Sampling

ASK = [{"role": "user", "content": "Who is mayor in Venn?"}]
KEY = "sk-0123-do-not-tell"
DRAWN = Sampling(temperature=0.7, top_p=0.9, max_tokens=12, seed=5)


def ask(url: str, sampling: Sampling = DRAWN, model: str = "served", key: str = KEY) -> list[Piece]:
    return list(stream(Endpoint(url, model, key), ASK, sampling, threading.Event()))


def said(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces if not piece.thought)


def refusal(url: str, **how) -> tuple[str, list[Piece]]:
    """The sentence, and what came before it."""
    pieces: list[Piece] = []
    with pytest.raises(ChatError) as caught:
        for piece in stream(Endpoint(url, "served", **{"key": KEY, **how}), ASK, DRAWN, threading.Event()):
            pieces.append(piece)
    words = str(caught.value)
    assert KEY not in words and "\n" not in words and words.endswith((".", "…")), words
    return words, pieces
