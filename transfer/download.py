"""Bring the weights of a checkpoint on the Hub to this disk, into huggingface_hub's own cache.

Weights alone we fetch ourselves: the library can neither be stopped within a file nor go on from a part of one.
"""

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import huggingface_hub as hf
from filelock import FileLock, Timeout
from huggingface_hub import errors as hub_errors

from . import client
from .checkpoint import Checkpoint
from .errors import HubError
from .ranges import ranged


def free_disk() -> int:
    """Bytes free where downloads go."""
    folder = Path(hf.constants.HF_HUB_CACHE).absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def download(checkpoint: Checkpoint, tick: Callable[[], None]) -> Iterator[int]:
    """Bring the missing weights to this disk, into the Hub library's own cache; yields bytes as they arrive.

    `tick` is called with every chunk and may raise Cancelled to stop: what has arrived is kept, and the next call goes
    on from there, counting what it finds. Open the checkpoint anew afterwards. Raises HubError.
    """
    repo = checkpoint.ref.partition("@")[0]
    for file in checkpoint.missing:
        try:
            url = hf.hf_hub_url(repo, file, revision=checkpoint.revision)
            about = hf.get_hf_file_metadata(url, token=client.TOKEN, timeout=client.TIMEOUT)
            # The Hub names a file by the hash of its content. What is named otherwise is left to the library.
            if about.size and re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", about.etag or ""):
                yield from fetch(checkpoint, file, str(about.etag), about.size, tick)
            # This finds the content, and links to it.
            hf.hf_hub_download(repo, file, revision=checkpoint.revision, token=client.TOKEN)
        except client.FAILURES as error:
            raise client.plainly(error, checkpoint.ref) from error


def fetch(checkpoint: Checkpoint, file: str, etag: str, size: int, tick: Callable[[], None]) -> Iterator[int]:
    """One file of `size` bytes into the cache's folder of contents, where it is called by its hash.

    A part of it lies beside under a name of its own. The layout is the library's:
    https://huggingface.co/docs/huggingface_hub/guides/manage-cache
    """
    repo, store = checkpoint.ref.partition("@")[0], checkpoint.folder.parents[1]  # …/snapshots/<commit>
    whole, part = store / "blobs" / etag, store / "blobs" / f"{etag}.part"
    lock = store.parent / ".locks" / store.name / f"{etag}.part.lock"
    for folder in (whole.parent, lock.parent):
        folder.mkdir(parents=True, exist_ok=True)
    # git's name for a file of its own is the SHA-1 of this and the content; that of a large file is the SHA-256.
    digest = hashlib.sha256() if len(etag) == 64 else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    have = new = failures = 0
    told = time.monotonic()
    with alone(lock, tick):
        if whole.is_file():
            yield size
            return
        with part.open("a+b") as out:
            out.seek(0)
            while chunk := out.read(1 << 20):
                tick()
                digest.update(chunk)
                have += len(chunk)
            yield have
            while have < size:
                failures += 1
                try:
                    with ranged(repo, file, checkpoint.revision, have) as response:
                        for chunk in response.iter_bytes():
                            tick()
                            out.write(chunk)
                            digest.update(chunk)
                            have, new, failures = have + len(chunk), new + len(chunk), 0
                            if time.monotonic() - told > client.BEAT:
                                yield new
                                new, told = 0, time.monotonic()
                except hub_errors.HTTPError as error:
                    if isinstance(error, hub_errors.HfHubHTTPError) or failures >= client.TRIES:
                        raise
                    time.sleep(client.PAUSE)
                if failures >= client.TRIES:
                    raise HubError(f"The Hub sends nothing of {repo}/{file}. Try again in a few minutes.")
            out.flush()
            os.fsync(out.fileno())
        if have != size or digest.hexdigest() != etag:
            part.unlink()
            raise HubError(f"{repo}/{file} arrived damaged: its content is not what the Hub says. Download it again.")
        part.replace(whole)
    yield new


@contextmanager
def alone(path: Path, tick: Callable[[], None]) -> Iterator[None]:
    """Hold a lock file: somebody else may be fetching the same content."""
    lock = FileLock(path, timeout=client.BEAT, thread_local=False)  # a generator may be closed by another thread
    while True:
        tick()
        with suppress(Timeout):
            lock.acquire()
            break
    try:
        yield
    finally:
        lock.release()
