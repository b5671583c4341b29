"""The numbers of the attention figures, on disk. Imports no torch: figures are drawn anywhere."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

MEASURES = (
    "image",
    "object",
    "object_without_sinks",
    "pointing",
    "pointing_without_sinks",
    "area_without_sinks",
    "entropy",
    "sinks",
)
"""What is measured of attention to a picture; ``attention_measures`` defines each."""
CHOSEN_BY = MEASURES.index("object_without_sinks")


@dataclass(frozen=True)
class Flow:
    """What one checkpoint attends to.

    Maps are of the pictures that are shown, measures of those whose objects are known. No attention of the latter is kept.
    """

    maps: np.ndarray
    """(shown, layers, image_tokens): attention to each image token, mean over heads."""
    head_maps: np.ndarray
    """(shown, layers, heads, image_tokens) float16: the same of each head."""
    pixels: np.ndarray
    """(shown, height, width, 3) uint8: the pictures as the tower sees them."""
    cells: np.ndarray
    """(image_tokens,): where in the grid of patches a token lies, row by row; -1: nowhere (a class token)."""
    side: int
    """The grid has so many rows, and as many columns."""
    uniform: float
    """Attention to the image if every position attended alike to itself and all before it."""
    names: np.ndarray
    """(pictures,): those that are measured."""
    areas: np.ndarray
    """(pictures,): share of the picture's area that objects cover."""
    by_layer: np.ndarray
    """(pictures, layers, measures): of the mean over heads."""
    by_head: np.ndarray
    """(2, layers, heads, measures): means over the pictures of even, and of odd number."""
    best: np.ndarray
    """(2,): layer and head that look at objects most, on the pictures of even number."""
    best_values: np.ndarray
    """(pictures of odd number, measures): of that head. It was not chosen on them."""
    sinks: np.ndarray
    """(layers, image_tokens) bool, of the mean over heads."""

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.stem}.tmp.npz")
        arrays: dict[str, Any] = {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}
        np.savez_compressed(aside, **arrays)
        aside.replace(path)

    @classmethod
    def load(cls, path: Path) -> Flow:
        with np.load(path) as file:
            arrays = {field.name: file[field.name] for field in fields(cls)}
        return cls(**{**arrays, "side": int(arrays["side"]), "uniform": float(arrays["uniform"])})

    @property
    def totals(self) -> np.ndarray:
        """(pictures, layers): attention to the image."""
        return self.by_layer[..., MEASURES.index("image")]

    def grid(self, values: np.ndarray) -> np.ndarray:
        """(..., image_tokens) as (..., side, side); nan where no token lies."""
        placed = np.full((*values.shape[:-1], self.side**2), np.nan)
        there = self.cells >= 0
        placed[..., self.cells[there]] = values[..., there]
        return placed.reshape(*values.shape[:-1], self.side, self.side)


def choose_head(by_head: np.ndarray) -> np.ndarray:
    """(2,): layer and head with the most attention on objects, by (layers, heads, measures) of the pictures chosen on."""
    ratio = np.nan_to_num(by_head[..., CHOSEN_BY], nan=-np.inf)
    return np.array(np.unravel_index(ratio.argmax(), ratio.shape))


def total_interval(totals: np.ndarray, resamples: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """95% interval of the mean total of each layer, pictures resampled: two arrays (layers,)."""
    rng = np.random.default_rng(0)
    means = totals[rng.integers(len(totals), size=(resamples, len(totals)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    return low, high
