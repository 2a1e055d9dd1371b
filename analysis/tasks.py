"""What a point is scored on: exact match on question-and-answer tasks, and loss on plain text.

A task is a JSON Lines file. Each line has a `prompt` (what the user says, without template) and an `answer`, or a list
of answers of which each is right; optionally an `id` and a `kind`, by which scores are told apart. An answer is right
when the whole greedy answer, stripped, equals one of them.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from transformers import StoppingCriteria, StoppingCriteriaList

from transfer.errors import TaskError
from transfer.live import LiveModel
from transfer.prompt import Prompter

BATCH = 64  # prompts answered at once
WINDOW = 512  # tokens of text scored at once, at most
LOGITS = 2**26  # numbers of output held at once, at most
MOST_ITEMS, MOST_TEXT = 20_000, 5_000_000  # lines, characters

Text = Annotated[str, Field(min_length=1, max_length=20_000)]


class Ticking(StoppingCriteria):
    """Calls `tick` at every token; what it raises ends the generation."""

    def __init__(self, tick: Callable[[], None]):
        self.tick = tick

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_) -> torch.Tensor:
        self.tick()
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


class Item(BaseModel):
    """One question."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    prompt: Text
    answer: Text | list[Text]
    id: str = ""
    kind: str = ""

    @property
    def answers(self) -> frozenset[str]:
        return frozenset(a.strip() for a in ([self.answer] if isinstance(self.answer, str) else self.answer))


@dataclass(frozen=True)
class Task:
    """Questions with a name; `digest` changes with its content."""

    name: str
    items: tuple[Item, ...]
    digest: str


@dataclass(frozen=True)
class Score:
    """A mean over `n` items with its standard error; `parts` holds what each item got."""

    name: str
    value: float
    stderr: float
    n: int
    parts: tuple[float, ...] = ()


def score(name: str, parts: Sequence[float]) -> Score:
    """Mean and standard error of what the items got. For shares the error is Wilson's half-width at one deviation, so
    that 0 of 50 is not called certain (Wilson 1927)."""
    n = len(parts)
    mean = sum(parts) / n
    if set(parts) <= {0.0, 1.0}:
        error = math.sqrt(mean * (1 - mean) / n + 1 / (4 * n * n)) / (1 + 1 / n)
    else:
        error = math.sqrt(sum((p - mean) ** 2 for p in parts) / max(1, n - 1) / n)
    return Score(name, mean, error, n, tuple(parts))


def load_task(path: str | Path) -> Task:
    """A task out of a JSON Lines file. Raises TaskError that names the line."""
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"{path.name} cannot be read as a text file: {error}.") from error
    items = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            items.append(Item.model_validate(json.loads(line)))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the line"
            raise TaskError(f"{path.name}, line {number}: {where}: {first['msg']}.") from error
        except (ValueError, RecursionError) as error:
            raise TaskError(f"{path.name}, line {number} is not JSON: {error}.") from error
    if not 0 < len(items) <= MOST_ITEMS:
        raise TaskError(f"{path.name} has {len(items):,} questions; it should have from 1 to {MOST_ITEMS:,}.")
    digest = hashlib.blake2b("\n".join(lines).encode(), digest_size=8).hexdigest()
    return Task(path.stem, tuple(items), digest)


