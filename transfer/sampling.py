"""How answers are drawn from a model's next-token distribution: temperature, nucleus, seed."""

from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field


class Sampling(BaseModel):
    """How answers are drawn. Temperature 0 takes the likeliest token always; equal seeds give equal answers, but for near-ties
    in 16 bit, which may fall otherwise in a batch than alone."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_tokens: Annotated[int, Field(ge=1, le=4096)] = 64
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0


class Draw:
    """Draws of one answer by its own seed, safe beside other threads, and the same whatever else is in the batch."""

    def __init__(self, sampling: Sampling):
        self.sampling = sampling
        self.generator = torch.Generator().manual_seed(sampling.seed)

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits [vocabulary] of any float dtype → float64 scores whose argmax is the draw.

        argmax(logits / T + Gumbel noise) is a draw from the softmax at temperature T (Maddison, Tarlow and Minka 2014,
        arXiv 1411.0030), here of the smallest set of tokens that holds `top_p` of it (Holtzman et al. 2020,
        arXiv 1904.09751, section 3.1).
        """
        scores = logits.double()
        if not self.sampling.temperature:
            return scores
        scores = nucleus(scores / self.sampling.temperature, self.sampling.top_p)
        uniform = torch.rand(len(scores), generator=self.generator, dtype=torch.float64).clamp_(1e-300)
        return scores - torch.log(-torch.log(uniform)).to(scores.device)


def nucleus(scores: torch.Tensor, top_p: float) -> torch.Tensor:
    """Logits [vocabulary] with −inf for all but the likeliest tokens that together hold at least `top_p`."""
    if top_p == 1:
        return scores
    ordered, places = scores.sort(descending=True)
    shares = ordered.softmax(-1)
    out = shares.cumsum(-1) - shares >= top_p  # what the likelier ones hold already; the first never goes
    return scores.masked_fill(torch.zeros_like(out).scatter(0, places, out), -torch.inf)
