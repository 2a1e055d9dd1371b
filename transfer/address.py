"""Who is asked: a model at an address that a person types, with its key; and which addresses a hosted page may ask."""

import ipaddress
import os
import re
from dataclasses import dataclass, field

import httpx

from .client import HOSTED
from .errors import ChatError

ADDRESS = re.compile(r"(https?)://([^/]*)(.*)", re.IGNORECASE)
HOST = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?")
STEP = re.compile(r"[A-Za-z0-9._~:+-]+")  # of a path; nothing encoded, which each end could read in its own way
VERSION = re.compile(r"v\d\w*")
EXAMPLE = "http://127.0.0.1:8000/v1"
WORDS = 300  # characters of what a server says that are repeated


@dataclass(frozen=True)
class Endpoint:
    """A model at an address. Raises ChatError for an address or a key that can be none, or that this page may not ask.

    `url` may be typed with or without `/v1`, `/chat/completions` and a slash at its end. Without a `model` the server is
    asked for the one that it has, which those take that serve a single one.
    """

    url: str
    model: str = ""
    key: str = field(default="", repr=False)

    def __post_init__(self):
        for name, value in {"url": root(self.url), "model": self.model.strip(), "key": self.key.strip()}.items():
            object.__setattr__(self, name, value)
        if not all("!" <= letter <= "~" for letter in self.key):
            raise ChatError("The key holds a space, a line break or a letter that no key has. Copy it once more.")
        permit(self.url)

    def __str__(self) -> str:
        """For display: "qwen at 127.0.0.1:8000". A model that is named by its folder goes by the folder's own name."""
        name = self.model.rstrip("/").rpartition("/")[2] if self.model.startswith("/") else self.model
        host = httpx.URL(self.url).netloc.decode("ascii")
        return f"{name} at {host}" if name else host

    def clean(self, said: str) -> str:
        """What a server said, on one line, of at most WORDS characters, and without the key."""
        said = said.replace(self.key, "[key]") if self.key else said
        said = " ".join("".join(c if c.isprintable() else " " for c in said).split())
        return said if len(said) <= WORDS else said[: WORDS - 1] + "…"


def base(typed: str) -> str:
    """Scheme, host, port and path of an address, all spelled in one way. Raises ChatError, whose sentence repeats nothing
    of it: people paste passwords."""
    found = ADDRESS.fullmatch(typed.strip())
    if not found:
        raise ChatError(f"The address of an endpoint begins with http:// or https://, like {EXAMPLE}.")
    scheme, place, path = found[1].lower(), found[2], found[3]
    if "@" in place + path:
        raise ChatError("An endpoint's address holds no name, no password and no @. Give the key in its own field.")
    if "?" in place + path or "#" in place + path:
        raise ChatError(f"An endpoint's address has nothing after its path, so no ? and no #: like {EXAMPLE}.")
    try:
        url = httpx.URL(f"{scheme}://{place}")
        host, port = url.raw_host.decode("ascii").lower(), url.port
        host = f"[{ipaddress.IPv6Address(host)}]" if ":" in host else host
    except (httpx.InvalidURL, ValueError):
        host, port = "", None
    if not (host.startswith("[") or HOST.fullmatch(host)) or not (port is None or 0 < port < 65536):
        raise ChatError(
            f"The endpoint's address has no host, or a host or a port that cannot be. Give one like {EXAMPLE}."
        )
    steps = [step for step in path.split("/") if step]
    if not all(STEP.fullmatch(step) and step.strip(".") for step in steps):
        raise ChatError(f"The path of the endpoint's address has signs that it cannot have. Give one like {EXAMPLE}.")
    if steps[-2:] == ["chat", "completions"]:
        steps = steps[:-2]
    return "/".join([f"{scheme}://{host}{'' if port is None else f':{port}'}", *steps])


def root(typed: str) -> str:
    """The address that paths such as /chat/completions are put after: with /v1, unless its path has a version already.

    Raises ChatError.
    """
    address = base(typed)
    versioned = any(VERSION.fullmatch(step) for step in address.split("/")[3:])
    return address if versioned else f"{address}/v1"


def permit(url: str) -> None:
    """Raises ChatError where a hosted page's owner did not allow an address: a visitor could reach into its network.

    TRANSFERSCOPE_ENDPOINTS holds the allowed ones with commas between; each allows its own path and what is below it.
    """
    if not HOSTED:
        return
    for typed in os.environ.get("TRANSFERSCOPE_ENDPOINTS", "").split(","):
        try:
            allowed = base(typed)
        except ChatError:  # what is no address allows none
            continue
        if f"{url}/".startswith(f"{allowed}/"):
            return
    raise ChatError(
        "This page asks only endpoints that its owner allows, and this address is none of them. "
        "Run Transferscope on your own machine to ask any."
    )
