"""What the image loss compares states with: X itself, a placebo, or the oracle (``VdepSettings.target``). Pure functions.

X is (pictures, image_tokens, dim), the projector's output. All but X itself are detached. ``random`` and the oracle get the
length of X at each position: they differ from it in direction alone.
"""

from __future__ import annotations

import torch
from torch import Tensor


def shuffled(x: Tensor, order: Tensor) -> Tensor:
    """X with its positions in another order, (pictures, image_tokens) int64."""
    return x.detach().gather(1, order.unsqueeze(-1).expand_as(x))


def with_norm_of(x: Tensor, direction: Tensor) -> Tensor:
    """``direction``, which broadcasts to X, as long as X is at each position."""
    x = x.detach()
    unit = torch.nn.functional.normalize(direction.to(_precise(x)), dim=-1)
    return (unit * x.to(_precise(x)).norm(dim=-1, keepdim=True)).to(x.dtype)


def random_sequence(seed: int, tokens: int, dim: int) -> Tensor:
    """(tokens, dim) float32, one draw from the seed for all pictures: normal, so that no direction is preferred."""
    return torch.randn(tokens, dim, generator=torch.Generator().manual_seed(seed))


def mean_of_words(embeddings: Tensor, words: Tensor) -> Tensor:
    """(pictures, 1, dim): the mean embedding of the words of each picture.

    Args:
        embeddings: (pictures, most words, dim); ``words`` (pictures, most words) their ids, -1 behind the last of each.
    """
    there = (words >= 0).unsqueeze(-1).to(_precise(embeddings))
    return (embeddings.detach() * there).sum(1, keepdim=True) / there.sum(1, keepdim=True)


def _precise(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
