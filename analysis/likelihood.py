"""How likely a model finds a text: token losses in batches of like length, and the loss on plain text."""

import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from transfer.errors import TaskError
from transfer.live import LiveModel
from transfer.prompt import Prompter
from transfer.watch import watched

from .running import at_once, batches
from .scores import Score, Tick, digest_of, ratio_score

MOST_TEXT, MOST_PARAGRAPHS = 5_000_000, 20_000  # characters; each paragraph is an item
WINDOW = 512  # tokens of text scored at once, at most
ROWS, TOKENS = 64, 2**13  # texts, and tokens with their padding, in one pass
LOGITS = 2**26  # numbers of output held at once, at most

Row = tuple[list[int], int]  # token ids, and from which of them on (the second at the earliest) they count


@dataclass(frozen=True)
class Loss:
    """Mean negative log-likelihood a token, in nats, of plain text; a paragraph is an item, weighted by its tokens.

    Paragraphs longer than WINDOW are read in windows of it, each from its beginning-of-text token where the tokenizer has
    one; else the first token of a window, which nothing comes before, does not count.
    """

    text: str
    title: str = "text"

    unit = "nats"
    lower = True

    def __post_init__(self) -> None:
        """Raises TaskError for an empty or oversized text."""
        self.items  # noqa: B018

    @cached_property
    def items(self) -> list[str]:
        return paragraphs(self.text)

    @property
    def name(self) -> str:
        return f"loss, {self.title}"

    @cached_property  # asked for at every point, of a text that may be long
    def digest(self) -> str:
        return digest_of("loss", self.items)

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(" ".join(item[:200].split())[:80] for item in self.items)

    def __call__(self, live: LiveModel, prompter: Prompter, tick: Tick = lambda: None) -> Score:
        """Raises TaskError, NotFinite, and what `tick` raises."""
        bos = [prompter.tokenizer.bos_token_id] if prompter.tokenizer.bos_token_id is not None else []
        step = min(WINDOW, prompter.context) - len(bos)
        owners, rows = [], []
        for item, paragraph in enumerate(self.items):
            tick()
            ids = prompter.tokenizer(paragraph, add_special_tokens=False)["input_ids"]
            windows = [bos + ids[i : i + step] for i in range(0, len(ids), step)]
            rows += [(window, 1) for window in windows if len(window) > 1]
            owners += [item for window in windows if len(window) > 1]
        if not rows:
            raise TaskError("The text to score is too short. Paste a few sentences.")
        sums, weights = [0.0] * len(self.items), [0.0] * len(self.items)
        for i, found in nats(live, prompter, rows, self.name, tick):
            sums[owners[i]] += found
            weights[owners[i]] += len(rows[i][0]) - 1
        return ratio_score(self.name, sums, weights)


def paragraphs(text: str) -> list[str]:
    """The paragraphs of a text, which are its items: what blank lines divide. Raises TaskError for an empty or oversized one."""
    if len(text) > MOST_TEXT:
        raise TaskError(f"The text has {len(text):,} characters; at most {MOST_TEXT:,} can be scored.")
    found = [p.strip() for p in re.split(r"\n\s*\n", text) if p.strip()]
    if not 0 < len(found) <= MOST_PARAGRAPHS:
        raise TaskError(
            f"The text has {len(found):,} paragraphs; at most {MOST_PARAGRAPHS:,} can be scored. Put fewer blank lines in it."
            if found
            else "The text to score is empty. Give a few paragraphs."
        )
    return found


def nats(
    live: LiveModel, prompter: Prompter, rows: Sequence[Row], what: str, tick: Tick = lambda: None
) -> Iterator[tuple[int, float]]:
    """(index, −log p) of every row's tokens that count, given those before them; in nats, batches of like length.

    `tick` is called in every layer and may raise to stop. Raises NotFinite, which names `what` was being scored.
    """
    vocabulary = live.model.config.get_text_config().vocab_size
    lengths = [len(ids) - 1 for ids, _ in rows]  # nothing is asked after the last token

    def fits(batch: list[int]) -> bool:
        kept = lengths[batch[-1]] - min(rows[i][1] for i in batch) + 1
        return len(batch) * kept * vocabulary <= LOGITS

    for batch in batches(lengths, ROWS, at_once(live, TOKENS), fits):
        tick()
        with torch.inference_mode(), watched(live, what, tick):
            found = batch_nats(live, prompter.pad, [rows[i] for i in batch])
        yield from zip(batch, found, strict=True)


def batch_nats(live: LiveModel, pad: int, rows: Sequence[Row]) -> list[float]:
    """The nats of each row in one forward pass; rows that differ in their last token alone share theirs."""
    inputs: dict[tuple[int, ...], int] = {}
    for ids, _ in rows:
        inputs.setdefault(tuple(ids[:-1]), len(inputs))
    width, first = max(map(len, inputs)), min(start for _, start in rows)
    given = torch.full((len(inputs), width), pad, dtype=torch.long)
    for text, n in inputs.items():  # padded on the right: causal attention never looks there
        given[n, : len(text)] = torch.tensor(text)
    owner = torch.tensor([inputs[tuple(ids[:-1])] for ids, _ in rows], device=live.device)
    wanted = torch.zeros((len(rows), width - first + 1), dtype=torch.long)
    counts = torch.zeros(wanted.shape, dtype=torch.bool)
    for row, (ids, start) in enumerate(rows):
        wanted[row, start - first : len(ids) - first] = torch.tensor(ids[start:])
        counts[row, start - first : len(ids) - first] = True
    wanted, counts = wanted.to(live.device), counts.to(live.device)
    logits = last_logits(live, given.to(live.device), first - 1)
    at = torch.arange(logits.shape[1], device=live.device)
    total = logits.float().logsumexp(-1)  # inputs × positions
    losses = torch.where(counts, total[owner] - logits[owner[:, None], at, wanted].float(), 0.0)
    return losses.double().sum(1).tolist()


def last_logits(live: LiveModel, ids: torch.Tensor, first: int) -> torch.Tensor:
    """Logits (batch × positions × vocabulary) at positions `first` and later; the family computes no others where it knows
    how to leave them out."""
    model = live.model
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        return model(input_ids=ids, use_cache=False, logits_to_keep=ids.shape[1] - first).logits
    return model(input_ids=ids, use_cache=False).logits[:, first:]
