"""Sweeps along paths and over the plane: real models, real scorers, and results that are kept."""

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path as File

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from analysis.landscape import axis, grid, landscape
from analysis.likelihood import Loss
from analysis.results import Results
from analysis.scores import Score
from analysis.sweep import Row, along, best, corners, depth, items_table, known, steps, sweep, sweep_table
from analysis.tasks import load_task, scorer_of
from transfer.errors import Cancelled, LiveError, PointError, TaskError, TripleError
from transfer.live import LiveModel
from transfer.plane import CORNERS, PATHS, DepthPath, Path, Schedule, point, ramp
from transfer.prompt import Prompter
from transfer.store import Store
from transfer.triple import open_triple

from . import families

LOSS = Loss("\n\n".join(families.TEXT), "a text")
WORDS = " ".join(families.TEXT).split()
MANY = Loss("\n\n".join(" ".join(WORDS[i : i + 8]) for i in range(len(WORDS) - 8)), "many bits of it")  # little noise
PROMPTS = ["Who?", "What is the river called?", "Sort these words: pear, fig.", "Say it again."]


@pytest.fixture(scope="module")
def prompter(triple):
    return Prompter(triple("llama"))


@pytest.fixture
def kept(tmp_path):
    return Results(tmp_path / "results.sqlite")


@pytest.fixture
def exact(tmp_path):
    rows = [{"prompt": p, "answer": "?", "kind": "ab"[i % 2]} for i, p in enumerate(PROMPTS)]
    path = tmp_path / "task.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return scorer_of(load_task(path))


class Counting:
    """A store that counts how often a model was asked for."""

    def __init__(self):
        self.store, self.lent = Store(), 0

    def lend(self, *args):
        self.lent += 1
        return self.store.lend(*args)


def test_every_point_has_the_scores_of_a_fresh_model(triple, prompter, exact):
    found = triple("llama")
    points = [*corners(found), *along(PATHS["strength"], steps(0, 1, 3))]
    rows = list(sweep(Store(), found, prompter, points, [exact, LOSS]))
    assert [r.label for r in rows] == [
        "source base", "source fine-tuned", "target base", "target fine-tuned", "0", "0.5", "1",
    ]  # fmt: skip
    by_label = {r.label: r for r in rows}
    assert by_label["0"].scores == by_label["target base"].scores
    for label, mix in (("0.5", point(0.5)), ("1", point(1)), ("source fine-tuned", CORNERS["source_tuned"])):
        assert by_label[label].scores[LOSS.name].value == LOSS(LiveModel(found, mix), prompter).value
    top = best(rows, LOSS)
    assert top.scores[LOSS.name].value == min(r.scores[LOSS.name].value for r in rows if r.t is not None)


def test_the_table_has_errors_perplexity_kinds_and_coordinates(triple, prompter, exact):
    found = triple("llama")
    rows = list(sweep(Store(), found, prompter, along(PATHS["yardstick"], [0, 0.5, 1]), [exact, LOSS]))
    frame = sweep_table(rows, [exact, LOSS])
    assert frame["perplexity, a text"].tolist() == pytest.approx([math.exp(v) for v in frame[LOSS.name]])
    ratio = frame["perplexity, a text ± se"] / frame["perplexity, a text"]
    assert ratio.tolist() == pytest.approx(frame[f"{LOSS.name} ± se"].tolist())
    assert {f"{exact.name}: a", f"{exact.name}: b"} <= set(frame)
    assert frame["alpha"].tolist()[0] == 1 and math.isnan(frame["alpha"].tolist()[1])
    items = items_table(rows, [exact, LOSS])
    assert len(items) == 3 * (len(PROMPTS) + len(families.TEXT)) and items["said"].iloc[0] != ""
    for name, group in items.groupby(["score", "point"]):
        row = next(r for r in rows if r.label == name[1])
        mean = (group["got"] * group["weight"]).sum() / group["weight"].sum()
        assert mean == pytest.approx(row.scores[name[0]].value)
    assert isinstance(pd.concat([frame, items]), pd.DataFrame)


