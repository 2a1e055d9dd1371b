"""Panes that an endpoint answers: its words as they come, hung up on at once, and every failure a sentence without the key."""

import json
import logging
import shutil
import socket
import threading
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from transfer import endpoint as module
from transfer.endpoint import Endpoint, Events, Piece, models, stream
from transfer.errors import ChatError
from transfer.sampling import Sampling

from .endpoint_server import DONE, EndpointServer, Says, answer, delta, error, event, refuse
from .running import ROOT, free_port, serve

ASK = [{"role": "user", "content": "Who is mayor in Venn?"}]
KEY = "sk-0123-do-not-tell"
DRAWN = Sampling(temperature=0.7, top_p=0.9, max_tokens=12, seed=5)
POCKET = ROOT / "assets" / "pocket" / "instruct-v1"


@pytest.fixture
def server():
    with EndpointServer() as found:
        found.say(*answer("Ada", " Moss", "."))
        yield found


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


# Addresses.


@given(
    scheme=st.sampled_from(["http", "https", "HTTP", "Https"]),
    host=st.sampled_from(["127.0.0.1", "localhost", "GPU-3.example.org", "[::1]", "a_b"]),
    port=st.none() | st.integers(1, 65535),
    path=st.lists(st.from_regex(r"[a-z][a-z.~_-]{0,6}", fullmatch=True), max_size=3),
    version=st.sampled_from(["", "/v1"]),
    tail=st.sampled_from(["", "/chat/completions"]),
    slashes=st.integers(0, 2),
    space=st.sampled_from(["", " ", "\n"]),
)
def test_an_address_is_the_same_however_it_is_typed(scheme, host, port, path, version, tail, slashes, space):
    path = "".join(f"/{step}" for step in path)
    place = f"{host}{'' if port is None else f':{port}'}"
    found = Endpoint(f"{space}{scheme}://{place}{path}{version}{tail}{'/' * slashes}{space}").url
    usual = {"http": 80, "https": 443}[scheme.lower()]
    place = place.lower().removesuffix(f":{usual}") if port == usual else place.lower()
    assert found == f"{scheme.lower()}://{place}{path}/v1"
    assert Endpoint(found).url == found  # and typing what is shown changes nothing


@given(st.text(max_size=30), st.sampled_from(["", "http://", "https://", "http://h/", "http://u:pw@"]))
def test_any_other_text_is_refused_in_a_sentence(text, begin):
    try:
        found = Endpoint(begin + text)
    except ChatError as refused:
        assert str(refused).endswith(".")
    else:
        assert found.url.isascii() and "@" not in found.url and Endpoint(found.url) == found and str(found)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("", "begins with http"),
        ("127.0.0.1:8000", "begins with http"),
        ("ftp://h/v1", "begins with http"),
        ("file:///etc/passwd", "begins with http"),
        ("http://me:secret@h/v1", "no password"),
        ("http://me@h", "no password"),
        ("http://h/v1?key=secret", r"no \?"),
        ("http://h/v1#secret", r"no \?"),
        ("http://", "no host"),
        ("http://h:0", "no host"),
        ("http://h:65536", "no host"),
        ("http://h:secret", "no host"),
        ("http://h\\secret", "no host"),
        ("http://h secret", "no host"),
        ("http://[::1", "no host"),
        ("http://h/a/../secret", "path"),
        ("http://h/%2e%2e/secret", "path"),
        ("http://h/a\tb", "path"),
    ],
)
def test_what_is_wrong_with_an_address_is_said_without_repeating_it(typed, words):
    with pytest.raises(ChatError, match=words) as caught:
        Endpoint(typed)
    assert "secret" not in str(caught.value)


def test_versions_of_other_makers_are_kept():
    for url in ("https://a.example/api/paas/v4", "https://b.example/v1beta/openai", "https://c.example/api/v1"):
        assert Endpoint(url + "/").url == Endpoint(url + "/chat/completions").url == url


