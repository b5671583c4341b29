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
    """A micro-batch, padded on the right (which a causal model never sees).

    ``input_ids`` (batch, length), 0 at image positions; ``labels`` (batch, length), ``IGNORE_INDEX`` where not supervised;
    ``image_mask`` (batch, length) bool, in the order of ``pixel_values`` (images, 3, height, width), which is None where no
    sample has an image; ``image_loss_mask`` (batch, length) bool, the image positions that the image loss reads.
    """

    input_ids: Tensor
    labels: Tensor
    image_mask: Tensor
    image_loss_mask: Tensor
    pixel_values: Tensor | None

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
) -> Batch:
    """Expand images, pad, stack.

    Args:
        samples: (input_ids, labels) of each sample, with one image index per image.
        image_loss: whether the image positions of a sample are supervised.
        pixel_values: (images, 3, height, width), in the order of the samples.
    """
    lengths = [
        len(ids) + (image_tokens - 1) * int(np.count_nonzero((ids == IMAGE_INDEX) | (ids == AUTO_IMAGE_INDEX)))
        for ids, _ in samples
    ]
    shape = (len(samples), max(lengths))
    input_ids = np.zeros(shape, np.int64)
    labels = np.full(shape, IGNORE_INDEX, np.int64)
    image_mask = np.zeros(shape, bool)
    image_loss_mask = np.zeros(shape, bool)
    images = 0
    for row, ((ids, own_labels), supervised, length) in enumerate(zip(samples, image_loss, lengths, strict=True)):
        is_image = (ids == IMAGE_INDEX) | (ids == AUTO_IMAGE_INDEX)
        repeats = np.where(is_image, image_tokens, 1)
        input_ids[row, :length] = np.repeat(np.where(is_image, 0, ids), repeats)
        labels[row, :length] = np.repeat(own_labels, repeats)
        image_mask[row, :length] = np.repeat(is_image, repeats)
        image_loss_mask[row] = image_mask[row] & supervised
        images += int(is_image.sum())
    if images != (0 if pixel_values is None else len(pixel_values)):
        raise ValueError(f"{images} image positions for {0 if pixel_values is None else len(pixel_values)} images")
    return Batch(
        torch.from_numpy(input_ids),
        torch.from_numpy(labels),
        torch.from_numpy(image_mask),
        torch.from_numpy(image_loss_mask),
        None if pixel_values is None else torch.from_numpy(pixel_values),
    )
