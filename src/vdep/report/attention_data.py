"""The numbers of the attention figure, on disk. Imports no torch: figures are drawn anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Flow:
    """``maps`` (samples, layers, image_tokens): attention to each image token; ``totals`` (pictures, layers): its sum;
    ``pixels`` (samples, height, width, 3) uint8, the pictures as the tower sees them."""

    maps: np.ndarray
    totals: np.ndarray
    pixels: np.ndarray

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.stem}.tmp.npz")
        np.savez_compressed(aside, maps=self.maps, totals=self.totals, pixels=self.pixels)
        aside.replace(path)

    @classmethod
    def load(cls, path: Path) -> Flow:
        with np.load(path) as file:
            return cls(file["maps"], file["totals"], file["pixels"])


def total_interval(totals: np.ndarray, resamples: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """95% interval of the mean total of each layer, pictures resampled: two arrays (layers,)."""
    rng = np.random.default_rng(0)
    means = totals[rng.integers(len(totals), size=(resamples, len(totals)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    return low, high
