"""What a training tells: a line for people, ``metrics.jsonl`` and TensorBoard for tools, ``losses.jsonl`` for comparison.

``losses.jsonl`` has one row a step and holds only what the recipe determines: an interrupted and resumed run writes the same
bytes as an undisturbed one. What an interrupted attempt wrote beyond its last checkpoint is cut off on resuming.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


class StepLog:
    """Append-only rows, each with a ``step``."""

    def __init__(self, path: Path, first_step: int) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._cut(first_step)
        self._file = open(path, "a")

    def _cut(self, first_step: int) -> None:
        """Keep the whole rows of steps before ``first_step``."""
        if not self.path.exists():
            return
        kept = 0
        with open(self.path, "rb") as file:
            for line in file:
                try:
                    step = json.loads(line)["step"]
                except (ValueError, KeyError, TypeError):
                    break
                if not line.endswith(b"\n") or step >= first_step:
                    break
                kept += len(line)
        os.truncate(self.path, kept)

    def write(self, row: dict[str, Any]) -> None:
        self._file.write(json.dumps(row, sort_keys=True) + "\n")

    def sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self.sync()
        self._file.close()


@dataclass(frozen=True)
class Work:
    """What was done in one step, by all ranks; ``waited`` is how many seconds this one waited for its data."""

    samples: int
    tokens: int
    flops: float
    waited: float


class Throughput:
    """Work per second since the last look, the share of time spent waiting for data, memory, and the time left.

    Args:
        peak: operations per second that all ranks' devices could do; None where that is not known.
    """

    def __init__(self, first_step: int, steps: int, peak: float | None = None) -> None:
        self.first_step = first_step
        self.steps = steps
        self.peak = peak
        self.start = self.last = time.monotonic()
        self.work: list[Work] = []

    def add(self, work: Work) -> None:
        self.work.append(work)

    def look(self, step: int) -> dict[str, float]:
        now = time.monotonic()
        elapsed = max(now - self.last, 1e-9)
        done = step + 1 - self.first_step
        flops = sum(work.flops for work in self.work)
        values = {
            "samples_per_second": round(sum(work.samples for work in self.work) / elapsed, 3),
            "tokens_per_second": round(sum(work.tokens for work in self.work) / elapsed, 1),
            "tflops_per_second": round(flops / elapsed / 1e12, 4),
            "data_wait_share": round(sum(work.waited for work in self.work) / elapsed, 4),
            "memory_gb": round(peak_memory() / 1e9, 3),
            "seconds_left": round((now - self.start) / done * (self.steps - step - 1), 1),
        }
        if self.peak:
            values["mfu"] = round(flops / elapsed / self.peak, 4)
        self.last, self.work = now, []
        return values


def peak_memory() -> int:
    """Bytes: the most that was allocated on the GPU, or the most that this process had resident."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class NullLogs:
    """What the other ranks tell: nothing."""

    def add(self, row: dict[str, Any], work: Work, probed: dict[str, float]) -> None: ...

    def validated(self, steps: int, text_loss: float, tokens: int) -> None: ...

    def sync(self) -> None: ...

    def close(self) -> None: ...


class TrainingLogs(NullLogs):
    """Rank 0's files and its line for people, every ``every`` steps.

    Args:
        peak: see ``Throughput``.
        project: of Weights & Biases, where it is switched on.
    """

    def __init__(
        self, run: Path, first_step: int, steps: int, every: int, peak: float | None = None, project: str | None = None
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.run = run
        self.first_step = first_step
        self.every = every
        self.steps = steps
        self.losses = StepLog(run / "losses.jsonl", first_step)
        self.metrics = StepLog(run / "metrics.jsonl", first_step)
        self.board = SummaryWriter(str(run / "tensorboard"), purge_step=first_step)
        self.throughput = Throughput(first_step, steps, peak)
        self.wandb = start_wandb(run, project) if project else None

    def add(self, row: dict[str, Any], work: Work, probed: dict[str, float]) -> None:
        """One step. What was ``probed`` of its gradients is known at some steps only, which are always reported."""
        step = row["step"]
        self.losses.write(row)
        self.throughput.add(work)
        if step % self.every and step + 1 != self.steps and not probed:
            return
        row = row | self.throughput.look(step) | probed
        self.metrics.write(row)
        for key, value in row.items():
            if isinstance(value, int | float) and key != "step":
                self.board.add_scalar(key, value, step)
        if self.wandb is not None:
            self.wandb.log(row, step=step)
        log.info("%s", progress_line(row, self.steps))

    @cached_property
    def validation(self) -> StepLog:
        """Each row's step is how many were trained before it; an attempt begins with a row of its own."""
        return StepLog(self.run / "validation.jsonl", self.first_step)

    def validated(self, steps: int, text_loss: float, tokens: int) -> None:
        """The text loss on the validation set, a mean over so many tokens, after so many steps."""
        self.validation.write({"step": steps, "text_loss": text_loss, "tokens": tokens})
        self.validation.sync()
        self.board.add_scalar("validation_text_loss", text_loss, steps)
        if self.wandb is not None:
            self.wandb.log({"validation_text_loss": text_loss}, step=steps)
        log.info("after step %d/%d: validation text %.4f, over %d tokens", steps, self.steps, text_loss, tokens)

    def sync(self) -> None:
        """Make every row durable: a checkpoint is never newer than the log."""
        self.losses.sync()
        self.metrics.sync()

    def close(self) -> None:
        self.losses.close()
        self.metrics.close()
        self.board.close()
        if self.wandb is not None:
            self.wandb.finish()


def start_wandb(run: Path, project: str) -> Any:
    """A run of Weights & Biases that goes on where an interrupted attempt left it. The launcher has looked for its package."""
    import wandb

    name = "/".join(run.parts[-4:-1])
    return wandb.init(project=project, id=run.name, name=name, dir=str(run), resume="allow")


def duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def progress_line(row: dict[str, Any], steps: int) -> str:
    """One line for a person."""
    parts = [f"step {row['step'] + 1}/{steps}"]
    if row.get("text_loss") is not None:
        parts.append(f"text {row['text_loss']:.4f}")
    if row.get("image_loss") is not None:
        parts.append(f"image {row['image_loss']:.5g}")
    parts.append(f"grad {row['gradient_norm']:.3g}")
    if "gradient_ratio" in row:
        parts.append(f"image/text gradient {row['gradient_ratio']:.2g}")
    if "gradient_cosine" in row:
        parts.append(f"cos {row['gradient_cosine']:.2f}")
    if "alpha" in row:
        parts.append(f"alpha {row['alpha']:.3g}")
    if "projector_norm" in row:
        parts.append(f"|X| {row['projector_norm']:.2f} var {row['projector_variance']:.3g} cos {row['projector_cosine']:.2f}")
    parts += [f"lr {row['learning_rate']:.2e}", f"{row['samples_per_second']:.1f} samples/s"]
    parts.append(f"{row['tokens_per_second']:.0f} tokens/s")
    parts.append(f"MFU {100 * row['mfu']:.1f}%" if "mfu" in row else f"{row['tflops_per_second']:.3g} TFLOP/s")
    parts.append(f"{row['memory_gb']:.2f} GB")
    parts += [f"data wait {100 * row['data_wait_share']:.0f}%", f"left {duration(row['seconds_left'])}"]
    return "  ".join(parts)
