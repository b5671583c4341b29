"""Some of the demo's pictures are awkward, as real ones are, and what is said about them stays true on every image path."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vdep.data.images import ImageTransform, decode_image, load_processor
from vdep_demo.base_weights.make import SHIPPED
from vdep_demo.world import pictures
from vdep_demo.world.benchmarks import make_benchmark
from vdep_demo.world.data import make_captions, make_conversations
from vdep_demo.world.gallery import make_gallery
from vdep_demo.world.scenes import GRID, IMAGE_SIZE, Scene, render, sample_scenes

SCENES = sample_scenes(3000, "train", 17)
KINDS: dict[str, Callable[[pictures.Form], bool]] = {
    "square": lambda form: form == pictures.Form(),
    "wide": lambda form: form.margin[0] > 0,
    "high": lambda form: form.margin[1] > 0,
    "palette": lambda form: form.palette,
    "large": lambda form: form.scale > 1,
}
PATHS = {"crop": "clip", "pad": "clip", "warp": "siglip"}


def of_kind(kind: str) -> list[Scene]:
    return [scene for scene in SCENES if KINDS[kind](pictures.form(scene))]


def opened(scene: Scene) -> Image.Image:
    return Image.open(io.BytesIO(pictures.encode(scene)))


def transform(path: str) -> ImageTransform:
    return ImageTransform(load_processor(SHIPPED / PATHS[path]), path)


def seen(path: str, image: Image.Image) -> np.ndarray:
    """(48, 48, 3) in 0..255: what the tower sees of it."""
    own = transform(path)
    mean, deviation = (np.asarray(x)[:, None, None] for x in (own.processor.image_mean, own.processor.image_std))
    return ((own([image.convert("RGB")])[0] * deviation + mean) * 255).transpose(1, 2, 0)


def test_most_pictures_are_square_and_few_are_large() -> None:
    shares = {kind: len(of_kind(kind)) / len(SCENES) for kind in KINDS}
    assert 0.8 < shares["square"] < 0.9
    assert 0.005 < shares["large"] < 0.02
    assert 0.03 < shares["palette"] < 0.05
    assert 0.03 < shares["wide"] < 0.08
    assert 0.03 < shares["high"] < 0.08


def test_the_file_is_what_its_form_says() -> None:
    for kind in KINDS:
        for scene in of_kind(kind)[:3]:
            form, image = pictures.form(scene), opened(scene)
            assert image.size == form.size == pictures.mask(scene).size
            assert image.format == {"png": "PNG", "jpg": "JPEG"}[form.ending]
            assert (image.mode == "P" and "transparency" in image.info) == (kind == "palette" or form.palette)
            if kind == "large":
                assert 1e6 <= image.width * image.height <= 2.2e6


@pytest.mark.parametrize("kind", KINDS)
def test_a_centre_crop_shows_the_whole_scene(kind: str) -> None:
    for scene in of_kind(kind)[:5]:
        image = opened(scene).convert("RGB")
        image.info.clear()
        difference = np.abs(seen("crop", image) - np.asarray(render(scene), float))
        assert difference.mean() < 6, "the scene itself, but for what a palette or JPEG loses"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_thing_stays_in_its_place_on_every_path(kind: str, path: str) -> None:
    """A thing's place is a third of the picture's height and of its width, before and after, and nothing is cut off."""
    for scene in of_kind(kind)[:5]:
        width, height = pictures.form(scene).margin
        wide, high = IMAGE_SIZE + 2 * width, IMAGE_SIZE + 2 * height
        shrunk = {"crop": 1.0, "pad": (IMAGE_SIZE / max(wide, high)) ** 2, "warp": IMAGE_SIZE**2 / (wide * high)}
        for thing in scene.things:
            alone = Scene((thing,), scene.background, scene.shade, scene.noise_seed)
            mask = pictures.mask(alone)
            found = seen(path, mask)[..., 0].clip(0, 255) / 255
            if path == "pad":
                background = seen(path, Image.new("RGB", mask.size))[..., 0].clip(0, 255) / 255
                found = found - background
            rows, columns = np.indices(found.shape)
            middle = np.array([(found * rows).sum(), (found * columns).sum()]) / found.sum()
            assert tuple((middle / IMAGE_SIZE * GRID).astype(int)) == (thing.row, thing.column)
            drawn = (np.asarray(pictures.mask(alone)) > 0).mean() * wide * high
            assert found.sum() == pytest.approx(drawn * shrunk[path], rel=0.1)


def test_captions_conversations_benchmarks_and_the_gallery_hold_them(tmp_path: Path) -> None:
    makers = {
        "captions": lambda folder: make_captions(folder, 400, 3),
        "conversations": lambda folder: make_conversations(folder, 400, 3),
        "gallery": lambda folder: make_gallery(folder, 400, 3),
        "seedbench_img": lambda folder: make_benchmark(folder, "seedbench_img", 300, 3),
        "gqa": lambda folder: make_benchmark(folder, "gqa", 300, 3),
    }
    for name, make in makers.items():
        folder = tmp_path / name
        folder.mkdir()
        make(folder)
        files = list(files_of(folder))
        images = [Image.open(io.BytesIO(data)) for data in files]
        assert any(image.width != image.height for image in images), name
        assert any(image.mode == "P" for image in images), name
        assert any(image.width * image.height >= 1e6 for image in images), name
        for data in files[:20]:
            assert decode_image(data, name).mode == "RGB"


def files_of(folder: Path) -> list[bytes]:
    import pyarrow.parquet as pq

    if (folder / "images.zip").is_file():
        with zipfile.ZipFile(folder / "images.zip") as archive:
            return [archive.read(name) for name in archive.namelist()]
    if (folder / "images").is_dir():
        return [path.read_bytes() for path in sorted((folder / "images").iterdir())]
    tables = [pq.read_table(path).to_pylist() for path in folder.glob("*.parquet")]
    cells = [row["image"] for rows in tables for row in rows if "image" in row]
    return [(cell[0] if isinstance(cell, list) else cell)["bytes"] for cell in cells]