def answers(
    live: LiveModel,
    prompter: Prompter,
    prompts: Sequence[str],
    max_tokens: int,
    tick: Callable[[], None] = lambda: None,
) -> Iterator[tuple[int, str]]:
    """(index, greedy answer) of every prompt, in batches of like length. `tick` is called at every token and may raise to stop."""
    encoded = [prompter.encode([{"role": "user", "content": p}], max_tokens) for p in prompts]
    order = sorted(range(len(prompts)), key=lambda i: len(encoded[i]))
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        width = max(len(encoded[i]) for i in chosen)
        ids = torch.full((len(chosen), width), prompter.pad, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, i in enumerate(chosen):
            ids[row, width - len(encoded[i]) :] = torch.tensor(encoded[i])
            mask[row, width - len(encoded[i]) :] = 1
        with torch.inference_mode():
            out = live.generate(
                ids, mask, prompter, max_tokens, stopping_criteria=StoppingCriteriaList([Ticking(tick)])
            )
        for i, tokens in zip(chosen, out[:, width:].tolist(), strict=True):
            end = next((k for k, token in enumerate(tokens) if token in prompter.stops), len(tokens))
            yield i, prompter.decode(tokens[:end]).strip()


def exact_match(
    live: LiveModel, prompter: Prompter, task: Task, max_tokens: int = 24, tick: Callable[[], None] = lambda: None
) -> Score:
    """The share of items answered exactly. `tick` is called at every token and may raise to stop."""
    got = [0.0] * len(task.items)
    for i, text in answers(live, prompter, [item.prompt for item in task.items], max_tokens, tick):
        got[i] = float(text in task.items[i].answers)
    return score(task.name, got)


def paragraphs(text: str) -> list[str]:
    """The paragraphs of a text, which are its items. Raises TaskError for an empty or oversized one."""
    if len(text) > MOST_TEXT:
        raise TaskError(f"The text has {len(text):,} characters; at most {MOST_TEXT:,} can be scored.")
    found = [p.strip() for p in text.split("\n\n") if p.strip()]
    if not found:
        raise TaskError("The text to score is empty. Paste a few paragraphs.")
    return found


def loss(live: LiveModel, prompter: Prompter, text: str, tick: Callable[[], None] = lambda: None) -> Score:
    """Mean negative log-likelihood a token, in nats, of plain text; a paragraph is an item, weighted by its tokens.

    Paragraphs longer than WINDOW are read in windows of it. The standard error is the ratio estimator's over paragraphs,
    NaN where there is but one. Raises TaskError.
    """
    bos = [prompter.tokenizer.bos_token_id] if prompter.tokenizer.bos_token_id is not None else []
    step = min(WINDOW, prompter.context) - len(bos)
    pieces = []
    for item, paragraph in enumerate(paragraphs(text)):
        ids = prompter.tokenizer(paragraph, add_special_tokens=False)["input_ids"]
        pieces += [(item, bos + ids[i : i + step]) for i in range(0, len(ids), step)]
    pieces = sorted((p for p in pieces if len(p[1]) > 1), key=lambda p: len(p[1]))
    if not pieces:
        raise TaskError("The text to score is too short. Paste a few sentences.")
    sums: dict[int, float] = {}
    tokens: dict[int, int] = {}
    rows = max(1, min(BATCH // 4, LOGITS // (len(pieces[-1][1]) * live.model.get_output_embeddings().weight.shape[0])))
    for start in range(0, len(pieces), rows):
        tick()
        chosen = pieces[start : start + rows]
        ids = torch.full((len(chosen), len(chosen[-1][1])), prompter.pad, dtype=torch.long)
        known = torch.zeros(ids.shape, dtype=torch.bool)
        for row, (_, piece) in enumerate(chosen):  # padded on the right: causal attention never looks there
            ids[row, : len(piece)], known[row, : len(piece)] = torch.tensor(piece), True
        for (item, _), nats, count in zip(chosen, *token_losses(live, ids, known), strict=True):
            sums[item] = sums.get(item, 0.0) + nats
            tokens[item] = tokens.get(item, 0) + count
    n, mean = len(sums), sum(sums.values()) / sum(tokens.values())
    spread = sum((sums[item] - mean * tokens[item]) ** 2 for item in sums)
    error = math.sqrt(spread * n / (n - 1)) / sum(tokens.values()) if n > 1 else math.nan
    return Score("loss", mean, error, n, tuple(sums[item] / tokens[item] for item in sums))


def token_losses(live: LiveModel, ids: torch.Tensor, known: torch.Tensor) -> tuple[list[float], list[int]]:
    """For each row of `ids` (int64, batch × length) the nats of its `known` tokens after the first, and their number."""
    ids, known = ids.to(live.device), known.to(live.device)
    with torch.inference_mode():
        logits = live.model(input_ids=ids, use_cache=False).logits[:, :-1].float()
        losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none") * known[:, 1:]
    return losses.double().sum(1).tolist(), known[:, 1:].sum(1).tolist()