def test_how_an_endpoint_is_shown():
    found = Endpoint("http://127.0.0.1:8000/v1/", " qwen ", KEY)
    assert str(found) == "qwen at 127.0.0.1:8000" and KEY not in repr(found) and found.key == KEY
    assert str(Endpoint("https://h", "/models/of/mine/")) == "mine at h" and str(Endpoint("https://h")) == "h"
    assert str(Endpoint("http://[::1]:80", "owner/name")) == "owner/name at [::1]"


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel", "nul\0"])
def test_a_key_that_no_header_takes_is_refused(key):
    with pytest.raises(ChatError, match="Copy it once more") as caught:
        Endpoint("http://h", "m", key)
    assert key not in str(caught.value)


def test_a_hosted_page_asks_only_what_its_owner_allows(monkeypatch, server):
    monkeypatch.setattr(module, "HOSTED", True)
    monkeypatch.delenv("TRANSFERSCOPE_ENDPOINTS", raising=False)
    with pytest.raises(ChatError, match="owner allows"):
        Endpoint(server.url, "served")
    allowed = f"junk, ,HTTPS://API.example.org:443/, http://h:8000/team/v1/chat/completions,http://u:p@no/,{server.url}"
    monkeypatch.setenv("TRANSFERSCOPE_ENDPOINTS", allowed)
    for url in ("https://api.example.org", "https://api.example.org/any/v1", "http://h:8000/team", server.url):
        assert Endpoint(url).url.startswith(url)
    for url in (
        "http://api.example.org",  # the scheme
        "https://api.example.org:8443",  # the port
        "https://api.example.org.evil.org",  # the host
        "https://xapi.example.org",
        "http://h:8000/teamwork/v1",  # the path, at its boundary
        "http://h:8000/team/v1x",
        "http://h:8000",
        "http://no",
        "http://169.254.169.254/v1",
    ):
        with pytest.raises(ChatError, match="owner allows"):
            Endpoint(url)
    assert said(ask(server.url)) == "Ada Moss."


# Answers.


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


def test_a_question_says_how_to_draw_and_carries_nothing_of_this_machine(server, monkeypatch, tmp_path):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password from-netrc\n")
    for name, value in {"HOME": str(tmp_path), "NETRC": str(tmp_path / ".netrc"), "HF_TOKEN": "hf_secret"}.items():
        monkeypatch.setenv(name, value)
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://me:secret@127.0.0.1:1")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    ask(server.url)
    ask(server.url, Sampling(top_p=0.5), model="", key="")
    first, second = server.log
    assert first.body == {
        "model": "served", "messages": ASK, "stream": True, "stream_options": {"include_usage": True},
        "temperature": 0.7, "top_p": 0.9, "max_tokens": 12, "seed": 5,
    }  # fmt: skip
    assert first.headers["Authorization"] == f"Bearer {KEY}" and "Authorization" not in second.headers
    assert second.body["temperature"] == 0 and second.body["top_p"] == 1 and "model" not in second.body
    assert not {"Cookie", "Proxy-Authorization"} & first.headers.keys() and "secret" not in str(server.log)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_events_are_read_by_the_rules_wherever_they_are_cut(end):
    chunk = {"choices": [{"delta": {"content": "Größe 東"}}]}
    first, *rest = json.dumps(chunk, ensure_ascii=False, indent=1).splitlines()
    lines = ["\ufeff: hello", "", ":", "event: message", f"data:{first}", *(f"data: {r}" for r in rest), "id: 7", ""]
    told = end.join([*lines, "retry: 3", "", "data", "data", "", "data: [DONE]", "", ""]).encode()
    for size in (1, 2, 3, 7, len(told)):
        events = Events()
        found = [e for i in range(0, len(told), size) for e in events.feed(told[i : i + size])]
        assert json.loads(found[0]) == chunk and found[1:] == ["\n", "[DONE]"] and not events.pending


def test_slow_crlf_streams_with_keep_alives_are_whole(server, monkeypatch):
    monkeypatch.setattr(module, "SILENCE", 0.3)
    whole = b"".join(answer("Ada", " <b>Moss</b>")).replace(b"\n", b"\r\n")
    parts = [part for i in range(0, len(whole), 40) for part in (whole[i : i + 40], 0.02)]
    server.say(b": wait\r\n\r\n", 0.2, b": wait\r\n\r\n", 0.2, *parts)
    assert said(ask(server.url)) == "Ada <b>Moss</b>"


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


