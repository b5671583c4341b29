"""A step of training as it is known before it begins, from the prepared data alone: which samples in which mode, how long each
is, what its losses read and what they weigh. It knows nothing of ranks: who computes what is the loader's (``plan.assign``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..study.settings import VdepSettings
from .plan import GlobalBatch
from .prepared import PreparedData
from .weights import Weights, weigh


@dataclass(frozen=True)
class Step:
    """One optimizer step. All arrays are (samples,), in the order of ``batch``."""

    number: int
    batch: GlobalBatch
    lengths: np.ndarray
    """Tokens that each sample is computed for: in VDEP mode nothing after the image."""
    images: np.ndarray
    """Whether each has one."""
    text_tokens: np.ndarray
    """Tokens that the text loss reads."""
    image_positions: np.ndarray
    """Positions that the image loss reads."""
    weights: Weights
    partners: int = 0
    """Pictures beside those of the samples, whose X is a target."""


def weighed_step(number: int, batch: GlobalBatch, data: PreparedData, vdep: VdepSettings, group_size: int | None) -> Step:
    """The step that trains a global batch.

    Args:
        group_size: samples of a normalisation group (``data.weights``); None: the whole batch is one.
    """
    rows, token = batch.samples, vdep.auto_image == "token"
    images, image_at = data.has_image[rows], data.image_at[rows]
    # with `next`, an image at the very start of a sample has a position without a predecessor
    unpredicted = (image_at == 0) & (vdep.position == "next") & (not token)
    image_positions = (data.image_tokens - unpredicted) * images * batch.image_loss
    text_tokens = data.supervised_tokens[rows] * batch.text_loss
    return Step(
        number,
        batch,
        np.where(batch.text_loss, data.lengths[rows], (image_at + data.image_tokens + token) * images),
        images,
        text_tokens,
        image_positions,
        weigh(text_tokens, image_positions, group_size, vdep.positions),
        int((image_positions > 0).sum()) if vdep.target == "other_image" else 0,
    )
