"""The pictures of the demo's attention figure, each with the mask of what is drawn on it."""

from __future__ import annotations

from pathlib import Path

from . import pictures
from .scenes import sample_scenes


def make_gallery(folder: Path, scenes: int, seed: int) -> None:
    """``images/<n>.png`` (large ones: ``.jpg``) and ``masks/<n>.png`` (white where a thing is) of test scenes."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    for number, scene in enumerate(sample_scenes(scenes, "test", seed, digit_share=0.5, diagram_share=0.0)):
        image = folder / "images" / f"{number:03d}.{pictures.form(scene).ending}"
        image.write_bytes(pictures.encode(scene))
        pictures.mask(scene).save(folder / "masks" / f"{number:03d}.png")
