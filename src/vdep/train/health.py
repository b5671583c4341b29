"""When to stop: a loss that is not finite, a gradient that jumps, memory that does not suffice."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch

from ..data.plan import GlobalBatch
from ..data.prepared import PreparedData
from ..errors import TrainingError
from ..files import write_json
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


class MicroBatchTooLargeError(Exception):
    """Memory did not suffice for a step: with fewer samples at a time it may."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that a GPU's or the machine's memory did not suffice."""
    said = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "DefaultCPUAllocator")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in said)
    )


@contextmanager
def memory_for(what: str, *, micro_batch_helps: bool = False) -> Iterator[None]:
    """Turn "out of memory" within into what can be done about it.

    Raises:
        MicroBatchTooLargeError: where fewer samples at a time help.
        TrainingError: naming ``what``, where they do not.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        if micro_batch_helps:
            raise MicroBatchTooLargeError(str(error)) from error
        raise TrainingError(
            f"out of memory while {what}: {error}. A smaller micro-batch would not help: use another engine "
            "(zero2, zero3), fewer ranks a machine, or more memory."
        ) from error


def smallest_micro_batch(job: Job, longest: int) -> int:
    """Below what a smaller micro-batch changes nothing: one sample, or with packing the tokens of the ``longest``; and the
    normalisation group that the image loss takes the mean of (``form: group``), which is never divided."""
    vdep, settings = job.recipe.vdep, job.recipe.settings
    together = settings.group_size if vdep is not None and vdep.form == "group" else None
    # packed groups differ in tokens: where they have fewer than so many samples of the greatest length, halving may still help
    return longest if job.execution.packing else min(together or 1, settings.global_batch)


def note_smaller_micro_batch(job: Job, micro_batch: int, smallest: int) -> int:
    """Halve the micro-batch for the next attempt; returns it. The mathematics stays: more accumulation, the same batches.

    Args:
        micro_batch: the one that was too large. Several ranks may say so of the same attempt.
        smallest: from ``smallest_micro_batch``.

    Raises:
        TrainingError: where the smallest is too much.
    """
    if micro_batch <= smallest:
        at_a_time = "one sample" if smallest == 1 or job.execution.packing else f"a normalisation group of {smallest} samples"
        raise TrainingError(
            f"out of memory with {at_a_time} at a time. Set execution.{job.recipe.stage}.activation_checkpointing, "
            "another engine (zero2, zero3), or use a larger GPU."
        )
    smaller = max(smallest, micro_batch // 2)
    write_json(job.smaller_micro_batch, {"configured": job.configured_micro_batch, "micro_batch": smaller})
    return smaller
