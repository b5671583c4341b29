"""The objective of VDEP: hidden states, image embeddings, weights -> losses. It knows nothing of models, loops or ranks.

L = L_t + alpha * L_i (paper, Eq. 10) is ``objective``. L_t is a weighted sum of the cross-entropy of supervised text tokens,
L_i one of the distance, at the supervised image positions, between the projector's embedding X and the language model's last
hidden state h (after its final norm, what the head reads). The weights say over what the means are taken (``data.weights``):
they are known from the data before a step, so that the result depends neither on the number of GPUs nor on accumulation.

What the paper leaves open, and where it is decided (docs/decisions.md):
  position        h[p] against X[p] (``same``), or h[p-1] against X[p] (``next``)
  detach_target   whether the gradient also reaches the projector through the target
  distance        the squared distance of Eq. 6, or its root, the L2 norm
  reduction       squared errors averaged over dimensions, or summed as Eq. 6 reads literally
  form            sigmoid and inverse of each position's distance, or of a group's mean (``means_of_groups``)
  target          X, or a placebo in its place (``model.targets``)
  normalize       whether h and X are layer-normalised (without parameters) first
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .head import TrainingHead, precise

IGNORE_INDEX = -100

ImageLoss = Literal["l2", "sigmoid_l2", "inverse_l2", "cosine", "smooth_l1", "info_nce"]


class Objective(NamedTuple):
    """L and its two parts, scalars in float32 (float64 for such a model)."""

    total: Tensor
    text: Tensor
    """L_t."""
    image: Tensor
    """L_i, before alpha."""


def objective(
    text: Tensor, text_weights: Tensor | float, image: Tensor, image_weights: Tensor | float, alpha: float
) -> Objective:
    """L = L_t + alpha * L_i (Eq. 10), of a whole step or of the part of it that is at hand: parts add up.

    Args:
        text: (supervised tokens,), from ``text_losses``; ``text_weights`` what each weighs: one number for all, or (tokens,).
        image: (supervised image positions,), from ``image_losses``; ``image_weights`` likewise.
    """
    text_loss, image_loss = _weighted_sum(text, text_weights), _weighted_sum(image, image_weights)
    return Objective(text_loss + alpha * image_loss, text_loss, image_loss)


def _weighted_sum(losses: Tensor, weights: Tensor | float) -> Tensor:
    return (losses * (weights.to(losses.dtype) if isinstance(weights, Tensor) else weights)).sum()


def text_losses(hidden: Tensor, labels: Tensor, head: torch.nn.Module) -> Tensor:
    """The cross-entropy of every supervised token; the head is computed at those positions only.

    Args:
        hidden: (batch, length, dim), what ``head`` reads.
        labels: (batch, length), each token's own id where it is supervised and ``IGNORE_INDEX`` elsewhere. The state at a
            position predicts the token after it; a supervised first token has no predecessor and does not count.
        head: maps (tokens, dim) to logits (tokens, vocabulary). A ``TrainingHead`` yields the losses itself, in chunks.

    Returns:
        (supervised tokens,) row by row, in float32 (float64 for such a model). Where nothing is supervised its sum is 0, with
        a gradient of 0.
    """
    targets = labels[:, 1:]
    supervised = targets != IGNORE_INDEX
    states, wanted = hidden[:, :-1][supervised], targets[supervised]
    if isinstance(head, TrainingHead):
        losses: Tensor = head(states, wanted)
        return losses
    return F.cross_entropy(precise(head(states)), wanted, reduction="none")


def image_losses(
    hidden: Tensor,
    embeddings: Tensor,
    supervised: Tensor,
    *,
    loss: ImageLoss = "l2",
    inverse_floor: float = 1e-6,
    **reading: Any,
) -> Tensor:
    """The image loss of every supervised image position (paper, Eq. 6 and Tables 8-10; docs/method.md for the others).

    ``loss`` and ``reading`` go to ``image_distances``, ``loss`` and ``inverse_floor`` to ``image_form``.
    """
    return image_form(image_distances(hidden, embeddings, supervised, loss=loss, **reading), loss, inverse_floor)


def image_distances(
    hidden: Tensor,
    embeddings: Tensor,
    supervised: Tensor,
    *,
    loss: ImageLoss = "l2",
    pictures: Tensor | None = None,
    temperature: float = 0.07,
    position: Literal["same", "next"] = "same",
    detach_target: bool = True,
    distance: Literal["squared", "root"] = "squared",
    reduction: Literal["mean", "sum_dims"] = "mean",
    normalize: Literal["none", "layer_norm"] = "none",
) -> Tensor:
    """The distance d between state and target at every supervised image position: squared (or its root) for the three losses
    of the paper, otherwise the loss itself.

    Args:
        hidden: (batch, length, dim), last hidden states after the final norm.
        embeddings: (batch, length, dim), the targets: the language model's input, which at image positions is the projector's
            output X, or what stands there in its place (``model.targets``).
        supervised: (batch, length) bool, image positions that are trained. With ``next``, a position without a predecessor
            is not supervised.
        pictures: (batch, length) int, equal numbers where positions are of one picture, for ``info_nce``; None: a row has one.
        temperature: of ``info_nce``.

    Returns:
        (supervised image positions,) row by row, in float32 (float64 for such a model).
    """
    if pictures is None:
        pictures = torch.arange(len(supervised), device=supervised.device).unsqueeze(1).expand_as(supervised)
    if position == "next":
        hidden, embeddings, supervised, pictures = hidden[:, :-1], embeddings[:, 1:], supervised[:, 1:], pictures[:, 1:]
    states = precise(hidden[supervised])
    targets = precise(embeddings[supervised])
    if detach_target:
        targets = targets.detach()
    if normalize == "layer_norm":
        states = F.layer_norm(states, states.shape[-1:])
        targets = F.layer_norm(targets, targets.shape[-1:])
    if loss == "cosine":
        return 1 - F.cosine_similarity(states, targets, dim=-1)
    if loss == "info_nce":
        return _told_apart(states, targets, pictures[supervised], temperature)
    if loss == "smooth_l1":
        each = F.smooth_l1_loss(states, targets, reduction="none")
        return each.mean(-1) if reduction == "mean" else each.sum(-1)
    errors = states - targets
    if distance == "root":
        # the norm's gradient at a perfect copy is 0, that of a square root would not be finite
        norm: Tensor = torch.linalg.vector_norm(errors, dim=-1)
        return norm / math.sqrt(errors.shape[-1]) if reduction == "mean" else norm
    squared = errors.square()
    return squared.mean(-1) if reduction == "mean" else squared.sum(-1)


def _told_apart(states: Tensor, targets: Tensor, pictures: Tensor, temperature: float) -> Tensor:
    """InfoNCE (van den Oord et al., 2018): which target of its own picture belongs to a state, by cosine over temperature.

    A picture's positions stand together, so it is a square of (positions, positions) for each and none across pictures.
    """
    states, targets = F.normalize(states, dim=-1), F.normalize(targets, dim=-1)
    _, counts = pictures.unique_consecutive(return_counts=True)
    losses = [states.sum(-1)[:0]]  # part of the graph also where no position is supervised
    for state, target in zip(states.split(counts.tolist()), targets.split(counts.tolist()), strict=True):
        its_own = torch.arange(len(state), device=state.device)
        with torch.autocast(state.device.type, enabled=False):
            losses.append(F.cross_entropy(state @ target.T / temperature, its_own, reduction="none"))
    return torch.cat(losses)


def image_form(distances: Tensor, loss: ImageLoss, inverse_floor: float = 1e-6) -> Tensor:
    """The loss that a distance makes (paper, Tables 8-10), elementwise.

    Args:
        inverse_floor: added to d in ``inverse_l2`` = 1/(d + floor), so that a perfect copy stays finite.
    """
    if loss == "sigmoid_l2":
        return distances.sigmoid()
    if loss == "inverse_l2":
        # read literally, 1/L2 rewards distance: it is built and reported as what it is
        return 1.0 / (distances + inverse_floor)
    return distances


def means_of_groups(distances: Tensor, weights: Tensor, groups: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """What code that calls a mean-reduced loss takes the sigmoid or the inverse of: a group's distance, not a position's.

    Args:
        distances: (positions,); ``weights`` what each weighs in a step of ``count`` groups; ``groups`` the group of each. A
            group's positions are all here.

    Returns:
        (groups that are here,): the mean distance of each, and what it weighs, 1 / ``count``.
    """
    _, number = groups.unique(return_inverse=True)
    here = int(number.max()) + 1 if len(number) else 0
    means = distances.new_zeros(here).index_add(0, number, distances * weights.to(distances.dtype) * count)
    return means, torch.full_like(means, 1 / count)
