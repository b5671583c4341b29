"""What the losses of each sample weigh in its global batch, known before the step from the prepared data alone.

The samples of a global batch, in the order of the plan, are cut into *normalisation groups*. Each group's text loss is the
mean over its supervised tokens and its image loss the mean over its supervised image positions; a step's losses are the means
over its groups. ``global`` makes one group of the whole batch. ``micro_batch: n`` makes groups of n samples: the originals'
mean of micro-batch means (``Trainer.training_step`` of transformers 4.37 divides by the number of micro-batches, and ranks
average), in which a token weighs more where its micro-batch has few. As weights belong to samples, ranks, packing and
accumulation change nothing.

With ``positions: sum`` (a reading of the paper) an image loss is summed over the positions of a sample, and the mean is over
the samples of a group that have one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class Weights:
    """(samples,) each, in the order of the batch: what every supervised token, and every supervised image position, of a sample
    weighs."""

    text: np.ndarray
    image: np.ndarray
    groups: np.ndarray
    """The normalisation group of each sample."""
    group_count: int
    """How many groups the whole step has."""

    def take(self, rows: np.ndarray | slice) -> Weights:
        return Weights(self.text[rows], self.image[rows], self.groups[rows], self.group_count)


def weigh(tokens: np.ndarray, positions: np.ndarray, group_size: int | None, over: Literal["mean", "sum"] = "mean") -> Weights:
    """Weights of a global batch in which sample i has ``tokens[i]`` supervised tokens and ``positions[i]`` image positions.

    Args:
        group_size: samples of a normalisation group, the last of which may be smaller; None makes one group of all.
        over: whether an image loss is averaged over positions or summed over those of a sample (``VdepSettings.positions``).
    """
    groups = np.arange(len(tokens)) // (group_size or max(len(tokens), 1))
    image = _means(positions if over == "mean" else (positions > 0).astype(int), groups)
    return Weights(_means(tokens, groups), image, groups, int(groups[-1]) + 1 if len(groups) else 0)


def _means(counts: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """1 / (groups * the group's count) for each sample. A group without any is one whose mean is 0."""
    totals = np.bincount(groups, weights=counts)
    each = np.divide(1.0, len(totals) * totals, out=np.zeros(len(totals)), where=totals > 0)
    return each[groups]
