"""The attention viewer's data: maps of a few pictures in a byte a value, and the totals of all that were measured."""

from __future__ import annotations

import base64
import io
import math
from pathlib import Path

import numpy as np
from PIL import Image

from ..attention_data import Flow, total_interval
from .cells import notes, sheet
from .content import AttentionSide, AttentionView
from .pictures import data_url
from .request import AskedFigure, Request

ROOM = 2_600_000
"""Bytes for the maps of all figures. What is left out first are single heads, then checkpoints after the second."""
PIXELS = 336


def views(request: Request) -> tuple[AttentionView, ...]:
    return tuple(_view(figure, ROOM // len(request.figures)) for figure in request.figures)


def _view(figure: AskedFigure, room: int) -> AttentionView:
    flows = {checkpoint: Flow.load(Path(file)) for checkpoint, file in figure.sides.items()}
    first = next(iter(flows.values()))
    mean, single = _encoded(first.maps), _encoded(first.head_maps[:1])
    shown = min(len(flows), max(2, room // mean))
    # single heads of the first seed alone: they are a hundred times as many numbers
    seed = next(iter(flows)).split("/")[2]
    first_seed = [checkpoint for checkpoint in flows if checkpoint.split("/")[2] == seed]
    with_heads = min(len(first.pixels), max(0, room - shown * mean) // (len(first_seed) * single))
    sides = [_side(c, flow, number < shown, with_heads * (c in first_seed)) for number, (c, flow) in enumerate(flows.items())]
    return AttentionView(
        name=figure.name,
        question=figure.question,
        sides=tuple(sides),
        pictures=tuple(_picture(pixels) for pixels in first.pixels),
        grid=(first.side, first.side),
        layers=first.maps.shape[1],
        heads=first.head_maps.shape[2],
        with_heads=with_heads,
        counted=len(first.totals),
        uniform=first.uniform,
        notes=notes(Path(figure.numbers).with_suffix(".md")) if figure.numbers else (),
        numbers=sheet(Path(figure.numbers), "The numbers behind it") if figure.numbers else None,
    )


def _encoded(values: np.ndarray) -> int:
    """Bytes in the page."""
    return max(1, math.ceil(values.size * 4 / 3))


def _side(checkpoint: str, flow: Flow, shown: bool, with_heads: int) -> AttentionSide:
    maps, heads = (np.nan_to_num(flow.grid(values)) for values in (flow.maps, flow.head_maps[:with_heads]))
    peak = float(max(maps.max(), heads.max(initial=0)))
    low, high = total_interval(flow.totals)
    return AttentionSide(
        checkpoint=checkpoint,
        peak=peak,
        maps=packed(maps, peak) if shown else "",
        heads=packed(heads, peak) if shown and with_heads else "",
        totals=_rounded(flow.totals.mean(0)),
        low=_rounded(low),
        high=_rounded(high),
    )


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
