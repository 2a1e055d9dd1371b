"""Several points of a triple in one model: every weight is a stack of theirs, and row i of a batch is answered by point i.

Small models spend their time in Python, not in arithmetic; so four of them take little more time than one. Attention,
rotary embedding and cache work on rows anyway and never notice. Only modules that hold weights are changed: matrix
products become batched ones, embeddings look up in their row's table, and norms multiply by their row's scale. Whether a
model was rightly changed is not taken on trust: it is tried out on weights whose answer is known, first row and last.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from .errors import LiveError
from .live import LiveModel, Tick, digest, idle
from .plane import Mix
from .triple import Triple

STACKED = 500_000_000  # bytes of a model beyond which a row gains nothing: its time goes into reading weights


class NotStackable(LiveError):
    """A family with weights in modules that cannot hold one for each row."""


class Stack:
    """Points of a triple, in `mixes`, as the rows of one `model`. Not safe to move while it answers: the store sees to that.

    One live model more moves from point to point, and what it holds is copied into the row.
    """

    def __init__(self, triple: Triple, mixes: Sequence[Mix], tick: Tick = idle):
        """Raises NotStackable, LiveError, ReadError, TripleError, and what `tick` raises; all points must be of one config."""
        self.triple = triple
        self._live = LiveModel(triple, mixes[0], tick=tick)
        self.device = self._live.device
        self.mixes: list[Mix | None] = [None] * len(mixes)
        self._fingerprints = [""] * len(mixes)
        try:
            self._rows, self.model = stacked(self._live.model, len(mixes))
            self._try_out()
        except NotStackable:
            raise
        except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise NotStackable(f"Models of this family cannot be answered with as one batch ({error}).") from error
        self.move(mixes, tick)

    def fits(self, mixes: Sequence[Mix]) -> bool:
        """Whether its rows can move there: as many, and with the same forward pass."""
        return len(mixes) == len(self.mixes) and all(self._live.fits(mix) for mix in mixes)

    def move(self, mixes: Sequence[Mix], tick: Tick = idle) -> None:
        """Set every row in place to its point. Raises what LiveModel.move raises, and the rows are then unknown."""
        for row, mix in enumerate(mixes):
            if mix != self.mixes[row]:
                self.mixes[row], self._fingerprints[row] = None, ""
                self._live.move(mix, tick)
                self._put(row)
                self.mixes[row] = mix

    def fingerprint(self, row: int, tick: Tick = idle) -> str:
        """As LiveModel's, over the weights that this row answers with."""
        if not self._fingerprints[row]:
            self._fingerprints[row] = digest(((name, rows[row]) for name, rows in self._rows.items()), tick)
        return self._fingerprints[row]

    @property
    def nbytes(self) -> int:
        return self._live.nbytes * len(self.mixes)

    def _put(self, row: int, sign: int = 1) -> None:
        for name, weights in self._live.model.state_dict().items():
            torch.mul(weights, sign, out=self._rows[name][row])

    @torch.inference_mode()
    def _try_out(self) -> None:
        """Raises NotStackable unless the first row and the last answer as the live model does, whatever is in the others."""
        last = len(self.mixes) - 1
        embedding: Any = self._live.model.get_input_embeddings()
        ids = torch.arange(1, 9, device=self.device)[None] % len(embedding.weight)
        wanted = self._live.model(ids).logits.double()
        tolerance = 1e-3 if self._live.model.dtype in (torch.float32, torch.float64) else 0.05
        for mine in {0, last}:
            for row in range(len(self.mixes)):
                self._put(row, 1 if row == mine else -1)
            found = self.model(ids.expand(len(self.mixes), -1)).logits[mine].double()
            if not bool((found - wanted[0]).norm() <= tolerance * wanted.norm()):
                raise NotStackable("Models of this family answer otherwise as rows of one batch.")


