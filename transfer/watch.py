"""Forward passes under watch: stopped within a layer, and none whose outputs are not finite is ever taken for an answer."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from .errors import LiveError
from .live import LiveModel, Tick, threads_for

SMALL = 64_000_000  # bytes of a model whose layers take no time worth stopping within


class NotFinite(LiveError):
    """Weights that answer with NaN or infinity. transformers would generate token 0 of them and call it an answer."""


@contextmanager
def stoppable(model: Any, nbytes: int, tick: Tick) -> Iterator[None]:
    """For the length of a with-block every forward pass of this thread calls `tick` at each layer, in large models at each
    part of a layer. Passes in other threads, which share the model, are let be."""
    mine = threading.get_ident()

    def before(*_: object) -> None:
        if threading.get_ident() == mine:
            tick()

    def packed(module: torch.nn.Module, args: tuple) -> tuple:
        return (args[0].contiguous(), *args[1:])

    parts = [m for m in model.modules() if not list(m.children())]
    if nbytes < SMALL:
        parts = [layer for m in model.modules() if isinstance(m, torch.nn.ModuleList) for layer in m]
    hooks = [part.register_forward_pre_hook(before) for part in (*parts, model)]
    head = model.get_output_embeddings()
    if head is not None:
        # It is given a slice of the last positions, and torch multiplies strided bfloat16 500 × as slowly.
        hooks.append(head.register_forward_pre_hook(packed))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def watched(live: LiveModel, what: str, tick: Tick) -> Iterator[None]:
    """`stoppable`, and every output is checked. `what` says in an error what was being scored. Raises NotFinite out of the
    pass, and whatever `tick` raises."""
    mine = threading.get_ident()

    def after(module: torch.nn.Module, args: object, output: object) -> None:
        if threading.get_ident() == mine and not all_finite(output.logits):  # type: ignore[attr-defined]
            raise NotFinite(
                f"The model's outputs are not finite (NaN or infinity) in {what} at {live.mix}. Such weights cannot be "
                "scored: a smaller coefficient may do, or one of the checkpoints is damaged."
            )

    torch.set_num_threads(threads_for(live.nbytes))
    hook = live.model.register_forward_hook(after)
    try:
        with stoppable(live.model, live.nbytes, tick):
            yield
    finally:
        hook.remove()


def all_finite(logits: torch.Tensor) -> bool:
    """Whether every position has a next token to tell: the largest logit is NaN where any is, and infinite where any is or
    all are −inf. A single −inf is no fault: some families rule out unused tokens so."""
    return bool(torch.isfinite(logits.amax(-1)).all())
