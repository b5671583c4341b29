"""Where the objects of a picture are: COCO's polygons and run lengths, masks as files, and which patches that is."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import world
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vdep.artifacts import MANIFEST, AssetManifest
from vdep.data.images import load_processor
from vdep.errors import ReportError
from vdep.report.masks import Patches, decode_segmentation, masked_pictures


def inside_polygon(x: float, y: float, corners: list[float]) -> bool:
    """Crossings of a ray with the edges: the textbook's rule."""
    points = list(zip(corners[::2], corners[1::2], strict=True))
    crossings = 0
    for (x1, y1), (x2, y2) in zip(points, points[1:] + points[:1], strict=True):
        crossings += (y1 > y) != (y2 > y) and x < (x2 - x1) * (y - y1) / (y2 - y1) + x1
    return crossings % 2 == 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 40), st.floats(0, 30)), min_size=3, max_size=3))
def test_a_polygon_is_filled_but_for_its_edge(points: list[tuple[float, float]]) -> None:
    corners = [value for point in points for value in point]
    mask = decode_segmentation([corners], 30, 40)
    assert mask.shape == (30, 40)
    inner = np.array([[inside_polygon(x + 0.5, y + 0.5, corners) for x in range(40)] for y in range(30)])
    # wherever they differ, the polygon's edge is within a pixel
    differ = np.argwhere(mask != inner)
    for y, x in differ:
        edge = any(
            abs((y2 - y1) * (x + 0.5) - (x2 - x1) * (y + 0.5) + x2 * y1 - y2 * x1)
            <= 1.5 * max(np.hypot(x2 - x1, y2 - y1), 1e-9)
            for (x1, y1), (x2, y2) in zip(points, points[1:] + points[:1], strict=True)
        )
        assert edge, (x, y)


def test_a_rectangle_covers_its_pixels() -> None:
    mask = decode_segmentation(
        [[10.0, 5.0, 20.0, 5.0, 20.0, 25.0, 10.0, 25.0], [0.0, 0.0, 2.0, 0.0, 2.0, 2.0, 0.0, 2.0]], 30, 40
    )
    assert mask[15, 15]
    assert mask[1, 1]
    assert not mask[15, 30]
    assert mask.sum() == 10 * 20 + 4


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 7), st.integers(1, 9), st.data())
def test_run_lengths_go_down_the_columns(height: int, width: int, data: st.DataObject) -> None:
    wanted = np.array(data.draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))).reshape(
        height, width
    )
    counts, value = [0], False
    for x in range(width):
        for y in range(height):
            if wanted[y, x] != value:
                counts.append(0)
                value = not value
            counts[-1] += 1
    assert np.array_equal(decode_segmentation({"counts": counts, "size": [height, width]}, height, width), wanted)


def test_runs_that_do_not_fit_are_errors() -> None:
    with pytest.raises(ValueError, match="do not fill a picture of 4 x 3"):
        decode_segmentation({"counts": [5, 6], "size": [3, 4]}, 3, 4)
    with pytest.raises(ValueError, match="compressed"):
        decode_segmentation({"counts": "abc", "size": [3, 4]}, 3, 4)


@pytest.fixture
def coco(tmp_path: Path) -> tuple[AssetManifest, AssetManifest]:
    """Three pictures in an archive as COCO's, with a polygon, a crowd, and nothing."""
    images, annotations = tmp_path / "val2017", tmp_path / "annotations"
    images.mkdir()
    annotations.mkdir()
    with zipfile.ZipFile(images / "val2017.zip", "w") as archive:
        for name in ("b", "a", "empty"):
            Image.new("RGB", (40, 30), (9, 9, 9)).save(tmp_path / f"{name}.png")
            archive.write(tmp_path / f"{name}.png", f"val2017/{name}.png")
    entries = [{"id": i, "file_name": f"{name}.png", "height": 30, "width": 40} for i, name in enumerate(("b", "a", "empty"))]
    instances = [
        {"image_id": 0, "segmentation": [[0, 0, 20, 0, 20, 30, 0, 30]], "iscrowd": 0},
        {"image_id": 1, "segmentation": {"counts": [600, 600], "size": [30, 40]}, "iscrowd": 1},
        {"image_id": 1, "segmentation": [[0, 0, 4, 0, 4, 4, 0, 4]], "iscrowd": 0},
    ]
    with zipfile.ZipFile(annotations / "annotations.zip", "w") as archive:
        archive.writestr("annotations/instances.json", json.dumps({"images": entries, "annotations": instances}))
    for folder in (images, annotations):
        world.write_manifest(folder)
    return AssetManifest.open(images / MANIFEST), AssetManifest.open(annotations / MANIFEST)


