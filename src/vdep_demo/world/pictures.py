"""The file of a scene: mostly a square PNG, and now and then one as awkward as the real data holds them.

Some pictures are wider or higher than square, with the scene in the middle, so that a centre crop shows all of it; some have a
palette whose background counts as transparent; a few have one or two megapixels, and are JPEG. Which, follows from the scene.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .scenes import IMAGE_SIZE, Scene, render, thing_mask

MARGIN = IMAGE_SIZE // 6
"""On both sides of a scene that is not square: 4 to 3, as most cameras have it."""
PALETTE_COLORS = 256


@dataclass(frozen=True)
class Form:
    """How a scene is put into a file. ``margin``: pixels left and right, above and below; ``scale``: pixels a pixel."""

    margin: tuple[int, int] = (0, 0)
    palette: bool = False
    scale: int = 1

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        width, height = (self.scale * (IMAGE_SIZE + 2 * margin) for margin in self.margin)
        return width, height

    @property
    def ending(self) -> str:
        return "png" if self.scale == 1 else "jpg"


def form(scene: Scene) -> Form:
    """In a hundred pictures about one is large, four have a palette, and ten are not square."""
    rng = np.random.default_rng([scene.noise_seed, 17])
    kind, shape, size = rng.random(3)
    scale = 1 if kind >= 0.01 else (21, 26)[int(size < 0.5)]
    wanted = 0.5 if scale > 1 else 0.1
    margin = (0, 0) if shape >= wanted else (MARGIN, 0) if shape < wanted / 2 else (0, MARGIN)
    return Form(margin, palette=0.01 <= kind < 0.05, scale=scale)


def encode(scene: Scene) -> bytes:
    """The picture of a scene as a file, in its ``form``."""
    chosen = form(scene)
    picture = _framed(scene, chosen)
    buffer = io.BytesIO()
    if chosen.scale > 1:
        picture.resize(chosen.size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    elif chosen.palette:
        indexed = picture.quantize(PALETTE_COLORS)
        background = max(indexed.getcolors() or [(0, 0)])[1]
        indexed.save(buffer, "PNG", transparency=background)
    else:
        picture.save(buffer, "PNG")
    return buffer.getvalue()


def mask(scene: Scene) -> Image.Image:
    """White where a thing is, in the geometry of ``encode``."""
    chosen = form(scene)
    inner = np.logical_or.reduce([thing_mask(thing) for thing in scene.things])
    (right, below) = chosen.margin
    whole = np.pad(inner, ((below, below), (right, right)))
    return Image.fromarray((whole * 255).astype(np.uint8)).resize(chosen.size, Image.Resampling.NEAREST)


def _framed(scene: Scene, chosen: Form) -> Image.Image:
    """The scene with its margins, before it is enlarged."""
    inner = render(scene)
    if chosen.margin == (0, 0):
        return inner
    (width, height) = (IMAGE_SIZE + 2 * margin for margin in chosen.margin)
    frame = np.full((height, width, 3), float(scene.shade))
    if scene.background == "noisy":
        frame += np.random.default_rng([scene.noise_seed, 1]).normal(0, 18, frame.shape)
    canvas = Image.fromarray(np.clip(frame, 0, 255).astype(np.uint8))
    canvas.paste(inner, chosen.margin)
    return canvas
