"""When to stop: a loss that is not finite, a gradient that jumps."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from ..data.plan import GlobalBatch
from ..data.prepared import PreparedData
from ..errors import TrainingError
from ..run.job import Job

WINDOW = 50
"""Steps of the same kind (with a text loss, or without) with whose gradients a step's own is compared."""
FIRST = 20
"""So many have to be there: a projector starts at random, and its first gradients are large."""


class Health:
    """Looks at every step before it can get into a checkpoint.

    Args:
        first_step: where this attempt begins; what the gradients were before is read from the log of the run.
    """

    def __init__(self, job: Job, data: PreparedData, first_step: int = 0) -> None:
        self.job = job
        self.data = data
        self.jump = job.execution.gradient_jump
        # where whole steps of one mode take turns, the gradients of the two differ a thousandfold
        self._norms: dict[bool, deque[float]] = {has_text: deque(maxlen=WINDOW) for has_text in (True, False)}
        for row in _rows_before(job.run / "losses.jsonl", first_step):
            self._norms[row["text_loss"] is not None].append(row["gradient_norm"])

    def check(self, row: dict[str, Any], batch: GlobalBatch) -> None:
        """``row`` is what ``losses.jsonl`` says of the step.

        Raises:
            TrainingError: naming the step and its samples.
        """
        if not all(math.isfinite(value) for value in row.values() if isinstance(value, float)):
            self._stop(row, batch, "the loss or its gradient is not finite")
        norm, before = row["gradient_norm"], self._norms[row["text_loss"] is not None]
        if self.jump and len(before) >= FIRST and norm > self.jump * median(before):
            self._stop(row, batch, f"the gradient jumped to {norm / median(before):.0f} times its median")
        before.append(norm)

    def _stop(self, row: dict[str, Any], batch: GlobalBatch, what: str) -> None:
        names = ", ".join(self.data[int(i)].id for i in batch.samples[:8])
        raise TrainingError(
            f"step {row['step'] + 1}: {what} (text {row['text_loss']}, image {row['image_loss']}, gradient "
            f"{row['gradient_norm']}). Samples of this step: {names}, ... "
            f"The last checkpoint is kept in {self.job.checkpoints}. "
            "(execution.*.gradient_jump sets what counts as a jump; a lower learning rate or gradient_clipping may help.)"
        )


def _rows_before(path: Path, step: int) -> Iterator[dict[str, Any]]:
    if step and path.is_file():
        for line in path.read_text().splitlines()[:step]:
            yield json.loads(line)
