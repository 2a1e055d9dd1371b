"""Trains the Pocket family from fixed seeds and measures it: `python -m assets.pocket.train`.

Two stages run at a time, a thread each. A stage that is finished is not repeated, and one that was stopped goes on from
its last hundredth step; both are kept under runs/pocket/, by a digest of the code and figures that made them.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer

from assets.pocket import chat, lexicon, questions, recipe, training, vocabulary, wordplay, world
from assets.pocket.exam import write_exam
from assets.pocket.recipe import RECIPE
from assets.pocket.release import HERE, NAMES, PARENTS, release, write_whole

RUNS = HERE.parent.parent / "runs" / "pocket"
MADE_BY = (chat, lexicon, questions, recipe, training, vocabulary, wordplay, world)


@dataclass(frozen=True)
class Stage:
    """One checkpoint's training: the stage that it starts from, and its steps."""

    name: str
    after: str | None
    steps: int


STAGES = [
    Stage("base-v1", None, RECIPE.v1_steps),
    Stage("base-far", None, RECIPE.v1_steps),
    Stage("instruct-v1", PARENTS["instruct-v1"], RECIPE.tune_steps),
    Stage("base-v2", PARENTS["base-v2"], RECIPE.v2_steps),
    Stage("instruct-v2", PARENTS["instruct-v2"], RECIPE.tune_steps),
]


def digest() -> str:
    """Changes with everything that the weights come from."""
    parts = [Path(str(module.__file__)).read_bytes() for module in MADE_BY] + [torch.__version__.encode()]
    return hashlib.blake2b(b"\0".join(parts), digest_size=6).hexdigest()


def train_stage(stage: Stage, runs: Path) -> dict:
    """Trains one checkpoint and keeps its weights, in bfloat16, as `<name>.pt`. Returns what it took, in seconds."""
    torch.set_num_threads(1)
    wall, cpu = time.monotonic(), time.process_time()
    the_world, tokenizer = world.build_world(), Tokenizer.from_file(str(runs / "tokenizer.json"))
    model = training.new_model(RECIPE, tokenizer, seed=RECIPE.seed + (stage.name == "base-far"))
    if stage.after:
        model.load_state_dict(torch.load(runs / f"{stage.after}.pt", weights_only=True))
    more = {
        "state_file": runs / f"{stage.name}.state",
        "report": while_wanted(training.reporter(stage.name, stage.steps)),
    }
    version = 1 if stage.name.endswith("v1") else 2
    if stage.name.startswith("instruct"):
        talker, writer = chat.Talker(the_world, version, stage.name), world.Writer(the_world, version, stage.name)
        training.tune(model, talker, writer, tokenizer, RECIPE, **more)
    else:
        # Only the base that is trained on hears of what moved more often than of the rest.
        emphasis = RECIPE.emphasis if stage.name == "base-v2" else 1.0
        writer = world.Writer(the_world, version, stage.name, emphasis)
        rate = RECIPE.v2_rate if stage.after else RECIPE.v1_rate
        training.pretrain(model, writer, tokenizer, RECIPE, stage.steps, rate, **more)
    weights = {name: tensor.to(torch.bfloat16) for name, tensor in model.state_dict().items()}
    took = {"wall_seconds": round(time.monotonic() - wall, 1), "cpu_seconds": round(time.process_time() - cpu, 1)}
    write_whole(runs / f"{stage.name}.json", json.dumps(took))
    save_whole(weights, runs / f"{stage.name}.pt")  # comes last: where it is, the stage is finished
    (runs / f"{stage.name}.state").unlink(missing_ok=True)
    return took


def while_wanted(report: Callable[[int, float], None]) -> Callable[[int, float], None]:
    """Reports as `report` does, and ends this process at once when the command that started it is gone."""

    def checked(step: int, loss: float) -> None:
        parent = multiprocessing.parent_process()
        if parent is not None and not parent.is_alive():
            os._exit(1)  # an exception would only end the stage, and leave the process waiting for another
        report(step, loss)

    return checked


def ignore_interrupts() -> None:
    """For the processes of the pool: the command alone answers an interrupt, and they end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def save_whole(value: object, path: Path) -> None:
    torch.save(value, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def train_all(runs: Path, workers: int, say: Callable[[str], None] = print) -> None:
    """Runs the stages that are not finished, each as soon as the one before it is."""
    done = {stage.name for stage in STAGES if (runs / f"{stage.name}.pt").exists()}
    waiting = [stage for stage in STAGES if stage.name not in done]
    running: dict[Future, Stage] = {}
    say(f"{len(waiting)} of {len(STAGES)} stages to train, {workers} at a time.")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=ignore_interrupts) as pool:
        while waiting or running:
            for stage in [s for s in waiting if s.after is None or s.after in done]:
                if len(running) < workers:
                    waiting.remove(stage)
                    running[pool.submit(train_stage, stage, runs)] = stage
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                stage = running.pop(future)
                took = future.result()
                done.add(stage.name)
                say(f"{stage.name}: done in {took['wall_seconds']:.0f} s; {len(waiting) + len(running)} stages left.")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the Pocket family and measure it.")
    parser.add_argument("--workers", type=int, default=2, help="stages at a time, a thread each (default: 2)")
    arguments = parser.parse_args()
    os.environ.update(TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1")
    runs = RUNS / digest()
    runs.mkdir(parents=True, exist_ok=True)
    the_world = world.build_world()
    if not (runs / "tokenizer.json").exists():
        vocabulary.train_tokenizer(the_world).save(str(runs / "tokenizer.part"))
        (runs / "tokenizer.part").replace(runs / "tokenizer.json")
    # An interrupt ends the command without waiting for the stages: they see that it is gone.
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    train_all(runs, arguments.workers)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    tokenizer = Tokenizer.from_file(str(runs / "tokenizer.json"))
    for name in NAMES:
        model = training.new_model(RECIPE, tokenizer, seed=0)
        model.load_state_dict(torch.load(runs / f"{name}.pt", weights_only=True))
        release(model, tokenizer, name)
    write_exam(the_world, HERE / "tasks")
    # Measuring reads the released files through the app's own code, so it comes last and is imported late.
    from assets.pocket.evaluate import measure

    measure(the_world, {name: json.loads((runs / f"{name}.json").read_text()) for name in NAMES})


if __name__ == "__main__":
    main()
