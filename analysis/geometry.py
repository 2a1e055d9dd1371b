"""Norms, cosines and projections out of Gram matrices: for one tensor, or for any group of them by summing.

With G the Gram matrix of (m_s, Δ, δ, Δ_t): ‖Δ‖ = √G₁₁, cos(Δ, δ) = G₁₂ / √(G₁₁G₂₂), and the α that brings m_t + αΔ
nearest to m'_t is the least-squares one, ⟨Δ, Δ_t⟩ / ⟨Δ, Δ⟩ = G₁₃ / G₁₁.
"""

import re
from collections.abc import Iterable

import numpy as np
import pandas as pd

from .gram import TensorGram

OUTSIDE = "outside the layers"

# Measures that the page offers: column → (what it is called, what it tells for a transfer).
MEASURES = {
    "relative": ("‖Δ‖ / ‖m_s‖", "How much fine-tuning moved this part, next to its own size."),
    "norm_delta": ("‖Δ‖", "How far fine-tuning moved this part."),
    "norm_shift": ("‖δ‖", "How far the new release moved this part. Far beyond ‖Δ‖, a transfer gets risky."),
    "cos_shift": ("cos(Δ, δ)", "Near 0, fine-tuning and the new release touch different things and add up cleanly."),
    "cos_reference": (
        "cos(Δ, Δ_t)",
        "How alike the old fine-tune and the real new one are. 1 would be the same direction.",
    ),
    "best_alpha": ("best α", "The strength that brings the merged model nearest to the target fine-tuned one."),
    "unchanged": ("unchanged", "The share of weights that fine-tuning left exactly as they were."),
    "lost": (
        "lost to rounding",
        "The share of changed weights whose change vanishes when added to the target at α = 1.",
    ),
}


def place(name: str) -> tuple[int | None, str]:
    """A tensor's layer and module kind by its name: `model.layers.3.mlp.up_proj.weight` → (3, "mlp.up_proj").

    Experts of one layer are one kind. The layer is None outside the numbered blocks.
    """
    parts = name.removesuffix(".weight").split(".")
    numbers = [i for i, part in enumerate(parts) if part.isdigit()]
    tower = next(
        (part for part in parts if "vision" in part or "audio" in part), None
    )  # else its layers mix with the text's
    if not numbers:
        return None, ".".join(parts[-2:] if len(parts) > 2 and parts[-1] == "bias" else parts[-1:])
    kind = ".".join(part for part in parts[numbers[0] + 1 :] if not part.isdigit())
    kind = re.sub(r"^(self_attn|attention|block_sparse_moe)\.", "attn." if "att" in kind else "moe.", kind)
    return int(parts[numbers[0]]), f"{tower}: {kind}" if tower else kind


def tensor_table(grams: Iterable[TensorGram]) -> pd.DataFrame:
    """One row a tensor, with its place, its raw Gram entries (`g00` … `g33`) and counts: what groups are summed from."""
    rows = []
    for t in grams:
        layer, kind = place(t.name)
        entries = {f"g{i}{j}": t.gram[i, j] for i in range(4) for j in range(i, 4)}
        shape = "×".join(map(str, t.shape))
        counts = {"numel": int(np.prod(t.shape)), "n_unchanged": t.unchanged, "n_lost": t.lost, "residue": t.residue}
        rows.append({"tensor": t.name, "layer": layer, "kind": kind, "shape": shape, **counts, **entries})
    table = pd.DataFrame(rows)
    table["layer"] = table["layer"].astype("Int64")
    return table.sort_values(["layer", "tensor"], na_position="first", ignore_index=True)


def measure(sums: pd.DataFrame) -> pd.DataFrame:
    """The measures of every row of summed (or single) Gram entries; NaN where a vector is zero or m'_t is missing."""

    def ratio(a, b):
        a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
        return np.divide(a, b, out=np.full_like(a, np.nan), where=b > 0)

    delta, shift, reference = np.sqrt(sums["g11"]), np.sqrt(sums["g22"]), np.sqrt(sums["g33"])
    flat = sums["g11"] * sums["g22"] - sums["g12"] ** 2
    alpha = ratio(sums["g13"] * sums["g22"] - sums["g23"] * sums["g12"], flat)
    beta = ratio(sums["g23"] * sums["g11"] - sums["g13"] * sums["g12"], flat)
    off = np.sqrt(np.maximum(sums["g33"] - alpha * sums["g13"] - beta * sums["g23"], 0))
    miss = np.sqrt(np.maximum(sums["g33"] - 2 * sums["g13"] + sums["g11"], 0))
    return pd.DataFrame(
        {
            "norm_base": np.sqrt(sums["g00"]),
            "norm_delta": delta,
            "norm_shift": shift,
            "norm_reference": reference,
            "relative": ratio(delta, np.sqrt(sums["g00"])),
            "cos_shift": ratio(sums["g12"], delta * shift),
            "cos_reference": ratio(sums["g13"], delta * reference),
            "best_alpha": ratio(sums["g13"], sums["g11"]),
            "miss": ratio(miss, reference),  # ‖m'_t − merged‖ / ‖Δ_t‖: 1 is no nearer than the bare target base
            "nearest_alpha": alpha,  # the point of the plane nearest to m'_t …
            "nearest_beta": 1 + beta,
            "off_plane": ratio(off, reference),  # … and its distance to m'_t / ‖Δ_t‖
            "unchanged": ratio(sums["n_unchanged"], sums["numel"]),
            "lost": ratio(sums["n_lost"], sums["numel"] - sums["n_unchanged"]),
            "rounding": ratio(np.sqrt(sums["residue"]), delta),
        },
        index=sums.index,
    )


def grouped(table: pd.DataFrame, by: list[str] | str) -> pd.DataFrame:
    """The measures by layer, by module kind, or both: Gram entries are summed first. Tensors outside the layers count
    under a missing layer."""
    numbers = table.columns[4:]
    sums = table.groupby(by, dropna=False, sort=False)[list(numbers)].agg(lambda column: column.sum(skipna=False))
    return pd.concat([sums["numel"].astype(np.int64), measure(sums)], axis=1).reset_index()


def total(table: pd.DataFrame) -> pd.Series:
    """The measures over all tensors."""
    sums = table[list(table.columns[4:])].sum(skipna=False).to_frame().T
    return measure(sums).iloc[0]


def by_tensor(table: pd.DataFrame) -> pd.DataFrame:
    """The table to take away: one row a tensor, in the order of depth."""
    full = pd.concat([table[["tensor", "layer", "kind", "shape", "numel"]], measure(table)], axis=1)
    return full
