"""A comparison as it grows, and what stops it."""

import json
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import save_file

from analysis import comparison
from analysis.comparison import Comparison, compare
from analysis.gram import gram_pass
from analysis.measures import MEASURES, margin, written
from benchmarks import synthetic
from transfer.errors import Cancelled, PointError, ReadError
from transfer.plane import ROLES
from transfer.triple import open_triple


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A triple of 160 MB in all: more than is read without a sample first."""
    return open_triple(synthetic.family(0.02, home=tmp_path_factory.mktemp("large")))


def test_it_begins_with_a_sample_and_ends_exact(large):
    steps = list(compare(large))
    assert not steps[0].exact and steps[0].share < 0.2 and len(steps[0].table) == len(large.tensors)
    assert steps[-1].exact and steps[-1].known == len(large.tensors) and steps[-1].share == 1
    assert [s.known for s in steps] == sorted(s.known for s in steps)
    first, last = steps[0], steps[-1]
    for name in ("norm_delta", "relative", "cos_shift", "best_alpha"):
        near = 2 * first.widths(["all"])[name][0]
        assert near > 0 and abs(first.total[name] - last.total[name]) <= near
        assert last.widths(["all"])[name][0] == 0
    assert any(" ±" in column for column in first.frame()) and not any(" ±" in column for column in last.frame())
    assert first.frame()["tensor"].tolist() == last.frame()["tensor"].tolist()


def test_the_very_first_look_has_intervals_already(large, monkeypatch):
    monkeypatch.setattr(comparison, "BEAT", 0)
    for step, _ in zip(compare(large, exact=False), range(3), strict=False):
        assert len(step.table) == len(large.tensors) and step.widths(["all"])["norm_delta"][0] > 0
        assert (step.widths(["tensor"])["norm_delta"].notna()).all()


def test_a_small_triple_is_read_whole_at_once(triple):
    (only,) = compare(triple("llama"))
    assert only.exact


def test_only_a_sample_where_that_is_asked_for(large):
    *_, last = compare(large, exact=False)
    assert not last.exact and last.share < 0.2


@pytest.mark.parametrize("alpha", [0.0, float("nan"), float("inf"), 11.0])
def test_an_alpha_that_is_none_is_refused(large, alpha):
    with pytest.raises(PointError, match="α"):
        next(compare(large, alpha=alpha))


def test_smaller_steps_lose_more_to_rounding(triple):
    found = triple("llama")
    lost = [
        Comparison(tuple(gram_pass(found, alpha=a)), len(found.tensors), a).total["rounding"] for a in (1.0, 0.3, 0.1)
    ]
    assert lost == sorted(lost) and lost[0] < 0.5 * lost[-1]


def test_memory_stays_small_whatever_the_size(large):
    process, stop, most = psutil.Process(), threading.Event(), [0]

    def held() -> int:
        info = process.memory_info()
        return info.rss - info.shared

    list(gram_pass(large))
    before = held()

    def watch():
        while not stop.wait(0.002):
            most[0] = max(most[0], held() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    list(gram_pass(large))
    stop.set()
    watcher.join()
    assert sum(c.nbytes for c in large.checkpoints.values()) > 150_000_000
    assert most[0] < 30_000_000


def damaged(large, tmp_path: Path) -> dict[str, str]:
    """Links to the triple's files, but a copy of the source fine-tuned model's."""
    refs = {}
    for role, c in large.checkpoints.items():
        shutil.copytree(c.folder, tmp_path / role, copy_function=shutil.copy if role == "source_tuned" else os.link)
        refs[role] = str(tmp_path / role)
    return refs


def test_a_file_that_shrinks_while_it_is_read_is_a_sentence(large, tmp_path):
    found = open_triple(damaged(large, tmp_path))
    path = next((tmp_path / "source_tuned").glob("*.safetensors"))
    work = gram_pass(found, threads=1)
    next(work)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(ReadError, match=f"{path.name} ended inside tensor .* changed while being read"):
        list(work)
    with pytest.raises(ReadError, match="has changed since it was checked"):
        list(compare(found, exact=False))


def test_a_stop_is_heard(large):
    calls = 0

    def tick():
        nonlocal calls
        calls += 1
        if calls > 5:
            raise Cancelled("Stopped.")

    found = []
    with pytest.raises(Cancelled):
        found += gram_pass(large, tick)
    before = set(threading.enumerate())  # other tests' pools may still be about
    work = gram_pass(large)
    next(work)
    assert set(threading.enumerate()) - before
    work.close()  # returns once its threads have ended
    assert not set(threading.enumerate()) - before


def test_mixed_and_unusual_shapes(tmp_path):
    """A scalar, an empty tensor, an odd length, and integers beside the weights."""
    torch.manual_seed(0)
    for role in ROLES:
        (tmp_path / role).mkdir()
        weights = {
            "model.layers.0.scale": torch.randn(()),
            "model.layers.0.empty": torch.zeros(0, 4),
            "model.layers.0.odd.weight": torch.randn(3, 1025).bfloat16(),
            "model.layers.0.stack": torch.randn(2, 3, 5).half(),
            "model.steps": torch.arange(3),
        }
        save_file(weights, tmp_path / role / "model.safetensors")
        (tmp_path / role / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 7}))
    found = open_triple({role: str(tmp_path / role) for role in ROLES})
    (only,) = compare(found)
    assert only.exact and set(only.table["tensor"]) == {
        "model.layers.0.scale", "model.layers.0.odd.weight", "model.layers.0.stack",
    }  # fmt: skip
    assert np.isfinite(only.total["norm_delta"])


def test_every_measure_is_found_explained_and_written(triple):
    (only,) = compare(triple("llama"))
    for name, shown in MEASURES.items():
        assert np.isfinite(only.total[name]), name
        assert (
            shown.about.endswith(".")
            and shown.hint.endswith(".")
            and shown.form in ("share", "signed", "strength", "number")
        )
        assert written(name, float(only.total[name])) not in ("", "nan")
    assert (
        written("cos_shift", -0.25) == "−0.2500"
        and written("cos_shift", -1e-6) == "0.0000"
        and written("relative", float("nan")) == "–"
    )
    assert margin("relative", 0.00123) == "± 0.12%" and margin("norm_delta", 0.0) == ""


def test_a_yardstick_is_what_its_measures_need(family):
    refs = {role: ref for role, ref in family("llama").items() if role != "target_tuned"}
    (only,) = compare(open_triple(refs))
    for name, shown in MEASURES.items():
        assert np.isnan(only.total[name]) == shown.yardstick, name


def test_the_sample_is_skipped_only_where_it_would_not_be_seen(large, monkeypatch):
    monkeypatch.setattr(comparison, "AT_ONCE", 10**12)
    (only,) = compare(large)
    assert only.exact
