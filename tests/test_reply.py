"""What servers say in an answer: its pieces with what is known of them, whatever a server adds or leaves out."""

import json

import pytest

from transfer.endpoint import Piece

from .asking import ask, said
from .endpoint_server import DONE, EndpointServer, answer, delta, event


@pytest.fixture
def server():
    with EndpointServer() as found:
        yield found


def test_an_answer_comes_in_pieces_with_its_count_reason_and_names(server):
    server.say(
        *answer("Ada", " Moss", tokens=7)[:-3],
        event({"model": "served", "system_fingerprint": "fp_1", "choices": [{"delta": {}, "finish_reason": "length"}]}),
        event({"choices": [], "usage": {"completion_tokens": 7}}),
        DONE,
    )
    pieces = ask(server.url)
    assert pieces[:2] == [Piece("Ada", tokens=1, model="served"), Piece(" Moss", tokens=2, model="served")]
    assert pieces[2:] == [Piece("", tokens=7, finish="length", model="served", fingerprint="fp_1")]


def test_thoughts_are_marked(server):
    server.say(delta(reasoning_content="Hm"), delta(reasoning="…"), delta(content="Ada"), delta("stop"), DONE)
    pieces = ask(server.url)
    assert [(p.text, p.thought) for p in pieces] == [("Hm", True), ("…", True), ("Ada", False), ("", False)]


def test_what_servers_leave_out_is_no_error(server):
    server.say(delta(content="Ada"), DONE)  # no reason
    assert ask(server.url)[-1] == Piece("", tokens=1, finish=None, model="served")
    server.say(delta(content="Ada"), delta("stop"))  # nothing after it
    assert ask(server.url)[-1].finish == "stop"
    server.say(delta(content="Ada"), delta("stop"), end=False)  # not even a proper end
    assert ask(server.url)[-1].finish == "stop"
    odd = {
        "choices": [{"delta": None, "finish_reason": None}, 5],
        "usage": None,
        "model": 3,
        "system_fingerprint": None,
    }
    server.say(event(odd), event({"choices": None}), event({}), *answer("Ada"))
    assert said(ask(server.url)) == "Ada"
    server.say(DONE)
    assert ask(server.url) == [Piece()]


def test_a_server_that_does_not_stream_is_understood(server):
    whole = {"model": "served", "choices": [{"message": {"content": "Ada."}, "finish_reason": "stop"}]}
    server.say(json.dumps(whole | {"usage": {"completion_tokens": 3}}).encode(), kind="application/json")
    assert ask(server.url) == [
        Piece("Ada.", tokens=1, model="served"),
        Piece("", tokens=3, finish="stop", model="served"),
    ]