def test_coco_is_read_in_its_archives(coco: tuple[AssetManifest, AssetManifest]) -> None:
    found = list(masked_pictures(coco[0], "val2017", coco[1], "annotations/instances.json"))
    assert [picture.name for picture in found] == ["a.png", "b.png"], "in the order of names, without the empty one"
    crowd, polygon = found
    assert crowd.mask[:, 20:].all()
    assert crowd.mask[:4, :4].all(), "all objects of a picture together"
    assert not crowd.mask[10:, :20].any()
    assert polygon.mask[:, :20].all()
    assert not polygon.mask[:, 21:].any()
    with pytest.raises(ReportError, match=r"has no train/a\.png"):
        list(masked_pictures(coco[0], "train", coco[1], "annotations/instances.json"))
    with pytest.raises(ReportError, match=r"nothing\.json cannot be read as COCO's instances"):
        list(masked_pictures(coco[0], "val2017", coco[1], "annotations/nothing.json"))


def test_masks_are_files_beside_pictures(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (6, 4)).save(tmp_path / "images" / "one.jpg")
    drawn = np.zeros((4, 6), np.uint8)
    drawn[1, 2] = 255
    Image.fromarray(drawn).save(tmp_path / "masks" / "one.png")
    world.write_manifest(tmp_path)
    asset = AssetManifest.open(tmp_path / MANIFEST)
    (found,) = masked_pictures(asset, "images", asset, "masks")
    assert found.name == "one.jpg"
    assert np.argwhere(found.mask).tolist() == [[1, 2]]
    Image.fromarray(drawn[:3]).save(tmp_path / "masks" / "one.png")
    with pytest.raises(ReportError, match=r"the mask of one\.jpg has 6 x 3 pixels, and the picture 6 x 4"):
        list(masked_pictures(asset, "images", asset, "masks"))
    (tmp_path / "masks" / "one.png").unlink()
    with pytest.raises(ReportError, match=r"one\.png is missing"):
        list(masked_pictures(asset, "images", asset, "masks"))


def patches(assets: Path, family: str, fit: str, select: str | None = None) -> Patches:
    tower, kind = {"llama": ("clip", "clip_vision_model"), "phi": ("siglip", "siglip_vision_model")}[family]
    select = select or {"clip": "default", "siglip": "full"}[tower]
    tokens = world.IMAGE_TOKENS + (
        1 if (tower, select) == ("clip", "full") else -1 if (tower, select) == ("siglip", "default") else 0
    )
    side = round(world.IMAGE_TOKENS**0.5)
    processor = load_processor(assets / tower)
    height = (getattr(processor, "crop_size", None) or processor.size)["height"]
    vision = SimpleNamespace(patch_size=height // side, image_size=height, model_type=kind)
    config = SimpleNamespace(vision_config=vision, vision_feature_select_strategy=select, image_seq_length=tokens)
    return Patches(processor, fit, config)


def test_a_mask_takes_the_way_of_its_picture(assets: Path) -> None:
    """The left half of a wide picture: warped it is the left half of the grid; padded, of its middle rows; cropped, too."""
    wide = np.zeros((40, 80), bool)
    wide[:, :40] = True
    side = round(world.IMAGE_TOKENS**0.5)
    left = np.zeros((side, side))
    left[:, : side // 2] = 1
    for family, fit in (("phi", "warp"), ("llama", "crop")):
        grid = patches(assets, family, fit)
        shares = grid.shares(wide).reshape(side, side)
        assert np.allclose(shares[:, 0], 1, atol=0.05), fit
        assert np.allclose(shares[:, -1], 0, atol=0.05), fit
        assert shares.mean() == pytest.approx(0.5, abs=0.03), fit
        assert grid.inside(wide).all()
    padded = patches(assets, "llama", "pad")
    shares, inside = padded.shares(wide).reshape(side, side), padded.inside(wide).reshape(side, side)
    assert shares.mean() == pytest.approx(0.25, abs=0.03), "half of the picture, which is half of the square"
    assert not inside[0].any()
    assert not inside[-1].any()
    assert inside[side // 2].all()


def test_tokens_that_are_no_patches_lie_nowhere(assets: Path) -> None:
    whole = np.ones((32, 32), bool)
    with_class = patches(assets, "llama", "warp", "full")
    assert with_class.cells.tolist() == [-1, *range(world.IMAGE_TOKENS)]
    assert with_class.shares(whole)[0] == 0
    assert not with_class.inside(whole)[0]
    one_less = patches(assets, "phi", "warp", "default")
    assert one_less.cells.tolist() == list(range(1, world.IMAGE_TOKENS)), "the Factory's 728 of 729"
