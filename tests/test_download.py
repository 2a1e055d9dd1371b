"""Downloads from the Hub: whole, stopped, dropped, damaged, and two at once; by the real client, from a server of our own."""

import errno
import os
import shutil
import threading
from pathlib import Path

import huggingface_hub as hf
import pytest

from transfer import client
from transfer.checkpoint import SINGLE
from transfer.download import download
from transfer.errors import Cancelled, HubError
from transfer.hub import open_hub

from . import hub_server
from .hub_server import (
    BUSY,
    CONTENT,
    GATED,
    Fault,
    assert_same_weights,
    nothing,
    whole_requests,
)


def blobs(repo: str) -> Path:
    """The cache's folder of contents."""
    return (
        Path(hf.constants.HF_HUB_CACHE) / hf.file_download.repo_folder_name(repo_id=repo, repo_type="model") / "blobs"
    )


@pytest.mark.parametrize("which", ["model", "shards"])
def test_a_download_brings_the_same_weights(hub, request, which):
    folder = request.getfixturevalue(which)
    hub.serve("lab/model", folder)
    before = open_hub("lab/model")
    sizes = sum((folder / f).stat().st_size for f in before.missing)
    looked = hub.sent(CONTENT)
    assert sum(download(before, nothing)) == sizes
    assert hub.sent(CONTENT) - looked == sizes  # every byte once
    after = open_hub("lab/model")
    assert after.missing == () and after.tensors == before.tensors
    assert after.identity == before.identity
    assert_same_weights(after.folder, folder)
    # What is there is not fetched again, whoever asks.
    count = len(hub.log)
    assert list(download(after, nothing)) == [] and len(hub.log) == count
    assert sum(download(before, nothing)) == sizes
    assert whole_requests(hub) == ["bytes=0-"] * len(before.missing)


def test_the_same_content_in_another_revision_is_not_sent_again(hub, model, tmp_path):
    hub.serve("lab/model", model)
    list(download(open_hub("lab/model"), nothing))
    other = Path(shutil.copytree(model, tmp_path / "other"))
    (other / "README.md").write_text("More words.")
    hub.serve("lab/model", other, "v2")
    opened = open_hub("lab/model@v2")
    assert opened.missing == (SINGLE,)
    assert sum(download(opened, nothing)) == (model / SINGLE).stat().st_size
    assert open_hub("lab/model@v2").missing == ()
    assert whole_requests(hub) == ["bytes=0-"]


def stopping(after: int):
    """A tick that raises Cancelled once it has been called so often."""
    calls = iter(range(after))

    def tick():
        if next(calls, None) is None:
            raise Cancelled("Stopped.")

    return tick


def stop_by_tick(checkpoint) -> None:
    with pytest.raises(Cancelled):
        list(download(checkpoint, stopping(3)))


def stop_by_closing(checkpoint) -> None:
    work = download(checkpoint, nothing)
    while next(work) == 0:
        pass
    work.close()


def stop_by_closing_elsewhere(checkpoint) -> None:
    """A page's generator may be closed by another thread than the one that ran it."""
    work = download(checkpoint, nothing)
    thread = threading.Thread(target=lambda: [next(work) for _ in range(3)])
    thread.start()
    thread.join(30)
    work.close()


@pytest.mark.parametrize("stop", [stop_by_tick, stop_by_closing, stop_by_closing_elsewhere])
def test_a_stopped_download_goes_on_where_it_was(hub, model, monkeypatch, stop):
    monkeypatch.setattr(client, "BEAT", 0.0)  # every chunk is told
    hub.serve("lab/model", model)
    checkpoint, size = open_hub("lab/model"), (model / SINGLE).stat().st_size
    stop(checkpoint)
    assert open_hub("lab/model").missing == (SINGLE,)  # nothing half is taken for a whole
    (part,) = blobs("lab/model").glob("*.part")
    have = part.stat().st_size
    assert 0 < have < size
    assert sum(download(checkpoint, stopping(1000))) == size  # stopping: a lock still held would have it wait for ever
    assert whole_requests(hub) == ["bytes=0-", f"bytes={have}-"]
    assert not part.exists()
    assert_same_weights(open_hub("lab/model").folder, model)


def test_a_stopped_download_keeps_the_files_that_are_whole(hub, shards):
    hub.serve("lab/model", shards)
    checkpoint = open_hub("lab/model")
    work = download(checkpoint, nothing)
    while not list(checkpoint.folder.glob("*.safetensors")):
        next(work)
    work.close()
    left = open_hub("lab/model")
    assert 0 < len(left.missing) < len(checkpoint.missing)
    sum(download(left, nothing))
    assert len(whole_requests(hub)) <= len(checkpoint.missing) + 1
    assert_same_weights(open_hub("lab/model").folder, shards)


