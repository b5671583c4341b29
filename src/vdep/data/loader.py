"""The micro-batches of one rank, step by step in the order of the plan, from any step on."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from ..errors import DataError
from ..study.settings import VdepSettings
from .collate import NOTHING, Batch, Row, collate, in_vdep_mode
from .images import ImageTransform, decode_image
from .plan import BatchPlan, assign
from .prepared import PreparedData, Sample
from .step import Step, weighed_step
from .targets import Targets

MicroBatch = tuple[Step, bool, Batch]
"""A micro-batch with the step that it is of, and whether it is the last of it."""


class MicroBatches(Dataset[MicroBatch]):
    """One rank's micro-batches, by number of the step and number within it. Where the rank has no sample, nothing is trained.

    Args:
        micro_batch: samples, or with ``packed`` tokens (``plan.assign``).
        vdep: how samples in VDEP mode are trained; None for the baseline and for SFT.
        group_size: samples of a normalisation group (``data.weights``); None: the whole global batch is one.
    """

    def __init__(
        self,
        data: PreparedData,
        plan: BatchPlan,
        transform: ImageTransform,
        rank: int,
        ranks: int,
        micro_batch: int,
        packed: bool = False,
        vdep: VdepSettings | None = None,
        group_size: int | None = None,
    ) -> None:
        self.data = data
        self.plan = plan
        self.transform = transform
        self.rank = rank
        self.ranks = ranks
        self.micro_batch = micro_batch
        self.packed = packed
        self.vdep = vdep or VdepSettings()
        self.group_size = group_size
        self.targets = Targets(data, self.vdep, plan.seed, self._read, transform)
        self._last: tuple[Step, list[np.ndarray]] | None = None

    def step(self, number: int) -> tuple[Step, list[np.ndarray]]:
        """A step, and which rows of its batch each micro-batch of this rank has. The last that was asked for is kept."""
        if self._last is None or self._last[0].number != number:
            step = weighed_step(number, self.plan.batch(number), self.data, self.vdep, self.group_size)
            whole = step.weights.groups if self.vdep.form == "group" else None
            shares = assign(step.lengths, self.ranks, self.micro_batch, self.packed, whole)
            self._last = step, shares[self.rank]
        return self._last

    def order(self, first_step: int) -> Iterator[tuple[int, int]]:
        return ((step, i) for step in range(first_step, self.plan.steps) for i in range(len(self.step(step)[1])))

    def __getitem__(self, place: tuple[int, int]) -> MicroBatch:
        step, shares = self.step(place[0])
        return step, place[1] == len(shares) - 1, self.build(step, shares[place[1]])

    def build(self, step: Step, rows: np.ndarray) -> Batch:
        """The micro-batch of these rows of a step's batch."""
        share, weights = step.batch.take(rows), step.weights.take(rows)
        samples, images, targets = [], [], []
        for place, index in enumerate(share.samples):
            sample = self.data[int(index)]
            encoded = sample.input_ids, sample.labels
            if not share.text_loss[place]:
                if sample.location is None:
                    continue  # without an image there is nothing to train in VDEP mode
                encoded = in_vdep_mode(*encoded, token=self.vdep.auto_image == "token")
            image_weight = float(weights.image[place] * share.image_loss[place])
            samples.append(Row(*encoded, float(weights.text[place]), image_weight, int(weights.groups[place])))
            if sample.location is not None:
                images.append(self._read(sample))
                if step.image_positions[rows[place]]:
                    targets.append(self.targets.of(step.number, int(index), sample))
        if not samples:
            return collate([NOTHING], None, 1)
        return collate(
            samples,
            self.transform(images) if images else None,
            self.data.image_tokens,
            packed=self.packed,
            predecessor=self.vdep.position == "next",
            group_count=weights.group_count if self.vdep.form == "group" else 0,
            target=self.targets.stack(targets),
        )

    def _read(self, sample: Sample) -> Image.Image:
        try:
            return decode_image(self.data.read_image(sample), sample.id)
        except DataError as error:
            raise DataError(f"{error}. It was whole when the data was prepared: prepare it again.") from error


def _outlive_sigterm(worker: int) -> None:
    """SLURM sends SIGTERM to every process of a job; a rank that saves must not lose its workers. They end with the rank."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def steps(source: MicroBatches, first_step: int, workers: int, pin: bool) -> Iterator[tuple[Step, list[Batch]]]:
    """Every step with its micro-batches, from ``first_step`` on; resuming is nothing more than a later start."""
    # the order is made as it is asked for: with packing, all of it at once would take seconds
    loader: DataLoader[MicroBatch] = DataLoader(
        source,
        batch_size=None,
        sampler=source.order(first_step),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        persistent_workers=False,
        worker_init_fn=_outlive_sigterm if workers else None,
        pin_memory=pin,
    )
    batches = []
    for step, last, batch in loader:
        batches.append(batch)
        if last:
            yield step, batches
            batches = []
