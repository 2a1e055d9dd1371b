"""Weights read on the Hub in parts by the real client, against a server of our own that sends them from elsewhere."""

import re
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import huggingface_hub as hf
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from transfer import client, ranges
from transfer.checkpoint import SINGLE, open_folder
from transfer.download import download
from transfer.errors import Cancelled, HubError, ReadError
from transfer.hub import open_hub
from transfer.once import Once
from transfer.ranges import CONNECTIONS, RemoteFile
from transfer.stream import THREADS, Reader
from transfer.triple import open_triple

from . import hub_server
from .hub_server import CONTENT, GATED, Fault, HubServer, turned_to

BASE = ("source_base",)
RESOLVE = r"HEAD /lab/model/resolve/.*\.safetensors$"
DTYPES = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool,
)  # fmt: skip


@pytest.fixture
def remote(hub, model):
    """The file of weights on the server, of which nothing has been asked yet."""
    hub.serve("lab/model", model)
    return RemoteFile("lab/model", SINGLE, "main")


def count(hub: HubServer, pattern: str) -> int:
    """Requests whose `METHOD /path` begins so."""
    return sum(bool(re.match(pattern, f"{r.method} {r.path}")) for r in hub.log)


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


@pytest.fixture(scope="module")
def every_dtype(tmp_path_factory):
    """A checkpoint with a tensor of every dtype, as it is on disk and as it is on the Hub."""
    folder = tmp_path_factory.mktemp("dtypes")
    torch.manual_seed(0)
    tensors = {str(d).removeprefix("torch."): (torch.randn(7, 33) * 9).to(d) for d in DTYPES}
    save_file(tensors, folder / SINGLE)
    (folder / "config.json").write_text("{}")
    with pytest.MonkeyPatch.context() as patch, turned_to(patch, tmp_path_factory.mktemp("home")) as server:
        server.serve("lab/dtypes", folder)
        checkpoints = {"local": open_folder(folder), "remote": open_hub("lab/dtypes")}
        with Reader(checkpoints) as reader:
            yield reader


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([str(d).removeprefix("torch.") for d in DTYPES]), st.integers(0, 230), st.integers(0, 231))
def test_any_part_is_what_the_file_on_disk_says(every_dtype, name, start, length):
    length = min(length, 231 - start)
    info = every_dtype.checkpoints["local"].tensors[name]
    assert info == every_dtype.checkpoints["remote"].tensors[name]
    here, there = (every_dtype.read(role, info, start, length) for role in ("local", "remote"))
    assert here.dtype == there.dtype and len(there) == length and bits(here) == bits(there)


def test_many_threads_ask_the_hub_once_for_each_file(hub, family):
    folder = family("qwen2", shard="60KB", roles=BASE)["source_base"]
    hub.serve("lab/model", folder)
    checkpoint, local = open_hub("lab/model"), open_folder(folder)
    assert len(checkpoint.missing) > 1
    looked = len(hub.log)
    with Reader({"here": local, "there": checkpoint}) as reader, ThreadPoolExecutor(reader.threads) as pool:
        assert reader.threads == CONNECTIONS

        def same(info) -> bool:
            where = info.numel // 3, info.numel // 2
            return bits(reader.read("here", info, *where)) == bits(reader.read("there", info, *where))

        tensors = list(checkpoint.tensors.values())
        assert all(pool.map(same, tensors * 3))
    assert count(hub, RESOLVE) == len(checkpoint.missing)
    assert len(hub.log) - looked == len(checkpoint.missing) + len(tensors) * 3  # and every part in one request
    ports = {r.port for r in hub.log[looked:] if r.method == "GET"}
    assert [f"http://127.0.0.1:{port}" for port in ports] == [hub.other]


def test_a_triple_is_read_where_it_lies(hub, family):
    folders = family("llama")
    refs = {role: f"lab/{role}" for role in folders}
    for role, folder in folders.items():
        hub.serve(refs[role], folder)
    refs["target_base"] = folders["target_base"]  # one of them is here
    triple, local = open_triple(refs), open_triple(folders)
    with Reader(triple.checkpoints) as there, Reader(local.checkpoints) as here:
        assert here.threads == THREADS
        for one, other in zip(triple.tensors[:3], local.tensors[:3], strict=True):
            for (_, parts), (_, wanted) in zip(
                there.chunks(one, one.parts), here.chunks(other, other.parts), strict=True
            ):
                assert all(torch.equal(parts[role], wanted[role]) for role in wanted)