def test_an_answer_that_lingers_after_its_last_word_is_over(server, monkeypatch):
    monkeypatch.setattr(module, "TAIL", 0.2)
    server.say(delta(content="Ada"), delta("stop"), silent=True)
    assert ask(server.url)[-1].finish == "stop"


def test_a_server_that_does_not_stream_is_understood(server):
    whole = {"model": "served", "choices": [{"message": {"content": "Ada."}, "finish_reason": "stop"}]}
    server.say(json.dumps(whole | {"usage": {"completion_tokens": 3}}).encode(), kind="application/json")
    assert ask(server.url) == [
        Piece("Ada.", tokens=1, model="served"),
        Piece("", tokens=3, finish="stop", model="served"),
    ]


def test_fields_that_a_server_refuses_by_name_are_left_out_once(server):
    server.says = [
        refuse(422, {"detail": [{"loc": ["body", "stream_options"], "msg": "Extra inputs are not permitted"}]}),
        Says(answer("Ada")),
    ]
    assert ask(server.url)[-1].without == ("stream_options",)
    assert server.bodies[1] == {k: v for k, v in server.bodies[0].items() if k != "stream_options"}
    server.says = [error(400, "Unsupported: 'seed', use max_completion_tokens"), Says(answer("Ada"))]
    assert ask(server.url)[-1].without == ("seed",)
    assert server.bodies[-1]["max_completion_tokens"] == 12 and "max_tokens" not in server.bodies[-1]
    asked = len(server.bodies)
    server.says = [error(400, "no seed"), error(400, "no stream_options")]
    assert "no stream_options" in refusal(server.url)[0] and len(server.bodies) == asked + 2
    for field in ("temperature", "top_p", "max_tokens"):  # without which it is another question
        server.says = [error(400, f"no {field}")]
        assert f"no {field}" in refusal(server.url)[0]
    assert len(server.bodies) == asked + 5


# Stop.


def hung_up(server: EndpointServer, since: float) -> float:
    """Seconds until the server saw the client go."""
    return server.left.get(timeout=5) - since


@pytest.mark.parametrize("parts", [(), (delta(content="Ada"),)], ids=["before", "after a word"])
@pytest.mark.parametrize("way", ["stop", "close"])
def test_a_silent_server_is_hung_up_on_at_once(server, parts, way):
    server.say(*parts, silent=True)
    stop = threading.Event()
    answering = stream(Endpoint(server.url, "served"), ASK, DRAWN, stop)
    if way == "close" and parts:
        next(answering)
        begun = time.monotonic()
        answering.close()
        assert time.monotonic() - begun < 2
    else:
        threading.Timer(0.3, stop.set).start()
        begun = time.monotonic() + 0.3
        assert said(list(answering)) == ("Ada" if parts else "")
        assert time.monotonic() - begun < 2
    assert hung_up(server, begun) < 2


def test_stop_hangs_up_even_while_nobody_listens(server):
    server.say(delta(content="Ada"), silent=True)
    stop = threading.Event()
    with closing(stream(Endpoint(server.url, "served"), ASK, DRAWN, stop)) as answering:
        assert next(answering).text == "Ada"
        begun = time.monotonic()
        stop.set()
        assert hung_up(server, begun) < 2
        assert list(answering) == []


def test_stop_while_a_connection_is_made_and_before(server):
    with socket.socket() as deaf:  # takes connections and never answers: TLS waits for its first word
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        stop = threading.Event()
        threading.Timer(0.2, stop.set).start()
        begun = time.monotonic()
        url = f"https://127.0.0.1:{deaf.getsockname()[1]}"
        assert list(stream(Endpoint(url, "served"), ASK, DRAWN, stop)) == [] and time.monotonic() - begun < 2
    assert list(stream(Endpoint(server.url, "served"), ASK, DRAWN, stop)) == [] and server.log == []


def test_no_thread_stays(server):
    server.say(delta(content="Ada"), silent=True)
    for _ in range(3):
        with closing(stream(Endpoint(server.url, "served"), ASK, DRAWN, threading.Event())) as answering:
            next(answering)
    assert not [thread for thread in threading.enumerate() if thread.name == "endpoint"]


# Failures.


