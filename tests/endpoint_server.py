"""A small OpenAI-compatible endpoint on loopback, which says what it is told to say, and fails where it is told to.

It keeps a log of every request, and notes when a client hangs up on it.
"""

import json
import queue
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SSE = "text/event-stream"
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Says:
    """One answer: bytes to send and seconds to wait, in turn. Without an end it breaks off after them; a silent one says
    nothing more and waits for the client to go."""

    parts: tuple[bytes | float, ...] = ()
    status: int = 200
    kind: str = SSE
    headers: dict[str, str] = field(default_factory=dict)
    end: bool = True
    silent: bool = False


@dataclass(frozen=True)
class Asked:
    """One line of the log. `body` is the JSON that was sent; None for none."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


def event(chunk: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def delta(finish: str | None = None, **what: Any) -> bytes:
    """The event of one piece: content="…", or reasoning_content="…"."""
    return event({"model": "served", "choices": [{"index": 0, "delta": what, "finish_reason": finish}]})


def answer(*texts: str, finish: str = "stop", tokens: int | None = None) -> tuple[bytes, ...]:
    """A whole answer in pieces, as OpenAI's own streams: role, text, reason, count, end."""
    usage = {"model": "served", "choices": [], "usage": {"completion_tokens": tokens}}
    said = [delta(role="assistant", content=""), *(delta(content=text) for text in texts), delta(finish)]
    return (*said, *([event(usage)] if tokens is not None else []), DONE)


def refuse(status: int, body: Any, **headers: str) -> Says:
    """An error in JSON."""
    return Says((json.dumps(body).encode(),), status, "application/json", headers)


def error(status: int, words: str, **headers: str) -> Says:
    """One in the words of OpenAI's API."""
    return refuse(status, {"error": {"message": words, "type": "invalid_request_error"}}, **headers)


class EndpointServer:
    """Use as a context manager; `url` is its address."""

    def __init__(self):
        self.says = [Says(answer("Ada", " Moss", "."))]  # in answer to the next questions; the last one stays
        self.listing: Says = refuse(200, {"object": "list", "data": [{"id": "served"}, {"id": "other"}]})
        self.log: list[Asked] = []
        self.left: queue.SimpleQueue[float] = queue.SimpleQueue()  # when somebody hung up on a silent answer
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"told": self}))
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()

    def say(self, *parts: bytes | float, **how: Any) -> None:
        """What all further questions are answered with."""
        self.says = [Says(parts, **how)]

    @property
    def bodies(self) -> list[Any]:
        """The questions."""
        return [asked.body for asked in self.log if asked.method == "POST"]


class Handler(BaseHTTPRequestHandler):
    """The two routes."""

    told: EndpointServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        self.answer(self.told.listing if self.path == "/v1/models" else error(404, "Not Found"))

    def do_POST(self):
        if self.path != "/v1/chat/completions":
            return self.answer(error(404, "Not Found"))
        says = self.told.says
        self.answer(says.pop(0) if len(says) > 1 else says[0])

    def answer(self, says: Says) -> None:
        asked = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = json.loads(asked) if asked else None
        self.told.log.append(Asked(self.command, self.path, dict(self.headers), body))
        self.close_connection = True
        try:
            self.send_response(says.status)
            headers = {"Content-Type": says.kind, "Transfer-Encoding": "chunked"} | says.headers
            for key, value in headers.items():
                self.send_header(key.replace("_", "-"), value)
            self.end_headers()
            for part in says.parts:
                if isinstance(part, float):
                    time.sleep(part)
                elif part:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            if says.silent:
                self.connection.settimeout(20)
                self.connection.recv(1)  # which nobody sends: it returns once the client has gone
                self.told.left.put(time.monotonic())
            elif says.end:
                self.wfile.write(b"0\r\n\r\n")
        except ConnectionError:
            self.told.left.put(time.monotonic())

    def log_message(self, *_):
        """Not on the terminal: the log is `told.log`."""
