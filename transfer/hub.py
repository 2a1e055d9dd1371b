"""The Hugging Face Hub: resolve an id to a commit, read its headers by range requests, download its weights.

What huggingface_hub does, we leave to it; here stand the order of things and its errors in plain words.
"""

import os
import queue
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import huggingface_hub as hf
from huggingface_hub import errors as hub_errors
from tqdm.auto import tqdm

from .checkpoint import (
    CONFIG_FILES,
    INDEX,
    SINGLE,
    TOKENIZER_FILES,
    Checkpoint,
    TensorInfo,
    check_index,
    check_quantised,
    identify,
    no_weights,
    open_folder,
    read_json,
    shards,
)  # fmt: skip
from .errors import HubError

HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}(@[\w./-]{1,200})?$")
TOKEN: bool | None = False if os.environ.get("SPACE_ID") else None  # a Space's own token is never lent to visitors


def looks_like_hub_id(ref: str) -> bool:
    """True for `owner/name` and `owner/name@revision`."""
    return bool(HUB_ID.match(ref)) and ".." not in ref


def plainly(error: Exception, ref: str) -> HubError:
    """A huggingface_hub error as a sentence that says what to do."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    repo = ref.partition("@")[0]
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
    if status == 429:
        wait = error.response.headers.get("Retry-After")  # type: ignore[attr-defined]
        return HubError(f"The Hub asks to wait before reading {repo} again{f' ({wait} s)' if wait else ''}.")
    if status is not None and status >= 500:
        return HubError(f"The Hub answers with an error of its own ({status}) for {repo}. Try again in a few minutes.")
    if isinstance(error, hub_errors.RemoteEntryNotFoundError):
        return HubError(f"{ref} lacks a file that a model needs: {error}.")
    return HubError(
        f"{repo} could not be read from the Hub ({type(error).__name__}). Check the connection, then try again."
    )


def open_hub(ref: str) -> Checkpoint:
    """A checkpoint on the Hub by its id, pinned to a commit. Downloads configs and tokenizer files, no weights.

    Without a connection, a copy in the local cache will do. Raises HubError or CheckpointError.
    """
    repo, _, revision = ref.partition("@")
    try:
        info = hf.HfApi(token=TOKEN).model_info(repo, revision=revision or None, timeout=20)
        sha, names = info.sha or "main", [s.rfilename for s in info.siblings or []]
    except Exception as error:
        cached = in_cache(repo, revision or None)
        if cached is None:
            raise plainly(error, ref) from error
        return replace(open_folder(cached), ref=ref, revision=cached.name)
    if INDEX not in names and SINGLE not in names:
        raise no_weights(ref, names)
    try:
        small = [n for n in (*CONFIG_FILES, *TOKENIZER_FILES, INDEX) if n in names]
        with ThreadPoolExecutor(8) as pool:
            paths = list(pool.map(lambda n: hf.hf_hub_download(repo, n, revision=sha, token=TOKEN), small))
        folder = Path(paths[small.index("config.json")]).parent if "config.json" in small else Path(paths[0]).parent
        files = shards(read_json(folder / INDEX), f"{ref}/{INDEX}") if INDEX in names else [SINGLE]
        missing = tuple(f for f in files if not (folder / f).is_file())
        if not missing:
            return replace(open_folder(folder), ref=ref, revision=sha)
        config = read_json(folder / "config.json")
        with ThreadPoolExecutor(8) as pool:
            headers = pool.map(
                lambda f: hf.HfApi(token=TOKEN).parse_safetensors_file_metadata(repo, f, revision=sha), files
            )
            # Offsets of tensors that are still on the Hub count from the end of the header: good for sizes alone.
            tensors = {
                name: TensorInfo(name, str(t.dtype), tuple(t.shape), file, t.data_offsets[0])
                for file, header in zip(files, headers, strict=True)
                for name, t in header.tensors.items()
            }
    except (hub_errors.HfHubHTTPError, hub_errors.LocalEntryNotFoundError, OSError) as error:
        raise plainly(error, ref) from error
    except (hub_errors.SafetensorsParsingError, hub_errors.NotASafetensorsRepoError) as error:
        raise HubError(f"{ref} holds a safetensors file whose header cannot be read: {error}.") from error
    if INDEX in names:
        check_index(read_json(folder / INDEX), tensors, f"{ref}/{INDEX}")
    check_quantised(ref, config, tensors)
    return Checkpoint(ref, folder, config, tensors, identify(tensors, [repo, sha]), sha, missing)


def in_cache(repo: str, revision: str | None) -> Path | None:
    """The folder of a copy downloaded before, or None."""
    try:
        return Path(hf.snapshot_download(repo, revision=revision, local_files_only=True))
    except (hub_errors.LocalEntryNotFoundError, hub_errors.IncompleteSnapshotError, OSError, ValueError):
        return None


def download(checkpoint: Checkpoint, tick: Callable[[], None]) -> Iterator[int]:
    """Bring the missing weights to this disk, into the Hub library's own cache; yields bytes as they arrive.

    `tick` is called with every chunk and may raise Cancelled to stop: what has arrived is kept, and the next call goes
    on from there. Open the checkpoint anew afterwards. Raises HubError.
    """
    repo = checkpoint.ref.partition("@")[0]
    for file in checkpoint.missing:
        arrived: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        with ThreadPoolExecutor(1) as pool:
            work = pool.submit(fetch, repo, file, checkpoint.revision, arrived, tick)
            work.add_done_callback(partial(end, arrived))
            while (count := arrived.get()) is not None:
                yield count
        try:
            work.result()
        except (hub_errors.HfHubHTTPError, hub_errors.LocalEntryNotFoundError, OSError) as error:
            raise plainly(error, checkpoint.ref) from error


def end(out: queue.SimpleQueue, _) -> None:
    """Tell the reader of the queue that nothing more will come."""
    out.put(None)


def fetch(repo: str, file: str, revision: str | None, out: queue.SimpleQueue, tick: Callable[[], None]) -> None:
    """One file; the size of every chunk goes to `out`."""

    class Bar(tqdm):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **{k: v for k, v in kwargs.items() if k != "name"} | {"disable": True})

        def update(self, n=1):
            tick()
            out.put(int(n or 0))

    hf.hf_hub_download(repo, file, revision=revision, token=TOKEN, tqdm_class=Bar)
