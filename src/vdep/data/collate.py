"""Encoded samples and their images -> one micro-batch of tensors, in which every image stands for its image tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .conversation import AUTO_IMAGE_INDEX, IGNORE_INDEX, IMAGE_INDEX, Mode


@dataclass(frozen=True)
class Batch:
    """A micro-batch: padded on the right (which a causal model never sees), or packed.

    ``input_ids`` (batch, length), 0 at image positions; ``labels`` (batch, length), ``IGNORE_INDEX`` where not supervised;
    ``image_mask`` (batch, length) bool, in the order of ``pixel_values`` (images, 3, height, width), which is None where no
    sample has an image; ``image_loss_mask`` (batch, length) bool, the image positions that the image loss reads.
    ``sequence_lengths`` is None, or says that the only row holds so many samples of these lengths, one after the other;
    the first token of a sample is never a label.
    """

    input_ids: Tensor
    labels: Tensor
    image_mask: Tensor
    image_loss_mask: Tensor
    pixel_values: Tensor | None
    sequence_lengths: tuple[int, ...] | None = None

    def to(self, device: torch.device) -> Batch:
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return Batch(
            change(self.input_ids),
            change(self.labels),
            change(self.image_mask),
            change(self.image_loss_mask),
            None if self.pixel_values is None else change(self.pixel_values),
            self.sequence_lengths,
        )


def with_mode(input_ids: np.ndarray, labels: np.ndarray, mode: Mode) -> tuple[np.ndarray, np.ndarray]:
    """A sample in VDEP mode: ``<auto_image>`` for ``<image>``, no supervised text, and nothing after the image.

    The model is causal, so what follows the last supervised image position changes no loss and no gradient.
    """
    if mode is Mode.LLAVA:
        return input_ids, labels
    at = np.flatnonzero(input_ids == IMAGE_INDEX)
    stop = int(at[-1]) + 1 if len(at) else 0
    ids = np.where(input_ids[:stop] == IMAGE_INDEX, AUTO_IMAGE_INDEX, input_ids[:stop])
    return ids, np.full(stop, IGNORE_INDEX, labels.dtype)


def collate(
    samples: Sequence[tuple[np.ndarray, np.ndarray]],
    image_loss: Sequence[bool],
    pixel_values: np.ndarray | None,
    image_tokens: int,
    packed: bool = False,
) -> Batch:
    """Expand images; then pad and stack, or put all samples one after the other into one row.

    Args:
        samples: (input_ids, labels) of each sample, with one image index per image.
        image_loss: whether the image positions of a sample are supervised.
        pixel_values: (images, 3, height, width), in the order of the samples.
    """
    rows = [_expanded(*sample, supervised, image_tokens) for sample, supervised in zip(samples, image_loss, strict=True)]
    images = sum(int(np.count_nonzero(mask)) for _, _, mask, _ in rows) // image_tokens
    if images != (0 if pixel_values is None else len(pixel_values)):
        raise ValueError(f"{images} image positions for {0 if pixel_values is None else len(pixel_values)} images")
    columns = list(zip(*rows, strict=True))
    if packed:
        arrays = [np.concatenate(column)[None] for column in columns]
    else:
        arrays = [_padded(column, fill) for column, fill in zip(columns, (0, IGNORE_INDEX, False, False), strict=True)]
    input_ids, labels, image_mask, image_loss_mask = (torch.from_numpy(array) for array in arrays)
    pixels = None if pixel_values is None else torch.from_numpy(pixel_values)
    # a sample without image in VDEP mode has nothing left
    sequences = tuple(len(ids) for ids, *_ in rows if len(ids)) if packed else None
    return Batch(input_ids, labels, image_mask, image_loss_mask, pixels, sequences)


def _expanded(ids: np.ndarray, labels: np.ndarray, supervised: bool, image_tokens: int) -> tuple[np.ndarray, ...]:
    """(length,) each: ids, labels, image positions, supervised image positions, an image counted as its tokens."""
    is_image = (ids == IMAGE_INDEX) | (ids == AUTO_IMAGE_INDEX)
    repeats = np.where(is_image, image_tokens, 1)
    expanded = np.repeat(labels, repeats).astype(np.int64)
    # nothing predicts the first token of a sample; in a packed row its neighbour would
    expanded[:1] = IGNORE_INDEX
    mask = np.repeat(is_image, repeats)
    return np.repeat(np.where(is_image, 0, ids), repeats).astype(np.int64), expanded, mask, mask & supervised


def _padded(column: Sequence[np.ndarray], fill: int) -> np.ndarray:
    array = np.full((len(column), max(map(len, column))), fill, column[0].dtype)
    for row, part in zip(array, column, strict=True):
        row[: len(part)] = part
    return array
