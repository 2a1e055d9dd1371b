"""A small Hub on loopback: folders as repositories with revisions, spoken to by the real huggingface_hub client.

It serves what the client asks for to look at a model and to fetch its files, keeps a log of every request, and fails
where it is told to. As on the real Hub, a file of weights is not sent by the Hub itself: it redirects to another host.
"""

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

WEIGHTS = (".safetensors", ".bin", ".gguf")  # what git keeps as large files


@dataclass
class Fault:
    """What goes wrong with a request: a refusal by status, or a connection that drops after so many bytes."""

    status: int = 0
    code: str = ""
    message: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    drop: int | None = None


GATED = Fault(403, "GatedRepo", "Access to this model is restricted.")
DISABLED = Fault(403, message="Access to this resource is disabled.")
NO_REPO = Fault(401, "RepoNotFound", "Repository not found")
NO_REVISION = Fault(404, "RevisionNotFound", "Invalid rev id")
NO_ENTRY = Fault(404, "EntryNotFound", "Entry not found")


@dataclass(frozen=True)
class Request:
    """One line of the log. `sent` counts the bytes of the body."""

    method: str
    path: str
    range: str | None
    status: int
    sent: int
    token: str | None


class HubServer:
    """Use as a context manager; `endpoint` is its address."""

    def __init__(self):
        self.repos: dict[str, dict[str, tuple[str, Path]]] = {}  # id → revision or commit → (commit, folder)
        self.contents: dict[str, Path] = {}  # etag → file
        self.faults: list[tuple[str, Fault, list[int]]] = []
        self.log: list[Request] = []
        self.ranges = True
        handler = type("Handler", (Handler,), {"hub": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.http.daemon_threads = True
        self.port = self.http.server_address[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"

    def __enter__(self):
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()

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
        self.drop = None
        fault = self.hub.fault(f"{self.command} {path}")
        if fault is not None and fault.drop is None:
            return self.refuse(fault)
        if fault is not None:
            self.drop = fault.drop
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path):
            repo, what, revision = match.groups()
            return self.api(repo, what, unquote(revision or "main"))
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            repo, revision, name = match.groups()
            return self.resolve(repo, unquote(revision), unquote(name))
        if match := re.fullmatch(r"/content/([^/]+)/(.+)", path):
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
        # By another name of this host, which to the client is another host.
        headers["Location"] = f"http://localhost:{self.hub.port}/content/{etag}/{path.name}"
        self.answer(302, b"", headers)

    def content(self, path: Path, headers: dict[str, str]) -> None:
        """The bytes of a file, or the range of them that is asked for."""
        data = path.read_bytes()
        # Hosts that may compress what they send give no parts of it; so does this one, where the client allows it.
        ranges = self.hub.ranges and "gzip" not in self.headers.get("Accept-Encoding", "")
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")) if ranges else None
        if not wanted:
            return self.answer(200, data, headers)
        begin, end = int(wanted[1]), min(int(wanted[2] or len(data)) + 1, len(data))
        if begin >= len(data):
            return self.refuse(Fault(416, headers={"Content-Range": f"bytes */{len(data)}"}))
        self.answer(206, data[begin:end], headers | {"Content-Range": f"bytes {begin}-{end - 1}/{len(data)}"})

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
        self.hub.log.append(Request(self.command, path, self.headers.get("Range"), status, len(body), token))
        try:
            self.end_headers()
            self.wfile.write(body)
        except ConnectionError:
            self.close_connection = True  # the client has gone
        if self.drop is not None:
            self.close_connection = True

    def log_message(self, *_):
        """Not on the terminal: the log is `hub.log`."""
