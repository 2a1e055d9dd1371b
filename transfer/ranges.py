"""Parts of files on the Hub, by range requests: the headers of a checkpoint, and weights that are not on this disk.

The client is the one that huggingface_hub shares: it keeps 20 connections alive and opens 100 at most, so that it
serves `CONNECTIONS` threads, and it has the person's proxies and certificates.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

import huggingface_hub as hf
from huggingface_hub import errors as hub_errors

from . import client
from .checkpoint import MAX_HEADER, parse_header
from .errors import CheckpointError, HubError
from .once import Once
from .tensors import TensorInfo

GUESS = 100_000  # bytes: most headers fit in these, and so take one request
CONNECTIONS = 16  # threads that are worth reading with: each waits for its answer most of the time
PATIENCE = 30  # seconds that we wait where the Hub asks for it; longer is for the person to decide

Home = tuple[str, dict[str, str]]  # where a file's content is, and the headers to ask there with
Result = TypeVar("Result")


@contextmanager
def part(repo: str, home: Home, begin: int, end: int | None = None) -> Iterator[Any]:
    """A response with the bytes of a file of `repo` from `begin` up to `end`, not read yet."""
    address, headers = home
    asked = {"Range": f"bytes={begin}-{'' if end is None else end - 1}", "Accept-Encoding": "identity"}
    with hf.get_session().stream("GET", address, headers=headers | asked, timeout=client.TIMEOUT) as response:
        hf.hf_raise_for_status(response)
        # Else the whole file would come, and it may be larger than memory.
        if response.status_code != 206 or not response.headers.get("Content-Range", "").startswith(f"bytes {begin}-"):
            raise HubError(f"{hf.constants.ENDPOINT} does not serve parts of files, so {repo} cannot be read from it.")
        yield response


@contextmanager
def ranged(repo: str, file: str, revision: str | None, begin: int, end: int | None = None) -> Iterator[Any]:
    """Like `part`, of a file by its name: asks the Hub, which sends the client on to where the content is."""
    headers = hf.utils.build_hf_headers(token=client.TOKEN)
    with part(repo, (hf.hf_hub_url(repo, file, revision=revision), headers), begin, end) as response:
        yield response


def remote_header(repo: str, file: str, sha: str) -> dict[str, TensorInfo]:
    """The header of a safetensors file on the Hub, as strictly read as one on disk.

    Raises CheckpointError where it is broken, HubError and what the client raises.
    """
    where = f"{repo}/{file}"
    try:
        with ranged(repo, file, sha, 0, GUESS) as response:
            known = response.read()
            size = int(response.headers.get("Content-Range", "").rpartition("/")[2])
    except ValueError as error:
        raise HubError(f"{hf.constants.ENDPOINT} does not say how large {where} is, so it cannot be read.") from error
    except hub_errors.HfHubHTTPError as error:
        if error.response.status_code != 416:
            raise
        known, size = b"", 0  # an empty file has no first byte
    length = int.from_bytes(known[:8], "little")
    if size < 8 or not 2 <= length <= min(MAX_HEADER, size - 8):
        raise CheckpointError(f"{where} is not a safetensors file, or is not whole: its header does not fit.")
    if len(known) < 8 + length:
        with ranged(repo, file, sha, len(known), 8 + length) as response:
            known += response.read()
    return parse_header(known[8 : 8 + length], file, size)


class RemoteFile:
    """A file of a commit on the Hub, read in parts; safe to share between threads.

    The Hub is asked once where the content is, and the parts come from there: it counts what it is asked, and lets each
    visitor ask a few thousand times in five minutes. The address is signed, and serves for a while.
    https://huggingface.co/docs/hub/rate-limits
    """

    def __init__(self, repo: str, file: str, revision: str | None):
        self.repo, self.file = repo, file
        self._url = hf.hf_hub_url(repo, file, revision=revision)
        self._home = Once(self._find)

    def read(self, begin: int, count: int, tick: Callable[[], None] = lambda: None) -> bytes:
        """Bytes [begin, begin + count). `tick` is called while waiting, every `BEAT`, and may raise to stop.

        What fails in passing is tried again a few times. Raises HubError.
        """
        data, failures = b"", 0
        while len(data) < count:
            attempt = attended(partial(self._attempt, begin + len(data), count - len(data)), tick)
            try:
                new = attempt.result()
            except HubError:
                raise
            except Exception as error:
                failures += 1
                if failures >= client.TRIES or not passes(error):
                    raise client.plainly(error, self.repo) from error
                pause(tick, wanted(error))
            else:
                data, failures = data + new, 0 if new else failures + 1
                if failures >= client.TRIES:
                    raise HubError(f"The Hub sends nothing of {self.repo}/{self.file}. Try again in a few minutes.")
                if failures:
                    pause(tick)
        return data

    def _attempt(self, begin: int, count: int) -> bytes:
        """At most `count` bytes from `begin`; fewer where they come too slowly, or the answer is short."""
        home = self._home.get()
        try:
            return self._fetch(home, begin, count)
        except hub_errors.HfHubHTTPError as error:
            if error.response.status_code not in (401, 403):
                raise
        return self._fetch(self._home.get(stale=home), begin, count)  # the address may have run out

    def _find(self) -> Home:
        """Where the content is, by the Hub. The token goes there only if that is the Hub itself."""
        address = hf.get_hf_file_metadata(self._url, token=client.TOKEN, timeout=client.TIMEOUT).location
        own = urlsplit(address)[:2] == urlsplit(self._url)[:2]
        return address, hf.utils.build_hf_headers(token=client.TOKEN if own else False)

    def _fetch(self, home: Home, begin: int, count: int) -> bytes:
        """One request. The client's timeout is for each piece that arrives, so the sum has one of its own."""
        body, end = bytearray(), time.monotonic() + client.TIMEOUT
        with part(self.repo, home, begin, begin + count) as response:
            for piece in response.iter_bytes():
                body += piece
                if len(body) > count or time.monotonic() > end:
                    break
        return bytes(body[:count])


def passes(error: Exception) -> bool:
    """Whether it may go by itself: a connection that fails, or an error of the server's own."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 429:
        return wanted(error) <= PATIENCE
    return isinstance(error, hub_errors.HTTPError) and (status is None or status >= 500)


def wanted(error: Exception) -> float:
    """For how many seconds the Hub asks to wait; PAUSE where it does not say."""
    asked = getattr(getattr(error, "response", None), "headers", {}).get("Retry-After", "")
    return float(asked) if asked.isdigit() else client.PAUSE


def attended(work: Callable[[], Result], tick: Callable[[], None]) -> "Future[Result]":
    """work() in a thread of its own, ended. Where `tick` raises meanwhile it is left to itself: a thread that waits for
    an answer cannot be called back. The thread costs 0.1 ms, beside an answer of tens."""
    done: Future[Result] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    while True:
        tick()
        if wait([done], client.BEAT).done:
            return done


def pause(tick: Callable[[], None], seconds: float | None = None) -> None:
    """Wait for so long, by default PAUSE, or until `tick` raises."""
    end = time.monotonic() + (client.PAUSE if seconds is None else seconds)
    while (left := end - time.monotonic()) > 0:
        tick()
        time.sleep(min(client.BEAT, left))
