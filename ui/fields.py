"""Fields that pass on what was typed, whatever it is: `inputs` checks it and answers in a sentence.

gradio's own would refuse it before we see it, with an error of its own on the page and a traceback in the log.
"""

from typing import Any

import gradio as gr


def unchecked(component: Any) -> Any:
    """The same component without gradio's own look at what comes from the browser."""
    component.preprocess = lambda payload: payload
    return component


def dial(*args: Any, **more: Any) -> gr.Slider:
    """A slider whose number box may be empty or out of range."""
    return unchecked(gr.Slider(*args, **more))


def figure(*args: Any, **more: Any) -> gr.Number:
    """A number box that may be empty."""
    return unchecked(gr.Number(*args, **more))
