"""Answers token by token: the rows of one batch, each with its own prompt, draws, stop tokens and length."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from .live import LiveModel, Tick, threads_for
from .sampling import Draw, Sampling
from .stack import Stack
from .watch import stoppable


@dataclass(frozen=True)
class Row:
    """What is asked of one row: its prompt's ids, how to draw, the ids that end an answer, and how many tokens at most."""

    prompt: Sequence[int]
    sampling: Sampling
    stops: frozenset[int]
    most: int


class Chooser(LogitsProcessor):
    """Draws of each row as it asked for, so that `generate` stays greedy."""

    def __init__(self, rows: Sequence[Row]):
        self.draws = [Draw(row.sampling) for row in rows]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return torch.stack([draw(row) for draw, row in zip(self.draws, scores, strict=True)])


class Teller(StoppingCriteria):
    """Hands over every row's new token, and ends the rows that are through; `odd` has those whose outputs are not finite."""

    def __init__(self, rows: Sequence[Row], odd: set[int], tell: Callable[[int, int | None], None]):
        self.rows, self.odd, self.tell = rows, odd, tell
        self.given = [0] * len(rows)
        self.over = [False] * len(rows)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        for i, (row, token) in enumerate(zip(self.rows, input_ids[:, -1].tolist(), strict=True)):
            if self.over[i]:
                continue
            self.given[i] += 1
            self.over[i] = i in self.odd or token in row.stops or self.given[i] >= row.most
            self.tell(i, None if i in self.odd else token)
        return torch.tensor(self.over, device=input_ids.device)


@contextmanager
def odd_rows(model: Any) -> Iterator[set[int]]:
    """The rows whose next token is unknown, NaN or infinite, in a forward pass of this thread within the with-block."""
    mine, found = threading.get_ident(), set[int]()

    def after(module: torch.nn.Module, args: object, output: Any) -> None:
        if threading.get_ident() == mine:
            finite = torch.isfinite(output.logits[:, -1].amax(-1))
            if not finite.all():
                found.update((~finite).nonzero().flatten().tolist())

    hook = model.register_forward_hook(after)
    try:
        yield found
    finally:
        hook.remove()


def decode(
    held: LiveModel | Stack, rows: Sequence[Row], pad: int, tell: Callable[[int, int | None], None], tick: Tick
) -> None:
    """Answer in every row through transformers' own `generate`; `tell` hears (row, token) of each new token as it comes, and
    (row, None) once of a row whose outputs are NaN or infinite, which ends it.

    A stack answers each row with that row's point, a live model all rows with its own. `tick` is called in every layer and
    may raise to stop.
    """
    width = max(len(row.prompt) for row in rows)
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, width - len(row.prompt) :] = torch.tensor(row.prompt)
        mask[i, width - len(row.prompt) :] = 1
    # By the size of one model: threads that share a small product wait for one another wherever a core is busy.
    torch.set_num_threads(threads_for(held.nbytes // (len(rows) if isinstance(held, Stack) else 1)))
    drawn = [Chooser(rows)] if any(row.sampling.temperature for row in rows) else []
    # A row's end is the teller's business: ids that end an answer are not the same for all rows.
    plain = GenerationConfig(
        max_new_tokens=max(row.most for row in rows), do_sample=False, eos_token_id=None, pad_token_id=pad
    )
    model: Any = held.model
    with torch.inference_mode(), stoppable(model, held.nbytes, tick), odd_rows(model) as odd:
        model.generate(
            inputs=ids.to(held.device),
            attention_mask=mask.to(held.device),
            generation_config=plain,
            logits_processor=LogitsProcessorList(drawn),
            stopping_criteria=StoppingCriteriaList([Teller(rows, odd, tell)]),
        )
