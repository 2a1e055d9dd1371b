"""One more α of the merged model, without scoring it: moved in place, against a checkpoint by mergekit that is then loaded.

mergekit lives in an environment of its own, made at the first run. Its recipe is the same point: linear, not normalised,
m_t + α·m'_s − α·m_s. It runs as its documentation says, lazily and with little memory; its start-up counts, as it is
paid for every α.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from transfer.live import LiveModel
from transfer.plane import point

from . import synthetic
from .gram import BILLIONS

PEER = synthetic.CACHE / "mergekit"
CONSTRAINTS = Path(__file__).parent.parent / "constraints.txt"
ALPHAS = (0.25, 0.5, 0.75, 1.0, 1.25)


def peer() -> Path:
    """mergekit's command, installed where it is not there yet."""
    command = PEER / "bin" / "mergekit-yaml"
    if not command.exists():
        lines = CONSTRAINTS.read_text().splitlines()
        torch_first = next(line for line in lines if line.startswith("torch=="))
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(PEER)], check=True)
        pip = [str(PEER / "bin" / "pip"), "install", "--quiet"]
        subprocess.run([*pip, torch_first], check=True)
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as rest:
            rest.write("\n".join(line for line in lines if line != torch_first))
            rest.flush()
            subprocess.run([*pip, "-c", rest.name, "mergekit==0.1.5"], check=True)
    return command


def by_mergekit(command: Path, refs: dict[str, str], alpha: float, folder: Path) -> None:
    """Write the checkpoint and load it."""
    weights = {"target_base": 1.0, "source_tuned": alpha, "source_base": -alpha}
    recipe = {
        "models": [{"model": refs[role], "parameters": {"weight": w}} for role, w in weights.items()],
        "merge_method": "linear", "parameters": {"normalize": False}, "dtype": "bfloat16",
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(json.dumps(recipe))  # JSON is YAML
    how = ["--lazy-unpickle", "--low-cpu-memory", "--no-copy-tokenizer"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    done = subprocess.run(
        [str(command), str(folder / "recipe.yaml"), str(folder / "merged"), *how],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"mergekit failed:\n{done.stderr[-2000:]}")
    AutoModelForCausalLM.from_pretrained(folder / "merged", dtype=torch.bfloat16)


def figures() -> dict[str, float]:
    command, triple = peer(), synthetic.triple(BILLIONS)
    refs = {role: str(c.folder) for role, c in triple.checkpoints.items()}
    model = LiveModel(triple, point(0.1))
    model.move(point(0.2))  # compiles, and fills the page cache
    moved = statistics.median(model.move(point(alpha)) for alpha in ALPHAS)
    with tempfile.TemporaryDirectory(dir=synthetic.CACHE) as folder:
        start = time.perf_counter()
        by_mergekit(command, refs, ALPHAS[-1], Path(folder))
        written = time.perf_counter() - start
        theirs = AutoModelForCausalLM.from_pretrained(Path(folder) / "merged", dtype=torch.bfloat16).state_dict()
        ours = model.model.state_dict()
        apart = max(float((ours[name].float() - theirs[name].float()).abs().max()) for name in ours)
        assert apart < 2e-3, f"mergekit's model is another one: {apart}"
        shutil.rmtree(Path(folder) / "merged")
    return {"alpha_step_seconds_per_gb": moved / (model.nbytes / 1e9), "alpha_step_vs_mergekit": written / moved}
