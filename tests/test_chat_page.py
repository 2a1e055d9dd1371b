"""The Chat tab in a real browser: panes, turns, scrubbing, blind votes, divergence and links, with a real server of models as
one of the panes."""

import json
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from ui.presets import POCKET, read_suggestions

from . import running
from .endpoint_server import EndpointServer, delta
from .test_page import fits, opened, pane, tab, wait_for_answers

SHOWN = read_suggestions()
TUNED = str(POCKET / "instruct-v1")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A real `transformers serve` of the source fine-tuned model."""
    with running.serve(Path(TUNED), tmp_path_factory.mktemp("serve") / "log.txt") as address:
        yield address


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    log = tmp_path_factory.mktemp("app") / "log.txt"
    with running.app(log) as address:
        yield address
    text = log.read_text()
    assert "Traceback" not in text and "ERROR" not in text, text


def act(page, what: str, *given) -> None:
    """Press a button within the panes by what it does."""
    wanted = json.dumps([what, *given])
    page.locator(f"[data-act='{wanted}']").first.click()


def tag(page, name: str):
    return page.locator(".ts-tag", has_text=name)


def ask(page, prompt: str, wait: bool = True) -> None:
    page.locator("#prompt textarea").fill(prompt)
    page.locator("#ask").click()
    if wait:
        page.wait_for_function(
            "prompt => document.querySelector('#panes .ts-asked b')?.textContent === prompt"
            " && document.querySelector('#panes .ts-pane') && !document.querySelector('.ts-cursor')",
            arg=prompt,
        )


def choose(page, box: str, option: str) -> None:
    """An option of a dropdown."""
    page.locator(f"{box} input").first.click()
    page.get_by_role("option", name=option).first.click()


def texts(page) -> dict[str, str]:
    """What stands in the last turn's panes, by their names."""
    return dict(
        page.locator("#panes .ts-pane").evaluate_all(
            "all => all.map(p => [p.querySelector('header b').textContent, p.querySelector('.ts-answer').textContent])"
        )
    )


def chat(page) -> None:
    tab(page, "Chat")
    page.wait_for_selector("#lineup .ts-tag >> nth=3")


def endpoint_pane(page, url: str, model: str, key: str = "") -> None:
    """Make the last pane an endpoint."""
    tag(page, "target fine-tuned").locator("[data-act*=set]").click()
    page.wait_for_selector("#who:visible")
    page.wait_for_function("document.querySelector('#who input').value.includes('Target fine-tuned')")
    choose(page, "#who", "An OpenAI-compatible endpoint")
    page.locator("#endpoint-url textarea, #endpoint-url input").first.fill(url)
    page.locator("#endpoint-model textarea, #endpoint-model input").first.fill(model)
    page.locator("#endpoint-key textarea, #endpoint-key input").first.fill(key)
    page.locator("#set-pane").click()
    page.wait_for_selector(".ts-tag.endpoint")


