"""The real app in a process of its own, a real browser on it, and a real server of models beside it."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
# A browser that asks nobody anything: no updates, no sync, no lookups in the background.
QUIET = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextmanager
def answering(command: list[str], address: str, log: Path, environment: dict[str, str]) -> Iterator[str]:
    """The address of a process that serves there; it is answered before this returns, and ended after."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=log.parent, env={**os.environ, **environment}, stdout=out, stderr=out
        )
        try:
            for _ in range(1200):
                if process.poll() is not None:
                    raise RuntimeError(f"{command} ended with {process.returncode}:\n{log.read_text()}")
                try:
                    with urllib.request.urlopen(address, timeout=5) as response:
                        if response.status == 200:
                            break
                except (urllib.error.URLError, OSError):
                    time.sleep(0.1)
            else:
                raise RuntimeError(f"{command} did not answer:\n{log.read_text()}")
            yield address
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def app(log: Path, **environment: str) -> Iterator[str]:
    """The address of a running app.py, whose output goes to `log`."""
    port = free_port()
    env = {"GRADIO_SERVER_PORT": str(port), "HF_HUB_OFFLINE": "1", **environment}
    with answering([str(ROOT / "app.py")], f"http://127.0.0.1:{port}", log, env) as address:
        yield address


@contextmanager
def serve(folder: Path, log: Path) -> Iterator[str]:
    """The address of a real `transformers serve` of one folder on the CPU, whose output goes to `log`.

    It goes by the name of that folder as given, by no other. It finds no other model: its cache beside `log` is empty.
    """
    port = free_port()
    (log.parent / "home" / "hub").mkdir(parents=True, exist_ok=True)
    env = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(log.parent / "home"), "HF_HUB_CACHE": str(log.parent / "home" / "hub")}
    env |= {"OMP_NUM_THREADS": "1"}
    command = ["-m", "transformers.cli.transformers", "serve", str(folder), "--device", "cpu"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with answering(command, f"http://127.0.0.1:{port}/health", log, env) as address:
        yield address.removesuffix("/health")


@contextmanager
def browser() -> Iterator:
    """A headless Chromium of the machine's own. Without one this fails: a page untested is not a page that passed."""
    from playwright.sync_api import sync_playwright

    path = next((found for name in CHROMIUM if (found := shutil.which(name))), None)
    if path is None:
        raise RuntimeError("No Chromium found. `make test` installs one; or install the package 'chromium'.")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=QUIET)
        try:
            yield chromium
        finally:
            chromium.close()
