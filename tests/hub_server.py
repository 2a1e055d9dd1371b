"""A small Hub on loopback: folders as repositories with revisions, spoken to by the real huggingface_hub client.

It serves what the client asks for to look at a model and to fetch its files, keeps a log of every request, and fails
where it is told to. As on the real Hub, a file of weights is not sent by the Hub itself: it redirects to a signed address
on another host, here another port, which serves until it runs out.
"""

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs, unquote, urlsplit

import huggingface_hub as hf
import huggingface_hub.constants  # it comes with the first use otherwise
import torch
from safetensors.torch import load_file

from transfer import client

WEIGHTS = (".safetensors", ".bin", ".gguf")  # what git keeps as large files


@dataclass
class Fault:
    """What goes wrong with a request: a refusal by status, a connection that drops after so many bytes, a part that
    ends after so many as if that were all, or an answer that comes late, by so many seconds."""

    status: int = 0
    code: str = ""
    message: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    drop: int | None = None
    short: int | None = None
    late: float = 0.0


GATED = Fault(403, "GatedRepo", "Access to this model is restricted.")
DISABLED = Fault(403, message="Access to this resource is disabled.")
NO_REPO = Fault(401, "RepoNotFound", "Repository not found")
NO_REVISION = Fault(404, "RevisionNotFound", "Invalid rev id")
NO_ENTRY = Fault(404, "EntryNotFound", "Entry not found")
BUSY = Fault(429, headers={"Retry-After": "17"})
CONTENT = "GET /content/"  # what carries weights, as the other host is asked for it


@dataclass(frozen=True)
class Request:
    """One line of the log. `sent` counts the bytes of the body."""

    method: str
    path: str
    range: str | None
    status: int
    sent: int
    token: str | None
    port: int


class Http(ThreadingHTTPServer):
    """One host; as many may come at once as like."""

    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_):
        """Not on the terminal: a client that goes away in the middle is what some tests are about."""


class HubServer:
    """Use as a context manager; `endpoint` is its address, `other` that of the host of contents."""

    def __init__(self):
        self.repos: dict[str, dict[str, tuple[str, Path]]] = {}  # id → revision or commit → (commit, folder)
        self.contents: dict[str, Path] = {}  # etag → file
        self.faults: list[tuple[str, Fault, list[int]]] = []
        self.log: list[Request] = []
        self.ranges = True
        handler = type("Handler", (Handler,), {"hub": self})
        self.http, self.contents_http = Http(("127.0.0.1", 0), handler), Http(("127.0.0.1", 0), handler)
        self.endpoint, self.other = (f"http://127.0.0.1:{h.server_address[1]}" for h in (self.http, self.contents_http))
        self.signature = 0
        self.naps: list[float] = []

    def __enter__(self):
        for http in (self.http, self.contents_http):
            threading.Thread(target=http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        for http in (self.http, self.contents_http):
            http.shutdown()
            http.server_close()

    def expire(self) -> None:
        """From now on no address serves that was given before."""
        self.signature += 1

    def serve(self, repo: str, folder: str | Path, revision: str = "main") -> str:
        """Serve a folder as a revision of a repository; gives the commit."""
        folder = Path(folder)
        commit = hashlib.sha1(f"{repo} {revision} {folder}".encode()).hexdigest()
        names = self.repos.setdefault(repo, {})
        names[revision] = names[commit] = (commit, folder)
        return commit

    def fail(self, where: str, fault: Fault, times: int = 1_000_000) -> None:
        """Let the next requests fail whose `METHOD /path` matches the pattern."""
        self.faults.append((where, fault, [times]))

    def fault(self, request: str) -> Fault | None:
        """The fault for a request, counted down."""
        for where, fault, left in self.faults:
            if left[0] > 0 and re.search(where, request):
                left[0] -= 1
                return fault
        return None

    def sent(self, pattern: str) -> int:
        """Bytes sent in answer to requests whose `METHOD /path` matches."""
        return sum(r.sent for r in self.log if re.search(pattern, f"{r.method} {r.path}"))


@contextmanager
def turned_to(monkeypatch, folder: Path) -> Iterator[HubServer]:
    """An empty server, and this process's client turned to it, with a cache and a home of its own in `folder`.

    The client reads its environment once, when it is imported, and the tests' own says offline. So its constants are
    replaced here; it looks them up anew in every call. A process for each test would do as well and take seconds each:
    one test does it, to show that nothing hangs on the replacing.
    """
    with HubServer() as server:
        for name, value in {
            "ENDPOINT": server.endpoint,
            "HUGGINGFACE_CO_URL_TEMPLATE": server.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(folder / "cache"),
            "HF_TOKEN_PATH": str(folder / "token"),
            "HF_HUB_OFFLINE": False,
        }.items():
            monkeypatch.setattr(hf.constants, name, value)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.setenv(name, "127.0.0.1,localhost")
        # The client sleeps between its tries, for as long as the server says. Here it notes for how long.
        monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=server.naps.append))
        monkeypatch.setattr(client, "PAUSE", 0.0)
        hf.close_session()
        yield server
        hf.close_session()


def nothing():
    """A tick that never stops."""


def whole_requests(hub: HubServer) -> list[str | None]:
    """The ranges of requests for contents to their end: those of a download, not of a look at a header."""
    asked = [r.range for r in hub.log if f"{r.method} {r.path}".startswith(CONTENT)]
    return [r for r in asked if r is None or r.endswith("-")]


