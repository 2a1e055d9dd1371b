"""Answers from an OpenAI-compatible endpoint, streamed: vLLM, SGLang, `transformers serve`, llama.cpp's server, …

Each conversation runs in a thread and an event loop of its own, so that one that says nothing can be hung up on at once.
What a server says is foreign: it is bounded, never followed elsewhere, and repeated without the key that it may echo.
"""

import asyncio
import ipaddress
import json
import logging
import os
import queue
import re
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import httpx

from .client import HOSTED
from .errors import ChatError
from .prompt import Message
from .sampling import Sampling

CONNECT = 10.0  # seconds until a connection stands
SILENCE = 120.0  # seconds without a byte: a long prompt on a slow machine may take that long
LISTING = 5.0  # seconds for the names of its models, and for the words of a refusal
TAIL = 2.0  # seconds for what may come after the last word: the count of tokens
BEAT = 0.05  # seconds between two looks at whether somebody pressed stop
CLOSING = 0.3  # seconds that a closed stream waits for its connection to be closed
LINE = 1_000_000  # bytes of one event, and of any answer that is no stream
LONGEST = 1_000_000  # characters of an answer
WORDS = 300  # characters of what a server says that are repeated
NAMED = 10  # of a server's models, in a sentence

ADDRESS = re.compile(r"(https?)://([^/]*)(.*)", re.IGNORECASE)
HOST = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?")
STEP = re.compile(r"[A-Za-z0-9._~:+-]+")  # of a path; nothing encoded, which each end could read in its own way
VERSION = re.compile(r"v\d\w*")
TOO_LONG = re.compile(r"context.?(length|window|size)|too long|longer than", re.IGNORECASE)
THREAD = "endpoint"  # what the threads of conversations are called
END = object()  # a conversation's last word
EXAMPLE = "http://127.0.0.1:8000/v1"

# Where somebody has debug logs on, these hold every header that a server sends, and it may send the key back in one.
logging.getLogger("httpcore.http11").addFilter(lambda record: record.threadName != THREAD)


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

    def clean(self, said: str, most: int = WORDS) -> str:
        """What a server said, on one line, of at most so many characters, and without the key."""
        said = said.replace(self.key, "[key]") if self.key else said
        said = " ".join("".join(c if c.isprintable() else " " for c in said).split())
        return said if len(said) <= most else said[: most - 1] + "…"


@dataclass(frozen=True)
class Piece:
    """What came at one moment, and what is known by then. The last one has no text, and the reason for the end.

    `tokens` counts pieces of text until the server gives its own count; `finish` is "stop", "length", … or None where the
    server gives no reason; `model` is what the server calls itself; `without` names what it would not be told.
    """

    text: str = ""
    thought: bool = False  # said to itself, before the answer
    tokens: int = 0
    finish: str | None = None
    model: str = ""
    fingerprint: str = ""
    without: tuple[str, ...] = ()


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


