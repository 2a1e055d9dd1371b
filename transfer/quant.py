"""Quantised weights: which formats we read, by config.json and the headers, and the values that their codes stand for.

In all of them a value is (code − zero point) · scale, where one scale serves a tile of the matrix: all of it, a row, a
group of columns in a row, or a block. What differs is the names:

- `fp8`, the fine-grained fp8 of transformers (transformers.integrations.finegrained_fp8, `_dequantize_fp8_weight`) and
  of DeepSeek-V3 (inference/kernel.py, `weight_dequant`): `X.weight_scale_inv`, which multiplies despite its name, a
  scale for each block of `weight_block_size`, the last blocks being cut; one for the tensor where that is null. AutoFP8
  writes that one as `X.weight_scale` (vllm.model_executor.layers.quantization.utils.w8a8_utils,
  `per_tensor_dequantize`).
- `fbgemm_fp8` (transformers.integrations.fbgemm_fp8, `FbgemmFp8Linear`): `X.weight_scale` of rows × 1.
- `compressed-tensors` in the formats that are not packed (compressed_tensors.quantization.lifecycle.forward,
  `_dequantize`): `X.weight_scale` for the tensor, of rows × 1, of rows × groups, or for each block of
  `block_structure`; where it is not symmetric `X.weight_zero_point` of the same shape.
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from .errors import CheckpointError
from .tensors import Scale, TensorInfo

KEYS = ("quantization_config", "compression_config")
FORMATS = ("float-quantized", "int-quantized", "naive-quantized", "dense")  # of compressed-tensors: a byte a code
CODES = ("F8_E4M3", "F8_E5M2")
SCALES = ("F32", "BF16", "F16", "F8_E8M0")
ZEROS = ("I8", "I32", "F8_E4M3")
# Of activations and caches, which merged weights do not have quantised.
OTHERS = (
    "activation_scale", "input_scale", "input_zero_point", "output_scale", "output_zero_point", "q_scale", "k_scale",
    "v_scale", "q_zero_point", "k_zero_point", "v_zero_point",
)  # fmt: skip
DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}


def parts(config: dict) -> Iterator[dict]:
    """The config, and the language model's own where it stands under `text_config`."""
    yield config
    if isinstance(config.get("text_config"), dict):
        yield config["text_config"]


def stated(config: dict) -> Any:
    """What the config says of quantisation; None where it says nothing."""
    return next((part[key] for part in parts(config) for key in KEYS if part.get(key)), None)


def unquantised(config: dict) -> dict:
    """A copy of a config that says nothing of quantisation."""
    plain = copy.deepcopy(config)
    for part in parts(plain):
        for key in KEYS:
            part.pop(key, None)
    return plain


def named(config: dict) -> str:
    """What the quantisation is called, for a sentence."""
    said = stated(config)
    if not isinstance(said, dict):
        return str(said)
    method = str(said.get("quant_method", "quantised"))
    return f"{method} {said['format']}" if method == "compressed-tensors" and said.get("format") else method


def readable(said: dict) -> bool:
    """Whether a `quantization_config` describes a format that we read."""
    method = said.get("quant_method")
    if method != "compressed-tensors":
        return method == "fbgemm_fp8" or (method == "fp8" and said.get("expert_dtype", "fp8") == "fp8")
    formats = [said, *groups(said)]
    sparse, turned = said.get("sparsity_config") or {}, said.get("transform_config") or {}
    return (
        said.get("format") in FORMATS
        and all(one.get("format") in (None, *FORMATS) for one in formats)
        and isinstance(sparse, dict)
        and sparse.get("format") in (None, "dense")
        and isinstance(turned, dict)
        and not turned.get("config_groups")  # rotated: the weights stand in another basis
    )


def groups(said: dict) -> list[dict]:
    """The config groups of compressed-tensors, each a set of layers quantised alike."""
    found = said.get("config_groups")
    return [g for g in found.values() if isinstance(g, dict)] if isinstance(found, dict) else []


def tiles(said: dict) -> set[tuple[int, int]]:
    """The tiles of which the config speaks, rows × columns; besides these there are whole tensors and whole rows."""
    found = [said.get("weight_block_size")]
    for group in groups(said):
        weights = group.get("weights")
        if isinstance(weights, dict):
            found += [weights.get("block_structure"), [1, weights.get("group_size")]]
    pairs = [tuple(tile) for tile in found if isinstance(tile, list) and len(tile) == 2]
    return {(r, c) for r, c in pairs if type(r) is int and type(c) is int and min(r, c) > 0}


