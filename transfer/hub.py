"""The Hugging Face Hub: resolve an id to a commit, read its headers by range requests, download its weights.

What huggingface_hub does, we leave to it; here stand the order of things and its errors in plain words. Weights alone
we fetch ourselves, into its cache: it can neither be stopped within a file nor go on from a part of one.
"""

import errno
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub as hf
from filelock import FileLock, Timeout
from huggingface_hub import errors as hub_errors

from .checkpoint import (
    CONFIG_FILES,
    INDEX,
    MAX_HEADER,
    SINGLE,
    TOKENIZER_FILES,
    Checkpoint,
    TensorInfo,
    check_index,
    check_quantised,
    identify,
    no_weights,
    open_folder,
    parse_header,
    read_json,
    shards,
)  # fmt: skip
from .errors import CheckpointError, HubError

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}(@[\w./-]{1,200})?", re.ASCII)
HOSTED = bool(os.environ.get("SPACE_ID") or os.environ.get("TRANSFERSCOPE_HOSTED"))
TOKEN: bool | None = False if HOSTED else None  # the token of a page's host is never lent to its visitors

TIMEOUT = 20  # seconds without an answer
GUESS = 100_000  # bytes: most headers fit in these, and so take one request
TRIES = 5  # for a connection that drops without having brought a byte
PAUSE = 1.0  # seconds between two of them
BEAT = 0.25  # seconds between two counts of what has arrived
# What the client raises: the Hub's refusals (which are OSErrors too), and a connection that fails.
FAILURES = (hub_errors.HTTPError, hub_errors.LocalEntryNotFoundError, OSError)


def free_disk() -> int:
    """Bytes free where downloads go."""
    folder = Path(hf.constants.HF_HUB_CACHE).absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def looks_like_hub_id(ref: str) -> bool:
    """True for `owner/name` and `owner/name@revision`."""
    return bool(HUB_ID.fullmatch(ref)) and ".." not in ref