class Events:
    """Server-sent events out of bytes as they come, by the WHATWG's rules: lines end in CR, LF or both, an event in an
    empty line, and its lines of data are one text."""

    def __init__(self):
        self.line = bytearray()
        self.data: list[str] = []
        self.size = 0  # of that data, with its lines' ends
        self.half = False  # the last byte was a CR, whose LF may come yet
        self.first = True

    @property
    def pending(self) -> int:
        """Bytes and characters of what is not whole yet."""
        return len(self.line) + self.size

    def feed(self, chunk: bytes) -> list[str]:
        """The data of every event that these bytes complete."""
        if self.half and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        self.half = chunk.endswith(b"\r")
        events = []
        begin, *others = re.split(rb"\r\n|\r|\n", chunk)
        self.line += begin
        for begin in others:
            line = self.line.decode("utf-8", "replace")
            self.line[:] = begin
            if self.first:
                line, self.first = line.removeprefix("\ufeff"), False
            if line:
                self.take(line)
            elif self.data:
                events.append("\n".join(self.data))
                self.data, self.size = [], 0
        return events

    def take(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "error":  # llama.cpp's servers of old
            name, value = "data", f'{{"error": {value}}}'
        if name == "data":
            self.data.append(value)
            self.size += len(value) + 1


@dataclass
class Reply:
    """An answer as far as it has come."""

    endpoint: Endpoint
    without: tuple[str, ...]
    tokens: int = 0
    length: int = 0
    finish: str | None = None
    model: str = ""
    fingerprint: str = ""

    def piece(self, text: str = "", thought: bool = False) -> Piece:
        return Piece(text, thought, self.tokens, None, self.model, self.fingerprint, self.without)

    def last(self) -> Piece:
        return Piece("", False, self.tokens, self.finish, self.model, self.fingerprint, self.without)

    def take(self, said: str) -> Iterator[Piece]:
        """What one event brings. Raises ChatError for an error that it holds, and for what is no answer."""
        chunk = parsed(said)
        if not isinstance(chunk, dict):
            raise ChatError(f"{self.endpoint} sent what is no JSON of a chat{sentence(self.endpoint, said)}")
        if chunk.get("error") or chunk.get("object") == "error":
            words = sentence(self.endpoint, message(chunk))
            raise ChatError(f"{self.endpoint} broke off with an error of its own{words} What came until then is kept.")
        self.model = self.name(chunk.get("model")) or self.model
        self.fingerprint = self.name(chunk.get("system_fingerprint")) or self.fingerprint
        choice = next(iter(listed(chunk.get("choices"))), {})
        delta = choice.get("delta") or choice.get("message")  # a whole message where it was asked for a stream in vain
        delta = delta if isinstance(delta, dict) else {}
        for text, thought in (
            (delta.get("reasoning_content") or delta.get("reasoning"), True),
            (delta.get("content"), False),
        ):
            if isinstance(text, str) and text:
                self.tokens += 1
                self.length += len(text)
                if self.length > LONGEST:
                    raise ChatError(
                        f"{self.endpoint} has said more than {LONGEST:,} characters and was cut off. "
                        "What came until then is kept."
                    )
                yield self.piece(text, thought)
        self.finish = self.name(choice.get("finish_reason")) or self.finish
        usage = chunk.get("usage")
        count = usage.get("completion_tokens") if isinstance(usage, dict) else None
        if type(count) is int and count > 0:
            self.tokens = count

    def name(self, said: Any) -> str:
        return self.endpoint.clean(said) if isinstance(said, str) else ""


def parsed(said: str | bytes) -> Any:
    """JSON's value; None for what is no JSON."""
    try:
        return json.loads(said)
    except (ValueError, RecursionError):
        return None


def listed(value: Any) -> list[dict]:
    """The objects of a JSON list; none where it is no list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def message(body: Any) -> str:
    """The words in an error's JSON, in whichever way servers put them: OpenAI's, FastAPI's or plainly."""
    if isinstance(body, list):  # FastAPI's, whose items also hold all that it was sent
        parts = [(" ".join(map(str, item.get("loc") or [])), str(item.get("msg") or "")) for item in listed(body)]
        return "; ".join(": ".join(filter(None, part)) for part in parts)
    if not isinstance(body, dict):
        return body if isinstance(body, str) else ""
    return next((words for key in ("error", "detail", "message") if (words := message(body.get(key)))), "")


def sentence(endpoint: Endpoint, said: str) -> str:
    """A server's words to go after one's own: a colon before and a full stop behind, or only that."""
    words = endpoint.clean(said).rstrip(".")
    return f": {words}{'' if words.endswith('…') else '.'}" if words else "."


@lru_cache(1)
def trust() -> ssl.SSLContext:
    """The certificates that are trusted: certifi's, or those of SSL_CERT_FILE."""
    return httpx.create_ssl_context()


def client(endpoint: Endpoint) -> httpx.AsyncClient:
    """A connection that sends this endpoint's key and nothing else of this machine's: no proxies, no netrc, no token."""
    return httpx.AsyncClient(
        headers={
            "User-Agent": "transferscope",
            "Accept-Encoding": "identity",  # a little that is compressed may be very much
            **({"Authorization": f"Bearer {endpoint.key}"} if endpoint.key else {}),
        },
        verify=trust(),
        trust_env=False,
        follow_redirects=False,
        limits=httpx.Limits(max_keepalive_connections=0),  # one that is kept may be closed just as it is used again
        timeout=httpx.Timeout(SILENCE, connect=CONNECT),
    )


def request(endpoint: Endpoint, messages: Sequence[Message], sampling: Sampling) -> dict[str, Any]:
    """The fields of a question. At temperature 0 the nucleus is left whole: the likeliest token is in every one."""
    return {
        **({"model": endpoint.model} if endpoint.model else {}),
        "messages": list(messages),
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": sampling.temperature,
        "top_p": sampling.top_p if sampling.temperature else 1.0,
        "max_tokens": sampling.max_tokens,
        "seed": sampling.seed,
    }


def leaner(fields: dict[str, Any], said: str) -> dict[str, Any] | None:
    """The question without the fields that a refusal names and that can be spared; None where none are.

    What makes the answer another one stays, but for the seed: a server that takes none gives answers that are as likely.
    """
    spare = {"stream_options", "seed"} | ({"top_p"} if fields["top_p"] == 1 else set())
    left = {k: v for k, v in fields.items() if not (k in spare and re.search(rf"\b{k}\b", said))}
    if "max_completion_tokens" in said:  # what OpenAI's own calls it by now
        left["max_completion_tokens"] = left.pop("max_tokens")
    return left if left != fields else None


async def body(response: httpx.Response) -> bytes:
    """What a response holds, or the first of it."""
    got = bytearray()
    async for chunk in response.aiter_raw():
        got += chunk
        if len(got) > LINE:
            break
    return bytes(got)


async def refused(response: httpx.Response) -> str:
    """The words of a refusal, or as much of them as comes in time; none from a page for people."""
    got = b""
    with suppress(TimeoutError, httpx.HTTPError):  # the status says enough
        async with asyncio.timeout(LISTING):
            got = await body(response)
    if is_page(response, got):
        return ""
    value = parsed(got)
    return message(value) if isinstance(value, dict | list | str) else got.decode("utf-8", "replace")


def is_page(response: httpx.Response, begin: bytes) -> bool:
    return "html" in response.headers.get("Content-Type", "") or begin.lstrip()[:1] == b"<"


def refusal(endpoint: Endpoint, response: httpx.Response, said: str) -> ChatError:
    """A status that is no success, as a sentence that says what to do."""
    status, words = response.status_code, sentence(endpoint, said)
    if 300 <= status < 400:
        where = endpoint.clean(response.headers.get("Location", "")) or "nowhere"
        return ChatError(
            f"{endpoint} sends us on to {where} ({status}), and we do not follow. "
            "If you trust that address, give it as the endpoint's."
        )
    if status in (401, 403):
        what = "Check the key" if endpoint.key else "Give a key"
        return ChatError(f"{endpoint} does not let us in ({status}){words} {what}.")
    if status == 413 or (status in (400, 422) and TOO_LONG.search(said)):
        return ChatError(f"{endpoint} finds this too long ({status}){words} Shorten the prompt, or ask for less.")
    if status == 429:
        wait = endpoint.clean(response.headers.get("Retry-After", ""), 40)
        wait = f"{wait} s" if wait.isdigit() else wait
        return ChatError(f"{endpoint} asks to wait{f' ({wait})' if wait else ''} before the next question{words}")
    if status >= 500:
        return ChatError(f"{endpoint} has an error of its own ({status}){words} Look at its log, or try again later.")
    return ChatError(f"{endpoint} refuses what it is asked ({status}){words}")


async def missing(http: httpx.AsyncClient, endpoint: Endpoint, said: str) -> ChatError:
    """What a 404 means: no such model, where the server knows others, or no such path."""
    try:
        names = await named(http, endpoint)
    except (ChatError, httpx.HTTPError, TimeoutError):
        names = []
    if names and endpoint.model not in names:
        some = endpoint.clean(", ".join(names[:NAMED])) + (
            f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        )
        return ChatError(f"{endpoint}: there is no such model (404). Choose one that is there: {some}.")
    if "model" in said.lower():
        return ChatError(f"{endpoint}: there is no such model (404){sentence(endpoint, said)} Check its name.")
    return nowhere(endpoint, "/chat/completions", said)


def nowhere(endpoint: Endpoint, path: str, said: str) -> ChatError:
    """A path that a server does not know."""
    return ChatError(
        f"{endpoint} has nothing at {httpx.URL(endpoint.url).path}{path} (404){sentence(endpoint, said)} "
        "Give the address under which the server has its API, as a rule one that ends in /v1."
    )


def check_kind(endpoint: Endpoint, response: httpx.Response, begin: bytes = b"") -> None:
    """Raises ChatError for a success that is not an API's."""
    if is_page(response, begin):
        raise ChatError(f"{endpoint}: that address is a web page, not an API. Give the API's, like {EXAMPLE}.")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise ChatError(
            f"{endpoint} compresses its answers, though it is asked not to. Ask it without what is between."
        )


async def named(http: httpx.AsyncClient, endpoint: Endpoint) -> list[str]:
    """The names of an endpoint's models. Raises ChatError, TimeoutError and what httpx raises."""
    async with asyncio.timeout(LISTING), http.stream("GET", f"{endpoint.url}/models") as response:
        if not response.is_success:
            said = await refused(response)
            is_unknown = response.status_code == 404
            raise nowhere(endpoint, "/models", said) if is_unknown else refusal(endpoint, response, said)
        got = await body(response)
    check_kind(endpoint, response, got)
    found = parsed(got)
    names = [item.get("id") for item in listed(found.get("data") if isinstance(found, dict) else None)]
    if not isinstance(found, dict) or not isinstance(found.get("data"), list):
        raise ChatError(f"{endpoint} does not list its models as an OpenAI-compatible API does. Type the model's name.")
    return [endpoint.clean(name) for name in names if isinstance(name, str) and name]


async def read(response: httpx.Response, reply: Reply, say: Callable[[Piece], None]) -> None:
    """An answer to its end. Raises ChatError, and httpx's for a silence."""
    endpoint = reply.endpoint
    check_kind(endpoint, response)
    whole = broken = False
    if "json" in response.headers.get("Content-Type", ""):  # it does not stream
        for piece in reply.take((await body(response)).decode("utf-8", "replace")):
            say(piece)
    else:
        try:
            whole = await follow(response, reply, say)
        except httpx.TimeoutException:
            raise
        except httpx.TransportError:
            broken = True
    if whole or reply.finish:
        return say(reply.last())
    if reply.tokens or broken:
        raise ChatError(f"{endpoint} broke off before its answer was whole. What came until then is kept; ask again.")
    raise ChatError(
        f"{endpoint} answers with nothing that is a chat's. Check that its address is an API's, like {EXAMPLE}."
    )


async def follow(response: httpx.Response, reply: Reply, say: Callable[[Piece], None]) -> bool:
    """A stream's events until its end; whether it said that this is the end. Raises ChatError and what httpx raises."""
    events, first = Events(), True
    with suppress(TimeoutError):  # of the tail: all was said
        async with asyncio.timeout(None) as limit:
            async for chunk in response.aiter_raw():
                if first:
                    check_kind(reply.endpoint, response, chunk)
                    first = False
                for event in events.feed(chunk):
                    if event.strip() == "[DONE]":
                        return True
                    for piece in reply.take(event):
                        say(piece)
                if events.pending > LINE:
                    raise ChatError(f"{reply.endpoint} sent a line of more than {LINE:,} bytes, which is no answer's.")
                if reply.finish and limit.when() is None:
                    limit.reschedule(asyncio.get_running_loop().time() + TAIL)
    return False


async def ask(
    endpoint: Endpoint, messages: Sequence[Message], sampling: Sampling, say: Callable[[Piece], None]
) -> None:
    """One question; a second time where the server refuses fields that it can do without."""
    asked = fields = request(endpoint, messages, sampling)
    async with client(endpoint) as http:
        while True:
            async with http.stream(
                "POST",
                f"{endpoint.url}/chat/completions",
                content=json.dumps(asked).encode("ascii"),
                headers={"Content-Type": "application/json", "Accept": "text/event-stream"},
            ) as response:
                if response.is_success:
                    without = tuple(sorted(fields.keys() - asked.keys() - {"max_tokens"}))
                    return await read(response, Reply(endpoint, without), say)
                said = await refused(response)
            if response.status_code == 404:
                raise await missing(http, endpoint, said)
            again = leaner(asked, said) if asked is fields and response.status_code in (400, 422) else None
            if again is None:
                raise refusal(endpoint, response, said)
            asked = again


def plainly(endpoint: Endpoint, error: BaseException) -> ChatError:
    """What went wrong on the way as a sentence that says what to do."""
    if isinstance(error, ChatError):
        return error
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) and len(causes) < 10:
        causes.append(cause)

    def caused_by(*kinds: type) -> BaseException | None:
        return next((c for c in causes if isinstance(c, kinds)), None)

    if caused_by(socket.gaierror):
        return ChatError(
            f"{endpoint} cannot be reached: its host is not known here. Check its spelling, and the network."
        )
    if caused_by(httpx.ConnectTimeout):
        return ChatError(
            f"{endpoint} cannot be reached within {CONNECT:g} seconds. Check host and port, and the network."
        )
    if found := caused_by(ssl.SSLCertVerificationError):
        why = sentence(endpoint, getattr(found, "verify_message", ""))
        return ChatError(
            f"{endpoint} shows a certificate that is not trusted here{why} "
            "Call it by the name in its certificate, or set SSL_CERT_FILE to the authority that you trust."
        )
    if caused_by(ssl.SSLError):
        return ChatError(f"{endpoint} speaks no https that we understand. Try its address with http:// instead.")
    if caused_by(ConnectionRefusedError):
        return ChatError(f"{endpoint} cannot be reached: nothing listens there. Start the server, or check the port.")
    if caused_by(httpx.ConnectError):
        why = sentence(endpoint, str(causes[-1]) or type(causes[-1]).__name__)
        return ChatError(f"{endpoint} cannot be reached{why} Check the address, and the network.")
    if caused_by(httpx.TimeoutException):
        return ChatError(f"{endpoint} has been silent for {SILENCE:g} seconds and was hung up on. Look at its log.")
    if isinstance(error, TimeoutError):
        return ChatError(f"{endpoint} has not named its models within {LISTING:g} seconds. Type the model's name.")
    if caused_by(httpx.TransportError):
        return ChatError(
            f"{endpoint} closed the connection without an answer. Check its port, and http:// against https://."
        )
    return ChatError(f"Asking {endpoint} went wrong{sentence(endpoint, str(error) or type(error).__name__)}")