def assert_same_weights(here: Path, there: Path) -> None:
    """Two folders hold the same tensors to the bit."""
    names = sorted(p.name for p in there.glob("*.safetensors"))
    assert names and names == sorted(p.name for p in here.glob("*.safetensors"))
    for name in names:
        left, right = load_file(here / name), load_file(there / name)
        assert left.keys() == right.keys()
        assert all(torch.equal(left[k], right[k]) for k in left)


@lru_cache(256)
def content_hash(path: Path, size: int, changed: int) -> str:
    """SHA-256 for what git keeps as a large file, and git's own SHA-1 for the rest; the Hub's ETags."""
    data = path.read_bytes()
    if path.suffix in WEIGHTS:
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """The routes."""

    hub: HubServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        path = urlsplit(self.path).path
        fault = self.hub.fault(f"{self.command} {path}") or Fault()
        self.drop, self.short = fault.drop, fault.short
        time.sleep(fault.late)
        if fault.status:
            return self.refuse(fault)
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path):
            repo, what, revision = match.groups()
            return self.api(repo, what, unquote(revision or "main"))
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            repo, revision, name = match.groups()
            return self.resolve(repo, unquote(revision), unquote(name))
        if match := re.fullmatch(r"/content/([^/]+)/(.+)", path):
            if parse_qs(urlsplit(self.path).query).get("signature") != [str(self.hub.signature)]:
                return self.refuse(Fault(403))
            return self.content(self.hub.contents[match[1]], {"ETag": '"of-the-other-host"'})
        return self.refuse(Fault(404))

    do_HEAD = do_GET

    def find(self, repo: str, revision: str) -> tuple[str, Path] | None:
        """Commit and folder; refuses where there are none."""
        found = self.hub.repos.get(repo, {}).get(revision)
        if found is None:
            self.refuse(NO_REVISION if repo in self.hub.repos else NO_REPO)
        return found

    def api(self, repo: str, what: str | None, revision: str) -> None:
        """What a model is, or the list of its files."""
        if not (found := self.find(repo, revision)):
            return
        commit, folder = found
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        names = [p.relative_to(folder).as_posix() for p in files]
        answer: dict | list = {"id": repo, "sha": commit, "siblings": [{"rfilename": name} for name in names]}
        if what == "tree":
            answer = [
                {"type": "file", "path": name, "size": p.stat().st_size, "oid": self.etag(p)}
                for name, p in zip(names, files, strict=True)
            ]
        self.answer(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def resolve(self, repo: str, revision: str, name: str) -> None:
        """A file of a repository, or where its content is."""
        if not (found := self.find(repo, revision)):
            return
        commit, folder = found
        path = folder / name
        if ".." in name or not path.is_file():
            return self.refuse(NO_ENTRY)
        etag = self.etag(path)
        headers = {"X-Repo-Commit": commit}
        if path.suffix not in WEIGHTS:
            return self.content(path, headers | {"ETag": f'"{etag}"'})
        self.hub.contents[etag] = path
        headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(path.stat().st_size)}
        headers["Location"] = f"{self.hub.other}/content/{etag}/{path.name}?signature={self.hub.signature}"
        self.answer(302, b"", headers)

    def content(self, path: Path, headers: dict[str, str]) -> None:
        """The bytes of a file, or the range of them that is asked for."""
        size = path.stat().st_size
        # Hosts that may compress what they send give no parts of it; so does this one, where the client allows it.
        ranges = self.hub.ranges and "gzip" not in self.headers.get("Accept-Encoding", "")
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")) if ranges else None
        if not wanted:
            return self.answer(200, path.read_bytes(), headers)
        begin, end = int(wanted[1]), min(int(wanted[2] or size) + 1, size)
        if begin >= size:
            return self.refuse(Fault(416, headers={"Content-Range": f"bytes */{size}"}))
        with path.open("rb") as file:
            file.seek(begin)
            data = file.read(end - begin)[: self.short]
        self.answer(206, data, headers | {"Content-Range": f"bytes {begin}-{end - 1}/{size}"})

    def etag(self, path: Path) -> str:
        stat = path.stat()
        return content_hash(path, stat.st_size, stat.st_mtime_ns)

    def refuse(self, fault: Fault) -> None:
        headers = {"X-Error-Code": fault.code, "X-Error-Message": fault.message, **fault.headers}
        body = json.dumps({"error": fault.message}).encode()
        self.answer(fault.status, body, {k: v for k, v in headers.items() if v} | {"Content-Type": "application/json"})

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        """Send it, or as much of it as the fault lets through, and write it down."""
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(key, value)
        body = b"" if self.command == "HEAD" else body if self.drop is None else body[: self.drop]
        token = self.headers.get("Authorization")
        path = urlsplit(self.path).path
        port = self.server.server_address[1]
        self.hub.log.append(Request(self.command, path, self.headers.get("Range"), status, len(body), token, port))
        try:
            self.end_headers()
            self.wfile.write(body)
        except ConnectionError:
            self.close_connection = True  # the client has gone
        if self.drop is not None:
            self.close_connection = True

    def log_message(self, *_):
        """Not on the terminal: the log is `hub.log`."""