def test_four_panes_three_turns_a_scrub_a_vote_a_divergence_and_a_link(chromium, server, served):
    with opened(chromium, server, 1440, 900) as page:
        chat(page)
        assert "5 models, decoded together as one batch" in page.locator(".ts-plan").inner_text()

        # Four panes: one goes, one becomes an endpoint.
        tag(page, "source base").locator("[data-act*=remove]").click()
        page.wait_for_function("document.querySelectorAll('.ts-tag').length === 4")
        endpoint_pane(page, served, TUNED)
        assert "1 endpoint beside" in page.locator(".ts-plan").inner_text()

        # Three turns. All stream; the endpoint says what its weights say here; the base goes on with the text.
        for question in SHOWN[:3]:
            ask(page, question.prompt)
            said = texts(page)
            assert len(said) == 4 and said["merged"] == question.expect
            assert (
                said["source fine-tuned"] == said["instruct-v1 at " + served.removeprefix("http://")] != question.expect
            )
        assert page.locator("#past .ts-turn").count() == 2
        assert "goes on with the text" in pane(page, "target_base").inner_text()
        assert "unverified: says it is" in pane(page, "endpoint").inner_text()
        prints = page.locator("#panes .ts-pane code").all_inner_texts()
        assert (
            len(set(prints)) == 3 and prints == page.locator("#past .ts-turn").first.locator("code").all_inner_texts()
        )

        # What was sent: the conversation so far through the right template, token by token.
        pane(page, "merged").locator("[data-act*=sent]").click()
        page.wait_for_selector(".ts-sent")
        sent = page.locator(".ts-sent pre").text_content()
        assert sent.startswith(f"<|begin|><|user|>{SHOWN[0].prompt}<|end|><|assistant|>{SHOWN[0].expect}<|end|>")
        assert sent.endswith(f"<|user|>{SHOWN[2].prompt}<|end|><|assistant|>")
        assert page.locator(".ts-token").count() == int(page.locator(".ts-sent .ts-faint").inner_text().split()[0])

        # To one pane alone, then undone; the last turn once more.
        page.locator("#ask-to input").first.click()
        page.get_by_role("option", name="merged").click()
        ask(page, "Give in capitals silk.")
        assert list(texts(page)) == ["merged"]
        act(page, "undo", 3)
        page.wait_for_function("document.querySelectorAll('#past .ts-turn').length === 2")
        assert page.locator("#prompt textarea").input_value() == "Give in capitals silk."
        choose(page, "#ask-to", "All panes")

        # Scrubbing: when the dial rests, that pane alone answers again, and a strip grows.
        tag(page, "merged").locator("[data-act*=set]").click()
        page.wait_for_function("document.querySelector('#alpha input[type=number]').value === '1'")
        before = texts(page)
        page.locator("#alpha input[type=range]").evaluate(
            "dial => { for (const at of ['.8', '.6', '.5']) { dial.value = at; dial.dispatchEvent(new Event('input', {bubbles: true})) } }"
        )
        page.wait_for_selector(".ts-strip li >> nth=1")
        page.wait_for_function("document.querySelector('#panes .ts-pane.merged header').textContent.includes('0.5·Δ')")
        page.wait_for_function("!document.querySelector('.ts-cursor')")
        assert {n: t for n, t in texts(page).items() if n != "merged"} == {
            n: t for n, t in before.items() if n != "merged"
        }
        page.locator("#over").click()
        page.wait_for_selector(".ts-strip li >> nth=6")
        page.wait_for_function("document.querySelector('#chat-told').innerText === ''")
        page.locator(".ts-strip button", has_text="α = 1.25").click()
        page.wait_for_function("document.querySelector('#panes .ts-pane.merged header').textContent.includes('1.25·Δ')")
        assert page.locator("#alpha input[type=number]").input_value() == "1.25"
        page.locator(".ts-strip button", has_text="α = 1").first.click()
        page.wait_for_function("document.querySelector('#alpha input[type=number]').value === '1'")

        # Where two panes differ: the target base would never have said it.
        page.get_by_text("Where two panes differ, token by token").click()
        choose(page, "#differ-one", "merged")
        choose(page, "#differ-other", "source fine-tuned")
        page.locator("#differ-run").click()
        page.wait_for_selector(".ts-tok")
        marks = page.locator(".ts-tok").evaluate_all(
            "all => all.map(t => parseFloat(t.style.getPropertyValue('--far')))"
        )
        assert max(marks) > 50 and min(marks) < 5 and len(marks) > 5
        assert page.locator(".ts-tok.ts-apart").count() == 1
        first = page.locator(".ts-tip").inner_text()
        page.locator(".ts-tok").first.hover()
        page.wait_for_function("before => document.querySelector('.ts-tip').innerText !== before", arg=first)
        assert "KL" in page.locator(".ts-tip").inner_text() and page.locator(".ts-tops table").count() == 2
        assert "nats a token" in page.locator("#differ-shown").inner_text()

        # A blind vote: nobody is named until it is given; then it counts.
        page.locator("#blind input").check()
        ask(page, SHOWN[3].prompt)
        hidden = page.locator("#panes .ts-turn").inner_html()
        for word in ("merged", "base", "instruct", "tokens/s", "m<sub>", *prints):
            assert word not in hidden, word
        place = page.locator("#panes .ts-pane .ts-answer").all_inner_texts().index(SHOWN[3].expect)
        page.locator(".ts-ballot button").nth(place).click()
        page.wait_for_selector("#panes .ts-pane.merged .ts-ok >> nth=1")
        assert "your vote" in pane(page, "merged").inner_text()
        page.get_by_text("Votes and transcript").click()
        page.wait_for_selector("#tally table")
        assert (
            "1 of 1" in page.locator("#tally").inner_text() and "too few to tell" in page.locator("#tally").inner_text()
        )
        with page.expect_download() as got:
            page.locator("#votes-jsonl").click()
        (vote,) = [json.loads(line) for line in Path(got.value.path()).read_text().splitlines()]
        assert vote["prompt"] == SHOWN[3].prompt and vote["choice"] == "merged α = 1" and len(vote["shown"]) == 4
        with page.expect_download() as got:
            page.locator("#transcript-jsonl").click()
        lines = [json.loads(line) for line in Path(got.value.path()).read_text().splitlines()]
        assert len(lines) == 16 and {line["fingerprint"] for line in lines if "fingerprint" in line} >= set(prints)
        page.locator("#blind input").uncheck()

        # A link brings triple, panes, prompt and sampling back, in a browser that knows nothing.
        page.get_by_text("Sampling, system prompt and template").click()
        page.locator("#all-temperature input[type=number]").fill("0.7")
        page.locator("#all-seed input[type=number]").fill("11")
        page.locator("#remember input").uncheck()
        page.locator("#prompt textarea").fill(SHOWN[0].prompt)
        page.get_by_text("Share these models").click()
        page.locator("#make-link").click()
        page.wait_for_function("document.querySelector('#link textarea, #link input').value.includes('seed=11')")
        link = page.locator("#link textarea, #link input").input_value()
        assert parse_qs(urlsplit(link).query)["target_base"] == ["pocket/base-v2"]
        ask(page, SHOWN[0].prompt)
        drawn = texts(page)
    context = chromium.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.goto(link)
    page.wait_for_selector(".ts-tag.endpoint")
    assert page.locator(".ts-tag b").all_inner_texts() == ["source fine-tuned", "target base", "merged", "instruct-v1 at " + served.removeprefix("http://")]  # fmt: skip
    assert page.locator("#prompt textarea").input_value() == SHOWN[0].prompt
    assert not page.locator("#remember input").is_checked()
    page.locator("#ask").click()
    wait_for_answers(page, SHOWN[0].prompt)
    assert texts(page) == drawn
    act(page, "retry", 0, "")  # by another seed
    page.wait_for_function("before => document.querySelector('#panes .ts-pane.target_base .ts-answer').textContent !== before"
                           " && !document.querySelector('.ts-cursor')", arg=drawn["target base"])  # fmt: skip
    context.close()


