"""The attention viewer's data: maps of a few pictures in a byte a value, and the totals of all of them."""

from __future__ import annotations

import base64
import io
import math
from pathlib import Path

import numpy as np
from PIL import Image

from ..attention_data import Flow, total_interval
from .content import AttentionSide, AttentionView
from .pictures import data_url
from .request import AskedFigure, Request

ROOM = 3_000_000
"""Bytes for the maps of a figure: what one seed more would exceed is left out."""
PIXELS = 336


def views(request: Request) -> tuple[AttentionView, ...]:
    return tuple(_view(figure) for figure in request.figures)


def _view(figure: AskedFigure) -> AttentionView:
    flows = {checkpoint: Flow.load(Path(file)) for checkpoint, file in figure.sides.items()}
    first = next(iter(flows.values()))
    sides: list[AttentionSide] = []
    room = ROOM
    for checkpoint, flow in flows.items():
        side = _side(checkpoint, flow)
        room -= len(side.maps)
        if sides and room < 0:
            side = side.model_copy(update={"maps": ""})
        sides.append(side)
    layers, tokens = first.maps.shape[1], first.maps.shape[-1]
    edge = math.isqrt(tokens)
    return AttentionView(
        name=figure.name,
        question=figure.question,
        sides=tuple(sides),
        pictures=tuple(_picture(pixels) for pixels in first.pixels),
        grid=(edge, edge) if edge * edge == tokens else (1, tokens),
        layers=layers,
        heads=("mean of all heads",),
        counted=len(first.totals),
    )


def _side(checkpoint: str, flow: Flow) -> AttentionSide:
    peak = float(flow.maps.max())
    low, high = total_interval(flow.totals)
    return AttentionSide(
        checkpoint=checkpoint,
        maps=packed(flow.maps, peak),
        peak=peak,
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
