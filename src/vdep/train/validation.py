"""The text loss on data that is not trained: whether what a run learns holds elsewhere. Training does not notice: nothing here
draws a random number, and no checkpoint depends on it.
"""

from __future__ import annotations

import torch

from ..data.images import ImageTransform
from ..data.loader import MicroBatches
from ..data.plan import BatchPlan
from ..data.prepared import PreparedData
from ..run.heartbeat import Heartbeat
from ..run.job import Job
from .engine import Engine
from .logs import NullLogs
from .out_of_memory import guard


class Validation:
    """The first samples of ``job.validation``, in LLaVA mode and without dropout; nothing where a job has none."""

    def __init__(
        self, job: Job, engine: Engine, transform: ImageTransform, micro_batch: int, heart: Heartbeat, logs: NullLogs
    ) -> None:
        self.engine, self.heart, self.logs, self.source = engine, heart, logs, None
        if job.validation is not None:
            data = PreparedData(job.validation, verify=engine.rank == 0)
            count = min(len(data), job.execution.validation_samples)
            plan = BatchPlan(data.lengths[:count], data.has_image[:count], global_batch=count, epochs=1, seed=0)
            self.source = MicroBatches(data, plan, transform, engine.rank, engine.ranks, micro_batch, job.execution.packing)

    def after(self, steps: int) -> None:
        """Measure and log it after so many steps of training. All ranks together: each takes its share of the samples."""
        if self.source is not None:
            with guard(self.heart, f"validating after step {steps}", micro_batch_helps=True):
                self.logs.validated(steps, *self._text_loss(self.source))

    @torch.no_grad()
    def _text_loss(self, source: MicroBatches) -> tuple[float, int]:
        """The mean over all supervised tokens, and their number."""
        step, shares = source.step(0)
        total = torch.zeros((), dtype=torch.float64, device=self.engine.device)
        self.engine.model.eval()
        for rows in shares:
            _, report = self.engine.model(source.build(step, rows).to(self.engine.device))
            total += report.text_loss
        self.engine.model.train()
        return float(self.engine.sum_over_ranks(total)), int(step.text_tokens.sum())