def tile_for(shape: tuple[int, ...], scales: tuple[int, ...], known: set[tuple[int, int]]) -> tuple[int, int] | None:
    """The tile that one number of a scale of this shape serves in a tensor of that one; None where they do not fit.

    Where a side of the scale is 1 or that of the tensor it is plain broadcasting; else it is as the config says.
    """
    rows, columns = shape[-2:] if len(shape) > 1 else (1, math.prod(shape))
    if math.prod(scales) == 1:
        return rows, columns
    stacked = zip(shape[:-2], scales[:-2], strict=False)  # experts, each a matrix
    if len(shape) < 2 or len(scales) != len(shape) or any(of not in (1, n) for n, of in stacked):
        return None
    down, across = scales[-2:]
    fitting = {
        (rows if down == 1 else 1 if down == rows else r, columns if across == 1 else 1 if across == columns else c)
        for r, c in known | {(1, 1)}
        if down in (1, rows, -(-rows // r)) and across in (1, columns, -(-columns // c))
    }
    return fitting.pop() if len(fitting) == 1 else None


def recognise(ref: str, config: dict, tensors: dict[str, TensorInfo]) -> dict[str, TensorInfo]:
    """The tensors of a checkpoint as what they hold: quantised ones with their scale, and no scales among them.

    Raises CheckpointError for what cannot be added: formats that we do not read, and codes that no scale goes with.
    """
    said, how = stated(config), named(config)
    if said is not None and not (isinstance(said, dict) and readable(said)):
        raise refused(ref, how)
    if said is None:
        narrow = [info.dtype for info in tensors.values() if is_narrow(info)]
        if narrow:
            raise refused(ref, narrow[0])
        return tensors
    codes = (*CODES, "I8") if said.get("quant_method") == "compressed-tensors" else CODES
    dtypes = (str(part.get(key)) for part in parts(config) for key in ("dtype", "torch_dtype") if part.get(key))
    values, known, found = DTYPES.get(next(dtypes, ""), "BF16"), tiles(said), {}
    beside = {name + ending for name in tensors for ending in ("_scale", "_scale_inv", "_zero_point")}
    for name, info in tensors.items():
        if name in beside or name.rpartition(".")[2] in OTHERS:
            continue
        scale = tensors.get(f"{name}_scale_inv") or tensors.get(f"{name}_scale")
        if info.dtype in codes:
            zero = tensors.get(f"{name}_zero_point")
            tile = tile_for(info.shape, scale.shape, known) if scale and scale.dtype in SCALES else None
            fits = zero is None or (scale is not None and zero.shape == scale.shape and zero.dtype in ZEROS)
            if scale is None or tile is None or not fits:
                raise refused(ref, how, name)
            info = replace(info, scale=Scale(scale, zero, tile, values))
        elif is_narrow(info) or name.endswith(("_packed", "_g_idx")) or (scale and info.dtype not in DTYPES.values()):
            raise refused(ref, how, name)
        found[name] = info
    return found


def is_narrow(info: TensorInfo) -> bool:
    """Whether a tensor's dtype is one of fp8, fp6 and fp4, whose numbers mean nothing without a scale."""
    return info.dtype.startswith(("F8_", "F6_", "F4"))


def refused(ref: str, how: str, name: str = "") -> CheckpointError:
    """The sentence for a checkpoint whose weights are no numbers to us, for the sake of one tensor or of its format."""
    why = f", and how {name} is scaled is not documented" if name else ""
    return CheckpointError(
        f"{ref} is quantised ({how}){why}: its numbers cannot be added. Take the unquantised checkpoint."
    )


def dequantise(
    info: TensorInfo, codes: torch.Tensor, start: int, scale: torch.Tensor, zero: torch.Tensor | None
) -> torch.Tensor:
    """(code − zero point) · scale in float32, rounded once: the values of a flat piece of a tensor.

    `codes` are the elements from `start` on, as stored; `scale` and `zero` are whole, flat and of float32.
    """
    assert info.scale is not None
    if codes.dtype == torch.int8:
        values = codes.to(torch.float32)
    else:  # a table: torch's own conversion takes five times as long
        values = TABLES[codes.dtype].index_select(0, codes.view(torch.uint8).int())
    if zero is not None:
        values.sub_(stretch(info, zero, start, len(codes)))
    return values.mul_(stretch(info, scale, start, len(codes)))


def stretch(info: TensorInfo, grid: torch.Tensor, start: int, count: int) -> torch.Tensor:
    """The number of a grid, one a tile, for each of the elements [start, start + count) of a flat tensor."""
    assert info.scale is not None
    if len(grid) == 1 or not count:
        return grid[:1]
    (rows, columns), (high, wide) = info.shape[-2:], info.scale.tile
    down, across = -(-rows // high), -(-columns // wide)
    first, last = start // columns, (start + count - 1) // columns
    row = torch.arange(first, last + 1)
    row = row % rows // high + (row // rows * down if len(grid) > down * across else 0)
    lines = grid.view(-1, across)[row]
    full = lines[:, :, None].expand(-1, -1, wide).reshape(len(row), -1)[:, :columns].reshape(-1)
    return full[start - first * columns :][:count]


TABLES = {
    dtype: torch.arange(256, dtype=torch.uint8).view(dtype).float()
    for dtype in (torch.float8_e4m3fn, torch.float8_e5m2)
}
