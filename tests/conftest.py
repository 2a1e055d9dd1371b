"""What tests share: families of small random models, made once."""

import os

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch

from transfer.triple import Triple, open_triple

from . import families

torch.set_num_threads(1)


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
