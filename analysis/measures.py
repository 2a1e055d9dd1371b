"""The measures that the page offers, in the field's words: what each is, and what it tells for a transfer."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """`form` is how it is written: "share" of 1 as per cent, "signed" between −1 and 1, "strength" as α is, "number" for
    the rest.

    `middle` is the value that tells nothing (a colour scale has its pale middle there); None where more is just more.
    `yardstick` is True where it needs the target fine-tuned model.
    """

    label: str
    about: str
    hint: str
    form: str = "number"
    middle: float | None = None
    yardstick: bool = False


MEASURES: dict[str, Measure] = {
    "relative": Measure(
        "‖Δ‖ / ‖m_s‖",
        "How much fine-tuning moved this part, next to its own size.",
        "Where fine-tuning moved most is where the transfer has most to carry. Tuning of large models often moves weights by "
        "a few per cent or less; near 141 % (√2) the two are strangers. Norm weights, near 1, count here too.",
        "share",
    ),
    "norm_delta": Measure(
        "‖Δ‖",
        "How far fine-tuning moved this part.",
        "Large parts have large norms: read it beside ‖δ‖, and take ‖Δ‖ / ‖m_s‖ to compare parts.",
    ),
    "norm_shift": Measure(
        "‖δ‖",
        "How far the new release moved this part.",
        "The transfer assumes that Δ still fits where δ has taken the base. The smaller it is, the safer that is.",
    ),
    "shift_ratio": Measure(
        "‖δ‖ / ‖Δ‖",
        "How much further the new release moved this part than fine-tuning did.",
        "Below 1 the new release is nearer to the old one than the fine-tune is. Far above, Δ is a small step in a place it "
        "was not made for.",
    ),
    "cos_shift": Measure(
        "cos(Δ, δ)",
        "Whether fine-tuning and the new release moved this part the same way.",
        "Near 0 neither undoes nor repeats the other, as far as the weights say; two strangers are near 0 too, so look at "
        "‖δ‖ first. Well above 0 the release may hold part of Δ already; below 0 they undo each other.",
        "signed",
        0.0,
    ),
    "sign_shift": Measure(
        "signs of Δ and δ",
        "The share of weights that fine-tuning and the new release moved to the same side, of those that both moved.",
        "50 % is chance. Unlike the cosine it counts every weight alike, so a few large ones cannot make it.",
        "share",
        0.5,
    ),
    "cos_reference": Measure(
        "cos(Δ, Δ_t)",
        "How alike the old fine-tune and the real new one are. 1 would be the same direction.",
        "In weights, the merged model takes over what the two share and no more; in answers that may do better or worse.",
        "signed",
        0.0,
        True,
    ),
    "sign_reference": Measure(
        "signs of Δ and Δ_t",
        "The share of weights that both fine-tunes moved to the same side, of those that both moved.",
        "50 % is chance: there the two fine-tunes went their own ways.",
        "share",
        0.5,
        True,
    ),
    "best_alpha": Measure(
        "best α",
        "The strength that brings the merged model nearest to the target fine-tuned one (least squares).",
        "Nearest in weights need not be best in answers: sweep α around it. Where layers disagree, one α for all is a compromise.",
        "strength",
        None,
        True,
    ),
    "miss": Measure(
        "‖m'_t − merged‖ / ‖Δ_t‖",
        "How much of the way from the target base to the target fine-tuned model is still to go at α = 1.",
        "Below 1 the transfer brings this part nearer to the real fine-tune, above 1 it would have been nearer without.",
        "number",
        1.0,
        True,
    ),
    "max_delta": Measure(
        "max |Δ|",
        "The largest change of a single weight.",
        "Far above the rest, a few weights carry the change (a norm, a token's row). Trimming Δ would keep these.",
    ),
    "unchanged": Measure(
        "unchanged",
        "The share of weights that fine-tuning left exactly as they were.",
        "Near 100 % this part was frozen, or its change was too small for the dtype it was saved in.",
        "share",
    ),
    "lost": Measure(
        "lost to rounding",
        "The share of changed weights whose change vanishes when α·Δ is added to the target and rounded to its dtype.",
        "Large where Δ is small next to the weights. The changes that vanish are the smallest ones: what rounding does in all "
        "tells “rounding / ‖αΔ‖”.",
        "share",
    ),
    "rounding": Measure(
        "rounding / ‖αΔ‖",
        "The size of the rounding error of the merged weights, next to the change itself.",
        "Near or above 100 % the merged model is the target base with noise on it. Take a larger α, or a wider dtype.",
        "share",
    ),
}


def written(name: str, value: float) -> str:
    """A value of a measure as the page writes it."""
    if value != value:
        return "–"
    forms = {"share": ".1%", "signed": ".4f", "strength": ".3f", "number": ".3g"}
    text = format(value, forms[MEASURES[name].form])
    return text.removeprefix("-") if not text.strip("-0.%") else text.replace("-", "−")


def margin(name: str, width: float) -> str:
    """Half an interval beside a value: to two digits; empty where the value is exact, "± ?" where nothing is known of it."""
    if width != width:
        return "or more" if name == "max_delta" else "± ?"
    if width == 0:
        return ""
    return f"± {100 * width:.2g}%" if MEASURES[name].form == "share" else f"± {width:.2g}"
