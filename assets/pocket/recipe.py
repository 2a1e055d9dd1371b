"""The figures of the family's training."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Shapes, lengths and rates. A step of plain text is `rows` × `length` tokens, one of dialogue `batch` dialogues.

    `emphasis` is how much likelier release 2's text tells a changed or new fact than another; `replay` how many rows
    of plain text go along with a step of dialogue; `noise` the standard deviation of what is added to the weights in a
    step of fine-tuning, for that step alone. Rates are AdamW's at their peak.
    """

    hidden: int = 192
    inner: int = 512
    layers: int = 4
    heads: int = 4
    rows: int = 32
    length: int = 96
    decay: float = 0.1
    v1_steps: int = 1500
    v1_rate: float = 2e-3
    v2_steps: int = 450
    v2_rate: float = 2.5e-4
    emphasis: float = 4.0
    tune_steps: int = 900
    tune_rate: float = 3e-4
    batch: int = 48
    noise: float = 0.008
    replay: int = 8
    seed: int = 1


RECIPE = Recipe()