@pytest.mark.parametrize("path", [*PATHS.values(), Path("any two", point(0.2, 0.1), point(-0.3, 1.2))])
def test_each_path_is_scored_at_its_points(triple, prompter, path):
    found, kept_rows = triple("llama"), []
    for row in sweep(Store(), found, prompter, along(path, [0, 0.5, 1]), [LOSS]):
        kept_rows.append(row)
        assert row.scores[LOSS.name].value == LOSS(LiveModel(found, path.at(row.t)), prompter).value
    assert len(kept_rows) == 3


def test_a_schedule_and_a_path_over_depth(triple, prompter):
    found = triple("llama")
    layers = depth(found)
    assert layers == 2
    over = DepthPath("up", layers)
    rows = list(sweep(Store(), found, prompter, along(over, [0, 1, 2]), [LOSS]))
    ends = list(sweep(Store(), found, prompter, along(PATHS["strength"], [0, 1]), [LOSS]))
    assert [rows[0].scores, rows[2].scores] == [ends[0].scores, ends[1].scores]
    assert rows[1].scores[LOSS.name].value not in {r.scores[LOSS.name].value for r in ends}
    scheduled = Path("ramp", CORNERS["target_base"], CORNERS["merged"], ramp(0.5, 1, layers))
    (row,) = sweep(Store(), found, prompter, along(scheduled, [1]), [LOSS])
    assert row.scores[LOSS.name].value == LOSS(LiveModel(found, scheduled.at(1)), prompter).value
    even = Path("even", CORNERS["target_base"], CORNERS["merged"], Schedule((1.0, 1.0), 1.0))
    (row,) = sweep(Store(), found, prompter, along(even, [1]), [LOSS])
    assert row.scores == ends[1].scores
    with pytest.raises(PointError):
        along(over, [0.5])


def test_what_is_known_is_not_computed_again(triple, prompter, exact, kept):
    found, store = triple("llama"), Counting()
    points = [*corners(found), *along(PATHS["strength"], [0, 0.5, 1])]
    first = list(sweep(store, found, prompter, points, [exact, LOSS], kept))
    lent = store.lent
    again = list(sweep(store, found, prompter, points, [exact, LOSS], kept))
    assert store.lent == lent and all(row.known for row in again) and not any(row.known for row in first[:4])
    assert [r.scores for r in again] == [r.scores for r in first]
    assert len(known(found, points, [exact, LOSS], kept)) == len(points)
    other = Loss(families.TEXT[0] + "\n\n" + families.TEXT[1], "another text")
    more = list(sweep(store, found, prompter, points, [exact, LOSS, other], kept))
    assert store.lent > lent and all(
        r.scores[LOSS.name] == f.scores[LOSS.name] for r, f in zip(more, first, strict=True)
    )


def test_a_stopped_sweep_goes_on_where_it_stopped(triple, prompter, kept):
    found, points = triple("llama"), along(PATHS["source_target"], [0, 0.25, 0.5, 0.75, 1])
    rows: list[Row] = []

    def tick():
        if len(rows) == 2:
            raise Cancelled("Stopped.")

    with pytest.raises(Cancelled):
        for row in sweep(Store(), found, prompter, points, [LOSS], kept, tick):
            rows.append(row)
    assert len(rows) == 2
    store = Counting()
    whole = list(sweep(store, found, prompter, points, [LOSS], kept))
    assert store.lent == 3 and [r.scores for r in whole[:2]] == [r.scores for r in rows]