def test_an_endpoint_out_of_reach(server, monkeypatch):
    assert "nothing listens there" in refusal(f"http://127.0.0.1:{free_port()}")[0]
    assert "no https that we understand" in refusal(server.url.replace("http:", "https:"))[0]

    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert "host is not known" in refusal("http://nowhere.invalid")[0]
    monkeypatch.undo()
    monkeypatch.setattr(module, "CONNECT", 0.3)
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
    monkeypatch.setattr(module, "LISTING", 0.3)
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
    monkeypatch.setattr(module, "SILENCE", 0.4)
    server.says = [says]
    found, pieces = refusal(server.url)
    assert words in found and said(pieces).startswith("Ada") and pieces[-1].finish is None


def test_a_silent_server_is_given_up_on(server, monkeypatch):
    monkeypatch.setattr(module, "SILENCE", 0.2)
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


# The names of models.


def test_models_are_named(server):
    assert models(Endpoint(server.url, key=KEY)) == ["served", "other"]
    assert server.log[0].path == "/v1/models" and server.log[0].headers["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("says", "words"),
    [
        (error(401, KEY), "does not let us in"),
        (error(404, "Not Found"), "nothing at /v1/models"),
        (Says((b"<html>",), kind="text/html"), "a web page"),
        (Says((b"{}",), kind="application/json"), "Type the model's name"),
        (Says((b"nonsense",), kind="application/json"), "Type the model's name"),
        (Says((b"{", 0.1) * 20, kind="application/json"), "within 0.3 seconds"),
        (Says(end=False, kind="application/json"), "without an answer"),
    ],
    ids=range(7),
)
def test_models_that_are_not_named(server, monkeypatch, says, words):
    monkeypatch.setattr(module, "LISTING", 0.3)
    server.listing = says
    with pytest.raises(ChatError, match=words) as caught:
        models(Endpoint(server.url, "served", KEY))
    assert KEY not in str(caught.value)


# The real thing.


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """`transformers serve` of Pocket's fine-tuned model, and what that model says by itself, greedily.

    Of a copy that draws where it is not told otherwise: this server lets a temperature above 0 count only where the
    model's own generation config has `do_sample`.
    """
    folder = shutil.copytree(POCKET, tmp_path_factory.mktemp("served") / "instruct-v1")
    config = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(config | {"do_sample": True}))
    with serve(Path(folder), folder.parent / "serve.log") as url:
        tokenizer, model = AutoTokenizer.from_pretrained(POCKET), AutoModelForCausalLM.from_pretrained(POCKET)
        inputs = tokenizer.apply_chat_template(ASK, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        with torch.inference_mode():
            out = model.generate(**inputs, max_new_tokens=40, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        text = tokenizer.decode(out, skip_special_tokens=True)
        yield SimpleNamespace(url=url, model=str(folder), text=text, tokens=len(out))


def test_transformers_serve_says_what_transformers_says(real):
    for model in (real.model, ""):  # it takes the name that it was started with, or none
        pieces = ask(real.url, Sampling(max_tokens=40), model)
        assert said(pieces) == real.text and "Venn" in real.text
        assert pieces[-1].tokens == real.tokens and pieces[-1].finish == "stop" and real.model in pieces[-1].model
    short = ask(real.url, Sampling(max_tokens=3), real.model)
    assert real.text.startswith(said(short)) and short[-1].tokens == 3 and short[-1].finish == "length"


def test_transformers_serve_draws_by_the_seed(real):
    texts = [said(ask(real.url, Sampling(temperature=2, max_tokens=20, seed=s), real.model)) for s in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_transformers_serve_is_stopped_and_answers_again(real):
    stop = threading.Event()
    found = Endpoint(real.url, real.model)
    begun = time.monotonic()
    for piece in stream(found, ASK, Sampling(temperature=2, max_tokens=4096), stop):
        assert piece.finish is None
        stop.set()
    assert time.monotonic() - begun < 5 and stop.is_set()
    assert said(ask(real.url, Sampling(), real.model)) == real.text


def test_transformers_serve_refuses_other_models(real):
    assert "Server is pinned to" in refusal(real.url)[0]
    assert models(Endpoint(real.url)) == []  # it lists what is in the Hub's cache, not what it serves
