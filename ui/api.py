"""The endpoints for programs: preflight, compare, sweep and ask by plain values, for gradio_client and curl."""

from typing import Any

import gradio as gr

from analysis.comparison import compare as comparisons
from analysis.decompose import estimate_seconds
from analysis.spectrum import spectra, spectra_table
from analysis.sweep import best, steps, sweep
from transfer.chat import Sampling, answer
from transfer.errors import TransferscopeError
from transfer.plane import CORNERS, PATHS, point
from transfer.triple import size

from .chat import ORDER
from .inputs import number, whole, words
from .presets import default_text
from .shared import Shared
from .spectrum import piece
from .sweep import chosen_task
from .turns import affordable
from .work import say


def build(shared: Shared) -> None:
    """Name the endpoints; call inside gr.Blocks. References are `pocket/…`, Hub ids or, on a local page, folders."""

    def refs_of(source_base: str, source_tuned: str, target_base: str, target_tuned: str) -> dict[str, str]:
        given = {
            "source_base": source_base,
            "source_tuned": source_tuned,
            "target_base": target_base,
            "target_tuned": target_tuned,
        }
        return {role: words(ref, role, 400) for role, ref in given.items()}

    def preflight(source_base: str, source_tuned: str, target_base: str, target_tuned: str = "") -> dict[str, Any]:
        """What fits and what does not, from headers alone."""
        triple = shared.triple(refs_of(source_base, source_tuned, target_base, target_tuned))
        return {
            "identity": triple.identity,
            "bytes_to_download": triple.missing,
            "findings": [{"level": f.level, "text": f.text} for f in triple.findings],
        }

    def compare(
        source_base: str, source_tuned: str, target_base: str, target_tuned: str = "", alpha: float = 1.0, sample: bool = False,
    ) -> dict[str, Any]:  # fmt: skip
        """Norms and cosines of the diff vector: over all tensors, and for each. `alpha` is where rounding is looked at.

        With `sample`, estimates from random blocks, in a second or so from a disk and without a download from the Hub,
        with half the width of their 95 % intervals under "interval".
        """
        triple = shared.triple(refs_of(source_base, source_tuned, target_base, target_tuned))
        strength = number(alpha, "alpha", -10, 10)
        if triple.missing and not sample:
            raise TransferscopeError(f"{size(triple.missing)} of weights are still on the Hub. Ask with sample=true.")
        found = shared.comparison(triple, strength)
        if found is None or not (found.exact or sample):
            *_, found = comparisons(triple, alpha=strength, exact=not sample)
            shared.keep(triple, found)
        return {
            "exact": found.exact,
            "total": clean(found.total.to_dict()),
            "interval": clean(found.widths(["all"]).drop(columns="all").iloc[0].to_dict()),
            "tensors": [clean(row) for row in found.frame().to_dict("records")],
        }

    def spectrum(
        source_base: str, source_tuned: str, target_base: str, target_tuned: str = "", tensor: str = "", exact: bool = False,
    ) -> dict[str, Any]:  # fmt: skip
        """One weight matrix: singular values of Δ and of δ, ranks, directions shared, intruder dimensions."""
        triple = shared.here(refs_of(source_base, source_tuned, target_base, target_tuned))
        matrix = piece(triple, words(tensor, "tensor", 400))
        affordable(8 * estimate_seconds((matrix.shape[0], matrix.shape[1]), exact))
        (found,) = spectra(triple, [matrix], exact or None)
        values = {name: {"values": s.values.tolist(), "errors": s.errors.tolist()} for name, s in found.spectra.items()}
        return {**clean(spectra_table([found]).iloc[0].to_dict()), "singular_values": values}

    def score(
        source_base: str, source_tuned: str, target_base: str, target_tuned: str = "", path: str = "strength", start: float = 0.0,
        end: float = 1.5, count: int = 7, task: str = "pocket",
    ) -> dict[str, Any]:  # fmt: skip
        """Exact match and loss along a path ("strength" or "source_target"), and the best step by each."""
        triple = shared.here(refs_of(source_base, source_tuned, target_base, target_tuned))
        if path not in PATHS:
            raise TransferscopeError("The path is “strength” or “source_target”.")
        at = steps(number(start, "start", -10, 10), number(end, "end", -10, 10), whole(count, "count", 2, 41))
        rows = list(
            sweep(
                shared.store, triple, shared.prompter(triple), PATHS[path], at, chosen_task(task, None), default_text()
            )
        )
        told = [
            {"point": r.label, "step": r.t, "error": r.error, **{n: {"value": s.value, "stderr": s.stderr, "n": s.n} for n, s in r.scores.items()}}
            for r in rows
        ]  # fmt: skip
        tops = {name: best(rows, name) for name in ("exact match", "loss")}
        return {"points": told, "best": {name: top.t for name, top in tops.items() if top}}

    def ask(
        source_base: str, source_tuned: str, target_base: str, target_tuned: str = "", prompt: str = "", alpha: float = 1.0,
        temperature: float = 0.0, max_tokens: int = 48, seed: int = 0,
    ) -> dict[str, Any]:  # fmt: skip
        """One prompt to every corner and to the merged model at α."""
        triple = shared.here(refs_of(source_base, source_tuned, target_base, target_tuned))
        sampling = Sampling(
            temperature=number(temperature, "temperature", 0, 2),
            max_tokens=whole(max_tokens, "max_tokens", 1, 4096),
            seed=whole(seed, "seed", 0, 2**31 - 1),
        )
        merged = point(number(alpha, "alpha", -10, 10))
        names = [r for r in ORDER if r == "merged" or r in triple.checkpoints]
        mixes = [merged if name == "merged" else CORNERS[name] for name in names]
        messages = [{"role": "user", "content": words(prompt, "prompt", 20_000)}]
        *_, final = answer(shared.store, triple, shared.prompter(triple), mixes, messages, sampling)
        return {
            name: {
                "text": a.text.strip(),
                "tokens": a.tokens,
                "fingerprint": a.fingerprint,
                "stopped": a.stopped,
                "error": a.error,
            }
            for name, a in zip(names, final, strict=True)
        }

    for name, function in {
        "preflight": preflight,
        "compare": compare,
        "spectrum": spectrum,
        "sweep": score,
        "ask": ask,
    }.items():
        gr.api(plain_errors(function), api_name=name, concurrency_limit=2)


def plain_errors(function: Any) -> Any:
    """The same function, with errors as sentences."""
    import functools

    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        try:
            return function(*args, **kwargs)
        except Exception as error:
            raise gr.Error(say(error), print_exception=False) from error

    return wrapped


def clean(row: dict[str, Any]) -> dict[str, Any]:
    """NaN and missing values as None, so that it is JSON."""
    return {
        k: None if v is None or v != v or str(v) == "<NA>" else getattr(v, "item", lambda v=v: v)()
        for k, v in row.items()
    }