def test_what_has_been_downloaded_meanwhile_is_read_here(hub, model):
    hub.serve("lab/model", model)
    checkpoint = open_hub("lab/model")
    list(download(checkpoint, lambda: None))
    asked = len(hub.log)
    info = next(iter(checkpoint.tensors.values()))
    with Reader({"it": checkpoint}) as reader:
        reader.read("it", info, 0, info.numel)
    assert len(hub.log) == asked


def test_an_address_that_has_run_out_is_asked_for_once_more(hub, model, remote):
    whole = (model / SINGLE).read_bytes()
    assert remote.read(10, 20) == whole[10:30]
    hub.expire()
    start = threading.Barrier(CONNECTIONS)

    def read(i: int) -> bool:
        start.wait()
        return remote.read(100 * i, 50) == whole[100 * i :][:50]

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        assert all(pool.map(read, range(CONNECTIONS)))
    assert count(hub, RESOLVE) == 2
    hub.expire()
    assert remote.read(0, 8) == whole[:8] and count(hub, RESOLVE) == 3


def test_an_address_that_never_serves_is_given_up(hub, remote):
    hub.fail(CONTENT, Fault(403))
    with pytest.raises(HubError, match=r"does not let you read lab/model \(403\)"):
        remote.read(0, 8)
    assert (count(hub, RESOLVE), count(hub, CONTENT)) == (2, 2)


@pytest.mark.parametrize("fault", [Fault(drop=0), Fault(drop=100), Fault(short=100), Fault(503)])
@pytest.mark.parametrize("where", [CONTENT, RESOLVE])
def test_what_passes_is_tried_again(hub, model, remote, where, fault):
    hub.fail(where, fault, times=3)
    assert remote.read(500, 1000) == (model / SINGLE).read_bytes()[500:1500]
    assert remote.read(0, 8) == (model / SINGLE).read_bytes()[:8]


def test_where_the_hub_asks_for_a_little_patience_it_gets_it(hub, model, remote):
    hub.fail(CONTENT, Fault(429, headers={"Retry-After": "1"}), times=1)
    start = time.monotonic()
    assert remote.read(500, 1000) == (model / SINGLE).read_bytes()[500:1500]
    assert time.monotonic() - start >= 1


def test_a_short_answer_is_gone_on_from(hub, remote):
    hub.fail(CONTENT, Fault(short=100), times=8)  # more often than one tries in vain
    remote.read(0, 1000)
    asked = [r.range for r in hub.log if r.method == "GET"]
    assert asked == [f"bytes={i}-999" for i in range(0, 900, 100)]


@pytest.mark.parametrize(
    ("where", "fault", "says", "tries"),
    [
        (CONTENT, Fault(drop=50), "cannot be reached for lab/model", client.TRIES),
        (CONTENT, Fault(short=0), r"sends nothing of lab/model/model\.safetensors", client.TRIES),
        (CONTENT, Fault(503), r"an error of its own \(503\) for lab/model", client.TRIES),
        (
            CONTENT,
            Fault(429, headers={"Retry-After": "61"}),
            r"asks to wait before reading lab/model again \(61 s\)",
            1,
        ),
        (
            RESOLVE,
            Fault(429, headers={"Retry-After": "61"}),
            r"asks to wait before reading lab/model again \(61 s\)",
            1,
        ),
        (CONTENT, Fault(416), r"lab/model could not be read from the Hub \(416\)", 1),
        (RESOLVE, GATED, "lab/model is gated", 1),
        (RESOLVE, Fault(403), r"does not let you read lab/model \(403\)", 1),
        (RESOLVE, Fault(drop=0, late=0.5), "cannot be reached for lab/model", client.TRIES),
    ],
)
def test_what_does_not_pass_is_said_plainly(hub, remote, monkeypatch, where, fault, says, tries):
    if fault.late:
        monkeypatch.setattr(client, "TIMEOUT", 0.1)  # nobody waits longer for an answer
    hub.fail(where, fault)
    with pytest.raises(HubError, match=says):
        remote.read(0, 100)
    time.sleep(fault.late)  # until the last of them has been answered
    assert count(hub, where) == tries
    assert hub.naps == []


def test_an_answer_that_trickles_is_broken_off(hub, model, remote, monkeypatch):
    monkeypatch.setattr(client, "TIMEOUT", 0.3)
    slow = iter([b"ab", b"cd", b"ef"])
    seen = []

    class Slow:
        def iter_bytes(self):
            for piece in slow:
                seen.append(piece)
                time.sleep(0.2)
                yield piece

    class Part:
        __enter__ = lambda self: Slow()
        __exit__ = lambda self, *_: None

    monkeypatch.setattr(ranges, "part", lambda *_: Part())
    assert remote._fetch(("", {}), 0, 100) == b"abcd"[: 2 * len(seen)]
    assert len(seen) == 2


