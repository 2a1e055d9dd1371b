"""One journey through the whole page in a real browser, at a desktop's width and a phone's."""

import re
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks import synthetic
from ui.presets import read_suggestions

from . import running


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    log = tmp_path_factory.mktemp("app") / "log.txt"
    with running.app(log) as address:
        yield address, log
    text = log.read_text()
    assert "Traceback" not in text and "ERROR" not in text, text


@contextmanager
def opened(chromium, address: str, width: int, height: int, theme: str = "light"):
    """A page at the app, that fails the test for any error in the console and any request to another host."""
    complaints = []
    context = chromium.new_context(viewport={"width": width, "height": height}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: complaints.append(str(e)))
    page.on(
        "request",
        lambda r: (
            complaints.append(r.url)
            if not r.url.startswith((address, "data:", "blob:", address.replace("http", "ws")))
            else None
        ),
    )
    page.goto(f"{address}/?__theme={theme}")
    page.wait_for_selector("#report .ts-findings")
    yield page
    assert complaints == []
    context.close()


# Both figures of the Compare tab are drawn for this triple, and no wider than their boxes.
FITTING = """() => document.querySelector('#tiles').innerText.includes('140') && ['#heat', '#lines'].every(name => {
    const box = document.querySelector(name), figure = box.querySelector('.main-svg');
    return figure && Math.abs(figure.getBoundingClientRect().width - box.getBoundingClientRect().width) < 12;
})"""


