"""Every failure is a sentence that says what to do, without the key, after the words that came before it."""

import logging
import socket

import pytest

from transfer import refusals
from transfer.endpoint import Endpoint, Piece, models

from .asking import ASK, KEY, ask, refusal, said
from .endpoint_server import DONE, EndpointServer, Says, answer, delta, error, event, refuse
from .running import free_port


@pytest.fixture
def server():
    with EndpointServer() as found:
        yield found


def test_an_endpoint_out_of_reach(server, monkeypatch):
    assert "nothing listens there" in refusal(f"http://127.0.0.1:{free_port()}")[0]
    assert "no https that we understand" in refusal(server.url.replace("http:", "https:"))[0]

    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert "host is not known" in refusal("http://nowhere.invalid")[0]
    monkeypatch.undo()
    monkeypatch.setattr(refusals, "CONNECT", 0.3)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        assert "within 0.3 seconds" in refusal(f"https://127.0.0.1:{deaf.getsockname()[1]}")[0]


CASES = [
    (error(401, "Incorrect API key"), ["does not let us in (401): Incorrect API key.", "Check the key"]),
    (refuse(403, {"detail": "Forbidden"}), ["does not let us in (403): Forbidden."]),
    (error(404, "x"), ["no such model (404)", "is there: other, third."]),
    (error(400, "bad\n question"), ["refuses what it is asked (400): bad question."]),
    (refuse(422, {"detail": [{"loc": ["body", "n"], "msg": "no", "input": ASK}]}), ["(422): body n: no."]),
    (refuse(400, "plainly"), ["(400): plainly."]),
    (Says((b"not even JSON",), 400, "text/plain"), ["(400): not even JSON."]),
    (error(400, "y" * 5000), ["y" * 299 + "…"]),
    (error(400, "This model's maximum context length is 256 tokens."), ["too long (400)", "Shorten the prompt"]),
    (refuse(413, {}), ["too long (413). Shorten"]),
    (error(429, "Slow down", Retry_After="17"), ["asks to wait (17 s)", "Slow down."]),
    (refuse(429, {}), ["asks to wait before"]),
    (error(500, "boom"), ["error of its own (500): boom.", "Look at its log"]),
    (Says((b"<html>Bad gateway</html>",), 502, "text/html"), ["error of its own (502). Look"]),
    (Says(status=503, silent=True), ["error of its own (503)."]),
    (refuse(405, {"detail": "Method Not Allowed"}), ["(405): Method Not Allowed."]),
    (Says(status=307, headers={"Location": "http://169.254.169.254/v1"}), ["on to http://169.254.169.254/v1 (307)"]),
    (Says((b"<!doctype html><title>Hi</title>",), kind="text/html"), ["is a web page, not an API"]),
    (Says((b"\n <html>",), kind="text/plain"), ["is a web page, not an API"]),
    (Says((b"hello",), kind="text/plain"), ["nothing that is a chat's"]),
    (Says((b"{}",), kind="application/json"), ["nothing that is a chat's"]),
    (Says((b"[" * 100_000,), kind="application/json"), ["no JSON of a chat: [["]),
    (Says((b'{"error": "later"}',), kind="application/json"), ["error of its own: later."]),
    (Says((b"data: {\n\n",)), ["no JSON of a chat: {"]),
    (Says((b"data: 5\n\n",)), ["no JSON of a chat: 5"]),
    (Says((), headers={"Content-Encoding": "gzip"}), ["compresses"]),
    (Says(), ["nothing that is a chat's"]),
    (Says(end=False), ["before its answer was whole"]),
]


@pytest.mark.parametrize(("says", "words"), CASES, ids=lambda case: case.status if isinstance(case, Says) else case[0])
def test_every_refusal_says_what_is_wrong(server, monkeypatch, says, words):
    monkeypatch.setattr(refusals, "LISTING", 0.3)
    server.says = [says]
    server.listing = refuse(200, {"data": [{"id": "other"}, {"id": "third"}]})
    found, pieces = refusal(server.url)
    assert not pieces and found.startswith("served at 127.0.0.1:") and all(w in found for w in words), found
    assert len(found) < 600 and len(server.bodies) == 1


