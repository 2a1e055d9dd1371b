"""Answers token by token: the rows of one batch, each with its own prompt, draws, stop tokens and length."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from .live import LiveModel, threads_for
from .sampling import Draw, Sampling
from .stack import Stack
from .watch import Tick, stoppable


@dataclass(frozen=True)
class Row:
    """What is asked of one row: its prompt's ids, how to draw, the ids that end an answer, and how many tokens at most."""

    prompt: Sequence[int]
    sampling: Sampling
    stops: frozenset[int]
    most: int


class Chooser(LogitsProcessor):
    """Draws of each row as it asked for, so that `generate` stays greedy. Where a row's logits are not finite its draw is
    whatever it may be, and `odd` has the row."""

    def __init__(self, rows: Sequence[Row]):
        self.draws = [Draw(row.sampling) for row in rows]
        self.odd: set[int] = set()

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        finite = torch.isfinite(scores.amax(-1))
        if not finite.all():
            self.odd |= set((~finite).nonzero().flatten().tolist())
            scores = scores.nan_to_num(nan=0.0, posinf=0.0)
        if not any(draw.sampling.temperature for draw in self.draws):
            return scores
        return torch.stack([draw(row) for draw, row in zip(self.draws, scores, strict=True)])


class Teller(StoppingCriteria):
    """Hands over every row's new token, and ends the rows that are through."""

    def __init__(self, rows: Sequence[Row], chooser: Chooser, tell: Callable[[int, int | None], None]):
        self.rows, self.chooser, self.tell = rows, chooser, tell
        self.given = [0] * len(rows)
        self.over = [False] * len(rows)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        for i, (row, token) in enumerate(zip(self.rows, input_ids[:, -1].tolist(), strict=True)):
            if self.over[i]:
                continue
            if i in self.chooser.odd:
                self.over[i] = True
                self.tell(i, None)
                continue
            self.given[i] += 1
            self.over[i] = token in row.stops or self.given[i] >= row.most
            self.tell(i, token)
        return torch.tensor(self.over, device=input_ids.device)


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
    torch.set_num_threads(threads_for(held.nbytes) if isinstance(held, LiveModel) else wide_threads(len(rows)))
    chooser = Chooser(rows)
    # A row's end is the teller's business: ids that end an answer are not the same for all rows.
    plain = GenerationConfig(
        max_new_tokens=max(row.most for row in rows), do_sample=False, eos_token_id=None, pad_token_id=pad
    )
    model: Any = held.model
    with torch.inference_mode(), stoppable(model, held.nbytes, tick):
        model.generate(
            inputs=ids.to(held.device),
            attention_mask=mask.to(held.device),
            generation_config=plain,
            logits_processor=LogitsProcessorList([chooser]),
            stopping_criteria=StoppingCriteriaList([Teller(rows, chooser, tell)]),
        )


def wide_threads(rows: int) -> int:
    """Batched products are shared out by rows, which pays where a single small model's would not."""
    return max(1, min(rows, os.cpu_count() or 1))
