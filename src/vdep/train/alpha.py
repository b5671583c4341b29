"""alpha, where a rule says it: what the loop asks before each step.

``gradient_ratio``: alpha = clip(rho * mean |g_t| / mean |g_i|), so that the gradient of alpha L_i on the projector is ``rho``
times as long as that of L_t, whatever the size of L_i. The means are over the steps at which both were measured (``probe``),
each measurement leaving ``decay`` of those before it. They follow from the steps before, and so they go into checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..study.settings import Alpha, GradientRatio
from .probe import Gradients


class AlphaRule:
    """alpha of one training, step by step.

    Args:
        alpha: a number stays what it is.
    """

    def __init__(self, alpha: Alpha) -> None:
        self.rule = alpha if isinstance(alpha, GradientRatio) else None
        self._number = 0.0 if isinstance(alpha, GradientRatio) else alpha
        self._means: tuple[float, float] | None = None

    def due(self, step: int) -> bool:
        """Whether gradients are to be measured before this step."""
        return self.rule is not None and step % self.rule.every == 0

    def note(self, found: Gradients) -> None:
        """Take in what was measured. A step of which one loss is absent says nothing of their ratio."""
        if self.rule is None or not (found.text and found.image):
            return
        text, image = self._means or (found.text, found.image)
        keep = self.rule.decay
        self._means = keep * text + (1 - keep) * found.text, keep * image + (1 - keep) * found.image

    @property
    def value(self) -> float:
        """What weighs L_i now; ``min`` before anything was measured."""
        if self.rule is None:
            return self._number
        text, image = self._means or (0.0, 1.0)
        return min(max(self.rule.rho * text / image, self.rule.min), self.rule.max)

    @property
    def state(self) -> dict[str, float] | None:
        """For a checkpoint: Python writes a number into JSON so that it reads the same back."""
        return None if self._means is None else dict(zip(("text", "image"), self._means, strict=True))

    def restore(self, state: Mapping[str, float] | None) -> None:
        """As it was when ``state`` was asked for."""
        self._means = None if state is None else (state["text"], state["image"])
