"""The page: its tabs, and which press does what."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import gradio as gr

from transfer.errors import PointError
from transfer.hub import HOSTED
from transfer.plane import ROLES, Mix

from . import api, chat, compare, export, layers, lineage, link, seen, spectrum, sweep, talking, triple
from .inputs import number
from .markup import HERO
from .presets import CUSTOM, Preset, is_pocket, read_presets, read_suggestions
from .shared import Shared
from .work import notice, say

QUESTIONS = 4  # suggested on the first tab; the Chat tab has them all

# What a script in the browser does: figures drawn while hidden find their width, and a phone scrolls to the answers.
RESIZE = "() => [60, 400].forEach(wait => setTimeout(() => window.dispatchEvent(new Event('resize')), wait))"
SCROLL = """() => { if (window.innerWidth < 760)
    setTimeout(() => document.querySelector('#panes').scrollIntoView({behavior: 'smooth'}), 500) }"""


def build(shared: Shared | None = None) -> gr.Blocks:
    """The whole app, ready to launch."""
    shared = shared or Shared()
    presets, suggestions = read_presets(), read_suggestions()
    talk = talking.Chat(shared, suggestions)

    def talked(request: gr.Request, chosen: triple.Refs, pending: Any) -> list[Any]:
        return talk.opened(str(request.session_hash), chosen, pending)

    def begin(request: gr.Request) -> Iterator[list[Any]]:
        """A link fills the form; what stands in it is checked: values for what a link fills, then for what a check fills."""
        values = follow(presets, str(request.query_params))
        given = [
            value if isinstance(value, str) else presets[0].refs[r] for r, value in zip(ROLES, values[2:6], strict=True)
        ]
        for told in triple.check(shared, *given):
            yield [*values, *told]
            values = [gr.skip() for _ in values]

    with gr.Blocks(title="Transferscope", fill_width=True, analytics_enabled=False, delete_cache=(3600, 7200)) as page:
        gr.HTML(HERO, padding=False)
        link_told = gr.HTML("", elem_id="link-told", padding=False)
        refs = gr.State(presets[0].refs)
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Triple", id="triple") as triple_tab:
                first = triple.build(presets, [s.prompt for s in suggestions[:QUESTIONS]])
            with gr.Tab("Compare", id="compare") as compare_tab:
                compared = compare.build()
                looked, layered, kin = spectrum.build(), layers.build(), lineage.build()
            with gr.Tab("Sweep", id="sweep") as sweep_tab:
                swept = sweep.build()
            with gr.Tab("Chat", id="chat"):
                asked = chat.build(suggestions)
            with gr.Tab("Export", id="export"):
                written = export.build()
        api.build(shared)

        private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}

        for shown in (
            triple_tab,
            compare_tab,
            sweep_tab,
            *swept.parts,
        ):  # a figure drawn while its tab is hidden has a width of its own
            shown.select(None, None, None, js=RESIZE, **private)

        # Triple: a preset fills the form; what the form says is checked; what fits is compared.
        drawn = [*compared.results, first.plane, first.kin]
        checked: dict[str, Any] = {
            "fn": partial(triple.check, shared), "inputs": first.refs, "outputs": [refs, first.report, first.download],
        }  # fmt: skip
        then_compare: dict[str, Any] = {
            "fn": partial(compare.first, shared), "inputs": [refs, compared.measure, compared.alpha], "outputs": drawn,
        }  # fmt: skip
        choosing = [looked.tensor, *looked.figures, layered.layers, *layered.results, kin.told]
        looking: dict[str, Any] = {
            "inputs": [refs, looked.tensor, looked.side], "outputs": looked.figures, "concurrency_limit": 2, "concurrency_id": "spectrum",
        }  # fmt: skip
        filled = first.preset.input(partial(triple.fill, presets), first.preset, [first.about, *first.refs], **private)
        sweep_shown, judged = sweep.opened(swept, shared), sweep.judged(swept, shared, first.verdict)
        comparing: list[Any] = []
        changed = (filled.then(**checked, **private), first.check.click(**checked, **private))
        # A link fills the form first; what it says of the chat waits for the models.
        link_to = [
            first.preset,
            first.about,
            *first.refs,
            asked.pending,
            asked.prompt,
            *asked.settings,
            tabs,
            link_told,
        ]
        followed = page.load(begin, None, [*link_to, refs, first.report, first.download], **private)
        for opened in (followed, *changed):
            opened.then(talked, [refs, asked.pending], [*asked.views, *asked.forms, asked.pending], **private)
            compared_ = opened.then(**then_compare, concurrency_limit=2, concurrency_id="compare", **private)
            comparing.append(compared_)
            compared_.then(judged[0], [refs, *judged[1]], judged[2], **private)
            chosen = opened.then(partial(choices, shared), refs, choosing, **private)
            comparing.append(chosen.then(fn=partial(spectrum.glance, shared), **looking, **private))
            opened.then(sweep_shown[0], [refs, *sweep_shown[1]], sweep_shown[2], **private)
            opened.then(lambda r: [gr.update(visible=is_pocket(r))] * 2, refs, [asked.chips, first.tryout], **private)
        # What stands in the form but was not checked is not what the other tabs would go on with.
        gr.on([box.input for box in first.refs], lambda: (CUSTOM, {}), None, [first.preset, refs], **private)
        shown_stop = partial(gr.update, visible=True)
        fetched = first.download.click(shown_stop, None, first.stop, **private).then(
            partial(triple.fetch, shared), refs, [first.report, first.download], concurrency_limit=2, **private
        )
        seated = fetched.then(talked, [refs, asked.pending], [*asked.views, *asked.forms, asked.pending], **private)
        done = seated.then(lambda: gr.update(visible=False), None, first.stop, **private)
        comparing.append(done.then(**then_compare, concurrency_id="compare", **private))
        ended = first.stop.click(lambda: gr.update(visible=False), None, first.stop, cancels=[fetched], **private)
        ended.then(**checked, **private)

        # Compare
        asked_alpha = [refs, compared.measure, compared.alpha]
        again: dict[str, Any] = {"fn": partial(compare.run, shared), "inputs": asked_alpha, "outputs": drawn}
        comparing += [
            pressed(**again, concurrency_id="compare", **private)
            for pressed in (compared.compare.click, compared.alpha.submit)
        ]
        compared.stop.click(lambda: "", None, compared.progress, cancels=comparing, **private)
        compared.measure.input(
            partial(compare.redraw, shared),
            asked_alpha,
            compared.drawn,
            **private,
        )

        # One tensor, whole layers, lineage
        def open_mark(event: gr.EventData, chosen: Any, side: Any) -> Iterator[list[Any]]:
            yield from spectrum.opened(shared, chosen, side, str(event.mark[0]))

        look = partial(spectrum.run, shared)
        deciding: list[Any] = [
            looked.look.click(fn=look, **looking, **private),
            looked.tensor.input(fn=look, **looking, **private),
            looked.exactly.click(fn=partial(look, exact=True), **looking, **private),
        ]
        clicked = looked.listener.select(
            fn=open_mark,
            inputs=[refs, looked.side],
            outputs=[looked.tensor, *looked.figures],
            concurrency_limit=2,
            concurrency_id="spectrum",
            **private,
        )
        looked.listener.select(None, None, None, js=spectrum.SCROLL, **private)
        deciding.append(clicked)
        looked.side.input(partial(spectrum.turn, shared), [refs, looked.tensor, looked.side], looked.overlap, **private)
        together: dict[str, Any] = {"concurrency_limit": 2, "concurrency_id": "spectrum"}
        measure, fingerprint = partial(layers.run, shared), partial(lineage.run, shared)
        deciding.append(layered.measure.click(measure, [refs, layered.layers], layered.results, **together, **private))
        deciding.append(kin.compare.click(fingerprint, refs, kin.told, **together, **private))
        looked.stop.click(stopped("Stopped."), None, looked.told, cancels=deciding, **private)

        # Chat
        def leave(request: gr.Request) -> None:
            session = str(request.session_hash)
            shared.leave(session)
            if HOSTED:
                shared.results.forget(session)

        page.unload(leave)
        asking = chat.wire(asked, talk, refs, private)
        for button in first.shows:
            turned = button.click(
                lambda text: (text, gr.Tabs(selected="chat")), button, [asked.prompt, tabs], **private
            )
            turned.then(**asking)
        for button in (*asked.suggested, *first.shows, asked.ask):
            button.click(None, None, None, js=SCROLL, **private)

        # A point that scoring found is taken to Chat and Export; what is exported follows what was chatted with.
        def to_chat(request: gr.Request, chosen: triple.Refs, mix: Mix | None) -> list[Any]:
            if mix is None:
                return [gr.skip()] * (seen.VIEWS + seen.FORMS + 3)
            whole = mix.plain and mix.plane
            export_too = list(mix.plane) if whole and mix.plane else [gr.skip()] * 2
            return [*talk.taken(str(request.session_hash), chosen, mix), *export_too, gr.Tabs(selected="chat")]

        def to_export(mix: Mix | None) -> list[Any]:
            return [*mix.plane, gr.Tabs(selected="export")] if mix and mix.plane else [gr.skip()] * 3

        def take(button: gr.Button, place: gr.State, where: str) -> None:
            exported = [written.alpha, written.beta, tabs]
            if where == "chat":
                taken = button.click(to_chat, [refs, place], [*asked.views, *asked.forms, *exported], **private)
                taken.then(**retaken)
            else:
                button.click(to_export, place, exported, **private)

        retaken = chat.again(asked, talk, refs, private)
        sweep.wire(swept, shared, refs, first.verdict, take, private)
        for dial in asked.dials:
            dial.release(carried, asked.dials, [written.alpha, written.beta], **private)

        # Export
        running = written.write.click(
            partial(export.run, shared),
            [refs, written.alpha, written.beta, written.folder],
            [written.progress, written.code, written.files],
            concurrency_limit=1,
            **private,
        )
        written.stop.click(
            stopped("Stopped. Nothing was left behind."), None, written.progress, cancels=[running], **private
        )
    return page


def follow(presets: list[Preset], query: str) -> list[Any]:
    """What a link asks for: values for the form, the chat's panes and fields, the tab, and what is wrong with the link."""
    nothing = [gr.skip()] * (2 + 4 + 1 + 1 + 8 + 2)
    try:
        found = link.parse(query)
    except Exception as error:
        return [*nothing[:-1], notice(say(error), "error")]
    if found is None:
        return nothing
    refs = dict(found.refs)
    named = next((p.name for p in presets if p.refs == refs), CUSTOM)
    one = found.way
    return [
        named, triple.fill(presets, named)[0], *(refs[role] for role in ROLES), found.panes, found.prompt,
        *one.sampling.model_dump().values(), one.system, one.manner, one.remember, found.blind, gr.Tabs(selected="chat"), gr.skip(),
    ]  # fmt: skip


def carried(*place: Any) -> list[Any]:
    """The dials' place for Export; nothing while a number is still being typed."""
    try:
        return [number(value, "α or β", -0.5, 2) for value in place]
    except PointError:
        return [gr.skip() for _ in place]


def choices(shared: Shared, refs: triple.Refs) -> list[Any]:
    """What there is of a triple to look into, and what was found on another one cleared."""
    names = spectrum.matrix_names(shared, refs)
    return [*spectrum.choices(names), *layers.choices(names), ""]


def stopped(text: str) -> Any:
    """What the Stop buttons leave on the page."""
    return lambda: notice(text)
