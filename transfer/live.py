"""A model in memory that moves to a point: built once, then set in place from the checkpoints' own files.

Nothing is written to disk and nothing is loaded again. transformers builds the model and knows its family; homes.py
finds out of it where the files' tensors live in the model. Where that cannot be said a move goes through transformers'
own conversion, and takes a second model's memory for a moment.
"""

import hashlib
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from .align import Aligned
from .errors import LiveError, TransferscopeError
from .homes import Home, cut, doubles, find_homes, stand_in
from .plane import CORNERS, LABELS, Mix
from .quant import KEYS
from .stream import SPAN, TORCH, Reader, spread
from .triple import Triple

# from_pretrained swaps methods of its classes while it works: two at once leave them swapped, and from then on tied
# weights are never tied again in that process.
BUILDING = threading.Lock()
Tick = Callable[[], None]  # called often by long work; raises Cancelled where somebody pressed stop
WHOLE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # bits by the bytes of an element


def idle() -> None:
    """The tick of work that nobody can stop."""


class LiveModel:
    """One model of a triple at one point.

    `model` is in evaluation mode and in the target base's dtype, `mix` where it stands (None after a move that broke
    off), `seconds` how long the last move took, `odd` the tensors, by their names in the files and in that order, in which
    a weight is NaN or infinite there: such a model answers with nonsense, and whoever scores it decides what to do.
    Not safe to move while it answers: the store sees to that.
    """

    def __init__(self, triple: Triple, mix: Mix, device: str | None = None, tick: Tick = idle):
        """Builds the model at a point. Raises LiveError, ReadError, TripleError, and what `tick` raises, which is called
        often."""
        triple.need(mix)
        self.triple = triple
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.role = triple.config_role(mix)
        self.mix: Mix | None = mix
        self.odd: tuple[str, ...] = ()
        self._family: Any = None
        start = time.perf_counter()
        state = self._state(mix, tick)
        tick()
        self.model = self._build(state)
        self._homes = self._find_homes(state)
        if self._homes is not None:  # what the model leaves out of the files is of no concern
            self.odd = in_order(self._homes, set(self.odd))
        self.seconds = time.perf_counter() - start
        self._fingerprint: str | None = None

    def fits(self, mix: Mix) -> bool:
        """Whether this model can move there: the forward pass of its config is that point's too."""
        return self.triple.config_key(self.role) == self.triple.config_key(self.triple.config_role(mix))

    def move(self, mix: Mix, tick: Tick = idle) -> float:
        """Set the weights in place to a point; the seconds it took. Raises LiveError, ReadError, TripleError, and what `tick`
        raises, after which it stands nowhere."""
        self.triple.need(mix)
        if not self.fits(mix):
            raise LiveError(f"The config of {mix} is another than this model's; a new live model is needed.")
        if mix == self.mix:
            return 0.0
        start = time.perf_counter()
        self.mix, self.odd, self._fingerprint = None, (), None  # nowhere, should a read break off half way
        if self._homes is None:
            fresh = self._build(self._state(mix, tick)).state_dict()
            for name, tensor in self.model.state_dict().items():
                tensor.copy_(fresh[name])
        else:
            self._fill(mix, self._homes, tick)
        self.mix = mix
        self.seconds = time.perf_counter() - start
        return self.seconds

    def generate(
        self, ids: torch.Tensor, mask: torch.Tensor, prompter: Any, max_tokens: int, **more: Any
    ) -> torch.Tensor:
        """transformers' own greedy `generate` from prompts padded on the left: token ids of prompt and answer.

        `ids` and `mask` are int64 of batch × length; `more` goes to generate. What a checkpoint's generation_config
        says of sampling plays no part: the caller's words alone count.
        """
        torch.set_num_threads(threads_for(self.nbytes))
        plain = GenerationConfig(
            max_new_tokens=max_tokens,
            do_sample=False,
            eos_token_id=sorted(prompter.stops) or None,
            pad_token_id=prompter.pad,
        )
        ids, mask = ids.to(self.device), mask.to(self.device)
        model: Any = self.model
        return model.generate(inputs=ids, attention_mask=mask, generation_config=plain, **more)

    @property
    def fingerprint(self) -> str:
        """Twelve hex digits over all weights in memory, by name: equal bits, equal fingerprint."""
        return self.fingerprinted()

    def fingerprinted(self, tick: Tick = idle) -> str:
        """The fingerprint; every weight is read for it once, with a `tick` for each tensor."""
        if self._fingerprint is None:
            self._fingerprint = digest(self.model.state_dict().items(), tick)
        return self._fingerprint

    @property
    def nbytes(self) -> int:
        return sum(p.numel() * p.element_size() for p in self.model.parameters())

    def _state(self, mix: Mix, tick: Tick) -> dict[str, torch.Tensor]:
        """The whole model at a point, under the names of the files."""
        tensors = self.triple.tensors
        state = {tensor.name: torch.empty(tensor.shape, dtype=TORCH[tensor.dtype]) for tensor in tensors}
        self._fill(mix, [home for tensor in tensors for home in own_homes(tensor, state[tensor.name])], tick)
        return state

    def _fill(self, mix: Mix, homes: list[Home], tick: Tick) -> None:
        """Set all homes to the point, and `odd` to the names of tensors that are not finite there."""
        with Reader(self.triple.checkpoints) as reader:
            for _ in spread(lambda home: fill(reader, mix, home), homes, reader.cancelled):
                tick()
            self.odd = in_order(homes, reader.odd)

    def _load(self, state: dict[str, torch.Tensor]) -> tuple[Any, dict[str, Any]]:
        """What transformers makes of the role's config and these weights, and its report of it."""
        config = merged_config(self.triple, self.role)
        floats = [t.dtype for t in state.values() if t.is_floating_point()]
        dtype = max(set(floats), key=floats.count)
        how = {"config": config, "state_dict": state, "dtype": dtype, "output_loading_info": True}
        with BUILDING:
            if self._family is None:
                with torch.device("meta"):
                    self._family = type(AutoModelForCausalLM.from_config(config))
            return self._family.from_pretrained(None, **how)

    def _build(self, state: dict[str, torch.Tensor]) -> PreTrainedModel:
        """The model of the role's config and these weights. Raises LiveError."""
        kind, name = self.triple.checkpoints[self.role].setting("model_type"), self.triple.checkpoints[self.role].name
        try:
            model, report = self._load(state)
        except TransferscopeError:
            raise
        except Exception as error:
            raise LiveError(f"transformers could not build {name} ({kind}): {first_line(error)}") from error
        absent = sorted(report["missing_keys"])
        if absent:
            raise LiveError(
                f"{len(absent)} weights that {kind} needs are in none of the files, {absent[0]} first. "
                "Such a model would answer with random numbers."
            )
        model.generation_config = (
            GenerationConfig()
        )  # else what it says of sampling would fill what a caller leaves open
        return model.to(self.device).eval().requires_grad_(False)

    def _find_homes(self, state: dict[str, torch.Tensor]) -> list[Home] | None:
        """Where the files' tensors live in the model, which was built of `state`; None where that cannot be said."""
        try:
            made, _ = self._load({name: stand_in(name, weights) for name, weights in state.items()})
            parts = made.state_dict(keep_vars=True)
            for name, *pair in doubles(parts, self.model.state_dict()):
                if not self._same_everywhere(*pair):
                    self._untie(name)
            homes = find_homes(self.triple.tensors, parts, self.model.state_dict(), SPAN)
        except Exception:  # Elsewhere, or what transformers makes of it: it is a question, and the answer is no
            return None
        return homes if all(holds(home, state[home.tensor.name]) for home in homes) else None

    def _same_everywhere(self, one: str, other: str) -> bool:
        """Whether two tensors are equal in every checkpoint that has both, and so at every point."""
        a, b = (next(t for t in self.triple.tensors if t.name == name) for name in (one, other))
        with Reader(self.triple.checkpoints) as reader:
            return all(
                torch.equal(x, y)
                for role in a.parts.keys() & b.parts.keys()
                for (_, x), (_, y) in zip(reader.mixed(a, CORNERS[role]), reader.mixed(b, CORNERS[role]), strict=True)
            )

    def _untie(self, name: str) -> None:
        """Give a weight of the model memory of its own."""
        module, _, weight = name.rpartition(".")
        owner = self.model.get_submodule(module)
        setattr(owner, weight, torch.nn.Parameter(getattr(owner, weight).clone(), requires_grad=False))


