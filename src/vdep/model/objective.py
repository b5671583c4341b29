"""The objective of VDEP: hidden states, image embeddings, masks -> losses. It knows nothing of models or loops.

L = L_t + alpha * L_i (paper, Eq. 10). L_t is the mean cross-entropy over the supervised text tokens, L_i the mean over the
supervised image positions of a distance between the projector's embedding X and the language model's last hidden state h
(after its final norm, what the head reads). Both means run over the *global* batch, so that the result depends neither on
the number of GPUs nor on gradient accumulation: the functions here return sums, and the caller divides by global counts.

What the paper leaves open, and where it is decided (docs/decisions.md):
  position        h[p] against X[p] (``same``), or h[p-1] against X[p] (``next``)
  detach_target   whether the gradient also reaches the projector through the target
  reduction       squared errors averaged over dimensions, or summed as Eq. 6 reads literally
  normalize       whether h and X are layer-normalised (without parameters) first
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE_INDEX = -100


def _precise(values: Tensor) -> Tensor:
    """Losses are computed in float32, or in float64 where the model is."""
    return values if values.dtype == torch.float64 else values.float()


def text_loss_sum(hidden: Tensor, labels: Tensor, head: torch.nn.Module) -> Tensor:
    """Sum of the cross-entropy over supervised tokens; the head is computed at those positions only.

    Args:
        hidden: (batch, length, dim), what ``head`` reads.
        labels: (batch, length), each token's own id where it is supervised and ``IGNORE_INDEX`` elsewhere. The state at a
            position predicts the token after it; a supervised first token has no predecessor and does not count.
        head: maps (tokens, dim) to logits (tokens, vocabulary).

    Returns:
        A scalar in float32 (float64 for such a model); 0 with a gradient of 0 where nothing is supervised.
    """
    targets = labels[:, 1:]
    supervised = targets != IGNORE_INDEX
    states = hidden[:, :-1][supervised]
    return F.cross_entropy(_precise(head(states)), targets[supervised], reduction="sum")


def image_loss_sum(
    hidden: Tensor,
    embeddings: Tensor,
    supervised: Tensor,
    *,
    loss: Literal["l2", "sigmoid_l2", "inverse_l2"] = "l2",
    position: Literal["same", "next"] = "same",
    detach_target: bool = True,
    reduction: Literal["mean", "sum_dims"] = "mean",
    normalize: Literal["none", "layer_norm"] = "none",
    inverse_floor: float = 1e-6,
) -> Tensor:
    """Sum of the image loss over supervised image positions (paper, Eq. 6 and Tables 8-10).

    Args:
        hidden: (batch, length, dim), last hidden states after the final norm.
        embeddings: (batch, length, dim), the language model's input, which at image positions is the projector's output X.
        supervised: (batch, length) bool, image positions that are trained. With ``next``, a position without a predecessor
            is not supervised.
        inverse_floor: added to d in ``inverse_l2`` = 1/(d + floor), so that a perfect copy stays finite.

    Returns:
        A scalar in float32 (float64 for such a model).
    """
    if position == "next":
        hidden, embeddings, supervised = hidden[:, :-1], embeddings[:, 1:], supervised[:, 1:]
    states = _precise(hidden[supervised])
    targets = _precise(embeddings[supervised])
    if detach_target:
        targets = targets.detach()
    if normalize == "layer_norm":
        states = F.layer_norm(states, states.shape[-1:])
        targets = F.layer_norm(targets, targets.shape[-1:])
    squared = (states - targets).square()
    distance = squared.mean(-1) if reduction == "mean" else squared.sum(-1)
    if loss == "sigmoid_l2":
        distance = distance.sigmoid()
    elif loss == "inverse_l2":
        # read literally, 1/L2 rewards distance: it is built and reported as what it is
        distance = 1.0 / (distance + inverse_floor)
    return distance.sum()
