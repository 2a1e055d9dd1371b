"""The Sweep tab: score every step of a path, with the corners as reference lines."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from analysis.plots.sweep import sweep_figure
from analysis.sweep import Row, best, steps, sweep, sweep_table
from analysis.tasks import Task, load_task
from transfer.errors import TaskError
from transfer.plane import PATHS

from .fields import dial, figure
from .inputs import number, whole, words
from .presets import default_text, task_files
from .scratch import scratch
from .shared import Shared
from .triple import Refs
from .work import background, notice, progress_bar, say

NO_TASK, OWN_TASK = "none", "your own file"
AXES = {"strength": "α", "source_target": "β"}


@dataclass
class SweepTab:
    """The tab's components."""

    path: gr.Radio
    start: gr.Number
    end: gr.Number
    count: gr.Slider
    task: gr.Dropdown
    file: gr.File
    text: gr.Textbox
    run: gr.Button
    stop: gr.Button
    progress: gr.HTML
    plot: gr.Plot
    table: gr.Dataframe
    save: gr.DownloadButton


def build() -> SweepTab:
    """Lay the tab out."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=320):
            path = gr.Radio([(p.name, key) for key, p in PATHS.items()], value="strength", label="Path", elem_id="path")
            with gr.Row():
                start = figure(0.0, label="From", step=0.1, min_width=80)
                end = figure(1.5, label="To", step=0.1, min_width=80)
            count = dial(2, 41, 7, step=1, label="Steps", elem_id="steps")
            names = [*task_files(), OWN_TASK, NO_TASK]
            task = gr.Dropdown(names, value=names[0], label="Exact match on the task", elem_id="task")
            file = gr.File(
                label="A task of your own (JSON Lines: prompt, answer)",
                file_types=[".jsonl"],
                visible=False,
                height=120,
            )
            text = gr.Textbox(
                default_text(), label="Loss on the text", lines=4, max_lines=8, max_length=5_000_000, elem_id="text"
            )
            with gr.Row():
                run_ = gr.Button("Sweep", variant="primary", elem_id="sweep")
                stop = gr.Button("Stop", variant="stop", elem_id="stop-sweep")
        with gr.Column(scale=7, min_width=320):
            progress = gr.HTML(
                notice("Press Sweep: every step is scored, and the best one marked."), elem_id="sweep-told"
            )
            plot = gr.Plot(label="Scores along the path", elem_id="sweep-plot")
    table = gr.Dataframe(interactive=False, max_height=360, show_label=False, elem_id="sweep-table", visible=False)
    save = gr.DownloadButton("Download the scores (CSV)", size="sm", visible=False)
    return SweepTab(path, start, end, count, task, file, text, run_, stop, progress, plot, table, save)


def chosen_task(name: object, file: object) -> Task | None:
    """The task by what the form says. Raises TaskError."""
    if name == NO_TASK:
        return None
    if name == OWN_TASK:
        if not file:
            raise TaskError("Choose a task file first, or one of the tasks that ship.")
        return load_task(str(file))
    files = task_files()
    if name not in files:
        raise TaskError("There is no task of that name.")
    return load_task(files[str(name)])


def run(
    shared: Shared, refs: Refs, path: str, start: Any, end: Any, count: Any, task: Any, file: Any, text: Any
) -> Iterator[list[Any]]:
    """Sweep: yields values for (progress, plot, table, save) as points are scored; what is scored stays."""
    rows: list[Row] = []
    try:
        if path not in PATHS:
            raise TaskError("Choose one of the paths.")
        at = steps(number(start, "From", -10, 10), number(end, "To", -10, 10), whole(count, "Steps", 2, 41))
        questions, axis = chosen_task(task, file), AXES[path]
        passage = words(text, "The text", 5_000_000).strip() or None
        triple = shared.here(refs)
        began, total = time.monotonic(), len(at) + len(triple.checkpoints)
        prompter = shared.prompter(triple)
        yield [progress_bar(0, began, "Building the model"), gr.skip(), gr.skip(), gr.skip()]
        target = scratch() / f"sweep-{triple.identity[:8]}.csv"
        for row in background(
            lambda tick: sweep(shared.store, triple, prompter, PATHS[path], at, questions, passage, tick)
        ):
            drawn: list[Any] = [gr.skip(), gr.skip(), gr.skip()]
            if row is not None:
                rows.append(row)
                drawn = results(rows, questions, axis, target)
            doing = f"{len(rows)} of {total} points" + (f", {rows[-1].label}" if rows else "")
            yield [progress_bar(len(rows) / total, began, doing), *drawn]
        told = notice(summary(rows, axis, time.monotonic() - began), "ok" if any_right(rows) else "note")
        told += "".join(notice(row.error, "error") for row in rows if row.error)
        yield [told, *results(rows, questions, axis, target)]
    except Exception as error:
        yield [notice(say(error), "error"), gr.skip(), gr.skip(), gr.skip()]


def results(rows: list[Row], task: Task | None, axis: str, target: Path) -> list[Any]:
    """The figure, the table and its file, of the points scored so far."""
    frame = sweep_table(rows, task)
    frame.to_csv(target, index=False)
    aside = ["mix"] + [c for c in frame if c.endswith(" n")] + (["error"] if not frame["error"].any() else [])
    shown = frame.drop(columns=aside).round(4)
    figure = sweep_figure(rows, axis) if rows[-1].t is not None else gr.skip()
    return [figure, gr.update(value=shown, visible=True), gr.update(value=str(target), visible=True)]


def any_right(rows: list[Row]) -> bool:
    """False where a task was scored and no step of the path had anything right."""
    scored = [row.scores["exact match"].value for row in rows if row.t is not None and "exact match" in row.scores]
    return not scored or max(scored) > 0


def summary(rows: list[Row], axis: str, seconds: float) -> str:
    """The best step by each score, in a sentence."""
    found = []
    if not any_right(rows):
        found.append("Nothing was answered exactly anywhere on this path.")
    for name in dict.fromkeys(name for row in rows for name in row.scores):
        top = best(rows, name)
        if top and (name != "exact match" or any_right(rows)):
            s = top.scores[name]
            value = (
                f"{s.value:.0%} ± {s.stderr:.0%}"
                if name == "exact match"
                else f"{s.value:.3f} ± {s.stderr:.3f} nats a token"
            )
            found.append(f"Best {name} at {axis} = {top.t:g}: {value}.")
    return " ".join(found) + f" {len(rows)} points in {seconds:.0f} s."