def tab(page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def fits(page) -> bool:
    return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth + 1")


def pane(page, role: str):
    return page.locator(f"#panes .ts-pane.{role}")


def wait_for_answers(page, prompt: str) -> None:
    page.wait_for_function(
        "prompt => document.querySelector('#panes .ts-asked b')?.textContent === prompt"
        " && document.querySelectorAll('#panes .ts-pane').length >= 4 && !document.querySelector('.ts-cursor')",
        arg=prompt,
    )


def test_the_whole_journey(chromium, server, tmp_path):
    address, _ = server
    shown = read_suggestions()[0]
    with opened(chromium, address, 1440, 900) as page:
        # It opens with Pocket loaded and compared …
        page.wait_for_selector("#plane .js-plotly-plot")
        assert "tensors match" in page.locator("#report").inner_text()

        # … and one press away from seeing the transfer work: only the merged model both chats and is right.
        page.locator(".ts-try button", has_text=shown.prompt).click()
        wait_for_answers(page, shown.prompt)
        assert pane(page, "merged").locator(".ts-answer").inner_text() == shown.expect
        assert "right" in pane(page, "merged").locator(".ts-badge.ts-ok").inner_text()
        for role in ("source_base", "source_tuned", "target_base"):
            assert pane(page, role).locator(".ts-answer").inner_text() != shown.expect
            assert pane(page, role).locator(".ts-badge.ts-ok").count() == 0
        prints = page.locator("#panes .ts-pane code").all_inner_texts()
        assert len(prints) == len(set(prints)) == 5 and all(re.fullmatch(r"[0-9a-f]{12}", p) for p in prints)

        # A question of one's own, by Enter, with markup in it that must stay text.
        page.locator("#prompt textarea").fill("<img src=x onerror=alert(1)> who?")
        page.locator("#prompt textarea").press("Enter")
        wait_for_answers(page, "<img src=x onerror=alert(1)> who?")
        assert page.locator("#panes img").count() == 0

        # An empty one is a sentence.
        page.locator("#prompt textarea").fill("   ")
        page.locator("#ask").click()
        page.wait_for_selector("#chat-told .ts-notice.ts-error")
        assert "prompt is empty" in page.locator("#chat-told").inner_text()

        # α: at 0 the merged pane is the target base, fingerprint and all.
        page.locator("#prompt textarea").fill(shown.prompt)
        number = page.locator("#alpha input[type=number]")
        number.fill("0")
        page.locator("#ask").click()
        wait_for_answers(page, shown.prompt)
        assert (
            pane(page, "merged").locator("code").inner_text() == pane(page, "target_base").locator("code").inner_text()
        )

        # A number out of bounds: the slider comes back to its end, and the answer is that of the number shown …
        number.fill("30")
        number.blur()
        page.wait_for_function("document.querySelector('#panes .ts-pane.merged header')?.textContent.includes('2·Δ')")
        assert number.input_value() == "2"
        # … or the page says what is wrong with it, and the prompt is not lost.
        page.get_by_text("Sampling, system prompt and template").click()
        seed = page.locator("#all-seed input[type=number]")
        seed.fill("-5")
        page.locator("#prompt textarea").fill("Tell")
        page.locator("#ask").click()
        page.wait_for_selector("#chat-told .ts-notice.ts-error")
        assert "Seed must lie between 0 and 2,147,483,647" in page.locator("#chat-told").inner_text()
        assert page.locator("#prompt textarea").input_value() == "Tell"
        seed.fill("0")

        # Compare: tiles, both figures, another measure, the table as CSV.
        tab(page, "Compare")
        page.wait_for_selector("#heat .js-plotly-plot .heatmaplayer")
        assert page.locator(".ts-tile").count() >= 6
        page.locator("#measure input").click()
        page.get_by_role("option", name="cos(Δ, δ)").click()
        page.wait_for_function("document.querySelector('#lines .ytitle')?.textContent.includes('cos(Δ, δ)')")
        page.get_by_text("Every tensor, as a table").click()
        with page.expect_download() as got:
            page.locator("#save-table").click()
        assert Path(got.value.path()).read_text().startswith("tensor,layer,kind")

        # A click on a cell opens its tensor: spectrum, shared directions, entries; the fingerprints answer too.
        page.evaluate("window.scrollTo(0, 0)")
        cell = page.locator("#heat .nsewdrag").first.bounding_box()
        page.mouse.click(cell["x"] + 0.6 * cell["width"], cell["y"] + 0.06 * cell["height"])
        page.wait_for_function(
            "document.querySelector('#spectrum-told').innerText.includes('layers.2.self_attn.q_proj')"
        )
        assert page.locator("#tensor input").input_value() == "model.layers.2.self_attn.q_proj.weight"
        assert "stable rank" in page.locator("#spectrum-told").inner_text()
        for name in ("#spectrum", "#overlap", "#entries"):
            page.wait_for_selector(f"{name} .js-plotly-plot .main-svg")
        page.wait_for_timeout(700)  # until it has scrolled there
        page.evaluate("document.querySelector('#heat').scrollIntoView({behavior: 'instant'})")
        cell = page.locator("#heat .nsewdrag").first.bounding_box()
        page.mouse.click(cell["x"] + 0.6 * cell["width"], cell["y"] + 0.94 * cell["height"])  # a norm: a vector
        page.wait_for_function("document.querySelector('#spectrum-told').innerText.includes('is a vector')")
        assert page.locator("#tensor input").input_value() == "model.layers.2.self_attn.q_proj.weight"
        page.locator("#side").get_by_text("right").click()
        page.wait_for_function("document.querySelector('#overlap .xtitle')?.textContent.includes('right')")
        page.get_by_text("Is it really a child of this base?").click()
        page.locator("#fingerprints").click()
        page.wait_for_selector("#kinship .ts-ok")
        assert "one lineage" in page.locator("#kinship").inner_text()

        # Export: a checkpoint that is there.
        tab(page, "Export")
        folder = tmp_path / "mine"
        page.locator("#folder textarea, #folder input").first.fill(str(folder))
        page.locator("#write").click()
        page.wait_for_selector("#export-told .ts-ok")
        assert (folder / "model.safetensors").is_file() and (folder / "README.md").is_file()
        page.locator("#write").click()
        page.wait_for_selector("#export-told .ts-error")
        assert "not empty" in page.locator("#export-told").inner_text()

        # The unconnected family opens too; a wrong name is a sentence, and nothing is lost.
        tab(page, "Triple")
        page.get_by_label("Pocket, unconnected", exact=True).click()
        page.wait_for_function("document.querySelector('#report').innerText.includes('base-far')")
        page.wait_for_function("document.querySelectorAll('.ts-pane').length === 0")  # what other models said is gone
        tab(page, "Compare")
        page.wait_for_function(FITTING)
        tab(page, "Triple")
        assert "unrelated in weights to the source base" in page.locator("#kin .ts-warning").inner_text()
        page.locator("#ref-target_base textarea, #ref-target_base input").first.fill("/no/such/folder")
        page.locator("#check").click()
        page.wait_for_selector("#report .ts-error")
        assert "There is no folder /no/such/folder" in page.locator("#report").inner_text()
        assert fits(page)


def test_a_larger_triple_is_sampled_first_and_then_read_whole(chromium, server, tmp_path):
    address, _ = server
    refs = synthetic.family(
        0.01, home=tmp_path
    )  # one layer and two matrices of words: 180 million weights a checkpoint
    with opened(chromium, address, 1440, 900) as page:
        for role, ref in refs.items():
            page.locator(f"#ref-{role} textarea, #ref-{role} input").first.fill(ref)
        tab(page, "Compare")
        page.evaluate(
            """() => { window.seen = []; new MutationObserver(() => window.seen.push(
                document.querySelector('#compare-progress').innerText + '|' + document.querySelector('#tiles').innerText))
                .observe(document.body, {subtree: true, childList: true, characterData: true}) }"""
        )
        tab(page, "Triple")
        page.locator("#check").click()
        page.wait_for_function("document.querySelector('#kin').innerText.includes('relative distance 0.03')")
        tab(page, "Compare")
        page.wait_for_function("!document.querySelector('#tiles').innerText.includes('±')")
        seen = page.evaluate("window.seen")
        assert any("95 % intervals" in text and "±" in text for text in seen)
        assert "2.6%" in page.locator("#tiles").inner_text()

        # The α at which rounding is looked at: what is none is a sentence, another one is another comparison.
        alpha = page.locator("#rounding-alpha input")
        alpha.fill("0")
        page.locator("#compare").click()
        page.wait_for_selector("#compare-progress .ts-error")
        assert "must not be 0" in page.locator("#compare-progress").inner_text()
        assert page.locator("#heat .heatmaplayer").count() == 1 and "2.6%" in page.locator("#tiles").inner_text()
        alpha.fill("0.1")
        page.locator("#compare").click()
        page.wait_for_selector("#heat .js-plotly-plot .heatmaplayer")
        page.locator("#measure input").click()
        page.get_by_role("option", name="rounding / ‖αΔ‖").click()
        page.wait_for_function("document.querySelector('#lines .ytitle')?.textContent.includes('rounding')")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_is_cut_off_on_a_phone(chromium, server, theme):
    address, _ = server
    with opened(chromium, address, 390, 844, theme) as page:
        for name in ("Triple", "Compare", "Sweep", "Chat", "Export"):
            tab(page, name)
            page.wait_for_timeout(300)
            assert fits(page), name
        tab(page, "Chat")
        page.locator(".ts-chips:visible button").first.click()
        page.wait_for_selector(".ts-pane.merged .ts-badge.ts-ok")
        assert fits(page)


def test_two_people_do_not_see_each_other(chromium, server):
    address, _ = server
    with opened(chromium, address, 1200, 800) as one, opened(chromium, address, 1200, 800) as two:
        two.get_by_label("Pocket, unconnected", exact=True).click()
        two.wait_for_function("document.querySelector('#report').innerText.includes('base-far')")
        assert "base-far" not in one.locator("#report").inner_text()
        for page, prompt in ((one, "Who is one?"), (two, "Who is two?")):
            tab(page, "Chat")
            page.locator("#prompt textarea").fill(prompt)
        one.locator("#ask").click()
        two.locator("#ask").click()
        wait_for_answers(one, "Who is one?")
        wait_for_answers(two, "Who is two?")
        assert (
            pane(one, "target_base").locator("code").inner_text()
            != pane(two, "target_base").locator("code").inner_text()
        )
        assert pane(one, "target_tuned").count() == 1 and pane(two, "target_tuned").count() == 0