def digest(weights: Iterable[tuple[str, torch.Tensor]], tick: Tick = idle) -> str:
    """Twelve hex digits over weights by name, in whatever order they come."""
    found = hashlib.blake2b(digest_size=6)
    for name, tensor in sorted(weights, key=lambda pair: pair[0]):
        tick()
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def in_order(homes: list[Home], names: set[str]) -> tuple[str, ...]:
    """Those of the names that have homes, in the order of the homes."""
    return tuple(dict.fromkeys(home.tensor.name for home in homes if home.tensor.name in names))


def own_homes(tensor: Aligned, weights: torch.Tensor) -> Iterator[Home]:
    """The homes of a tensor in memory of its own shape."""
    for start, there in cut(weights, 0, SPAN, tensor.grain):
        yield Home(tensor, start, start + there.numel(), there)


def holds(home: Home, weights: torch.Tensor) -> bool:
    """Whether a home holds, bit by bit, what transformers made of the tensor's weights."""
    wanted = weights.view(-1)[home.start : home.stop].view(home.there.shape)
    if wanted.data_ptr() == home.there.data_ptr() and home.there.is_contiguous():
        return True
    bits = lambda x: x.contiguous().view(WHOLE[x.element_size()]).numpy()
    # NaN too, and several times as fast as torch.equal.
    return np.array_equal(bits(home.there.cpu()), bits(wanted.to(home.there.dtype)))


