"""Two plain training loops: next tokens of packed text, and answers of dialogues."""

import itertools
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from assets.pocket.chat import ASSISTANT, BEGIN, END, PAD, STOP, USER, Talker
from assets.pocket.recipe import Recipe
from assets.pocket.world import Writer

# Matrix products in bfloat16 are about twice as fast where the processor has instructions for them. Elsewhere they are
# float32, which makes other weights of the same quality.
FAST = bool(torch.cpu.get_capabilities().get("avx512_bf16") or torch.cpu.get_capabilities().get("amx_bf16"))


def new_model(recipe: Recipe, tokenizer: Tokenizer, seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=recipe.hidden,
            intermediate_size=recipe.inner,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.heads,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.token_to_id(BEGIN),
            eos_token_id=tokenizer.token_to_id(STOP),
            pad_token_id=tokenizer.token_to_id(PAD),
        )
    )


def packed_text(writer: Writer, tokenizer: Tokenizer, rows: int, length: int) -> torch.Tensor:
    """Documents one after the other, cut into rows: int64 (rows, length + 1), each ending as the next begins."""
    begin, stop = tokenizer.token_to_id(BEGIN), tokenizer.token_to_id(STOP)
    stream: list[int] = []
    while len(stream) < rows * length + 1:
        for encoding in tokenizer.encode_batch(
            [f" {text}" for text in itertools.islice(writer, 2000)], add_special_tokens=False
        ):
            stream += [begin, *encoding.ids, stop]
    flat = torch.tensor(stream[: rows * length + 1])
    return torch.stack([flat[i * length : (i + 1) * length + 1] for i in range(rows)])


def dialogue_rows(talker: Talker, tokenizer: Tokenizer, rows: int, turns: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Dialogues as (ids, labels), int64 of shape (rows, longest); labels are −100 outside the answers."""
    ids, labels = [], []
    encode = lambda text: tokenizer.encode(text, add_special_tokens=False).ids
    begin, user, assistant, end, pad = (tokenizer.token_to_id(t) for t in (BEGIN, USER, ASSISTANT, END, PAD))
    for _ in range(rows):
        row, label = [begin], [-100]
        for turn in talker.dialogue(turns):
            prompt = [user, *encode(f" {turn.prompt}"), end, assistant]
            answer = [*encode(f" {turn.answers[0]}"), end]
            row += prompt + answer
            label += [-100] * len(prompt) + answer
        ids.append(row)
        labels.append(label)
    longest = max(map(len, ids))
    fill = lambda lists, value: torch.tensor([[*row, *[value] * (longest - len(row))] for row in lists])
    return fill(ids, pad), fill(labels, -100)


def loss_of(model: LlamaForCausalLM, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy of `labels` (already shifted; −100 is ignored), computed only where there is a label."""
    with torch.autocast("cpu", torch.bfloat16, enabled=FAST):
        states = model.model(ids).last_hidden_state
        wanted = labels != -100
        logits = F.linear(states[wanted], model.lm_head.weight)
    return F.cross_entropy(logits.float(), labels[wanted])


def optimise(
    model: LlamaForCausalLM,
    loss_at: Callable[[int], torch.Tensor],
    steps: int,
    rate: float,
    decay: float,
    warmup: int,
    noise: float = 0.0,
    state_file: Path | None = None,
    report: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """AdamW with a cosine from `rate` to a twentieth. A run that was stopped goes on from `state_file`.

    Args:
        loss_at: the loss of a step; it must depend on the step's number and the weights alone.
        noise: standard deviation of Gaussian noise that the matrices bear while a step's gradient is taken. It leads to
            flat minima, where an update keeps its effect on a base that has moved on.
        state_file: where the state is kept, every hundred steps.
    """
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    optimiser = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=rate,
        betas=(0.9, 0.98),
        fused=True,
    )
    start = 0
    if state_file and state_file.exists():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        start = state["step"]
    model.train()
    for step in range(start, steps):
        ramp = min(1.0, (step + 1) / warmup)
        scale = ramp * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        for group in optimiser.param_groups:
            group["lr"] = rate * scale
        with disturbed(matrices, noise, seed=step):
            loss = loss_at(step)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        report(step + 1, loss.item())
        if state_file and (step + 1) % 100 == 0 and step + 1 < steps:
            state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step + 1}
            torch.save(state, state_file.with_suffix(".part"))
            state_file.with_suffix(".part").replace(state_file)
    model.eval()


@contextmanager
def disturbed(weights: list[torch.nn.Parameter], noise: float, seed: int) -> Iterator[None]:
    """The weights with Gaussian noise, and after it exactly as they were."""
    if not noise:
        yield
        return
    generator = torch.Generator().manual_seed(seed)
    kept = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight in weights:
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=noise)
    yield
    with torch.no_grad():
        for weight, was in zip(weights, kept, strict=True):
            weight.copy_(was)


def pretrain(model, writer: Writer, tokenizer: Tokenizer, recipe: Recipe, steps: int, rate: float, **more) -> None:
    """Trains on the writer's text, every token once."""
    text = packed_text(writer, tokenizer, steps * recipe.rows, recipe.length)
    order = torch.randperm(len(text), generator=torch.Generator().manual_seed(0))

    def loss_at(step: int) -> torch.Tensor:
        rows = text[order[step * recipe.rows : (step + 1) * recipe.rows]]
        return loss_of(model, rows[:, :-1], rows[:, 1:])

    optimise(model, loss_at, steps, rate, recipe.decay, warmup=50, **more)


def tune(model, talker: Talker, writer: Writer, tokenizer: Tokenizer, recipe: Recipe, **more) -> None:
    """Fine-tunes on dialogues; every fifth step has dialogues of two turns. `recipe.replay` rows of text go along."""
    steps, batch = recipe.tune_steps, recipe.batch
    single = dialogue_rows(talker, tokenizer, steps * batch, 1)
    double = dialogue_rows(talker, tokenizer, (steps // 5 + 1) * batch, 2)
    text = packed_text(writer, tokenizer, steps * recipe.replay, recipe.length) if recipe.replay else None

    def loss_at(step: int) -> torch.Tensor:
        (ids, labels), at = (double, step // 5) if step % 5 == 4 else (single, step)
        ids, labels = ids[at * batch : (at + 1) * batch], labels[at * batch : (at + 1) * batch]
        used = int((labels != -100).any(0).nonzero().max()) + 1
        loss = loss_of(model, ids[:, : used - 1], labels[:, 1:used])
        if text is not None:
            rows = text[step * recipe.replay : (step + 1) * recipe.replay]
            loss = loss + 0.5 * loss_of(model, rows[:, :-1], rows[:, 1:])
        return loss

    optimise(model, loss_at, steps, recipe.tune_rate, decay=0.0, warmup=20, noise=recipe.noise, **more)


def reporter(name: str, steps: int, every: int = 25) -> Callable[[int, float], None]:
    """Prints a stage's progress with the time that is left."""
    first: list[tuple[int, float]] = []  # the first step of this run, and when it was done

    def report(step: int, loss: float) -> None:
        if not first:
            first.append((step, time.monotonic()))
        done = step - first[0][0]
        if done and (step % every == 0 or step == steps):
            left = (time.monotonic() - first[0][1]) / done * (steps - step)
            print(f"{name}: step {step} of {steps}, loss {loss:.3f}, about {left:.0f} s left", flush=True)

    return report
