"""Answers from an OpenAI-compatible endpoint, streamed: vLLM, SGLang, `transformers serve`, llama.cpp's server, …

Each conversation runs in a thread and an event loop of its own, so that one that says nothing can be hung up on at once.
What a server says is foreign: it is bounded, never followed elsewhere, and repeated without the key that it may echo.
"""

import asyncio
import json
import logging
import queue
import re
import ssl
import threading
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

import httpx

from . import refusals
from .address import EXAMPLE, Endpoint
from .errors import ChatError
from .events import Events
from .prompt import Message
from .refusals import check_kind, is_page, missing, plainly, refusal
from .reply import Piece, Reply, message, names, parsed
from .sampling import Sampling

TAIL = 2.0  # seconds for what may come after the last word: the count of tokens
BEAT = 0.05  # seconds between two looks at whether somebody pressed stop
CLOSING = 0.3  # seconds that a closed stream waits for its connection to be closed
LINE = 1_000_000  # bytes of one event, and of any answer that is no stream
THREAD = "endpoint"  # what the threads of conversations are called
END = object()  # a conversation's last word

# Where somebody has debug logs on, these hold every header that a server sends, and it may send the key back in one.
logging.getLogger("httpcore.http11").addFilter(lambda record: record.threadName != THREAD)


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
        say(await named(endpoint))

    return next(overhear(endpoint, talk, threading.Event()))


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
        timeout=httpx.Timeout(refusals.SILENCE, connect=refusals.CONNECT),
    )


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
                    return await read(response, Reply(endpoint, say, without))
                said = await refused(response)
            if response.status_code == 404:
                others: list[str] = []
                with suppress(ChatError, httpx.HTTPError, TimeoutError):  # a list that does not come has nothing to say
                    others = await named(endpoint)
                raise missing(endpoint, response, said, others)
            again = leaner(asked, said) if asked is fields and response.status_code in (400, 422) else None
            if again is None:
                raise refusal(endpoint, response, said)
            asked = again


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


async def read(response: httpx.Response, reply: Reply) -> None:
    """An answer to its end. Raises ChatError, and httpx's for a silence."""
    endpoint, whole, broken = reply.endpoint, False, False
    check_kind(endpoint, response)
    if "json" in response.headers.get("Content-Type", ""):  # it does not stream
        reply.take((await body(response)).decode("utf-8", "replace"))
    else:
        try:
            whole = await follow(response, reply)
        except (httpx.NetworkError, httpx.ProtocolError):
            broken = True
    if whole or reply.known.finish:
        return reply.say(reply.known)
    if reply.known.tokens or broken:
        raise ChatError(f"{endpoint} broke off before its answer was whole. What came until then is kept; ask again.")
    raise ChatError(
        f"{endpoint} answers with nothing that is a chat's. Check that its address is an API's, like {EXAMPLE}."
    )


async def follow(response: httpx.Response, reply: Reply) -> bool:
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
                    reply.take(event)
                if events.pending > LINE:
                    raise ChatError(f"{reply.endpoint} sent a line of more than {LINE:,} bytes, which is no answer's.")
                if reply.known.finish and limit.when() is None:
                    limit.reschedule(asyncio.get_running_loop().time() + TAIL)
    return False


async def body(response: httpx.Response) -> bytes:
    """What a response holds, or the first of it."""
    got = bytearray()
    async for chunk in response.aiter_raw():
        got += chunk
        if len(got) > LINE:
            break
    return bytes(got)


async def refused(response: httpx.Response) -> str:
    """The words of a refusal; none where they do not come in time, and none from a page for people."""
    got = b""
    with suppress(TimeoutError, httpx.HTTPError):  # the status says enough
        async with asyncio.timeout(refusals.LISTING):
            got = await body(response)
    if is_page(response, got):
        return ""
    value = parsed(got)
    return message(value) if isinstance(value, dict | list | str) else got.decode("utf-8", "replace")


async def named(endpoint: Endpoint) -> list[str]:
    """The names of an endpoint's models. Raises ChatError, TimeoutError and what httpx raises."""
    listing = f"{endpoint.url}/models"
    async with client(endpoint) as http, asyncio.timeout(refusals.LISTING), http.stream("GET", listing) as response:
        if not response.is_success:
            raise refusal(endpoint, response, await refused(response))
        got = await body(response)
    check_kind(endpoint, response, got)
    return names(endpoint, got)
