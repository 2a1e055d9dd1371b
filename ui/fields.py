"""Fields that pass on what was typed, whatever it is: `inputs` checks it and answers in a sentence.

gradio's own would refuse it before we see it, with an error of its own on the page and a traceback in the log.
"""

from abc import ABCMeta
from functools import cache
from typing import Any

import gradio as gr


@cache
def loose(kind: type) -> type:
    """A kind of component that hands on what the browser sent as it came. gradio makes a component anew for every session in
    which it was updated, by its class: so it must be a class. gradio's own way of making one would write a file beside this."""
    passed = {"preprocess": lambda self, payload: payload, "__module__": __name__, "__doc__": kind.__doc__}
    return ABCMeta.__new__(type(kind), kind.__name__, (kind,), passed)


def unchecked(component: Any) -> Any:
    """The same component without gradio's own look at what comes from the browser."""
    component.__class__ = loose(type(component))  # type: ignore[arg-type]
    return component


def dial(*args: Any, **more: Any) -> gr.Slider:
    """A slider whose number box may be empty or out of range."""
    return unchecked(gr.Slider(*args, **more))


def figure(*args: Any, **more: Any) -> gr.Number:
    """A number box that may be empty."""
    return unchecked(gr.Number(*args, **more))
