"""Greedy answers to many prompts at once, and what is scored by them."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from transfer.errors import ChatError, TaskError
from transfer.live import LiveModel
from transfer.prompt import Prompter
from transfer.watch import watched

from .forms import Question, Task, need, plainly
from .running import at_once, batches
from .scores import Score, Tick, digest_of, mean_score

ROWS, TOKENS = 64, 2**15  # prompts answered at once; tokens that they and their answers may take together
SPARE = 8  # tokens more than the longest right answer has: another spelling of it, and the token that ends it
MOST_TOKENS = 1_024  # of an answer that is compared with right ones


@dataclass(frozen=True)
class ExactMatch:
    """The share of questions whose whole greedy answer, stripped, is one of the right ones.

    Answers have at most `max_tokens`; by default as many as the longest right one has, and SPARE. With `chat` the model's
    own template is put around a prompt; without, the prompt is continued as it stands, and the answer is the first line
    of what follows (all of it where a right answer has several lines).
    """

    task: Task[Question]
    max_tokens: int | None = None
    chat: bool = True

    unit = "share"
    lower = False

    def __post_init__(self) -> None:
        """Raises TaskError."""
        need(self.task, Question)
        bounded(self.max_tokens)

    @property
    def name(self) -> str:
        return f"exact match, {self.task.name}" + plainly(self.chat)

    @property
    def digest(self) -> str:
        return digest_of("exact match", self.task.digest, self.max_tokens, self.chat)

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(item.prompt for item in self.task.items)

    def __call__(self, live: LiveModel, prompter: Prompter, tick: Tick = lambda: None) -> Score:
        """Raises TaskError, NotFinite, and what `tick` raises."""
        items = self.task.items
        longest = longest_answers(self.task, prompter, tick)
        most = self.max_tokens or max(longest) + SPARE
        if self.max_tokens is None and most > MOST_TOKENS:
            raise TaskError(
                f"{self.task.name}: the longest right answer has {max(longest):,} tokens; answers of at most "
                f"{MOST_TOKENS - SPARE:,} are compared."
            )
        room = [min(most, n + 1) for n in longest]
        encoded = encode_all(prompter, self.task.name, self.labels, room, self.chat, tick)
        one_line = not self.chat and not any("\n" in a for item in items for a in item.answers)
        texts = [""] * len(items)
        for i, text in replies(live, prompter, encoded, most, self.name, tick, one_line):
            texts[i] = text
        parts = [float(text in item.answers) for text, item in zip(texts, items, strict=True)]
        return mean_score(self.name, parts, texts)


def longest_answers(task: Task[Question], prompter: Prompter, tick: Tick) -> list[int]:
    """How many tokens the longest right answer of each question has."""
    out = []
    for item in task.items:
        tick()
        out.append(
            max(len(ids) for ids in prompter.tokenizer(list(item.answers), add_special_tokens=False)["input_ids"])
        )
    return out


def answers(
    live: LiveModel,
    prompter: Prompter,
    prompts: Sequence[str],
    max_tokens: int,
    tick: Tick = lambda: None,
    chat: bool = True,
) -> Iterator[tuple[int, str]]:
    """(index, greedy answer) of every prompt, in batches of like length; see `replies`."""
    encoded = encode_all(prompter, "The prompts", prompts, [1] * len(prompts), chat, tick)
    yield from replies(live, prompter, encoded, max_tokens, "an answer", tick)


def encode_all(
    prompter: Prompter, name: str, prompts: Sequence[str], rooms: Sequence[int], chat: bool, tick: Tick
) -> list[list[int]]:
    """Token ids of every prompt, which leaves room for as many tokens. Raises TaskError that names the prompt."""
    out = []
    for i, (prompt, room) in enumerate(zip(prompts, rooms, strict=True)):
        tick()
        try:
            out.append(
                prompter.encode([{"role": "user", "content": prompt}], room) if chat else prompter.plain(prompt, room)
            )
        except ChatError as error:
            raise TaskError(f"{name}, question {i + 1}: {error}") from error
    return out


def replies(
    live: LiveModel,
    prompter: Prompter,
    encoded: Sequence[list[int]],
    max_tokens: int,
    what: str,
    tick: Tick,
    one_line: bool = False,
    step: int = 1,
) -> Iterator[tuple[int, str]]:
    """(index, greedy answer, stripped) of every prompt, given as token ids; the first line alone with `one_line`.

    An answer has at most `max_tokens`, or what the model's context leaves, rounded down to a multiple of `step`, so that
    prompts of several lengths share a batch. `tick` is called in every layer and may raise to stop. Raises NotFinite, which
    names `what` was being scored.
    """
    by_room = defaultdict(list)
    for i, ids in enumerate(encoded):
        left = prompter.context - len(ids)
        by_room[max_tokens if left >= max_tokens else left - left % step or left].append(i)
    for room, members in sorted(by_room.items()):
        sizes = [len(encoded[i]) + room for i in members]
        for batch in batches(sizes, ROWS, TOKENS, partial(within, sizes, room, at_once(live, TOKENS))):
            chosen = [members[k] for k in batch]
            tick()
            with torch.inference_mode(), watched(live, what, tick):
                found = generate(live, prompter, [encoded[i] for i in chosen], room, one_line)
            for i, tokens in zip(chosen, found, strict=True):
                end = next((k for k, token in enumerate(tokens) if token in prompter.stops), len(tokens))
                text = prompter.decode(tokens[:end]).strip()
                yield i, text.split("\n")[0].strip() if one_line else text


def within(sizes: Sequence[int], room: int, most: int, batch: list[int]) -> bool:
    """Whether the prompts of a batch, which are read in one pass, have so many tokens at most."""
    return len(batch) * (sizes[batch[-1]] - room) <= most


def generate(
    live: LiveModel, prompter: Prompter, encoded: Sequence[list[int]], room: int, one_line: bool
) -> list[list[int]]:
    """The tokens that follow each prompt, with whatever came after its end; prompts are padded on the left."""
    width = max(map(len, encoded))
    ids = torch.full((len(encoded), width), prompter.pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(encoded):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    more = {"stopping_criteria": StoppingCriteriaList([LineEnd(prompter, width)])} if one_line else {}
    return live.generate(ids, mask, prompter, room, **more)[:, width:].tolist()


class LineEnd(StoppingCriteria):
    """Ends an answer with its first line that says anything."""

    def __init__(self, prompter: Prompter, width: int):
        self.prompter, self.width = prompter, width

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: object) -> torch.Tensor:
        done = ["\n" in self.prompter.decode(row).lstrip() for row in input_ids[:, self.width :].tolist()]
        return torch.tensor(done, device=input_ids.device)


def bounded(max_tokens: int | None) -> None:
    """Raises TaskError for an answer's length that is none."""
    if max_tokens is not None and not 1 <= max_tokens <= 4_096:
        raise TaskError("An answer may have from 1 to 4,096 tokens.")
