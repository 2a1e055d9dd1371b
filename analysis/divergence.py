"""Where two models of a triple differ on the same text: their next-token distributions, token by token.

Both read one text, each after the prompt that it was given, and are compared at every token of it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import torch

from transfer.errors import ChatError
from transfer.plane import Mix
from transfer.prompt import Prompter, context_length
from transfer.store import Store
from transfer.triple import Triple

from .likelihood import last_logits
from .running import watched
from .scores import Tick

MOST = 512  # tokens of a text that are compared
TOP = 5  # tokens named at every place, of each model
CELLS = 2**18  # numbers of float64 at once in each of a dozen arrays: they stay near the cache
WINDOW, CONTEXT = 16, 4  # tokens decoded at once, about, and how many of them are there at least to be gone on from

Top = tuple[tuple[str, float], ...]  # (text, probability), the likeliest first


@dataclass(frozen=True)
class Side:
    """One of the two: its point, the ids of the prompt that its pane was given, and of what it answered, if it did."""

    mix: Mix
    prompt: tuple[int, ...]
    answer: tuple[int, ...] = ()


@dataclass(frozen=True)
class Token:
    """A token of the text, and what the two models made of its place; pairs are (one, other).

    `kl` is KL(P_one ‖ P_other) in nats (Kullback and Leibler 1951), infinite where the other rules out what the one does
    not. `js` is the Jensen-Shannon divergence in bits (Lin 1991): the same both ways round, from 0 to 1, and so the one to
    colour by. `chance` is the token's probability, `rank` how many others stand before it, 0 for the token that a greedy
    answer takes there; of equally likely ones the lower id stands first. `text` is that of `pieces`.
    """

    id: int
    text: str
    kl: float
    js: float
    chance: tuple[float, float]
    rank: tuple[int, int]
    top: tuple[Top, Top]


@dataclass(frozen=True)
class Divergence:
    """Two models on a text. `cut` tells whether the text goes on behind the last token here, `apart` which is the first
    token in which the two answers differ (None: in none, or one side has not answered).

    The logits are the models' own: those of bfloat16 have 8 significant bits, and what two such models differ by less than
    that is rounding.
    """

    tokens: tuple[Token, ...]
    cut: bool
    apart: int | None = None

    @property
    def mean(self) -> float:
        """Mean KL a token, in nats."""
        return sum(token.kl for token in self.tokens) / len(self.tokens)

    def largest(self, count: int = 5) -> tuple[int, ...]:
        """The places where the KL is largest, the largest first."""
        return tuple(sorted(range(len(self.tokens)), key=lambda i: -self.tokens[i].kl)[:count])


def divergence(
    store: Store,
    triple: Triple,
    prompter: Prompter,
    one: Side,
    other: Side,
    text: Sequence[int],
    tick: Tick = lambda: None,
    most: int = MOST,
) -> Divergence:
    """Both models on the text (token ids, usually one side's answer), each after its own prompt.

    The first `most` tokens of it are read, fewer where the shortest context ends before: `prompter` may be either side's.
    Takes the memory of one model and twice `most` × vocabulary logits in the model's dtype. `tick` is called in every layer
    and may raise to stop. Raises ChatError where there is nothing to read, TripleError, LiveError, NotFinite, and what
    `tick` raises.
    """
    if not text or not one.prompt or not other.prompt:
        raise ChatError("There is no answer to compare on: the text or a prompt is empty. Ask both models first.")
    for side in (one, other):
        triple.need(side.mix)
    longest = max(len(one.prompt), len(other.prompt))
    bodies = [triple.checkpoints[triple.config_role(side.mix)] for side in (one, other)]
    context = min(prompter.context, *map(context_length, bodies))
    if longest >= context:
        raise ChatError(
            f"The prompt has {longest:,} tokens, and the {context:,} of these models leave no room for an answer to compare "
            "on. Shorten it."
        )
    ids = list(text[: min(most, context - longest)])
    # One after the other, even where memory holds both: whoever held the first while waiting for the second could wait
    # for ever on somebody who does the same.
    first = read(store, triple, one, ids, tick)
    same = (one.mix, one.prompt) == (other.mix, other.prompt)
    second = first if same else read(store, triple, other, ids, tick)
    tokens = compared(first, second, ids, pieces(prompter, ids), alone(prompter), tick)
    both = bool(one.answer and other.answer)
    return Divergence(tokens, len(ids) < len(text), first_difference(one.answer, other.answer) if both else None)


def read(store: Store, triple: Triple, side: Side, ids: Sequence[int], tick: Tick) -> torch.Tensor:
    """Logits [tokens, vocabulary] in the model's dtype of what a side expects in the place of each of the ids."""
    given = torch.tensor([[*side.prompt, *ids[:-1]]])
    with store.lend(triple, side.mix, tick) as live, torch.inference_mode(), watched(live, "this answer", tick):
        return last_logits(live, given.to(live.device), len(side.prompt) - 1)[0]


@torch.inference_mode()
def compared(
    one: torch.Tensor,
    other: torch.Tensor,
    ids: Sequence[int],
    texts: Sequence[str],
    name: Callable[[int], str],
    tick: Tick = lambda: None,
) -> tuple[Token, ...]:
    """The tokens `ids`, whose texts are given, by the logits [tokens, vocabulary] of both sides; a few rows at a time are in
    float64."""
    wanted, rows = torch.tensor(ids, device=one.device), max(1, CELLS // one.shape[1])
    found: list[Token] = []
    for start in range(0, len(ids), rows):
        tick()
        part = slice(start, start + rows)
        logs = [side[part].double().log_softmax(-1) for side in (one, other)]
        kl, js = distances(*logs)
        chances, ranks, tops = zip(*(standing(log, wanted[part], name) for log in logs), strict=True)
        pairs = (zip(*both, strict=True) for both in (chances, ranks, tops))
        found += map(Token, ids[part], texts[part], kl.tolist(), js.tolist(), *pairs)
    return tuple(found)


def distances(p: torch.Tensor, q: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """KL(P ‖ Q) in nats and the Jensen-Shannon divergence in bits of every row, from log-probabilities [rows, vocabulary]
    float64. The KL of equal rows is 0 to the bit.

    With d = p − q: KL = Σ P·d; and since P / (P + Q) = σ(d), JS = ½ Σ P·log 2σ(d) + ½ Σ Q·log 2σ(−d), where
    log 2σ(d) = log 2 − log(1 + e^−|d|) + min(d, 0).
    """
    d, chance, other = p - q, p.exp(), q.exp()
    double = math.log(2) - d.abs().neg_().exp_().log1p_()
    # What has no chance adds nothing, whatever its logarithm is: where both rule a token out d is no number.
    total = lambda weights, terms: (weights * terms).masked_fill_(weights == 0, 0.0).sum(-1)
    js = total(chance, double + d.clamp(max=0)) + total(other, double - d.clamp(min=0))
    return total(chance, d).clamp_(min=0.0), (js / (2 * math.log(2))).clamp_(0.0, 1.0)


def standing(
    log: torch.Tensor, wanted: torch.Tensor, name: Callable[[int], str]
) -> tuple[list[float], list[int], list[Top]]:
    """Probability and rank of the wanted token [rows] in each row of log-probabilities [rows, vocabulary], and the top of
    the row, without what has no chance."""
    own = log.gather(1, wanted[:, None])
    order = torch.arange(log.shape[1], device=log.device)
    ranks = ((log > own) | ((log == own) & (order < wanted[:, None]))).sum(-1)
    left, best = log.clone(), []
    for _ in range(min(TOP, log.shape[1])):  # topk would leave the order of equals to chance
        best.append(left.max(-1, keepdim=True))
        left.scatter_(1, best[-1].indices, -torch.inf)
    values, at = (torch.cat(found, 1) for found in zip(*best, strict=True))
    likely = zip(at.tolist(), values.exp().tolist(), strict=True)
    tops = [tuple((name(i), p) for i, p in zip(row, chances, strict=True) if p) for row, chances in likely]
    return own.exp()[:, 0].tolist(), ranks.tolist(), tops


def first_difference(a: Sequence[int], b: Sequence[int]) -> int | None:
    """Where two answers part: the index of the first token that differs, or at which the shorter one has ended; None where
    they are equal."""
    shorter = min(len(a), len(b))
    differs = next((i for i in range(shorter) if a[i] != b[i]), shorter)
    return None if differs == len(a) == len(b) else differs


def pieces(prompter: Prompter, ids: Sequence[int]) -> list[str]:
    """The text of each token. Together they are prompter.decode(ids), and besides it the names of special tokens, such as
    <|end|>, and of ids without a token, such as <319>.

    A character that several tokens spell stands at the one that completes it, and those before it are empty. Each token
    is decoded behind a few others, not behind all, which would take the square of their number.
    """
    label = named(prompter)
    names = {i: label(i) for i in set(ids)}
    words = [i for i in ids if names[i] is None]
    whole = prompter.decode(words)
    ends = [0]  # of the tokens' texts in `whole`
    clean = [0]  # tokens before which no character is half told
    start = origin = skipped = 0  # the window's first token; what it skips of its text, and where in `whole` that ends
    for i in range(len(words)):
        if clean[-1] == i and i - start >= WINDOW:
            start, origin = max(c for c in clean if c <= i - CONTEXT), ends[-1]
            skipped = len(prompter.decode(words[start:i]))
        elif i - start >= 4 * WINDOW:  # the thread is lost, as it may be among bytes that spell nothing
            start = origin = skipped = 0
        text = prompter.decode(words[start : i + 1])[skipped:]
        told = alike(text, whole[origin : origin + len(text)])
        ends.append(max(ends[-1], origin + told))
        if told == len(text):
            clean = [*clean[-WINDOW:], i + 1]
    ends[-1] = len(whole)
    texts = iter([whole[a:b] for a, b in pairwise(ends)])
    return [next(texts) if names[i] is None else names[i] for i in ids]  # type: ignore[misc]


def alone(prompter: Prompter) -> Callable[[int], str]:
    """From a token's id to its text inside of a sentence, with the blank before it where it has one. What is no whole
    character has the sign for that, and what `named` names its name."""
    before = prompter.tokenizer("a", add_special_tokens=False)["input_ids"]
    length, label = len(prompter.decode(before)), named(prompter)
    return cache(lambda i: label(i) or prompter.decode([*before, i])[length:])


def named(prompter: Prompter) -> Callable[[int], str | None]:
    """From an id to the name of what no text shows, a special token or a place of the vocabulary without a token; None for
    all else."""
    tokenizer = prompter.tokenizer
    special = set(tokenizer.all_special_ids)
    special |= {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}

    def name(i: int) -> str | None:
        token = tokenizer.convert_ids_to_tokens(i)
        return f"<{i}>" if token is None else token if i in special else None

    return name


def alike(a: str, b: str) -> int:
    """How many characters two texts begin alike with."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