def overhear(
    endpoint: Endpoint, talk: Callable[[Callable[[Any], None]], Awaitable[None]], stop: threading.Event
) -> Generator[Any, None, None]:
    """What a conversation says, in a thread of its own; it is hung up on once somebody pressed stop or closes this.

    Raises ChatError for all that it raises.
    """
    out: queue.SimpleQueue = queue.SimpleQueue()
    closed = threading.Event()

    async def watched() -> None:
        talking = asyncio.ensure_future(talk(out.put))
        while not (stop.is_set() or closed.is_set() or talking.done()):
            await asyncio.wait({talking}, timeout=BEAT)
        talking.cancel()
        (ended,) = await asyncio.gather(talking, return_exceptions=True)
        if isinstance(ended, Exception):
            out.put(plainly(endpoint, ended))
        out.put(END)  # here already: the loop's own end may wait for a name that is being looked up

    def run() -> None:
        try:
            asyncio.run(watched())
        except Exception as error:
            out.put(plainly(endpoint, error))
        finally:
            out.put(END)

    thread = threading.Thread(target=run, daemon=True, name=THREAD)
    thread.start()
    try:
        while (said := out.get()) is not END and not stop.is_set():
            if isinstance(said, ChatError):
                raise said from None
            yield said
    finally:
        closed.set()
        thread.join(CLOSING)


def stream(
    endpoint: Endpoint, messages: Sequence[Message], sampling: Sampling, stop: threading.Event
) -> Generator[Piece, None, None]:
    """An answer, piece by piece. Once `stop` is set it ends without a last piece, and so does the connection.

    Equal seeds give equal answers where the server keeps to them. Raises ChatError, after the pieces that came before.
    """
    if not stop.is_set():
        yield from overhear(endpoint, lambda say: ask(endpoint, messages, sampling, say), stop)


def models(endpoint: Endpoint) -> list[str]:
    """The names of the models that an endpoint has. Raises ChatError."""

    async def talk(say: Callable[[list[str]], None]) -> None:
        async with client(endpoint) as http:
            say(await named(http, endpoint))

    return next(overhear(endpoint, talk, threading.Event()))