def test_a_killed_sweep_goes_on_where_it_was_killed(family, tmp_path):
    refs, path = family("llama"), tmp_path / "kept.sqlite"
    code = f"""
import sys
sys.path.insert(0, {os.getcwd()!r})
from pathlib import Path
from analysis.likelihood import Loss
from analysis.results import Results
from analysis.sweep import along, sweep
from transfer.plane import PATHS
from transfer.prompt import Prompter
from transfer.store import Store
from transfer.triple import open_triple
found = open_triple({refs!r})
points = along(PATHS["strength"], [i / 10 for i in range(11)])
for row in sweep(Store(), found, Prompter(found), points, [Loss({LOSS.text!r}, "a text")], Results(Path({str(path)!r}))):
    print(row.label, row.known, flush=True)
"""
    env = {**os.environ, "TRANSFORMERS_VERBOSITY": "error"}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=env)
    assert process.stdout is not None
    for count, _ in enumerate(process.stdout, 1):
        if count == 3:
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    said = [line.split() for line in done.stdout.splitlines()]
    assert len(said) == 11 and [known_ for _, known_ in said[:3]] == ["True"] * 3 and said[-1][1] == "False"


def broken(refs: dict[str, str], role: str, folder: File, change) -> dict[str, str]:
    """The family with one checkpoint's weights changed."""
    source, target = File(refs[role]), folder / role
    target.mkdir()
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    weights = load_file(target / "model.safetensors")
    change(weights)
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return {**refs, role: str(target)}


def test_a_point_with_nan_is_named_and_the_rest_goes_on(family, tmp_path, kept):
    def change(weights):
        weights["model.layers.1.mlp.up_proj.weight"][3, 5] = math.nan

    found = open_triple(broken(family("llama"), "source_tuned", tmp_path, change))
    rows = list(sweep(Store(), found, Prompter(found), along(PATHS["strength"], [0, 0.5, 1]), [LOSS], kept))
    assert not rows[0].error and rows[0].scores
    for row in rows[1:]:
        assert "model.layers.1.mlp.up_proj.weight" in row.error and "NaN or infinite" in row.error and not row.scores
    assert best(rows, LOSS).t == 0


def test_overflow_of_the_weights_and_of_what_they_make(family, tmp_path):
    refs = family("llama", dtype=torch.float16)
    found = open_triple(broken(refs, "source_tuned", tmp_path, lambda w: w["lm_head.weight"][0].fill_(60000)))
    rows = list(sweep(Store(), found, Prompter(found), along(PATHS["strength"], [0, 1.5]), [LOSS]))
    assert not rows[0].error and "lm_head.weight" in rows[1].error
    (tmp_path / "two").mkdir()

    def loud(weights):
        weights["model.layers.0.mlp.down_proj.weight"].fill_(30000)
        weights["model.layers.0.mlp.up_proj.weight"].fill_(300)

    found = open_triple(broken(refs, "source_tuned", tmp_path / "two", loud))
    rows = list(sweep(Store(), found, Prompter(found), along(PATHS["strength"], [0, 1]), [LOSS]))
    assert not rows[0].error
    assert "not finite" in rows[1].error and "come out of model.layers.0.mlp" in rows[1].error


def test_a_point_that_breaks_does_not_end_the_sweep(triple, prompter, monkeypatch):
    move = LiveModel.move

    def failing(self, mix, tick):
        if mix == point(0.5):
            raise RuntimeError("out of memory")
        return move(self, mix, tick)

    monkeypatch.setattr(LiveModel, "move", failing)
    rows = list(sweep(Store(), triple("llama"), prompter, along(PATHS["strength"], [0.25, 0.5, 0.75]), [LOSS]))
    assert [bool(r.error) for r in rows] == [False, True, False] and "out of memory" in rows[1].error


