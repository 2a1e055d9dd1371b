"""The endpoints for programs by plain values, for gradio_client and curl: preflight, compare, spectrum, sweep, landscape,
verdict and ask."""

from dataclasses import asdict
from typing import Any

import gradio as gr

from analysis.comparison import compare as comparisons
from analysis.decompose import estimate_seconds
from analysis.gathering import MOST_SEEDS, barrier_table, barriers, evidence_of, plan
from analysis.landscape import landscape
from analysis.scores import Scorer
from analysis.spectrum import spectra, spectra_table
from analysis.sweep import MOST_STEPS, Row, best, closer, corners, sweep
from analysis.sweep import along as steps_along
from analysis.verdict import verdict
from transfer.chat import Asked, answer
from transfer.errors import ChatError, TransferscopeError
from transfer.plane import CORNERS, Path, point
from transfer.prompt import MANNERS
from transfer.sampling import Sampling
from transfer.talk import Pane
from transfer.triple import size

from . import plane, scoring
from .along import REFINED
from .desk import ORDER, SECONDS
from .inputs import number, whole, words
from .paths import SAME, asked
from .shared import Shared
from .spectrum import piece
from .swept import Swept, summary
from .turns import affordable
from .work import Turn, say


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

    def scored(sets: list[str] | None, text: str, limit: int) -> list[Scorer]:
        return scoring.chosen(sets if sets or text else scoring.POCKET, limit, True, None, text, "")

    def score(
        source_base: str, source_tuned: str, target_base: str, target_tuned: str = "", path: str = "strength", start: float = 0.0,
        end: float = 1.5, count: int = 7, sets: list[str] | None = None, text: str = "", limit: int = 0, refine: bool = False,
    ) -> dict[str, Any]:  # fmt: skip
        """Scores along a path: "strength" (α at β = 1), "source_target", "bases", "yardstick" (merged → target fine-tuned),
        "bottom" or "top" (Δ layer by layer); the parents beside it, and the best step by each score with how sure it is.

        `sets` are names as in the Sweep tab's list, `text` is one of your own, `limit` the items of each at most (0: all).
        """
        triple = shared.here(refs_of(source_base, source_tuned, target_base, target_tuned))
        scorers = scored(sets, text, limit)
        wanted = asked(triple, path, start, end, count, refine, *[0, 0, 1, 1], SAME, 1, 1, "")
        prompter, kept = shared.prompter(triple), shared.results
        scoring.bounded(scorers, len(triple.checkpoints) + len(wanted.at))
        rows = list(sweep(shared.store, triple, prompter, corners(triple), scorers, kept))
        if refine and isinstance(wanted.path, Path):
            rows += closer(shared.store, triple, prompter, wanted.path, wanted.at, scorers, REFINED, kept)
        else:
            rows += sweep(shared.store, triple, prompter, steps_along(wanted.path, wanted.at), scorers, kept)
        tops = {s.name: best(rows, s) for s in scorers}
        return {
            "points": [told(row) for row in rows],
            "best": {name: top.t for name, top in tops.items() if top},
            "summary": summary(Swept(triple, wanted, scorers, rows, sum(row.seconds for row in rows))),
        }

    def map_plane(
        source_base: str, source_tuned: str, target_base: str, target_tuned: str = "", low: float = -0.25, high: float = 1.5,
        count: int = 5, extra: int = 0, sets: list[str] | None = None, text: str = "", limit: int = 0,
    ) -> dict[str, Any]:  # fmt: skip
        """Scores over a square of the plane: `count` values of α and of β from `low` to `high`, then `extra` finer points."""
        triple = shared.here(refs_of(source_base, source_tuned, target_base, target_tuned))
        alphas, betas, more = plane.axes([low, high, count, low, high, count, extra])
        scorers = scored(sets, text, limit)
        scoring.bounded(scorers, len(alphas) * len(betas) + more)
        rows = landscape(shared.store, triple, shared.prompter(triple), alphas, betas, scorers, more, shared.results)
        return {"points": [told(row) for row in rows]}

    def weigh(
        source_base: str, source_tuned: str, target_base: str, target_tuned: str = "", score: bool = True, count: int = 7,
        controls: int = 2, sets: list[str] | None = None, text: str = "", limit: int = 0,
    ) -> dict[str, Any]:  # fmt: skip
        """What the evidence says of this transfer. With `score` the corners, `count` steps of the paths between them and
        `controls` permuted Δ and δ are scored; without, it speaks from geometry and lineage alone."""
        triple = shared.here(refs_of(source_base, source_tuned, target_base, target_tuned))
        scorers = scored(sets, text, limit) if score else []
        points = plan(triple, whole(count, "count", 3, MOST_STEPS), whole(controls, "controls", 0, MOST_SEEDS))
        scoring.bounded(scorers, len(points))
        rows = (
            list(sweep(shared.store, triple, shared.prompter(triple), points, scorers, shared.results)) if score else []
        )
        if shared.comparison(triple, None) is None:
            *_, exact = comparisons(triple)
            shared.keep(triple, exact)
        given = evidence_of(rows, scorers)
        said = verdict(triple, shared.comparison(triple, None), shared.controls(triple), given)
        return {
            "headline": said.headline,
            "level": said.level,
            "statements": [asdict(s) for s in said.statements],
            "barriers": [clean(row) for row in barrier_table(barriers(triple, given)).to_dict("records")],
        }

    def told(row: Row) -> dict[str, Any]:
        """A row as JSON."""
        alpha, beta = row.mix.plane or (None, None)
        scores = {name: clean({"value": s.value, "stderr": s.stderr, "n": s.n}) for name, s in row.scores.items()}
        return {"point": row.label, "step": row.t, "alpha": alpha, "beta": beta, "error": row.error, **scores}

    def ask(
        source_base: str, source_tuned: str, target_base: str, target_tuned: str = "", prompt: str = "", alpha: float = 1.0,
        temperature: float = 0.0, max_tokens: int = 48, seed: int = 0, top_p: float = 1.0, system: str = "", manner: str = "own",
    ) -> dict[str, Any]:  # fmt: skip
        """One prompt to every corner and to the merged model at α. `manner` is "own" (each through its own chat template, a base
        without one goes on with the text), "tuned" (all through the source fine-tuned model's) or "plain"."""
        triple = shared.here(refs_of(source_base, source_tuned, target_base, target_tuned))
        sampling = Sampling(
            temperature=number(temperature, "temperature", 0, 2),
            top_p=number(top_p, "top_p", 0.01, 1),
            max_tokens=whole(max_tokens, "max_tokens", 1, 4096),
            seed=whole(seed, "seed", 0, 2**31 - 1),
        )
        merged = point(number(alpha, "alpha", -10, 10))
        names = [r for r in ORDER if r == "merged" or r in triple.checkpoints]
        panes = [Pane(n, merged if n == "merged" else CORNERS[n], n == "merged") for n in names]
        if manner not in MANNERS:
            raise ChatError(f"manner is one of {', '.join(MANNERS)}.")
        before = [{"role": "system", "content": told}] if (told := words(system, "system", 20_000)).strip() else []
        messages = (*before, {"role": "user", "content": words(prompt, "prompt", 20_000)})
        asked_ = [Asked(pane.at, messages, sampling, shared.voice(triple, pane, manner)) for pane in panes]
        *_, final = Turn({}, "ask").heed(answer(shared.store, triple, asked_), SECONDS)
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
        "landscape": map_plane,
        "verdict": weigh,
        "ask": ask,
    }.items():
        together = {"concurrency_id": "sweep"} if name in ("sweep", "landscape", "verdict") else {}
        gr.api(plain_errors(function), api_name=name, concurrency_limit=2, **together)


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
