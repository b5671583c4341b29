"""The micro-batches of one rank, in the order of the plan, from any step on."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from ..errors import DataError
from .collate import Batch, collate, with_mode
from .conversation import Mode
from .images import ImageTransform, decode_image
from .plan import BatchPlan, GlobalBatch, assign
from .prepared import PreparedData, Sample


@dataclass(frozen=True)
class Counts:
    """What the losses of one global batch are divided by, known without communication from the prepared data."""

    samples: int
    text_tokens: int
    image_positions: int
    images: int


class MicroBatches(Dataset[tuple[int, bool, Batch | None]]):
    """(step, whether it is the last of its step, batch) by running number; the batch is None where a rank has no sample."""

    def __init__(
        self,
        data: PreparedData,
        plan: BatchPlan,
        transform: ImageTransform,
        rank: int,
        ranks: int,
        micro_batch: int,
        packed: bool = False,
    ) -> None:
        self.data = data
        self.plan = plan
        self.transform = transform
        self.rank = rank
        self.ranks = ranks
        self.micro_batch = micro_batch
        self.packed = packed

    def rounds(self, step: int) -> int:
        """How many micro-batches each rank has at a step."""
        return -(-len(self.plan.batch(step)) // (self.ranks * self.micro_batch))

    def order(self, first_step: int) -> list[tuple[int, int]]:
        return [(step, i) for step in range(first_step, self.plan.steps) for i in range(self.rounds(step))]

    def __getitem__(self, place: tuple[int, int]) -> tuple[int, bool, Batch | None]:
        step, number = place
        batch = self.plan.batch(step)
        lengths = trained_lengths(batch, self.data)
        shares = assign(batch, lengths, self.ranks, self.micro_batch, self.packed)[self.rank]
        share = shares[number]
        return step, number == len(shares) - 1, self._build(share) if len(share) else None

    def _build(self, share: GlobalBatch) -> Batch | None:
        encoded, images, supervised = [], [], []
        for index, text_loss, image_loss in zip(share.samples, share.text_loss, share.image_loss, strict=True):
            sample = self.data[int(index)]
            if not text_loss and sample.location is None:
                continue  # without an image there is nothing to train in VDEP mode
            supervised.append(bool(image_loss))
            encoded.append(with_mode(sample.input_ids, sample.labels, Mode.LLAVA if text_loss else Mode.VDEP))
            if sample.location is not None:
                images.append(self._read(sample))
        if not encoded:
            return None
        pixels = self.transform(images) if images else None
        return collate(encoded, supervised, pixels, self.data.image_tokens, self.packed)

    def _read(self, sample: Sample) -> Image.Image:
        try:
            return decode_image(self.data.read_image(sample), sample.id)
        except DataError as error:
            raise DataError(f"{error}. It was whole when the data was prepared: prepare it again.") from error


def _outlive_sigterm(worker: int) -> None:
    """SLURM sends SIGTERM to every process of a job; a rank that saves must not lose its workers. They end with the rank."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def micro_batches(source: MicroBatches, first_step: int, workers: int, pin: bool) -> Iterator[tuple[int, bool, Batch | None]]:
    """Iterate from the first micro-batch of ``first_step``; resuming is nothing more than a later start."""
    loader: DataLoader[tuple[int, bool, Batch | None]] = DataLoader(
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


def trained_lengths(batch: GlobalBatch, data: PreparedData) -> np.ndarray:
    """(samples,) tokens that a global batch's samples are computed for: in VDEP mode nothing after the image."""
    to_the_images_end = (data.image_at[batch.samples] + data.image_tokens) * data.has_image[batch.samples]
    return np.where(batch.text_loss, data.lengths[batch.samples], to_the_images_end)


def count(batch: GlobalBatch, data: PreparedData, position: str) -> Counts:
    """The counts of a global batch. With ``next``, an image at the very start of a sample has one position less."""
    images = data.has_image[batch.samples]
    first = data.image_at[batch.samples] == 0
    per_image = data.image_tokens - (first if position == "next" else np.zeros(len(batch), bool))
    return Counts(
        samples=len(batch),
        text_tokens=int((data.supervised_tokens[batch.samples] * batch.text_loss).sum()),
        image_positions=int((per_image * images * batch.image_loss).sum()),
        images=int(images.sum()),
    )
