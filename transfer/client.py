"""Speaking to the Hugging Face Hub: with whose token, how patiently, and its errors put plainly."""

import errno
import os

import huggingface_hub as hf
from huggingface_hub import errors as hub_errors

from .errors import HubError

HOSTED = bool(os.environ.get("SPACE_ID") or os.environ.get("TRANSFERSCOPE_HOSTED"))
TOKEN: bool | None = False if HOSTED else None  # the token of a page's host is never lent to its visitors

TIMEOUT = 20  # seconds without an answer
TRIES = 5  # for a connection that drops without having brought a byte
PAUSE = 1.0  # seconds between two of them
BEAT = 0.25  # seconds between two looks at what has arrived, and at whether somebody pressed stop
# What the client raises: the Hub's refusals (which are OSErrors too), and a connection that fails.
FAILURES = (hub_errors.HTTPError, hub_errors.LocalEntryNotFoundError, OSError)


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
