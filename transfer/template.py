"""Chat templates are programs out of foreign checkpoints. They run in processes of their own, two seconds at most.

A loop inside the app could not be stopped, and a string doubled sixty times would take the app along. So a worker renders:
this very file, started as a program, which confines itself and knows nothing but what it is sent. What renders there
is transformers' own function, so that a prompt is the one that its tokenizers make.
"""

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import ChatError

SECONDS = 2.0  # for one rendering; a sound template takes a thousandth of that
MEMORY = 512 << 20  # bytes that it may take on top of what a worker has anyway
LONGEST = 4_000_000  # bytes of UTF-8 that it may make
KEPT = 64 << 20  # bytes; templates stay compiled, constants and all, and a worker that keeps more than these is let go
START = 60.0  # seconds in which a worker has to come up; half a one is usual
SLOW = 0.5  # seconds; templates that took longer the last time have a worker of their own, for all of them together
WORKERS = 3  # for all others; each is started when so many are wanted at once

# All that a worker is told of this process's environment: where its modules are, what time it is, how text is spelt.
TOLD = ("HOME", "PYTHONHOME", "PYTHONPATH", "LD_LIBRARY_PATH", "TZ", "LANG", "LC_ALL", "LC_CTYPE")
QUIET = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "OPENBLAS_NUM_THREADS": "1"}
# Python and Jinja read from files, when it is first needed, what these need; later a worker may open none.
FIRST = (r"{{ strftime_now('%c') }}{{ lipsum() }}{{ '\N{BULLET}' }}", "{% if", "{{ raise_exception('') }}")

TOO_SLOW = f"The chat template took longer than {SECONDS:g} seconds and was stopped; a sound one takes milliseconds. "
TOO_LARGE = f"The chat template took more than {MEMORY >> 20} MB of memory and was stopped. "
TOO_LONG = f"The chat template made more than {LONGEST // 10**6} MB of text of these messages, and none of it is used. "
BROKEN = "The chat template brought the process down that renders it, twice. "
DO = "Shorten the messages, or choose another fine-tuned model."


def render(
    template: str, messages: Sequence[Mapping[str, str]], tokens: Mapping[str, str], generation: bool = True
) -> str:
    """What a chat template makes of messages, as `apply_chat_template` of the tokenizer with these special tokens does.

    `tokens` is the tokenizer's `special_tokens_map`; `generation` asks for the words that begin an answer. Raises
    ChatError where the template refuses, is no Jinja, or goes beyond SECONDS, MEMORY or LONGEST.

    Any thread may call. A template that took longer than SLOW the last time, or cost a worker, has its turns on a worker
    that it shares with others of this kind; the rest have WORKERS. Turns are taken in the order in which the calls came.
    So a sound template waits at most for templates never seen before, SECONDS and a start for every WORKERS of those.
    """
    asked = {"template": template, "messages": list(messages), "tokens": dict(tokens), "generation": generation}
    line, name = json.dumps(asked).encode() + b"\n", hash(template)
    with (SLOW_ONES if name in KNOWN_SLOW else POOL).lend() as worker:
        try:
            good, text = worker.ask(line)
        except TimeoutError as error:
            raise ChatError(TOO_SLOW + DO) from error
        except OSError as error:
            raise ChatError(BROKEN + DO) from error
        finally:
            if worker.seconds > SLOW or not worker.running:
                KNOWN_SLOW.add(name)
            else:
                KNOWN_SLOW.discard(name)
    if not good:
        raise ChatError(text)
    return text


def warm() -> None:
    """Start a worker, if none is there, and do not wait for it."""
    POOL.warm()