def plainly(error: Exception, ref: str) -> HubError:
    """A huggingface_hub error as a sentence that says what to do."""
    if isinstance(error, hub_errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # "not found in the cache" hides what the Hub, or the way to it, said
    response = getattr(error, "response", None)
    status, headers = getattr(response, "status_code", None), getattr(response, "headers", {})
    repo = ref.partition("@")[0]
    if isinstance(error, hub_errors.OfflineModeIsEnabled):
        return HubError(
            f"{ref} is not whole on this disk, and HF_HUB_OFFLINE keeps us from the Hub. Unset it, or give a folder."
        )
    if isinstance(error, hub_errors.HFValidationError):
        return HubError(f"{repo!r} is not a Hub id. Give one like owner/name or owner/name@revision.")
    if isinstance(error, hub_errors.GatedRepoError):
        return HubError(
            f"{repo} is gated. Ask for access at {hf.constants.ENDPOINT}/{repo}, log in with `hf auth login`, try again."
        )
    if isinstance(error, hub_errors.DisabledRepoError):
        return HubError(f"{repo} has been disabled on the Hub.")
    if isinstance(error, hub_errors.RevisionNotFoundError):
        return HubError(f"{ref}: there is no such revision of {repo}. Revision names are case-sensitive.")
    if isinstance(error, hub_errors.RepositoryNotFoundError):
        return HubError(f"{repo} is not on the Hub, or is private and you are not logged in. Check the spelling.")
    if isinstance(error, hub_errors.RemoteEntryNotFoundError):
        return HubError(f"{ref} lacks the file {str(getattr(response, 'url', '')).rpartition('/')[2]}.")
    if status in (401, 403):
        return HubError(f"The Hub does not let you read {repo} ({status}). Log in with `hf auth login`, try again.")
    if status == 429:
        wait = headers.get("Retry-After")
        return HubError(f"The Hub asks to wait before reading {repo} again{f' ({wait} s)' if wait else ''}.")
    if status is not None and status >= 500:
        return HubError(f"The Hub answers with an error of its own ({status}) for {repo}. Try again in a few minutes.")
    if isinstance(error, hub_errors.HTTPError) and status is None:
        return HubError(
            f"The Hub at {hf.constants.ENDPOINT} cannot be reached for {repo} ({type(error).__name__}). "
            "Check the connection, then try again."
        )
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return HubError(f"The disk is full, so {repo} could not be stored in {hf.constants.HF_HUB_CACHE}. Free some.")
    return HubError(
        f"{repo} could not be read from the Hub ({status or type(error).__name__}). Check the connection, then try again."
    )


def open_hub(ref: str) -> Checkpoint:
    """A checkpoint on the Hub by its id, pinned to a commit. Downloads configs and tokenizer files, no weights.

    Without a connection, a copy in the local cache will do. Raises HubError or CheckpointError.
    """
    repo, _, revision = ref.partition("@")
    try:
        info = hf.HfApi(token=TOKEN).model_info(repo, revision=revision or None, timeout=TIMEOUT)
        sha, names = info.sha or "main", [s.rfilename for s in info.siblings or []]
    except Exception as error:
        cached = in_cache(repo, revision or None)
        if cached is None:
            raise plainly(error, ref) from error
        return pin(open_folder(cached), ref, cached.name)
    if INDEX not in names and SINGLE not in names:
        raise no_weights(ref, names)
    if "config.json" not in names:
        raise CheckpointError(f"{ref} has no config.json, so it does not say what model its weights make.")
    small = [n for n in (*CONFIG_FILES, *TOKENIZER_FILES, INDEX) if n in names]
    try:
        if not isinstance(hf.try_to_load_from_cache(repo, "config.json", revision=sha), str):
            # Ask once in a way that fails at once: the download below waits and tries again for as long as it is told.
            hf.get_hf_file_metadata(hf.hf_hub_url(repo, "config.json", revision=sha), token=TOKEN, timeout=TIMEOUT)
        with ThreadPoolExecutor(8) as pool:
            paths = list(pool.map(lambda n: hf.hf_hub_download(repo, n, revision=sha, token=TOKEN), small))
        folder = Path(paths[small.index("config.json")]).parent
        # By its name once more: this makes the cache note which commit the name stood for, for when there is no Hub.
        hf.hf_hub_download(repo, "config.json", revision=revision or "main", token=TOKEN)
        config = read_json(folder / "config.json")
        files = [SINGLE] if SINGLE in names else shards(read_json(folder / INDEX), f"{ref}/{INDEX}")
        if absent := sorted({*files} - {*names}):
            raise CheckpointError(f"{ref}/{INDEX} names {', '.join(absent)}, and {repo} has no such file.")
        missing = tuple(f for f in files if not (folder / f).is_file())
        if not missing:
            return pin(open_folder(folder), ref, sha)
        tensors: dict[str, TensorInfo] = {}
        with ThreadPoolExecutor(8) as pool:
            for header in pool.map(lambda f: remote_header(repo, f, sha), files):
                tensors.update(header)
    except FAILURES as error:
        raise plainly(error, ref) from error
    if SINGLE not in names:
        check_index(read_json(folder / INDEX), tensors, f"{ref}/{INDEX}")
    check_quantised(ref, config, tensors)
    return pin(Checkpoint(ref, folder, config, tensors, "", sha, missing), ref, sha)


def pin(checkpoint: Checkpoint, ref: str, sha: str) -> Checkpoint:
    """Call it by its id and commit. The identity goes by these, so that it is the same before and after a download."""
    identity = identify(checkpoint.tensors, [ref.partition("@")[0], sha])
    return replace(checkpoint, ref=ref, revision=sha, identity=identity)


def in_cache(repo: str, revision: str | None) -> Path | None:
    """The folder of a whole copy downloaded before, or None."""
    try:
        folder = Path(hf.snapshot_download(repo, revision=revision, local_files_only=True))
        open_folder(folder)  # a checkpoint that was only looked at has left its configs there, and no weights
        return folder
    except (hub_errors.LocalEntryNotFoundError, CheckpointError, OSError, ValueError):
        return None


@contextmanager
def ranged(repo: str, file: str, revision: str | None, begin: int, end: int | None = None) -> Iterator[Any]:
    """A response with the bytes of a file on the Hub from `begin` up to `end`, not read yet."""
    headers = hf.utils.build_hf_headers(token=TOKEN) | {
        "Range": f"bytes={begin}-{'' if end is None else end - 1}",
        "Accept-Encoding": "identity",
    }
    url = hf.hf_hub_url(repo, file, revision=revision)
    with hf.get_session().stream("GET", url, headers=headers, timeout=TIMEOUT) as response:
        hf.hf_raise_for_status(response)
        if response.status_code != 206:  # the whole file would come, and it may be larger than memory
            raise HubError(f"{hf.constants.ENDPOINT} does not serve parts of files, so {repo} cannot be read from it.")
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


def download(checkpoint: Checkpoint, tick: Callable[[], None]) -> Iterator[int]:
    """Bring the missing weights to this disk, into the Hub library's own cache; yields bytes as they arrive.

    `tick` is called with every chunk and may raise Cancelled to stop: what has arrived is kept, and the next call goes
    on from there, counting what it finds. Open the checkpoint anew afterwards. Raises HubError.
    """
    repo = checkpoint.ref.partition("@")[0]
    for file in checkpoint.missing:
        try:
            url = hf.hf_hub_url(repo, file, revision=checkpoint.revision)
            about = hf.get_hf_file_metadata(url, token=TOKEN, timeout=TIMEOUT)
            # The Hub names a file by the hash of its content. What is named otherwise is left to the library.
            if about.size and re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", about.etag or ""):
                yield from fetch(checkpoint, file, str(about.etag), about.size, tick)
            hf.hf_hub_download(repo, file, revision=checkpoint.revision, token=TOKEN)  # finds the content, links to it
        except FAILURES as error:
            raise plainly(error, checkpoint.ref) from error


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
                            if time.monotonic() - told > BEAT:
                                yield new
                                new, told = 0, time.monotonic()
                except hub_errors.HTTPError as error:
                    if isinstance(error, hub_errors.HfHubHTTPError) or failures >= TRIES:
                        raise
                    time.sleep(PAUSE)
                if failures >= TRIES:
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
    lock = FileLock(path, timeout=BEAT, thread_local=False)  # a generator may be closed by another thread
    while True:
        tick()
        with suppress(Timeout):
            lock.acquire()
            break
    try:
        yield
    finally:
        lock.release()
