"""The pictures of the demo's attention figure, each with the mask of what is drawn on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from .scenes import render, sample_scenes, thing_mask


def make_gallery(folder: Path, scenes: int, seed: int) -> None:
    """``images/<n>.png`` and ``masks/<n>.png`` (white where a thing is) of test scenes."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    for number, scene in enumerate(sample_scenes(scenes, "test", seed, digit_share=0.5, diagram_share=0.0)):
        render(scene).save(folder / "images" / f"{number:03d}.png")
        mask = np.logical_or.reduce([thing_mask(thing) for thing in scene.things])
        Image.fromarray((mask * 255).astype(np.uint8)).save(folder / "masks" / f"{number:03d}.png")
