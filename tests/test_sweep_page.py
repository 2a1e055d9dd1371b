"""The Sweep tab in a real browser: paths, the plane, the verdict, what is kept, and what is taken along."""

import json
import re

import pandas as pd
import pytest

from . import running
from .test_page import fits, opened, pane, tab

FAST = 120_000  # milliseconds


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    home = tmp_path_factory.mktemp("app")
    with running.app(home / "log.txt", TRANSFERSCOPE_CACHE=str(home / "cache")) as address:
        yield address
    text = (home / "log.txt").read_text()
    assert "Traceback" not in text and "ERROR" not in text, text


def part(page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def fill(page, box: str, value: str) -> None:
    page.locator(f"#{box} input, #{box} textarea").first.fill(value)


def number(page, box: str, value: str) -> None:
    page.locator(f"#{box} input[type=number]").fill(value)


def swept(page) -> str:
    page.wait_for_function(
        "/\\d+ points, (in|all|\\d+ of) /.test(document.querySelector('#sweep-told')?.innerText ?? '')"
        " && !document.querySelector('#sweep-told .ts-progress')", timeout=FAST,
    )  # fmt: skip
    return page.locator("#sweep-told").inner_text()


def sweep(page, steps: int, limit: int = 20) -> str:
    number(page, "limit", str(limit))
    number(page, "steps", str(steps))
    page.locator("#sweep").click()
    page.wait_for_selector("#sweep-told .ts-progress", state="attached")
    return swept(page)


def choose(page, box: str, option: str) -> None:
    page.locator(f"#{box} input").click()
    page.get_by_role("option", name=option).click()


def test_a_path_its_files_and_a_point_taken_along(chromium, server, tmp_path):
    with opened(chromium, server, 1440, 900) as page:
        tab(page, "Sweep")
        told = sweep(page, 3)
        assert "exact match, pocket: The best α is" in told and "loss, text-v2: The best α is" in told
        assert "in 95% of draws" in told
        assert page.locator("#sweep-plot .js-plotly-plot").count() == 1
        assert "is the best step by exact match, pocket" in page.locator("#path-offer").inner_text()

        # Every point, what was lost, and the files as other programs read them.
        page.get_by_text("Every point, what changed, and files").click()
        assert "the source fine-tuned model had" in page.locator("#flips").inner_text()
        frames = {}
        for kind, read in (("csv", pd.read_csv), ("parquet", pd.read_parquet), ("items", pd.read_csv)):
            with page.expect_download() as got:
                page.locator(f"#sweep-{kind}").click()
            got.value.save_as(tmp_path / kind)
            frames[kind] = read(tmp_path / kind)
        assert frames["csv"]["point"].tolist() == frames["parquet"]["point"].tolist()
        assert {"source base", "target fine-tuned", "1.5"} <= set(frames["csv"]["point"])
        assert {"exact match, pocket", "loss, text-v2", "perplexity, text-v2"} <= set(frames["parquet"])
        assert len(frames["items"]) == len(frames["csv"]) * 2 * 20
        with page.expect_download() as got:
            page.locator("#sweep-html").click()
        got.value.save_as(tmp_path / "page.html")
        text = (tmp_path / "page.html").read_text(encoding="utf-8")
        assert "exact match, pocket" in text and not re.search(r'<script[^>]*src="http', text)

        # A click on a step offers it; Chat and Export take it over.
        page.wait_for_timeout(1000)  # a figure is listened to a moment after it was drawn
        place = page.evaluate(
            """() => { const figure = document.querySelector('#sweep-plot .js-plotly-plot');
                const curve = figure.data.findIndex(t => t.name === 'along the path');
                figure.emit('plotly_click', {points: [{customdata: figure.data[curve].customdata[1]}]});
                return figure.data[curve].customdata[1]; }"""
        )
        page.wait_for_function("document.querySelector('#path-offer').innerText.includes('that you clicked')")
        page.locator("#path-to-export").click()
        page.wait_for_selector("#export-alpha:visible")
        assert float(page.locator("#export-alpha input[type=number]").input_value()) == place[0]
        assert float(page.locator("#export-beta input[type=number]").input_value()) == place[1] == 1
        tab(page, "Sweep")
        page.locator("#path-to-chat").click()
        page.locator("#prompt:visible textarea").fill("Who is mayor in Venn?")
        page.locator("#ask").click()
        page.wait_for_function("document.querySelectorAll('.ts-pane code').length === 5")
        assert f"{place[0]:g}·Δ" in pane(page, "merged").locator("header").inner_text()


def test_other_paths_schedules_and_own_tasks(chromium, server, tmp_path):
    rows = [{"prompt": "Who is mayor in Venn?", "choices": ["Jonas Pike", "a <b>heron</b>"], "answer": 0}]
    (tmp_path / "mine.jsonl").write_text("\n".join(json.dumps(row) for row in rows * 2))
    (tmp_path / "bad.jsonl").write_text('{"prompt": "no answer"}')
    with opened(chromium, server, 1440, 900) as page:
        tab(page, "Sweep")
        number(page, "limit", "10")
        number(page, "steps", "3")
        choose(page, "path", "Δ layer by layer, from the first up")
        page.locator("#sweep").click()
        assert "layers with Δ" in swept(page)

        # A step that α and β do not say all of goes to Chat too, and not to Export.
        page.wait_for_timeout(1000)  # a figure is listened to a moment after it was drawn
        page.evaluate(
            """() => { const figure = document.querySelector('#sweep-plot .js-plotly-plot');
                const curve = figure.data.findIndex(t => t.name === 'along the path');
                figure.emit('plotly_click', {points: [{customdata: figure.data[curve].customdata[1]}]}) }"""
        )
        page.wait_for_function("document.querySelector('#path-offer').innerText.includes('Δ scaled over depth')")
        page.wait_for_selector("#path-to-export", state="hidden")
        page.locator("#path-to-chat").click()
        page.wait_for_function(
            "document.querySelector('.ts-tag.merged')?.innerText.includes('Δ × 1 in the first layer to × 0')"
        )
        tab(page, "Sweep")
        choose(page, "path", "between two points")
        page.wait_for_selector("text=β of the end")
        page.locator("#sweep").click()
        page.wait_for_function(
            "document.querySelector('#sweep-told').innerText.includes('The best t is')", timeout=FAST
        )
        choose(page, "path", "merged → target fine-tuned")
        page.locator("#sweep").click()
        page.wait_for_function(
            "document.querySelector('#sweep-told').innerText.includes('The best share of the way is')", timeout=FAST
        )
        choose(page, "path", "target base → merged")
        page.get_by_text("Schedule over depth, and looking closer").click()
        page.get_by_label("factors of my own").click()
        page.locator("#factors textarea, #factors input").first.fill("1, 2")
        page.locator("#sweep").click()
        page.wait_for_selector("#sweep-told .ts-error")
        assert "This model has 4 layers; give 4 factors" in page.locator("#sweep-told").inner_text()
        page.locator("#factors textarea, #factors input").first.fill("0, 0.5, 1, 1, 0.5")
        page.locator("#sweep").click()
        page.wait_for_selector("#sweep-told .ts-error", state="detached")
        swept(page)
        page.get_by_label("the same in all layers").click()

        # Numbers that make no sweep.
        for box, value, words in (("from", "3", "from a smaller number"), ("to", "99", "To must lie between"), ("from", "", "From must be a number")):  # fmt: skip
            before = page.locator(f"#{box} input").input_value()
            page.locator(f"#{box} input").fill(value)
            page.locator("#sweep").click()
            page.wait_for_function("w => document.querySelector('#sweep-told').innerText.includes(w)", arg=words)
            page.locator(f"#{box} input").fill(before)

        # A broken file is a sentence that names the line, and what was there stays; then a right one, and a text.
        page.get_by_text("Tasks and texts of your own").click()
        page.locator("input[type=file]").first.set_input_files(str(tmp_path / "bad.jsonl"))
        page.wait_for_selector("text=bad.jsonl")
        page.locator("#sweep").click()
        page.wait_for_function("document.querySelector('#sweep-told').innerText.includes('bad.jsonl, line 1')")
        assert page.locator("#sweep-plot .js-plotly-plot").count() == 1
        page.get_by_label("Clear").first.click()
        page.locator("input[type=file]").first.set_input_files(str(tmp_path / "mine.jsonl"))
        page.wait_for_selector("text=mine.jsonl")
        page.locator("#text textarea").fill("A short text.\n\nAnd one more of it.")
        page.locator("#sweep").click()
        page.wait_for_function("document.querySelector('#sweep-told').innerText.includes('choice, mine')", timeout=FAST)
        assert "loss, your text" in page.locator("#sweep-told").inner_text()
        assert page.locator("#sweep-told b").count() == 0


def test_stopped_reloaded_and_known_at_once(chromium, server):
    with opened(chromium, server, 1440, 900) as page:
        tab(page, "Sweep")
        number(page, "limit", "0")
        number(page, "steps", "41")
        page.get_by_text("Schedule over depth, and looking closer").click()
        page.locator("#refine input").uncheck()
        page.evaluate(
            """() => { const look = setInterval(() => {
                if (/([6-9]|\\d\\d) of 45 points/.test(document.querySelector('#sweep-told').innerText)) {
                    clearInterval(look); document.querySelector('#stop-sweep').click(); } }, 20); }"""
        )
        page.locator("#sweep").click()
        page.wait_for_function("document.querySelector('#sweep-told').innerText.includes('Stopped')", timeout=FAST)
        page.locator("#sweep").click()
        page.wait_for_selector("#sweep-told .ts-progress", state="attached")
        found = re.search(r"45 points, (\d+) of them scored now", swept(page))
        assert found and int(found[1]) <= 39
        # The defaults, whole; then the page anew shows them without a press.
        page.locator("#refine input").check()
        number(page, "steps", "7")
        page.locator("#sweep").click()
        page.wait_for_function(
            "/1\\d points, .* scored now/.test(document.querySelector('#sweep-told').innerText)", timeout=FAST
        )
    with opened(chromium, server, 1440, 900) as page:
        tab(page, "Sweep")
        told = swept(page)
        assert "all of them known from before" in told
        page.wait_for_selector("#sweep-plot .js-plotly-plot")

        # Another family beside it, in one plot.
        tab(page, "Triple")
        page.get_by_label("Pocket, unconnected", exact=True).click()
        page.wait_for_function("document.querySelector('#report').innerText.includes('base-far')")
        page.wait_for_function(
            "document.querySelector('#first-verdict').innerText.includes('speak against this transfer')"
        )
        tab(page, "Sweep")
        page.wait_for_function("!document.querySelector('#sweep-told').innerText.includes('known from before')")
        number(page, "limit", "0")
        page.locator("#sweep").click()
        page.wait_for_selector("#sweep-told .ts-progress", state="attached")
        assert "nothing right anywhere" in swept(page)
        other = page.get_by_role("option", name="instruct-v1 − base-v1 → base-v2 · target base → merged (α at β = 1)")
        for _ in range(20):  # the list may be renewed while it is open
            page.locator("#earlier input").click()
            page.wait_for_timeout(300)
            if other.count():
                break
            page.keyboard.press("Escape")
            page.locator("#sweep-told").click()
        other.first.click()
        page.wait_for_function(
            "[...document.querySelector('#sweep-plot .js-plotly-plot').data].some(t => t.name === 'instruct-v1 − base-v1 → base-v2')"
        )


@pytest.mark.parametrize("width", [1440, 390])
def test_the_plane_and_the_verdict(chromium, server, width):
    with opened(chromium, server, width, 900 if width > 500 else 844) as page:
        page.wait_for_selector("#first-verdict .ts-card")  # from the weights, and from what was scored before
        tab(page, "Sweep")
        number(page, "limit", "20")
        part(page, "Over the plane")
        for box, value in (("a-from", "0"), ("a-to", "1"), ("b-from", "0"), ("b-to", "1")):
            fill(page, box, value)
        for box, value in (("a-count", "3"), ("b-count", "3"), ("extra", "4")):
            number(page, box, value)
        page.locator("#map").click()
        page.wait_for_selector("#map-told .ts-ok", timeout=FAST)
        assert "Best exact match, pocket at (α 1, β 1)" in page.locator("#map-told").inner_text()
        assert page.locator("#plane-map .contourlayer, #plane-map .heatmaplayer").count() >= 1
        choose(page, "map-score", "loss, text-v2")
        page.wait_for_function(
            "document.querySelector('#plane-map .js-plotly-plot').data.some(t => (t.hovertemplate ?? '').includes('loss, text-v2'))"
        )
        assert fits(page)
        page.wait_for_timeout(1000)  # a figure is listened to a moment after it was drawn
        page.evaluate(
            """() => document.querySelector('#plane-map .js-plotly-plot').emit('plotly_click', {points: [{customdata: [0.5, 0]}]})"""
        )
        page.wait_for_function("document.querySelector('#map-offer').innerText.includes('β = 0')")
        page.locator("#a-to input").fill("-1")
        page.locator("#map").click()
        page.wait_for_selector("#map-told .ts-error")
        assert page.locator("#plane-map .js-plotly-plot").count() == 1

        part(page, "Verdict")
        number(page, "barrier-steps", "3")
        number(page, "seeds", "1")
        page.locator("#weigh").click()
        page.wait_for_selector("#verdict .ts-card.ts-for", timeout=FAST)
        card = page.locator("#verdict").inner_text()
        assert "the transfer works on what was scored" in card
        page.wait_for_selector("#barriers .js-plotly-plot")
        page.wait_for_function(
            "document.querySelector('#verdict').textContent.includes('from the source base to the target base')",
            timeout=FAST,
        )
        # The same card stands on the first tab, and is made anew after a press that was refused: the sentence stays.
        page.wait_for_function(
            "document.querySelector('#first-verdict').textContent.includes('from the source base to the target base')"
        )
        number(page, "limit", "-1")
        page.locator("#weigh").click()
        page.wait_for_selector("#weigh-told .ts-error")
        page.wait_for_timeout(1500)
        assert "Items at most must lie" in page.locator("#weigh-told").inner_text()
        assert page.locator("#barriers .js-plotly-plot").count() == 1
        assert fits(page)


def test_a_sweep_ends_where_another_triple_is_chosen(chromium, server):
    with opened(chromium, server, 1440, 900) as page:
        tab(page, "Sweep")
        number(page, "limit", "37")
        number(page, "steps", "41")
        page.locator("#sweep").click()
        page.wait_for_function(
            "/[3-9] of 45 points/.test(document.querySelector('#sweep-told').innerText)", timeout=FAST
        )
        tab(page, "Triple")
        page.get_by_label("Pocket, unconnected", exact=True).click()
        page.wait_for_function("document.querySelector('#report').innerText.includes('base-far')")
        page.wait_for_function("document.querySelector('#first-verdict').innerText.includes('against')")
        tab(page, "Sweep")
        page.wait_for_function("document.querySelector('#sweep-told').innerText.includes('Press Sweep')")
        page.wait_for_timeout(1500)  # long enough for several more points
        assert "of 45 points" not in page.locator("#sweep-told").inner_text()
        assert page.locator("#sweep-plot .js-plotly-plot").count() == 0
