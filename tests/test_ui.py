"""The parts of the page that need no browser: long work, what is shared, checked input, escaped output."""

import math
import threading
import time

import gradio as gr
import pytest

from transfer.errors import CheckpointError, PointError, ReadError
from transfer.plane import point
from ui import compare, spectrum, turns
from ui.inputs import number, whole, words
from ui.markup import strength
from ui.presets import POCKET, pocket_folder, read_presets, task_files
from ui.shared import Shared, Shelf
from ui.work import Turn, background, halt, say, supersede

BAD = "<script>alert('x')</script>"


def test_background_gives_items_and_beats():
    def work(tick):
        yield 1
        time.sleep(0.6)
        yield 2

    got = list(background(work))
    assert [g for g in got if g is not None] == [1, 2] and None in got


def test_background_raises_what_the_work_raises():
    def work(tick):
        yield 1
        raise CheckpointError("broken")

    with pytest.raises(CheckpointError, match="broken"):
        list(background(work))


def test_closing_background_stops_the_work():
    ended = threading.Event()

    def work(tick):
        try:
            while True:
                time.sleep(0.01)
                tick()
                yield 1
        finally:
            ended.set()

    running = background(work)
    next(running)
    running.close()
    assert ended.wait(2)


def test_two_who_ask_at_once_wait_for_one_making():
    shelf, made = Shelf(2), []

    def make():
        time.sleep(0.1)
        made.append(1)
        return "it"

    threads = [threading.Thread(target=shelf.get, args=("key", make)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1] and shelf.peek("key") == "it"


def test_a_shelf_is_bounded_and_forgets_failures():
    shelf = Shelf(2)
    with pytest.raises(ZeroDivisionError):
        shelf.get("a", lambda: 1 / 0)
    assert shelf.get("a", lambda: 1) == 1
    for key in "bcd":
        shelf.get(key, lambda: 2)
    assert shelf.peek("a") is None and shelf.peek("d") == 2


@pytest.mark.parametrize("bad", [math.nan, math.inf, "x", None, [1], 11, -11])
def test_numbers_are_checked(bad):
    with pytest.raises(PointError, match="α"):
        number(bad, "α", -10, 10)


def test_whole_numbers_and_words_are_checked():
    assert whole(3.0, "Steps", 1, 5) == 3 and words(None, "Text", 5) == ""
    with pytest.raises(PointError, match="whole"):
        whole(2.5, "Steps", 1, 5)
    with pytest.raises(PointError, match="at most 5"):
        words("123456", "Text", 5)


def test_the_merged_pane_shows_its_formula():
    assert strength(point(0.75)) == "m<sub>t</sub> + 0.75·Δ"
    assert strength(point(-0.5)) == "m<sub>t</sub> − 0.5·Δ"


def test_errors_of_ours_are_told_and_others_are_not(caplog):
    assert say(CheckpointError("The file is broken.")) == "The file is broken."
    assert (
        say(KeyError("/secret/path")) == "Something unexpected went wrong (KeyError). The server's log has the details."
    )
    assert "KeyError" in caplog.text


@pytest.mark.parametrize(
    "ref", ["pocket/", "pocket/../x", "pocket/a/b", "pocket/.hidden", "owner/name", "pocket", "/pocket/base-v1"]
)
def test_pocket_names_never_leave_their_folder(ref):
    assert pocket_folder(ref) is None


def test_presets_are_whole():
    for preset in read_presets():
        for ref in filter(None, preset.refs.values()):
            folder = pocket_folder(ref)
            assert folder is not None and folder.parent == POCKET and (folder / "model.safetensors").is_file()
    assert next(iter(task_files())) == "pocket"


def test_of_work_that_comes_too_fast_the_newest_is_taken_and_the_last_never_lost():
    def fast(tick):
        for i in range(200):
            tick()
            yield i
        raise ReadError("The end.")

    seen = []
    with pytest.raises(ReadError, match="The end"):
        for item in background(fast, newest=True):
            seen.append(item)
            time.sleep(0.01)
    assert seen[-1] == 199 and len(seen) < 100
    assert list(background(lambda tick: iter([1, 2, 3]))) == [1, 2, 3]


def test_a_stop_reaches_a_decomposition_and_the_next_one_waits_for_its_turn():
    """A generator is closed at a yield alone: there must be one every so often, whatever the work does."""
    shared, refs = Shared(), read_presets()[0].refs
    taken = [turns.TURNS.acquire(), turns.TURNS.acquire()]  # two that go on after having been stopped
    try:
        work = spectrum.run(shared, refs, "model.layers.0.mlp.up_proj.weight", "left")
        start = time.monotonic()
        assert "Decomposing" in next(work)[0] and time.monotonic() - start < 2
        work.close()
    finally:
        for _ in taken:
            turns.TURNS.release()
    *_, last = spectrum.run(shared, refs, "model.layers.0.mlp.up_proj.weight", "left")
    assert "stable rank" in last[0] and last[3] is not None


@pytest.mark.parametrize("name", ["no.such.tensor", "", "model.norm.weight", "<img src=x onerror=alert(1)>", None, 7])
def test_a_tensor_that_cannot_be_looked_into_is_a_sentence(name):
    *_, last = spectrum.run(Shared(), read_presets()[0].refs, name, "left")
    assert "ts-error" in last[0] and "<img" not in last[0] and last[2] is None


def test_a_hosted_page_refuses_what_would_keep_others_waiting(monkeypatch):
    monkeypatch.setattr(turns, "HOSTED", True)
    monkeypatch.setattr(turns, "MOST_SECONDS", 0)
    *_, last = spectrum.run(Shared(), read_presets()[0].refs, "model.layers.0.mlp.up_proj.weight", "left", exact=True)
    assert "on this hosted page" in last[0]


def test_swapped_bases_and_unrelated_ones_are_warned_of():
    family = read_presets()[0].refs
    shared = Shared()
    for refs, says in (
        (
            {**family, "source_base": family["target_base"], "target_base": family["source_base"], "target_tuned": ""},
            "swapped?",
        ),
        (read_presets()[1].refs, "unrelated in weights"),
        ({**family, "source_tuned": family["source_base"]}, "nothing to transfer"),
    ):
        *_, last = compare.run(shared, refs, "relative", 1.0)
        assert says in last[0], last[0]


def test_what_is_shown_stays_where_a_number_is_wrong():
    shared, refs = Shared(), read_presets()[0].refs
    for alpha in (0, "", None, "a", 100, float("nan"), 1e-9):
        (only,) = compare.run(shared, refs, "relative", alpha)
        assert "α for rounding" in only[0] and all(value == gr.skip() for value in only[1:])


def test_a_later_press_waits_for_the_last_picture_of_an_earlier_one():
    turns, seen = {}, []

    def pictures():
        for i in range(1000):
            time.sleep(0.01)
            yield i

    turn = Turn(turns, "a")

    def show():
        for i in turn.heed(pictures()):
            seen.append(i)

    thread = threading.Thread(target=show)
    thread.start()
    while not seen:
        time.sleep(0.001)
    supersede(turns, "a")
    count = len(seen)
    thread.join()
    assert len(seen) == count < 1000 and not turn.current and turns["a"].over.is_set()
    halt(turns, "nobody's")
