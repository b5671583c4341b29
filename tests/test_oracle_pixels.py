"""The pixels that the vision tower sees are those of the originals, bit by bit (fixtures: tests/originals).

Left out are pictures with a height of 1 or 3: the originals crash on them, or take their rows for the colours.
"""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from originals import material
from PIL import Image

from vdep.data.images import ImageTransform, decode_image, load_processor


@cache
def pictures() -> dict[str, bytes]:
    return material.pictures()


@cache
def expected() -> dict[str, dict[str, Any]]:
    """Descriptions by "processor size path" and picture."""
    llava = json.loads((material.FIXTURES / "llava_pixels.json").read_text())
    factory = json.loads((material.FIXTURES / "factory.json").read_text())
    return {**llava["pixels"], **factory["pixels"]}


def transform(case: str, folder: Path) -> ImageTransform:
    kind, size, path = case.split()
    (folder / "preprocessor_config.json").write_text(json.dumps(material.processor_config(kind, int(size))))
    return ImageTransform(load_processor(folder), path)


def test_both_sides_opened_the_same_pictures() -> None:
    assert json.loads((material.FIXTURES / "llava_pixels.json").read_text())["decoded"] == material.decoded_hashes()


@pytest.mark.parametrize(
    "case",
    [
        "clip 48 crop",
        "clip 48 pad",
        "siglip 48 warp",
        *(pytest.param(case, marks=pytest.mark.slow) for case in ("clip 336 crop", "clip 336 pad", "siglip 384 warp")),
    ],
)
def test_pixels_of_odd_pictures(case: str, tmp_path: Path) -> None:
    prepare = transform(case, tmp_path)
    found = {name: material.described(prepare([decode_image(content, name)])[0]) for name, content in pictures().items()}
    assert len(found) >= 20
    differing = {name: (found[name], expected()[case][name]) for name in found if found[name] != expected()[case][name]}
    assert not differing


@pytest.mark.parametrize("case", ["clip 48 crop", "clip 48 pad", "siglip 48 warp"])
def test_a_benchmarks_picture_is_prepared_like_a_training_picture(case: str, tmp_path: Path) -> None:
    """lmms-eval hands pictures over as Pillow opened them, or converted, with what Pillow notes of their transparency."""
    prepare = transform(case, tmp_path)
    for name, content in pictures().items():
        with Image.open(io.BytesIO(content)) as opened:
            for image in (opened.convert("RGB"), opened):
                assert material.described(prepare([image])[0]) == expected()[case][name], (name, image.mode)


def test_the_pictures_that_are_left_out_are_prepared_too(tmp_path: Path) -> None:
    for size in ((1, 1), (40, 1), (3, 3), (50, 3)):
        for case in ("clip 48 crop", "clip 48 pad", "siglip 48 warp"):
            pixels = transform(case, tmp_path)([Image.new("RGB", size, (255, 0, 0))])
            assert pixels.shape == (1, 3, 48, 48)
            assert (pixels[0, 0] > pixels[0, 1]).mean() > 0.01, "what is red stays red"