def test_one_that_hangs_up_and_one_that_goes_free_the_work(chromium, server):
    """Closing the tab ends what it asked for within two seconds: the endpoint sees its client go."""
    with EndpointServer() as fake:
        fake.say(
            *[part for _ in range(600) for part in (delta(content="<img src=x onerror=alert(1)>la "), 0.1)], silent=True
        )
        context = chromium.new_context(viewport={"width": 1200, "height": 800})
        page = context.new_page()
        page.goto(server)
        page.wait_for_selector("#report .ts-findings")
        chat(page)
        endpoint_pane(page, fake.url, "served", "sk-never-shown")
        singing = "document.querySelector('#panes .ts-pane.endpoint')?.innerText.includes('onerror')"
        ask(page, "Sing", wait=False)
        page.wait_for_function(singing)
        page.locator("#stop-chat").click()  # what was said stays, and is said to have been stopped
        page.wait_for_function("document.querySelector('#panes .ts-pane.endpoint')?.innerText.includes('stopped')")
        page.wait_for_function("!document.querySelector('.ts-cursor')")
        assert fake.left.get(timeout=20) and "onerror" in pane(page, "endpoint").inner_text()
        ask(page, "Sing on", wait=False)
        page.wait_for_function(singing)
        assert page.locator("#panes img").count() == 0  # what a model says is text
        assert "sk-never-shown" not in page.content()
        assert fake.log[-1].headers["Authorization"] == "Bearer sk-never-shown"
        gone = time.monotonic()
        page.close()
        assert fake.left.get(timeout=20) - gone < 2
        context.close()


def test_two_people_talk_apart(chromium, server):
    with opened(chromium, server, 1200, 800) as one, opened(chromium, server, 1200, 800) as two:
        for page in (one, two):
            chat(page)
        for first, second in ((SHOWN[0], SHOWN[1]), (SHOWN[2], SHOWN[3])):
            ask(one, first.prompt, wait=False)
            ask(two, second.prompt, wait=False)
            wait_for_answers(one, first.prompt)
            wait_for_answers(two, second.prompt)
            assert texts(one)["merged"] == first.expect and texts(two)["merged"] == second.expect
        assert one.locator("#past .ts-asked b").all_inner_texts() == [SHOWN[0].prompt]
        assert two.locator("#past .ts-asked b").all_inner_texts() == [SHOWN[1].prompt]
        two.locator("#anew").click()
        two.wait_for_function("!document.querySelector('.ts-pane')")
        assert one.locator("#panes .ts-pane").count() == 5


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_is_cut_off_on_a_phone(chromium, server, theme):
    with opened(chromium, server, 390, 844, theme) as page:
        chat(page)
        page.locator(".ts-chips:visible button").first.click()
        page.wait_for_selector(".ts-pane.merged .ts-badge.ts-ok")
        page.locator("#over").click()
        page.wait_for_selector(".ts-strip li >> nth=6")
        for name in (
            "Set a pane",
            "Sampling, system prompt and template",
            "Where two panes differ, token by token",
            "Share these models, panes, prompt and settings",
        ):
            page.get_by_text(name, exact=True).click()
        page.locator("#differ-run").click()
        page.wait_for_selector(".ts-tok")
        page.wait_for_timeout(300)
        assert fits(page)
