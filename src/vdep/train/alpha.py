"""alpha, where a rule says it: what the loop asks before each step.

``gradient_ratio``: alpha = clip(rho * mean |g_t| / mean |g_i|), so that the gradient of alpha L_i on the projector is ``rho``
times as long as that of L_t, whatever the size of L_i. The means are over the steps at which both were measured (``probe``), a
measurement weighing ``decay`` times what the one after it does. They follow from the steps before: they go into checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..errors import TrainingError
from ..study.settings import Alpha, GradientRatio
from .probe import Gradients

FIRST = 8
"""A new projector's gradients fall by orders of magnitude within a few steps: as long as an eighth of the steps so far is less
than ``every``, what lies between two measurements is at most that."""


class AlphaRule:
    """alpha of one training, step by step.

    Args:
        alpha: a number stays what it is.
    """

    def __init__(self, alpha: Alpha) -> None:
        self.rule = alpha if isinstance(alpha, GradientRatio) else None
        self._number = 0.0 if isinstance(alpha, GradientRatio) else alpha
        # sums of what was measured, and of what it weighs: their mean is none of the first measurement above all
        self._sums = {"text": 0.0, "image": 0.0, "weight": 0.0}

    def due(self, step: int) -> bool:
        """Whether gradients are to be measured before this step."""
        if self.rule is None:
            return False
        # a power of two at most: each step up to the sixteenth, every other one up to the 32nd, and so on
        spacing = 1 << max(0, (step // FIRST).bit_length() - 1)
        return step % min(spacing, self.rule.every) == 0

    def note(self, found: Gradients) -> None:
        """Take in what was measured. A step of which one loss is absent says nothing of their ratio."""
        if self.rule is None or not (found.text and found.image):
            return
        if not math.isfinite(found.text + found.image):
            raise TrainingError(
                f"the gradients on the projector are not finite: {found.text} of the text loss, {found.image} of the image loss"
            )
        measured = {"text": found.text, "image": found.image, "weight": 1.0}
        self._sums = {name: self.rule.decay * self._sums[name] + value for name, value in measured.items()}

    @property
    def value(self) -> float:
        """What weighs L_i now; ``min`` before anything was measured."""
        if self.rule is None:
            return self._number
        if not self._sums["weight"]:
            return self.rule.min
        # the weight of both means is the same
        return min(max(self.rule.rho * self._sums["text"] / self._sums["image"], self.rule.min), self.rule.max)

    @property
    def state(self) -> dict[str, float] | None:
        """For a checkpoint: Python writes a number into JSON so that it reads the same back."""
        return None if self.rule is None else dict(self._sums)

    def restore(self, state: Mapping[str, float] | None) -> None:
        """As it was when ``state`` was asked for."""
        if state is not None:
            self._sums = dict(state)
