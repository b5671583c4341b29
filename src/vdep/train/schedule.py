"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math

from ..study.settings import StageSettings


def learning_rate(step: int, steps: int, settings: StageSettings) -> float:
    """The rate of step ``step`` (from 0) of ``steps``: linear warm-up, then cosine to 0, as transformers computes it.

    The very first step has rate 0 where there is a warm-up: so it is in the originals.
    """
    warmup = math.ceil(steps * settings.warmup_ratio)
    if step < warmup:
        return settings.learning_rate * step / max(1, warmup)
    if settings.decay == "constant":
        return settings.learning_rate
    progress = (step - warmup) / max(1, steps - warmup)
    return settings.learning_rate * max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))
