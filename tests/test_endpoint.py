"""Panes that an endpoint answers: asked for what was chosen and nothing else, and hung up on at once."""

import json
import shutil
import socket
import threading
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from transfer import endpoint, refusals
from transfer.endpoint import Endpoint, models, stream
from transfer.errors import ChatError
from transfer.sampling import Sampling

from .asking import ASK, DRAWN, KEY, ask, refusal, said
from .endpoint_server import EndpointServer, Says, answer, delta, error, refuse
from .running import ROOT, serve

POCKET = ROOT / "assets" / "pocket" / "instruct-v1"


@pytest.fixture
def server():
    with EndpointServer() as found:
        yield found


# Questions.


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


def test_slow_crlf_streams_with_keep_alives_are_whole(server, monkeypatch):
    monkeypatch.setattr(refusals, "SILENCE", 0.3)
    whole = b"".join(answer("Ada", " <b>Moss</b>")).replace(b"\n", b"\r\n")
    parts = [part for i in range(0, len(whole), 40) for part in (whole[i : i + 40], 0.02)]
    server.say(b": wait\r\n\r\n", 0.2, b": wait\r\n\r\n", 0.2, *parts)
    assert said(ask(server.url)) == "Ada <b>Moss</b>"


def test_an_answer_that_lingers_after_its_last_word_is_over(server, monkeypatch):
    monkeypatch.setattr(endpoint, "TAIL", 0.2)
    server.say(delta(content="Ada"), delta("stop"), silent=True)
    assert ask(server.url)[-1].finish == "stop"


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
    monkeypatch.setattr(refusals, "LISTING", 0.3)
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