def test_a_dropped_connection_is_taken_up_again(hub, model):
    hub.serve("lab/model", model)
    checkpoint = open_hub("lab/model")
    hub.fail(CONTENT, Fault(drop=20_000), times=3)
    assert sum(download(checkpoint, nothing)) == (model / SINGLE).stat().st_size
    assert whole_requests(hub) == [f"bytes={n}-" for n in (0, 20_000, 40_000, 60_000)]
    assert_same_weights(open_hub("lab/model").folder, model)


def test_a_connection_that_always_drops_is_given_up(hub, model):
    hub.serve("lab/model", model)
    checkpoint = open_hub("lab/model")
    hub.fail(CONTENT, Fault(drop=0))
    with pytest.raises(HubError, match="cannot be reached"):
        list(download(checkpoint, nothing))
    assert len(whole_requests(hub)) == client.TRIES


def test_damaged_content_is_thrown_away(hub, model):
    hub.serve("lab/model", model)
    checkpoint = open_hub("lab/model")
    stop_by_tick(checkpoint)
    (part,) = blobs("lab/model").glob("*.part")
    part.write_bytes(bytes(part.stat().st_size))
    with pytest.raises(HubError, match=r"lab/model/model\.safetensors arrived damaged"):
        list(download(checkpoint, nothing))
    assert not part.exists() and open_hub("lab/model").missing == (SINGLE,)
    list(download(checkpoint, nothing))
    assert_same_weights(open_hub("lab/model").folder, model)


def test_a_part_longer_than_the_file_is_thrown_away(hub, model):
    hub.serve("lab/model", model)
    checkpoint = open_hub("lab/model")
    stop_by_tick(checkpoint)
    (part,) = blobs("lab/model").glob("*.part")
    part.write_bytes(bytes((model / SINGLE).stat().st_size + 1))
    with pytest.raises(HubError, match="damaged"):
        list(download(checkpoint, nothing))
    list(download(checkpoint, nothing))
    assert open_hub("lab/model").missing == ()


def test_two_who_fetch_the_same_at_once_fetch_it_once(hub, model):
    hub.serve("lab/model", model)
    checkpoint, start, sums = open_hub("lab/model"), threading.Barrier(2), []

    def fetch():
        start.wait()
        sums.append(sum(download(checkpoint, nothing)))

    both = [threading.Thread(target=fetch) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join(30)
    assert sums == [(model / SINGLE).stat().st_size] * 2
    assert whole_requests(hub) == ["bytes=0-"]


def test_waiting_for_somebody_else_can_be_stopped(hub, model, monkeypatch):
    monkeypatch.setattr(client, "BEAT", 0.01)
    hub.serve("lab/model", model)
    checkpoint = open_hub("lab/model")
    first = download(checkpoint, nothing)
    next(first)  # it holds the lock now
    waited = []

    def wait():
        try:
            list(download(checkpoint, stopping(3)))
        except Cancelled:
            waited.append("stopped")

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join(30)
    assert waited == ["stopped"]
    list(first)
    assert open_hub("lab/model").missing == ()


def test_a_full_disk_is_named(hub, model, monkeypatch):
    hub.serve("lab/model", model)
    checkpoint = open_hub("lab/model")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HubError, match="The disk is full"):
        list(download(checkpoint, nothing))


def test_content_that_is_not_named_by_its_hash_is_left_to_the_library(hub, model, monkeypatch):
    monkeypatch.setattr(hub_server, "content_hash", lambda path, *_: f"v1-{path.name}")
    hub.serve("lab/model", model)
    list(download(open_hub("lab/model"), nothing))
    after = open_hub("lab/model")
    assert after.missing == ()
    assert_same_weights(after.folder, model)


@pytest.mark.parametrize(
    ("where", "fault", "says"),
    [
        ("HEAD /lab/model/resolve/", BUSY, r"\(17 s\)"),
        (CONTENT, GATED, "is gated"),
        (CONTENT, Fault(500), r"\(500\)"),
        (CONTENT, BUSY, r"\(17 s\)"),
    ],
)
def test_what_the_hub_refuses_in_a_download_is_said_plainly(hub, model, where, fault, says):
    hub.serve("lab/model", model)
    checkpoint = open_hub("lab/model")
    hub.fail(where, fault)
    with pytest.raises(HubError, match=says):
        list(download(checkpoint, nothing))
    hub.faults.clear()
    assert sum(download(checkpoint, nothing)) == (model / SINGLE).stat().st_size
