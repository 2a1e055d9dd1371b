"""The Hugging Face Hub: resolve an id to a commit, fetch its small files, and read its headers by range requests.

What huggingface_hub does, we leave to it; here stands the order of things.
"""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import huggingface_hub as hf
from huggingface_hub import errors as hub_errors

from . import client, quant
from .checkpoint import (
    CONFIG_FILES,
    INDEX,
    SINGLE,
    TOKENIZER_FILES,
    Checkpoint,
    check_index,
    identify,
    no_weights,
    open_folder,
    read_json,
    shards,
)  # fmt: skip
from .client import HOSTED as HOSTED
from .errors import CheckpointError
from .ranges import remote_header
from .tensors import TensorInfo

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}(@[\w./-]{1,200})?", re.ASCII)


def looks_like_hub_id(ref: str) -> bool:
    """True for `owner/name` and `owner/name@revision`."""
    return bool(HUB_ID.fullmatch(ref)) and ".." not in ref


def open_hub(ref: str) -> Checkpoint:
    """A checkpoint on the Hub by its id, pinned to a commit. Downloads configs and tokenizer files, no weights.

    Without a connection, a copy in the local cache will do. Raises HubError or CheckpointError.
    """
    repo, _, revision = ref.partition("@")
    try:
        info = hf.HfApi(token=client.TOKEN).model_info(repo, revision=revision or None, timeout=client.TIMEOUT)
        sha, names = info.sha or "main", [s.rfilename for s in info.siblings or []]
    except Exception as error:
        cached = in_cache(repo, revision or None)
        if cached is None:
            raise client.plainly(error, ref) from error
        return pin(open_folder(cached), ref, cached.name)
    if INDEX not in names and SINGLE not in names:
        raise no_weights(ref, names)
    if "config.json" not in names:
        raise CheckpointError(f"{ref} has no config.json, so it does not say what model its weights make.")
    small = [n for n in (*CONFIG_FILES, *TOKENIZER_FILES, INDEX) if n in names]
    try:
        if not isinstance(hf.try_to_load_from_cache(repo, "config.json", revision=sha), str):
            # Ask once in a way that fails at once: the download below waits and tries again for as long as it is told.
            hf.get_hf_file_metadata(
                hf.hf_hub_url(repo, "config.json", revision=sha), token=client.TOKEN, timeout=client.TIMEOUT
            )
        with ThreadPoolExecutor(8) as pool:
            paths = list(pool.map(lambda n: hf.hf_hub_download(repo, n, revision=sha, token=client.TOKEN), small))
        folder = Path(paths[small.index("config.json")]).parent
        # By its name once more: this makes the cache note which commit the name stood for, for when there is no Hub.
        hf.hf_hub_download(repo, "config.json", revision=revision or "main", token=client.TOKEN)
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
    except client.FAILURES as error:
        raise client.plainly(error, ref) from error
    if SINGLE not in names:
        check_index(read_json(folder / INDEX), tensors, f"{ref}/{INDEX}")
    tensors = quant.recognise(ref, config, tensors)
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