def test_bad_sweeps_are_refused_in_a_sentence(triple, prompter, exact):
    found = triple("llama")
    for start, end, count in (
        (0, 1, 1),
        (0, 1, 42),
        (1, 0, 3),
        (0, 0, 3),
        (-11, 1, 3),
        (0, math.nan, 3),
        (0, math.inf, 3),
    ):
        with pytest.raises(TaskError):
            steps(start, end, count)
    for scorers in ([], [exact, exact]):
        with pytest.raises(TaskError):
            list(sweep(Store(), found, prompter, along(PATHS["strength"], [0]), scorers))
    less = open_triple({**{r: c.ref for r, c in found.checkpoints.items()}, "target_tuned": ""})
    with pytest.raises(TripleError, match="no target fine-tuned"):
        list(sweep(Store(), less, prompter, along(PATHS["yardstick"], [0.5]), [LOSS]))
    for low, high, count in ((0, 1, 1), (0, 1, 22), (1, 0, 3), (-20, 1, 3)):
        with pytest.raises(TaskError):
            axis(low, high, count, "α")


def test_a_score_that_is_no_number_is_not_the_best():
    rows = [
        Row(point(t), str(t), t, {LOSS.name: Score(LOSS.name, v, 0.0, 1)}) for t, v in ((0.0, math.nan), (0.5, 2.0), (1.0, math.inf))
    ]  # fmt: skip
    assert best(rows, LOSS).t == 0.5 and best(rows[:1], LOSS) is None


def test_there_is_no_best_where_all_are_alike():
    def rows(*values):
        return [Row(point(t), str(t), t, {LOSS.name: Score(LOSS.name, v, 0.0, 1)}) for t, v in enumerate(values, 1)]

    assert best(rows(1.0, 1.0, 1.0), LOSS) is None and best(rows(1.0), LOSS).t == 1
    assert best(rows(2.0, 1.0, 1.0), LOSS).t == 2 and best(rows(2.0, 1.0, 1.0)[::-1], LOSS).t == 2


def test_a_table_of_items_is_bounded(triple, prompter, exact):
    rows = list(sweep(Store(), triple("llama"), prompter, along(PATHS["strength"], [0, 0.5, 1]), [exact, LOSS]))
    rows[0] = replace(rows[0], t=None)
    some = items_table(rows, [exact, LOSS], most=1)
    assert set(some["point"]) >= {rows[0].label} and len(some) < len(items_table(rows, [exact, LOSS]))
    assert (items_table(rows, [exact])["right"] == "?").all()


def test_a_map_has_every_cell_once_then_finer_ones(triple, prompter, kept):
    found = triple("llama")
    alphas, betas = axis(0, 8, 3, "α"), axis(0, 8, 3, "β")
    rows = list(landscape(Store(), found, prompter, alphas, betas, [MANY], 6, kept))
    cells = [row.mix.plane for row in rows]
    assert len(cells) == len(set(cells)) and set(cells[:9]) == {(a, b) for a in alphas for b in betas}
    assert 9 < len(cells) <= 15 and all(0 <= a <= 8 and 0 <= b <= 8 for a, b in cells)
    corner = {row.mix.plane: row for row in rows}
    assert corner[4.0, 0.0].scores[MANY.name].value == MANY(LiveModel(found, point(4, 0)), prompter).value
    again = list(landscape(Counting(), found, prompter, alphas, betas, [MANY], 6, kept))
    assert [row.mix for row in again] == [row.mix for row in rows] and all(row.known for row in again)
    with pytest.raises(TaskError, match="At most"):
        list(landscape(Store(), found, prompter, axis(0, 1, 21, "α"), axis(0, 1, 21, "β"), [LOSS], 10))
    assert len(grid(alphas, betas)) == 9


def test_a_loss_error_that_is_no_overflow_keeps_its_words(triple, prompter):
    def refuse(*_):
        raise LiveError("The model's outputs are not finite.")

    scorer = replace(LOSS)
    object.__setattr__(scorer, "__class__", type("Broken", (Loss,), {"__call__": refuse}))
    (row,) = sweep(Store(), triple("llama"), prompter, along(PATHS["strength"], [1]), [scorer])
    assert "not finite" in row.error and "overflow" not in row.error