def fill(reader: Reader, mix: Mix, home: Home) -> None:
    """Set a home, on any device, to the tensor at a point."""
    dtype, there = TORCH[home.tensor.dtype], home.there
    if there.device.type == "cpu" and there.dtype == dtype and there.is_contiguous():
        reader.fill(home.tensor, mix, home.start, home.stop, there.view(-1))
    else:
        held = torch.empty(there.shape, dtype=dtype)
        reader.fill(home.tensor, mix, home.start, home.stop, held.view(-1))
        there.copy_(held)


def threads_for(nbytes: int) -> int:
    """How many threads an operation of a model of that size is worth: small ones lose more than they gain."""
    return 1 if nbytes < 64_000_000 else max(1, os.cpu_count() or 1)


def merged_config(triple: Triple, role: str) -> Any:
    """The transformers config of a role, with the merged vocabulary and tie. Raises LiveError."""
    checkpoint = triple.checkpoints[role]
    if "auto_map" in checkpoint.config and checkpoint.config.get("model_type") not in CONFIG_MAPPING:
        raise LiveError(f"{checkpoint.ref} needs code of its own to run, and no foreign code is run here.")
    try:
        config: Any = AutoConfig.from_pretrained(checkpoint.folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise LiveError(f"transformers does not know the config of {checkpoint.ref}: {first_line(error)}") from error
    tuned = triple.checkpoints["source_tuned"]
    text = config.get_text_config()
    rows = tuned.rows
    if rows and text.vocab_size != rows:
        text.vocab_size = rows
        if isinstance(text.pad_token_id, int) and text.pad_token_id >= rows:
            text.pad_token_id = config.pad_token_id = None  # else the embedding would want a row that is not there
    text.tie_word_embeddings = config.tie_word_embeddings = is_tied(triple)
    for part, key in itertools.product((config, text), KEYS):
        if hasattr(part, key):
            delattr(part, key)  # the weights are dequantised as they are read
    return config


def is_tied(triple: Triple) -> bool:
    """Whether embedding and head of the merged model are one tensor: so by the target, unless it was given a head."""
    target, names = triple.checkpoints["target_base"], {t.name for t in triple.tensors}
    added = names - set(target.tensors)
    return target.tied and not added


def open_tokenizer(triple: Triple, role: str = "source_tuned") -> PreTrainedTokenizerBase:
    """The tokenizer of a role's folder. Raises LiveError."""
    checkpoint = triple.checkpoints[role]
    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise LiveError(
            f"The tokenizer of {LABELS[role]} ({checkpoint.ref}) cannot be read: {first_line(error)}"
        ) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return tokenizer


def first_line(error: BaseException) -> str:
    """An exception's first line, for a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
