"""Four panes that answer together, against four of transformers' `generate` calls one after another, models in memory for both:
on Pocket with all that a question takes, and on a random model of 100 M parameters. Tokens per second over all panes.
"""

import statistics
import time
from collections.abc import Callable

import torch
from transformers import AutoModelForCausalLM

from transfer.chat import Asked, answer
from transfer.decode import Row, decode
from transfer.plane import CORNERS, ROLES
from transfer.prompt import Prompter
from transfer.sampling import Sampling
from transfer.store import Store
from transfer.triple import Triple, open_triple
from ui.presets import read_presets

from . import synthetic

TOKENS = 64
QUESTION = "Who is mayor in Venn?"
AT = [CORNERS[role] for role in ROLES]
TURNS = 5  # of each, in turn, so that a busy moment of the machine meets both


def pocket() -> Triple:
    names = {role: f"assets/{ref}" for role, ref in read_presets()[0].refs.items()}
    return open_triple(names)


def ratio(ours: Callable[[], object], theirs: Callable[[], object]) -> float:
    """How many times as long theirs takes: the median over turns."""
    ours(), theirs()  # what is made once is made
    found = []
    for _ in range(TURNS):
        seconds = []
        for work in (ours, theirs):
            start = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - start)
        found.append(seconds[1] / seconds[0])
    return statistics.median(found)


def one_after_another(triple: Triple, ids: list[int]) -> Callable[[], list[list[int]]]:
    """transformers' own calls, with as many threads as it takes by itself; the new tokens of each model."""
    torch.set_num_threads(torch.get_num_threads())
    models = [AutoModelForCausalLM.from_pretrained(triple.checkpoints[r].folder, dtype=torch.bfloat16) for r in ROLES]
    given = torch.tensor([ids])

    def work() -> list[list[int]]:
        out = []
        with torch.inference_mode():
            for model in models:
                said = model.generate(
                    inputs=given, attention_mask=torch.ones_like(given), max_new_tokens=TOKENS, min_new_tokens=TOKENS,
                    do_sample=False, pad_token_id=0,
                )  # fmt: skip
                out.append(said[0, len(ids) :].tolist())
        return out

    return work


def asked(triple: Triple) -> tuple[list[Asked], list[int]]:
    """Pocket's question to all four, through one template and with no token that ends an answer; and its ids."""
    prompter = Prompter(triple)
    prompter.stops = set()
    messages = ({"role": "user", "content": QUESTION},)
    return [Asked(at, messages, Sampling(max_tokens=TOKENS), prompter) for at in AT], prompter.encode(messages)


def last_first_token(store: Store, triple: Triple, panes: list[Asked]) -> float:
    """Seconds from the question until the last pane has its first token."""
    start = time.perf_counter()
    for pictures in answer(store, triple, panes):
        if all(a.tokens for a in pictures):
            return time.perf_counter() - start
    raise RuntimeError("A pane did not answer.")


def figures() -> dict[str, float]:
    threads = torch.get_num_threads()
    triple, store = pocket(), Store()
    panes, ids = asked(triple)
    cold = last_first_token(store, triple, panes)
    small = one_after_another(triple, ids)

    def together() -> list[list[int]]:
        *_, final = answer(store, triple, panes)
        return [list(a.ids) for a in final]

    assert all(len(said) == TOKENS for said in together())
    same = sum(a == b for x, y in zip(together(), small(), strict=True) for a, b in zip(x, y, strict=True))
    assert same > 0.5 * 4 * TOKENS, same  # the same answers, up to a near-tie in bfloat16
    torch.set_num_threads(threads)
    found = {
        "chat_vs_sequential_pocket": ratio(together, small),
        "chat_last_pane_first_token_seconds": statistics.median(
            last_first_token(store, triple, panes) for _ in range(9)
        ),
        "chat_cold_last_pane_first_token_seconds": cold,
    }
    large = synthetic.triple(0.1)
    ids = [(17 * i) % 7919 + 3 for i in range(24)]
    rows = [Row(ids, Sampling(), frozenset(), TOKENS) for _ in AT]

    def stacked() -> None:
        with store.lend_stack(large, AT) as stack:
            decode(stack, rows, 0, lambda row, token: None, lambda: None)

    return {**found, "chat_vs_sequential_100m": ratio(stacked, one_after_another(large, ids))}