MIDDLES = [
    (Says((delta(content="Ada"),), end=False), "before its answer was whole"),
    (Says((delta(content="Ada"),)), "before its answer was whole"),
    (Says((delta(content="Ada"), event({"error": {"message": "out of memory", "code": 500}}))), "own: out of memory."),
    (Says((delta(content="Ada"), b'event: error\ndata: {"error": "out"}\n\n')), "own: out."),
    (Says((delta(content="Ada"), b'error: {"message": "out"}\n\n')), "own: out."),
    (Says((delta(content="Ada"), event({"object": "error", "message": "out"}))), "own: out."),
    (Says((delta(content="Ada"), b"data: oh no\n\n")), "no JSON of a chat: oh no"),
    (Says((delta(content="Ada"), b"data: " + b"x" * 1_100_000), silent=True), "line of more than 1,000,000"),
    (Says((delta(content="Ada"), b"data:\n" * 1_100_000), silent=True), "line of more than 1,000,000"),
    (Says((delta(content="Ada"), 0.2, b"", b""), silent=True), "silent for 0.4 seconds"),
    (Says((delta(content="Ada"), *[delta(content="x" * 300_000)] * 4)), "more than 1,000,000 characters"),
]


@pytest.mark.parametrize(("says", "words"), MIDDLES, ids=[str(i) for i in range(len(MIDDLES))])
def test_what_came_before_a_failure_is_kept(server, monkeypatch, says, words):
    monkeypatch.setattr(refusals, "SILENCE", 0.4)
    server.says = [says]
    found, pieces = refusal(server.url)
    assert words in found and said(pieces).startswith("Ada") and pieces[-1].finish is None


def test_a_silent_server_is_given_up_on(server, monkeypatch):
    monkeypatch.setattr(refusals, "SILENCE", 0.2)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        assert "silent for 0.2 seconds" in refusal(f"http://127.0.0.1:{deaf.getsockname()[1]}")[0]


def test_a_404_tells_a_model_from_a_path(server):
    server.says = [error(404, "The model `served` does not exist.")]
    assert "no such model (404): The model" in refusal(server.url)[0]  # which it lists all the same
    server.listing = error(500, "no list")
    assert "The model `served` does not exist. Check its name" in refusal(server.url)[0]
    found, _ = refusal(f"{server.url}/deeper")
    assert "nothing at /deeper/v1/chat/completions (404): Not Found." in found


def test_redirects_are_not_followed(server):
    with EndpointServer() as other:
        other.say(*answer("Mallory"))
        for status in (301, 302, 303, 307, 308):
            server.say(status=status, headers={"Location": f"{other.url}/v1/chat/completions"})
            assert "we do not follow" in refusal(server.url)[0]
        assert other.log == []


def test_the_key_is_nowhere_but_in_the_header(server, caplog):
    caplog.set_level(logging.DEBUG)
    found = Endpoint(server.url, "served", KEY)
    echoes = [
        error(401, f"Incorrect API key provided: {KEY}."),
        error(400, f"{'z' * 290} {KEY}"),
        error(404, f"no model for {KEY}"),
        error(429, KEY, Retry_After=KEY),
        Says((f"Bearer {KEY}".encode(),), 500, "text/plain"),
        Says(status=302, headers={"Location": f"http://h/?key={KEY}"}),
        Says((f"data: {KEY}\n\n".encode(),)),
        Says((event({"error": {"message": KEY}}),)),
    ]
    server.listing = refuse(200, {"data": [{"id": f"model-of-{KEY}"}]})
    for says in echoes:
        server.says = [says]
        words, _ = refusal(server.url)  # which looks for the key
        assert "[key]" in words or "z…" in words or "z [" in words
    server.say(event({"model": KEY, "system_fingerprint": KEY, "choices": [{"delta": {"content": "Ada"}}]}), DONE)
    assert ask(server.url)[0] == Piece("Ada", tokens=1, model="[key]", fingerprint="[key]")
    assert models(found) == ["model-of-[key]"]
    assert KEY not in caplog.text and KEY not in f"{found!r} {found}" and KEY in str(server.log)
