"""What goes wrong with an endpoint, as sentences that say what to do: its refusals, and failures on the way to it."""

import re
import socket
import ssl
from collections.abc import Sequence

import httpx

from .address import EXAMPLE, Endpoint
from .errors import ChatError

CONNECT = 10.0  # seconds until a connection stands
SILENCE = 120.0  # seconds without a byte: a long prompt on a slow machine may take that long
LISTING = 5.0  # seconds for the names of its models, and for the words of a refusal
TOO_LONG = re.compile(r"context.?(length|window|size)|too long|longer than", re.IGNORECASE)

# What an error on the way comes from, a kind of another one before that other.
WAYS: tuple[tuple[type[BaseException], str], ...] = (
    (socket.gaierror, "cannot be reached: its host is not known here. Check its spelling, and the network."),
    (httpx.ConnectTimeout, "cannot be reached within {connect:g} seconds. Check host and port, and the network."),
    (ssl.SSLCertVerificationError, "shows a certificate that is not trusted here{why} Call it by the name in its "
     "certificate, or set SSL_CERT_FILE to the authority that you trust."),
    (ssl.SSLError, "speaks no https that we understand. Try its address with http:// instead."),
    (ConnectionRefusedError, "cannot be reached: nothing listens there. Start the server, or check the port."),
    (httpx.ConnectError, "cannot be reached{why} Check the address, and the network."),
    (httpx.TimeoutException, "has been silent for {silence:g} seconds and was hung up on. Look at its log."),
    (httpx.TransportError, "closed the connection without an answer. Check its port, and http:// against https://."),
    (TimeoutError, "has not named its models within {listing:g} seconds. Type the model's name."),
)  # fmt: skip


def plainly(endpoint: Endpoint, error: BaseException) -> ChatError:
    """What went wrong on the way."""
    if isinstance(error, ChatError):
        return error
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) and len(causes) < 10:
        causes.append(cause)
    for kind, words in WAYS:
        if found := next((c for c in causes if isinstance(c, kind)), None):
            first = getattr(found, "verify_message", "") or str(causes[-1]) or type(causes[-1]).__name__
            why = sentence(endpoint, first)
            return ChatError(f"{endpoint} {words.format(why=why, connect=CONNECT, silence=SILENCE, listing=LISTING)}")
    return ChatError(f"Asking {endpoint} went wrong{sentence(endpoint, str(error) or type(error).__name__)}")


def sentence(endpoint: Endpoint, said: str) -> str:
    """A server's words to go after one's own: a colon before and a full stop behind, or only that."""
    words = endpoint.clean(said).rstrip(".")
    return f": {words}{'' if words.endswith('…') else '.'}" if words else "."


def refusal(endpoint: Endpoint, response: httpx.Response, said: str) -> ChatError:
    """A status that is no success."""
    status, words = response.status_code, sentence(endpoint, said)
    if 300 <= status < 400:
        where = endpoint.clean(response.headers.get("Location", "")) or "nowhere"
        what = f"sends us on to {where} ({status}), and we do not follow. "
        what += "If you trust that address, give it as the endpoint's."
    elif status in (401, 403):
        what = f"does not let us in ({status}){words} {'Check the key' if endpoint.key else 'Give a key'}."
    elif status == 404:
        what = f"has nothing at {response.url.path} (404){words} "
        what += "Give the address under which the server has its API, as a rule one that ends in /v1."
    elif status == 413 or (status in (400, 422) and TOO_LONG.search(said)):
        what = f"finds this too long ({status}){words} Shorten the prompt, or ask for less."
    elif status == 429:
        wait = endpoint.clean(response.headers.get("Retry-After", ""))
        wait = f" ({wait} s)" if wait.isdigit() else wait and f" ({wait})"
        what = f"asks to wait{wait} before the next question{words}"
    elif status >= 500:
        what = f"has an error of its own ({status}){words} Look at its log, or try again later."
    else:
        what = f"refuses what it is asked ({status}){words}"
    return ChatError(f"{endpoint} {what}")


def missing(endpoint: Endpoint, response: httpx.Response, said: str, others: Sequence[str]) -> ChatError:
    """What the 404 of a question means: no such model, where the server has others, or no such path."""
    no_model = f"{endpoint}: there is no such model (404)"
    if others and endpoint.model not in others:
        return ChatError(f"{no_model}. Choose one that is there{sentence(endpoint, ', '.join(others))}")
    if "model" in said.lower():
        return ChatError(f"{no_model}{sentence(endpoint, said)} Check its name.")
    return refusal(endpoint, response, said)


def is_page(response: httpx.Response, begin: bytes) -> bool:
    """Whether this is a page for people."""
    return "html" in response.headers.get("Content-Type", "") or begin.lstrip()[:1] == b"<"


def check_kind(endpoint: Endpoint, response: httpx.Response, begin: bytes = b"") -> None:
    """Raises ChatError for a success that is not an API's."""
    if is_page(response, begin):
        raise ChatError(f"{endpoint}: that address is a web page, not an API. Give the API's, like {EXAMPLE}.")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise ChatError(
            f"{endpoint} compresses its answers, though it is asked not to. Ask it without what is between."
        )
