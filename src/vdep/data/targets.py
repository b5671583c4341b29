"""What the target of a sample is made of where that is not X of its own picture (``VdepSettings.target``): whose picture,
which order of positions, which words. Each is a function of (seed, sample, step): ranks, packing and accumulation change none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from ..errors import DataError
from ..study.settings import VdepSettings
from .images import ImageTransform
from .plan import hashed, permutation
from .prepared import PreparedData, Sample

_STREAMS = {"partner": 16, "positions": 17}
"""Apart from those of ``plan``."""


class Targets:
    """The targets of one training.

    Args:
        read: opens the picture of a sample.

    Raises:
        DataError: where the data has no other picture, or no words, to make them of.
    """

    def __init__(
        self,
        data: PreparedData,
        vdep: VdepSettings,
        seed: int,
        read: Callable[[Sample], Image.Image],
        transform: ImageTransform,
    ) -> None:
        self.data, self.kind, self.seed, self.read, self.transform = data, vdep.target, seed, read, transform
        if self.kind == "other_image" and len(self._first) < 2:
            raise DataError("vdep.target: other_image needs data with two different pictures, and here is no second one")
        if self.kind == "oracle" and not data.has_oracle:
            raise DataError("vdep.target: oracle needs data whose samples name words for their pictures, in a field `oracle`")

    def of(self, step: int, index: int, sample: Sample) -> Any:
        """What the target of one sample, row ``index`` of the data, is made of at a step; None where nothing is needed."""
        if self.kind == "other_image":
            return self.read(self.data[self.partner(step, index)])
        if self.kind == "shuffled":
            return permutation(self.data.image_tokens, self.seed, _STREAMS["positions"], step, index)
        if self.kind == "oracle":
            if sample.oracle is None or not len(sample.oracle):
                raise DataError(f"sample {sample.id} names no words for its picture: with target: oracle each needs `oracle`")
            return sample.oracle
        return None

    def stack(self, parts: Sequence[Any]) -> np.ndarray | None:
        """``Batch.target`` of a micro-batch: pixels (pictures, 3, height, width), orders (pictures, image_tokens) or words
        (pictures, most words), -1 behind the last of each."""
        if not parts or parts[0] is None:
            return None
        if self.kind == "other_image":
            return self.transform(list(parts))
        stacked = np.full((len(parts), max(map(len, parts))), -1, np.int64)
        for row, part in zip(stacked, parts, strict=True):
            row[: len(part)] = part
        return stacked

    def partner(self, step: int, index: int) -> int:
        """A sample with another picture, each other picture of the data as likely."""
        own = int(self.data.pictures[index])
        chosen = int(hashed(self.seed, _STREAMS["partner"], step, index)) % (len(self._first) - 1)
        return int(self._first[chosen + (chosen >= own)])

    @cached_property
    def _first(self) -> np.ndarray:
        """(different pictures,) the first sample with each."""
        pictures = self.data.pictures
        rows = np.flatnonzero(pictures >= 0)
        return rows[np.unique(pictures[rows], return_index=True)[1]]