def stacked(model: Any, rows: int) -> tuple[dict[str, torch.Tensor], Any]:
    """A model of so many rows for a model of one: the stacks [rows, …] by the names of its state, and the new model that
    holds views of them. Raises NotStackable."""
    if rope_kinds(model.config) & {"longrope", "dynamic"}:
        raise NotStackable("Models of this family choose their rotary frequencies by the longest row.")
    state = model.state_dict(keep_vars=True)
    if any(not isinstance(weights, nn.Parameter) for weights in state.values()):
        raise NotStackable("Models of this family have buffers among their weights.")
    held = {id(p): torch.empty((rows, *p.shape), dtype=p.dtype, device=p.device) for p in model.parameters()}
    wide = copy.deepcopy(model, {id(p): p for p in model.parameters()})  # shares the weights, until they are exchanged
    dimensions = shapes_of(model)
    for name, module in wide.named_modules():
        own = {key: held[id(p)] for key, p in module._parameters.items() if p is not None}
        if own:
            change(module, own, dimensions.get(name, 3))
    return {name: held[id(weights)] for name, weights in state.items()}, wide


def rope_kinds(config: Any) -> set[str]:
    """The kinds of rotary embedding that a config asks for, in whatever place."""
    text = config.get_text_config()
    found = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    several = [found, *(part for part in found.values() if isinstance(part, dict))]
    return {str(part.get("rope_type", part.get("type"))) for part in several}


@torch.inference_mode()
def shapes_of(model: Any) -> dict[str, int]:
    """How many dimensions the first argument of every module has, by the module's name."""
    found: dict[str, int] = {}
    hooks = [
        module.register_forward_pre_hook(
            lambda _, args, name=name: found.__setitem__(name, args[0].dim() if args else 3)
        )
        for name, module in model.named_modules()
        if module._parameters
    ]
    try:
        model(torch.zeros(1, 2, dtype=torch.long, device=model.device))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def change(module: nn.Module, own: dict[str, torch.Tensor], dimensions: int) -> None:
    """Give a module its stacks [rows, …], in the form in which it can use them. Raises NotStackable."""
    if type(module) in KINDS:
        module.__class__ = KINDS[type(module)]
    elif isinstance(module, nn.Embedding):
        rows, words, _ = own["weight"].shape
        own = {"weight": own["weight"].flatten(0, 1)}
        starts = torch.arange(rows, device=own["weight"].device)[:, None] * words
        module.padding_idx = None
        module.register_forward_pre_hook(lambda _, args: (args[0] + starts, *args[1:]))
    elif not list(module.children()) and all(stack.dim() == 2 for stack in own.values()):
        between = [1] * (dimensions - 2)  # a norm's scale, of any kind: it multiplies what it is given
        own = {key: stack.view(len(stack), *between, stack.shape[1]) for key, stack in own.items()}
    else:
        raise NotStackable(f"Models of this family have weights in a {type(module).__name__}.")
    for key, stack in own.items():
        module._parameters[key] = nn.Parameter(stack, requires_grad=False)


def product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """x [rows, …, in] times weight [rows, in, out], plus bias [rows, out]."""
    flat = x.contiguous().view(len(weight), -1, x.shape[-1])
    out = torch.bmm(flat, weight) if bias is None else torch.baddbmm(bias[:, None], flat, weight)
    return out.view(*x.shape[:-1], out.shape[-1])


class StackedLinear(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return product(x, self.weight.transpose(1, 2), self.bias)


class StackedConv1D(Conv1D):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return product(x, self.weight, self.bias)


class StackedLayerNorm(nn.LayerNorm):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        between = (len(self.weight), *[1] * (x.dim() - 2), x.shape[-1])
        normed = nn.functional.layer_norm(x.float(), self.normalized_shape, None, None, self.eps)
        scaled = normed * self.weight.view(between)
        return (scaled if self.bias is None else scaled + self.bias.view(between)).to(x.dtype)


KINDS: dict[type, type] = {nn.Linear: StackedLinear, Conv1D: StackedConv1D, nn.LayerNorm: StackedLayerNorm}
