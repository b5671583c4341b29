"""The attention viewer's data: maps of a few pictures in a byte a value, and the totals of all that were measured."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .cells import notes, sheet
from .content import AttentionSide, AttentionView
from .pictures import data_url
from .request import AskedFigure, Request

ROOM = 2_600_000
"""Bytes for the maps of all figures. What is left out first are single heads, then checkpoints after the second."""
PIXELS = 336
RESAMPLES = 1000


@dataclass(frozen=True)
class Recorded:
    """What ``vdep attention`` wrote of a checkpoint, on the grid of patches."""

    maps: np.ndarray
    """(pictures, layers, patches)."""
    heads: np.ndarray
    """(pictures, layers, heads, patches)."""
    totals: np.ndarray
    """(pictures that are counted, layers)."""
    pixels: np.ndarray
    """(pictures, height, width, 3) uint8."""
    grid: tuple[int, int]
    uniform: float | None

    @classmethod
    def load(cls, path: Path) -> Recorded:
        with np.load(path) as file:
            found = dict(file)
        maps = found["maps"]
        heads = found.get("head_maps", np.empty((*maps.shape[:2], 0, maps.shape[-1])))
        tokens = maps.shape[-1]
        edge = int(found.get("side", math.isqrt(tokens)))
        if "cells" in found:
            maps, heads = (_placed(values, found["cells"], edge) for values in (maps, heads))
        return cls(
            maps=maps,
            heads=heads,
            # the first of the measures is the attention to the whole image
            totals=found["totals"] if "totals" in found else found["by_layer"][..., 0],
            pixels=found["pixels"],
            grid=(edge, edge) if edge * edge == maps.shape[-1] else (1, tokens),
            uniform=float(found["uniform"]) if "uniform" in found else None,
        )


def _placed(values: np.ndarray, cells: np.ndarray, edge: int) -> np.ndarray:
    """(..., image tokens) as (..., patches), 0 where no token is."""
    placed = np.zeros((*values.shape[:-1], edge * edge), values.dtype)
    there = cells >= 0
    placed[..., cells[there]] = values[..., there]
    return placed


def views(request: Request) -> tuple[AttentionView, ...]:
    return tuple(_view(figure, ROOM // len(request.figures)) for figure in request.figures)


def _view(figure: AskedFigure, room: int) -> AttentionView:
    recorded = {checkpoint: Recorded.load(Path(file)) for checkpoint, file in figure.sides.items()}
    first = next(iter(recorded.values()))
    mean, single = _encoded(first.maps), _encoded(first.heads[:1])
    shown = min(len(recorded), max(2, room // mean))
    # single heads of the first seed alone: they are a hundred times as many numbers
    seed = next(iter(recorded)).split("/")[2]
    first_seed = [checkpoint for checkpoint in recorded if checkpoint.split("/")[2] == seed]
    with_heads = min(len(first.pixels), max(0, room - shown * mean) // (len(first_seed) * single)) if first.heads.size else 0
    sides = [_side(c, r, number < shown, with_heads * (c in first_seed)) for number, (c, r) in enumerate(recorded.items())]
    return AttentionView(
        name=figure.name,
        question=figure.question,
        sides=tuple(sides),
        pictures=tuple(_picture(pixels) for pixels in first.pixels),
        grid=first.grid,
        layers=first.maps.shape[1],
        heads=first.heads.shape[2],
        with_heads=with_heads,
        counted=len(first.totals),
        uniform=first.uniform,
        notes=notes(Path(figure.numbers).with_suffix(".md")) if figure.numbers else (),
        numbers=sheet(Path(figure.numbers), "The numbers behind it") if figure.numbers else None,
    )


def _encoded(values: np.ndarray) -> int:
    """Bytes in the page."""
    return max(1, math.ceil(values.size * 4 / 3))


def _side(checkpoint: str, recorded: Recorded, shown: bool, with_heads: int) -> AttentionSide:
    heads = recorded.heads[:with_heads]
    peak = float(max(recorded.maps.max(), heads.max(initial=0)))
    low, high = _interval(recorded.totals)
    return AttentionSide(
        checkpoint=checkpoint,
        peak=peak,
        maps=packed(recorded.maps, peak) if shown else "",
        heads=packed(heads, peak) if shown and with_heads else "",
        totals=_rounded(recorded.totals.mean(0)),
        low=_rounded(low),
        high=_rounded(high),
    )


def _interval(totals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95% interval of the mean of each layer, pictures resampled: two arrays (layers,)."""
    rng = np.random.default_rng(0)
    means = np.stack([totals[rng.integers(len(totals), size=len(totals))].mean(0) for _ in range(RESAMPLES)])
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    return low, high


def packed(maps: np.ndarray, peak: float) -> str:
    """Base64 of a byte a value, the square of which is proportional to it: attention spans four orders of magnitude."""
    scaled = np.sqrt(np.clip(maps, 0, None) / peak) if peak > 0 else np.zeros_like(maps)
    return base64.b64encode(np.rint(scaled * 255).astype(np.uint8).tobytes()).decode()


def unpacked(text: str, peak: float) -> np.ndarray:
    """What the page's JavaScript makes of it: (values,)."""
    return peak * (np.frombuffer(base64.b64decode(text), np.uint8) / 255.0) ** 2


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(round(float(value), 5) for value in values)


def _picture(pixels: np.ndarray) -> str:
    picture = Image.fromarray(pixels)
    picture.thumbnail((PIXELS, PIXELS), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=80, lossless=max(picture.size) <= 100, method=4)
    return data_url(file.getvalue())
