"""The micro-batches of one rank, in the order of the plan, from any step on."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from ..errors import DataError
from ..study.settings import VdepSettings
from .collate import Batch, Row, collate, empty_batch, with_mode
from .conversation import Mode
from .images import ImageTransform, decode_image
from .plan import BatchPlan, GlobalBatch, assign
from .prepared import PreparedData, Sample
from .weights import weigh


@dataclass(frozen=True)
class Counts:
    """What one global batch holds, known without communication from the prepared data."""

    samples: int
    text_tokens: int
    image_positions: int
    images: int


class MicroBatches(Dataset[tuple[int, bool, Batch]]):
    """(step, whether it is the last of its step, batch) by step and number; the batch is empty where a rank has no sample.

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
        self._assigned: tuple[int, list[GlobalBatch]] | None = None

    def rounds(self, step: int) -> int:
        """How many micro-batches each rank has at a step."""
        return len(self._shares(step))

    def order(self, first_step: int) -> Iterator[tuple[int, int]]:
        return ((step, i) for step in range(first_step, self.plan.steps) for i in range(self.rounds(step)))

    def __getitem__(self, place: tuple[int, int]) -> tuple[int, bool, Batch]:
        step, number = place
        shares = self._shares(step)
        return step, number == len(shares) - 1, self.build(shares[number])

    def _shares(self, step: int) -> list[GlobalBatch]:
        """This rank's micro-batches of a step; those of the last step that was asked for are kept."""
        if self._assigned is None or self._assigned[0] != step:
            batch = self.plan.batch(step)
            positions = image_positions(batch, self.data, self.vdep)
            weights = weigh(text_tokens(batch, self.data), positions, self.group_size, self.vdep.positions)
            lengths = trained_lengths(batch, self.data, self.vdep)
            whole = weights.groups if self.vdep.form == "group" else None
            shares = assign(batch.weighed(weights), lengths, self.ranks, self.micro_batch, self.packed, whole)
            self._assigned = step, shares[self.rank]
        return self._assigned[1]

    def build(self, share: GlobalBatch) -> Batch:
        """The micro-batch of these samples, whose weights are known."""
        assert share.weights is not None
        weights, token = share.weights, self.vdep.auto_image == "token"
        rows, images = [], []
        for place, index in enumerate(share.samples):
            sample, in_text = self.data[int(index)], bool(share.text_loss[place])
            if not in_text and sample.location is None:
                continue  # without an image there is nothing to train in VDEP mode
            encoded = with_mode(sample.input_ids, sample.labels, Mode.LLAVA if in_text else Mode.VDEP, token)
            each = float(weights.text[place]), float(weights.image[place] * share.image_loss[place])
            rows.append(Row(*encoded, *each, int(weights.groups[place])))
            if sample.location is not None:
                images.append(self._read(sample))
        if not rows:
            return empty_batch()
        pixels = self.transform(images) if images else None
        return collate(
            rows,
            pixels,
            self.data.image_tokens,
            packed=self.packed,
            predecessor=self.vdep.position == "next",
            group_count=weights.group_count if self.vdep.form == "group" else 0,
        )

    def _read(self, sample: Sample) -> Image.Image:
        try:
            return decode_image(self.data.read_image(sample), sample.id)
        except DataError as error:
            raise DataError(f"{error}. It was whole when the data was prepared: prepare it again.") from error


def _outlive_sigterm(worker: int) -> None:
    """SLURM sends SIGTERM to every process of a job; a rank that saves must not lose its workers. They end with the rank."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def micro_batches(source: MicroBatches, first_step: int, workers: int, pin: bool) -> Iterator[tuple[int, bool, Batch]]:
    """Iterate from the first micro-batch of ``first_step``; resuming is nothing more than a later start."""
    # the order is made as it is asked for: with packing, all of it at once would take seconds
    loader: DataLoader[tuple[int, bool, Batch]] = DataLoader(
        source,
        batch_size=None,
        sampler=source.order(first_step),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        persistent_workers=False,
        worker_init_fn=_outlive_sigterm if workers else None,
        pin_memory=pin,
    )
    yield from loader


def trained_lengths(batch: GlobalBatch, data: PreparedData, vdep: VdepSettings | None = None) -> np.ndarray:
    """(samples,) tokens that a global batch's samples are computed for: in VDEP mode nothing after the image."""
    token = vdep is not None and vdep.auto_image == "token"
    to_the_images_end = (data.image_at[batch.samples] + data.image_tokens + token) * data.has_image[batch.samples]
    return np.where(batch.text_loss, data.lengths[batch.samples], to_the_images_end)


def text_tokens(batch: GlobalBatch, data: PreparedData) -> np.ndarray:
    """(samples,) tokens that the text loss of a global batch reads."""
    return data.supervised_tokens[batch.samples] * batch.text_loss


def image_positions(batch: GlobalBatch, data: PreparedData, vdep: VdepSettings) -> np.ndarray:
    """(samples,) positions that the image loss of a global batch reads. With ``next``, an image at the very start of a sample
    has one less."""
    first = data.image_at[batch.samples] == 0
    without_predecessor = first & (vdep.position == "next") & (vdep.auto_image == "sentinel")
    return (data.image_tokens - without_predecessor) * data.has_image[batch.samples] * batch.image_loss


def count(batch: GlobalBatch, data: PreparedData, vdep: VdepSettings | None = None) -> Counts:
    """The counts of a global batch."""
    return Counts(
        samples=len(batch),
        text_tokens=int(text_tokens(batch, data).sum()),
        image_positions=int(image_positions(batch, data, vdep or VdepSettings()).sum()),
        images=int(data.has_image[batch.samples].sum()),
    )
