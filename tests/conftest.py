"""What tests share: families of small random models, made once."""

import atexit
import os
import shutil
import tempfile

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# No test may find what an earlier run scored, or touch the user's own.
os.environ["TRANSFERSCOPE_CACHE"] = tempfile.mkdtemp(prefix="transferscope-tests-")

from pathlib import Path

import pytest
import torch

from transfer.live import LiveModel
from transfer.plane import point
from transfer.prompt import Prompter
from transfer.triple import Triple, open_triple

from . import families, running
from .hub_server import turned_to
from .scoring import EXACT

torch.set_num_threads(1)
atexit.register(shutil.rmtree, os.environ["TRANSFERSCOPE_CACHE"], ignore_errors=True)


@pytest.fixture(scope="session")
def family(tmp_path_factory):
    """family(kind, …) → role → folder; each is made once."""
    made = {}

    def get(kind: str = "llama", **how) -> dict[str, str]:
        key = (kind, repr(sorted(how.items(), key=str)))
        if key not in made:
            made[key] = families.make(tmp_path_factory.mktemp("family"), kind, **how)
        return made[key]

    return get


@pytest.fixture(scope="session")
def triple(family):
    """triple(kind, …) → an opened Triple of a random family."""

    def get(kind: str = "llama", **how) -> Triple:
        return open_triple(family(kind, **how))

    return get


@pytest.fixture(scope="module")
def live(triple):
    """A model in float32, whose scores do not depend on how items are batched."""
    return LiveModel(triple("llama", **EXACT), point(1))


@pytest.fixture(scope="module")
def prompter(triple):
    """That model's."""
    return Prompter(triple("llama", **EXACT))


@pytest.fixture(scope="session")
def chromium():
    """One browser for all tests that need one."""
    with running.browser() as found:
        yield found


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """An empty server that speaks the Hub's API, and this process's client turned to it."""
    with turned_to(monkeypatch, tmp_path) as server:
        yield server


@pytest.fixture
def model(family):
    """A folder with a model in one file, and a tokenizer."""
    return Path(family("llama", roles=("source_base",))["source_base"])


@pytest.fixture
def shards(family):
    """A folder with a model in several files."""
    return Path(family("qwen2", shard="60KB", roles=("source_base",))["source_base"])


@pytest.fixture(scope="module")
def shared():
    """What all visitors of a page share."""
    from ui.shared import Shared

    return Shared()


@pytest.fixture
def me(shared, request):
    """A visitor of the Chat tab with the demo family."""
    from .person import Person

    found = Person(shared, f"session of {request.node.name}")
    yield found
    assert found.chat.desk(found.session, found.refs).owners == {}  # nobody answers any more