def test_a_server_that_serves_no_parts_is_refused(hub, remote):
    hub.ranges = False
    with pytest.raises(HubError, match="does not serve parts of files"):
        remote.read(0, 8)


def test_offline_is_said(hub, model, monkeypatch):
    hub.serve("lab/model", model)
    checkpoint = open_hub("lab/model")
    monkeypatch.setattr(hf.constants, "HF_HUB_OFFLINE", True)
    info = next(iter(checkpoint.tensors.values()))
    with Reader({"it": checkpoint}) as reader, pytest.raises(HubError, match="HF_HUB_OFFLINE keeps us from the Hub"):
        reader.read("it", info, 0, 1)


def test_a_token_goes_to_the_hub_and_not_to_the_other_host(hub, remote):
    Path(hf.constants.HF_TOKEN_PATH).write_text("hf_secret")
    remote.read(0, 8)
    hub.expire()
    remote.read(0, 8)
    assert {r.token for r in hub.log if r.method == "HEAD"} == {"Bearer hf_secret"}
    assert {r.token for r in hub.log if r.method == "GET"} == {None}


def test_a_token_goes_with_what_the_hub_sends_itself(hub, model, remote, monkeypatch):
    Path(hf.constants.HF_TOKEN_PATH).write_text("hf_secret")
    monkeypatch.setattr(hub_server, "WEIGHTS", ())
    assert remote.read(3, 8) == (model / SINGLE).read_bytes()[3:11]
    assert {(r.token, f"http://127.0.0.1:{r.port}") for r in hub.log} == {("Bearer hf_secret", hub.endpoint)}
    monkeypatch.setattr(client, "TOKEN", False)  # nobody's token on a Space
    hub.log.clear()
    RemoteFile("lab/model", SINGLE, "main").read(3, 8)
    assert {r.token for r in hub.log} == {None}


def stopped(read, stop) -> float:
    """Seconds from a stop, pressed while `read` waits, until it has ended with Cancelled."""
    ended = []

    def run():
        with pytest.raises(Cancelled):
            read()
        ended.append(time.monotonic())

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(0.3)
    assert not ended
    pressed = time.monotonic()
    stop()
    thread.join(10)
    return ended[0] - pressed


@pytest.mark.parametrize("where", [CONTENT, RESOLVE])
def test_a_stop_is_heard_while_nobody_answers(hub, model, where):
    hub.serve("lab/model", model)
    checkpoint = open_hub("lab/model")
    info = next(iter(checkpoint.tensors.values()))
    hub.fail(where, Fault(late=5))
    with Reader({"it": checkpoint}) as reader:
        assert stopped(lambda: reader.read("it", info, 0, 10), reader.cancelled.set) < 2


def test_a_stop_is_heard_between_two_tries(hub, remote, monkeypatch):
    monkeypatch.setattr(client, "PAUSE", 30)
    hub.fail(CONTENT, Fault(drop=0))
    stop = threading.Event()

    def tick():
        if stop.is_set():
            raise Cancelled("Stopped.")

    assert stopped(lambda: remote.read(0, 10, tick), stop.set) < 2


def test_a_file_that_is_neither_here_nor_missing_is_no_business_of_the_hub(hub, model, tmp_path):
    copy = Path(shutil.copytree(model, tmp_path / "copy"))
    checkpoint = open_folder(copy)
    (copy / SINGLE).unlink()
    with Reader({"it": checkpoint}) as reader, pytest.raises(ReadError, match="cannot be opened"):
        reader.read("it", next(iter(checkpoint.tensors.values())), 0, 1)
    assert hub.log == []


def test_what_many_want_is_made_once_and_a_failure_is_forgotten():
    made, gate = [], threading.Event()

    def make() -> object:
        gate.wait(5)
        made.append(None)
        if len(made) == 1:
            raise HubError("No.")
        return object()

    def ask(stale=None):
        try:
            return once.get(stale)
        except HubError as error:
            return str(error)

    once = Once(make)
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(ask) for _ in range(8)]
        while once._future is None:
            time.sleep(0.01)
        time.sleep(0.1)
        gate.set()
        assert {w.result() for w in waiting} == {"No."} and len(made) == 1
        first = once.get()
        assert {ask() for _ in range(8)} == {first}
        renewed = set(pool.map(ask, [first] * 8))
        assert len(renewed) == 1 and renewed != {first} and len(made) == 3