class Worker:
    """A process that renders one template after another: started when it is asked, and anew when it has ended."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False
        self.seconds = 0.0  # that the last rendering took

    @property
    def running(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        """Start the process, unless it runs; wait for nothing. Raises OSError."""
        if self._process is not None:
            return
        told = {key: os.environ[key] for key in TOLD if key in os.environ}
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", __name__],
                    cwd=Path(__file__).parent.parent,
                    env=told | QUIET,
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C is for the app
                )
            except BaseException:
                ours.close()
                raise
        self._socket = ours

    def ask(self, line: bytes) -> tuple[bool, str]:
        """Whether it rendered, and the text, or a sentence that says why not. Takes one line of JSON.

        Raises TimeoutError, OSError where the process ended and so did another in its place, and ChatError where none
        starts. After any of these, and after an interrupt, no process is left that could answer too late.
        """
        try:
            return self._ask(line)
        except TimeoutError:
            raise
        except OSError:  # it may have been killed long ago
            return self._ask(line)

    def _ask(self, line: bytes) -> tuple[bool, str]:
        start = time.monotonic()
        try:
            self._await()
            start = time.monotonic()
            self._socket.settimeout(SECONDS)
            self._socket.sendall(line)
            good, text, spent = self._answer(SECONDS)
        except BaseException:
            self.stop()
            raise
        finally:
            self.seconds = time.monotonic() - start
        if spent:
            self.stop()
        return good, text

    def _await(self) -> None:
        """Start it where it is not running, and wait until it is ready. Raises ChatError."""
        if self._ready:
            return
        for _ in range(2):  # it too may have been killed
            try:
                self.start()
                self._ready, why, _ = self._answer(START)
                if self._ready:
                    return
            except OSError as error:
                why = first_line(error)
            self.stop()
        raise ChatError(f"Chat templates cannot be rendered here, for the process that would does not start: {why}")

    def _answer(self, seconds: float) -> tuple[bool, str, bool]:
        """Its next line. Raises TimeoutError, and OSError where it has ended."""
        deadline, pieces = time.monotonic() + seconds, [b""]
        while not pieces[-1].endswith(b"\n"):
            self._socket.settimeout(max(deadline - time.monotonic(), 1e-3))
            pieces.append(self._socket.recv(1 << 16))
            if not pieces[-1]:
                raise ConnectionError("It has ended.")
        good, text, spent = json.loads(b"".join(pieces))
        return good, text, spent

    def stop(self) -> None:
        """Kill the process, if there is one, and wait until it is gone."""
        process, self._process, self._ready = self._process, None, False
        if process is not None:
            process.kill()
            process.wait()
            self._socket.close()


class Pool:
    """Workers that are lent to one thread at a time, in the order in which the threads came."""

    def __init__(self, number: int):
        self._number = number
        self._begin()
        os.register_at_fork(after_in_child=self._begin)  # else a fork would speak into the workers of its parent
        atexit.register(self.close)

    def _begin(self) -> None:
        self._all = [Worker() for _ in range(self._number)]
        self._idle = list(self._all)  # the one used last is lent first, so that one is all there is as long as one does
        self._waiting: deque[Future[Worker]] = deque()
        self._lock = threading.Lock()

    @contextmanager
    def lend(self) -> Iterator[Worker]:
        worker = self._take()
        try:
            yield worker
        finally:
            self._give(worker)

    def warm(self) -> None:
        """Start the one that will be lent next; what keeps it from starting is told to those who ask it."""
        with self._lock, suppress(OSError):
            if self._idle:
                self._idle[-1].start()

    def close(self) -> None:
        """Stop them all; whoever asks one starts it again."""
        for worker in self._all:
            worker.stop()

    def _take(self) -> Worker:
        with self._lock:
            if self._idle:
                return self._idle.pop()
            turn: Future[Worker] = Future()
            self._waiting.append(turn)
        try:
            return turn.result()
        except BaseException:  # an interrupt, in a notebook
            if not turn.cancel():
                self._give(turn.result())
            raise

    def _give(self, worker: Worker) -> None:
        """Hand it to whoever waits longest. A lock would go to whoever runs: a thread with a thousand calls."""
        with self._lock:
            while self._waiting:
                turn = self._waiting.popleft()
                if turn.set_running_or_notify_cancel():
                    turn.set_result(worker)
                    return
            self._idle.append(worker)


def first_line(error: BaseException) -> str:
    """As in live.py, which a worker cannot have: it brings torch."""
    return (str(error)[:10_000].strip().splitlines() or [type(error).__name__])[0][:300]


class Size:
    """Bytes of this process's address space. The file stays open, as no other can be opened later."""

    def __init__(self) -> None:
        try:
            self._file = os.open("/proc/self/statm", os.O_RDONLY)
        except OSError:
            self._file = -1

    def __call__(self) -> int:
        """0 where the system has no such file."""
        return int(os.pread(self._file, 200, 0).split()[0]) * os.sysconf("SC_PAGE_SIZE") if self._file >= 0 else 0


def serve(channel: socket.socket) -> None:
    """The worker's side: a line when it is ready, and then a line for each line, until there are no more."""
    say = lambda *words: channel.sendall(json.dumps(words).encode() + b"\n")
    try:
        from transformers.utils.chat_template_utils import render_jinja_template

        for template in FIRST:
            with suppress(Exception):
                render_jinja_template([[]], chat_template=template)
        size = Size()
        held = size()
        confine(held)
    except Exception as error:
        return say(False, first_line(error), True)
    say(True, "", False)
    for line in channel.makefile("rb"):
        # Whoever asked may have been killed meanwhile, and then nobody stops this process but the kernel.
        signal.setitimer(signal.ITIMER_REAL, 2 * SECONDS)
        good, text = answer(render_jinja_template, line)
        signal.setitimer(signal.ITIMER_REAL, 0)
        say(good, text, size() > held + KEPT)


def answer(renderer: Callable[..., Any], line: bytes) -> tuple[bool, str]:
    """Whether the template rendered, and the text or a sentence. `line` is what `render` asked, as JSON."""
    try:
        return attempt(renderer, json.loads(line))
    except MemoryError:
        pass  # what the template held goes with the exception
    return False, TOO_LARGE + DO


def attempt(renderer: Callable[..., Any], asked: dict[str, Any]) -> tuple[bool, str]:
    """As `answer`. Raises MemoryError, also where an exception's own words do not fit."""
    from jinja2 import TemplateSyntaxError

    try:
        [text], _ = renderer(
            conversations=[asked["messages"]],
            chat_template=asked["template"],
            add_generation_prompt=asked["generation"],
            **asked["tokens"],
        )
        if len(text) > LONGEST or len(text.encode("utf-8", "surrogatepass")) > LONGEST:
            return False, TOO_LONG + DO
        return True, text
    except MemoryError:
        raise
    except TemplateSyntaxError as error:
        return False, f"The chat template is no valid Jinja, in line {error.lineno}: {first_line(error)}"
    except RecursionError:
        return False, "The chat template calls or nests itself too deeply. " + DO
    except Exception as error:
        return False, f"The chat template refused these messages: {first_line(error)}"


def confine(held: int) -> None:
    """From here on: so much memory and no more, no file opened, no process started, no core dumped.

    Should a template find its way out of Jinja's sandbox, it is to find little. Where a system knows no such limit, as
    macOS does for memory, two seconds are the only one.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    import resource

    for kind, most in (
        (resource.RLIMIT_AS, held + MEMORY if held else resource.RLIM_INFINITY),
        (resource.RLIMIT_NOFILE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        with suppress(OSError, ValueError):
            resource.setrlimit(kind, (most, most))


POOL, SLOW_ONES = Pool(WORKERS), Pool(1)
KNOWN_SLOW: set[int] = set()  # hashes of templates; each has cost a worker or half a second, so they stay few

if __name__ == "__main__":
    serve(socket.socket(fileno=0))
