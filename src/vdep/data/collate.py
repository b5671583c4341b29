"""Encoded samples and their images -> one micro-batch of tensors, in which every image stands for its image tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .conversation import AUTO_IMAGE_INDEX, IGNORE_INDEX, IMAGE_INDEX


@dataclass(frozen=True)
class Batch:
    """A micro-batch: padded on the right (which a causal model never sees), or packed.

    ``input_ids`` (batch, length), 0 at image positions, ``AUTO_IMAGE_INDEX`` at a trained ``<auto_image>``; ``labels``
    (batch, length), ``IGNORE_INDEX`` where not supervised;
    ``image_mask`` (batch, length) bool, in the order of ``pixel_values`` (images, 3, height, width), which is None where no
    sample has an image; ``text_weights`` and ``image_weights`` (batch, length) float64, what the loss of a supervised token
    and of an image position weighs (``data.weights``), 0 where there is none.
    ``sequence_lengths`` is None, or says that the only row holds so many samples of these lengths, one after the other;
    the first token of a sample is never a label.
    ``groups`` (batch, length) is None, or the normalisation group of each position, where a step has ``group_count`` of them
    and those that are here are whole (``VdepSettings.form``).
    ``target`` is None, or what the targets of the pictures with an image loss are made of, in their order (``data.targets``).
    """

    input_ids: Tensor
    labels: Tensor
    image_mask: Tensor
    text_weights: Tensor
    image_weights: Tensor
    pixel_values: Tensor | None
    sequence_lengths: tuple[int, ...] | None = None
    groups: Tensor | None = None
    group_count: int = 0
    target: Tensor | None = None

    @property
    def images(self) -> int:
        return 0 if self.pixel_values is None else len(self.pixel_values)

    def to(self, device: torch.device) -> Batch:
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        changed: dict[str, Any] = {name: change(value) for name, value in values.items() if isinstance(value, Tensor)}
        return replace(self, **changed)


@dataclass(frozen=True)
class Row:
    """A sample of a micro-batch: ``input_ids`` (length,) with one image index for each image, ``labels`` (length,), and what
    each of its supervised tokens and image positions weighs; an ``image_weight`` of 0 supervises none of them."""

    input_ids: np.ndarray
    labels: np.ndarray
    text_weight: float = 1.0
    image_weight: float = 0.0
    group: int = 0


def in_vdep_mode(input_ids: np.ndarray, labels: np.ndarray, token: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """A sample as VDEP mode trains it: no supervised text, and nothing after the image. With ``token`` there is a token
    ``<auto_image>`` before the image; without, ``<auto_image>`` is a sentinel that X replaces, and so the same as ``<image>``.

    The model is causal, so what follows the last supervised image position changes no loss and no gradient.
    """
    at = np.flatnonzero(input_ids == IMAGE_INDEX)
    ids = input_ids[: int(at[-1]) + 1 if len(at) else 0]
    if token:
        ids = np.insert(ids, at, AUTO_IMAGE_INDEX)
    return ids, np.full(len(ids), IGNORE_INDEX, labels.dtype)


def collate(
    samples: Sequence[Row],
    pixel_values: np.ndarray | None,
    image_tokens: int,
    *,
    packed: bool = False,
    predecessor: bool = False,
    group_count: int = 0,
    target: np.ndarray | None = None,
) -> Batch:
    """Expand images; then pad and stack, or put all samples one after the other into one row.

    Args:
        pixel_values: (images, 3, height, width), in the order of the samples.
        predecessor: whether the first position of a sample is not supervised, because nothing stands before it (``next``).
        group_count: 0, or the number of normalisation groups of the step, where the batch shall say which are here.
        target: see ``Batch``.
    """
    rows = [_expanded(sample, image_tokens, predecessor) for sample in samples]
    images = sum(int(np.count_nonzero(row[2])) for row in rows) // image_tokens
    fills = (0, IGNORE_INDEX, False, 0.0, 0.0, 0)
    if images != (0 if pixel_values is None else len(pixel_values)):
        raise ValueError(f"{images} image positions for {0 if pixel_values is None else len(pixel_values)} images")
    columns = list(zip(*rows, strict=True))
    if packed:
        arrays = [np.concatenate(column)[None] for column in columns]
    else:
        arrays = [_padded(column, fill) for column, fill in zip(columns, fills, strict=True)]
    input_ids, labels, image_mask, text_weights, image_weights, groups = (torch.from_numpy(array) for array in arrays)
    pixels = None if pixel_values is None else torch.from_numpy(pixel_values)
    # a sample without image in VDEP mode has nothing left
    sequences = tuple(len(ids) for ids, *_ in rows if len(ids)) if packed else None
    kept = groups if group_count else None
    made_of = None if target is None else torch.from_numpy(target)
    return Batch(input_ids, labels, image_mask, text_weights, image_weights, pixels, sequences, kept, group_count, made_of)


NOTHING = Row(np.zeros(2, np.int32), np.full(2, IGNORE_INDEX, np.int32))
"""For a rank that has no sample left: two tokens without a loss, so that it takes part in every collective."""


def _expanded(row: Row, image_tokens: int, predecessor: bool) -> tuple[np.ndarray, ...]:
    """(length,) each, an image counted as its tokens: ids, labels, image positions, weights of tokens and of image positions,
    and the group."""
    ids, labels = row.input_ids, row.labels
    is_image = ids == IMAGE_INDEX
    repeats = np.where(is_image, image_tokens, 1)
    expanded = np.repeat(labels, repeats).astype(np.int64)
    # nothing predicts the first token of a sample; in a packed row its neighbour would
    expanded[:1] = IGNORE_INDEX
    mask = np.repeat(is_image, repeats)
    image_weights = mask * row.image_weight
    if predecessor:
        image_weights[:1] = 0.0
    text_weights = (expanded != IGNORE_INDEX) * row.text_weight
    tokens = np.repeat(np.where(is_image, 0, ids), repeats).astype(np.int64)
    return tokens, expanded, mask, text_weights, image_weights, np.full(len(tokens), row.group)


def _padded(column: Sequence[np.ndarray], fill: float) -> np.ndarray:
    array = np.full((len(column), max(map(len, column))), fill, column[0].dtype)
    for row, part in zip(array, column, strict=True):
        row[: len(part)] = part
    return array
