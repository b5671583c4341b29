"""Memory that does not suffice: how that is told from other errors, and what is done about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..errors import TrainingError
from ..files import write_json
from ..run.heartbeat import Heartbeat
from ..run.job import Job


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


@contextmanager
def guard(heart: Heartbeat, doing: str, *, micro_batch_helps: bool = False) -> Iterator[None]:
    """A part of a training: a sign of life as it begins, and ``memory_for`` it."""
    heart.beat(doing)
    with memory_for(doing, micro_batch_helps=micro_batch_helps):
        yield


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
