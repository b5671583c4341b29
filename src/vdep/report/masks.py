"""Pictures of which it is known where their objects are, and which of the tower's patches that is.

Two sources: COCO's instances (``instances_val2017.json``: polygons, and run lengths for crowds), all objects of a picture
together; and a folder of masks, one file a picture. COCO's polygons are filled by Pillow, whose edges differ from those of
pycocotools by a fraction of a pixel (docs/decisions.md); a patch is 14 pixels wide.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from ..artifacts import AssetManifest
from ..data.archive import ImageFolder, open_images
from ..data.images import ImageTransform, decode_image
from ..errors import ReportError

FINER = 4
"""Polygons are filled on a grid so much finer: Pillow fills the pixels of an edge too, which at full size adds 5% of area."""
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")


class Masked(NamedTuple):
    name: str
    image: Image.Image
    mask: np.ndarray
    """(height, width) bool."""


def masked_pictures(images: AssetManifest, folder: str, masks: AssetManifest, objects: str) -> Iterator[Masked]:
    """Pictures by their names, each with the mask of its objects; those without any are left out.

    Raises:
        ReportError: where a picture or a mask is missing, or they do not fit.
    """
    if objects.endswith(".json"):
        yield from _coco(images, folder, masks, objects)
    else:
        yield from _files(images.folder / folder, masks.folder / objects)


def list_images(folder: Path) -> list[Path]:
    """The pictures of a folder, in the order of their names.

    Raises:
        ReportError: where there is none.
    """
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_ENDINGS)
    if not found:
        raise ReportError(f"{folder} holds no pictures for the attention figure")
    return found


def _files(folder: Path, masks: Path) -> Iterator[Masked]:
    for path in list_images(folder):
        name = path.relative_to(folder)
        place = masks / name.with_suffix(".png")
        if not place.is_file():
            raise ReportError(f"{place} is missing: the mask of {path}, white where an object is")
        image = decode_image(path.read_bytes(), str(path))
        with Image.open(place) as mask:
            yield _fitting(str(name), image, np.asarray(mask.convert("L")) >= 128, place)


def _coco(images: AssetManifest, folder: str, masks: AssetManifest, objects: str) -> Iterator[Masked]:
    place = masks.member(objects)
    try:
        coco = json.loads(place.read_text(encoding="utf-8"))
        entries = sorted(coco["images"], key=lambda entry: str(entry["file_name"]))
        instances: dict[Any, list[Any]] = {}
        for annotation in coco["annotations"]:
            instances.setdefault(annotation["image_id"], []).append(annotation["segmentation"])
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise ReportError(f"{place} cannot be read as COCO's instances: {error!r}") from error
    archive = open_images(images.images())
    for entry in entries:
        segmentations = instances.get(entry["id"])
        if not segmentations:
            continue
        name = str(PurePosixPath(folder, entry["file_name"]))
        location = archive.locate(name)
        if location is None:
            held = archive.path if isinstance(archive, ImageFolder) else f"the archive {archive.path}"
            raise ReportError(f"{held} has no {name}, of which {place} knows the objects; see `folder` of the figure")
        image = decode_image(archive.read(location), name)
        height, width = entry["height"], entry["width"]
        try:
            mask = np.any([decode_segmentation(one, height, width) for one in segmentations], axis=0)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise ReportError(f"{place}: an object of {entry['file_name']} cannot be drawn: {error}") from error
        yield _fitting(entry["file_name"], image, mask, place)


def _fitting(name: str, image: Image.Image, mask: np.ndarray, place: Any) -> Masked:
    if (image.height, image.width) != mask.shape:
        size = f"{mask.shape[1]} x {mask.shape[0]} pixels, and the picture {image.width} x {image.height}"
        raise ReportError(f"{place}: the mask of {name} has {size}")
    return Masked(name, image, mask)


def decode_segmentation(segmentation: Any, height: int, width: int) -> np.ndarray:
    """One object of COCO: (height, width) bool.

    Args:
        segmentation: a list of polygons ``[x, y, x, y, ...]``, or ``{"counts": [...], "size": [height, width]}``: lengths of
            runs of outside and inside in turn, down the columns.

    Raises:
        ValueError: for compressed runs, and runs that do not fill the picture.
    """
    if isinstance(segmentation, list):
        canvas = Image.new("L", (FINER * width, FINER * height))
        pen = ImageDraw.Draw(canvas)
        for polygon in segmentation:
            # COCO counts from the corner of the first pixel, Pillow from its middle
            pen.polygon([FINER * value - 0.5 for value in polygon], fill=255)
        return np.asarray(canvas.reduce(FINER)) >= 128
    counts = segmentation["counts"]
    if isinstance(counts, str):
        raise ValueError("its runs are compressed; the files of COCO have none that are")
    runs = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    if list(segmentation["size"]) != [height, width] or len(runs) != height * width:
        raise ValueError(f"its runs do not fill a picture of {width} x {height} pixels")
    return runs.reshape(width, height).T


class Patches:
    """The grid of patches that a vision tower cuts a picture into, and the image token of each.

    Args:
        image_fit: how pictures are brought to the tower's size.
        config: of the model (``LlavaConfig``).

    Raises:
        ReportError: where the model's number of image tokens is not the grid's.
    """

    def __init__(self, processor: Any, image_fit: str, config: Any) -> None:
        self.transform = ImageTransform(processor, image_fit)
        self.transform.background = (0, 0, 0)
        mean, deviation = np.asarray(processor.image_mean), np.asarray(processor.image_std)
        self.mean, self.deviation = mean[:, None, None], deviation[:, None, None]
        vision = config.vision_config
        self.patch = vision.patch_size
        self.side = vision.image_size // vision.patch_size
        cells = [-1] * vision.model_type.startswith("clip") + list(range(self.side**2))
        self.cells = np.array(cells[config.vision_feature_select_strategy == "default" :])
        if len(self.cells) != config.image_seq_length:
            raise ReportError(
                f"{config.image_seq_length} image tokens are not the patches of a grid of {self.side} x {self.side}"
            )
        self._inside: dict[tuple[int, int], np.ndarray] = {}

    def shares(self, mask: np.ndarray) -> np.ndarray:
        """(image_tokens,) float32: the share of each patch that lies in the mask, (height, width) bool."""
        picture = Image.fromarray(mask.astype(np.uint8) * 255).convert("RGB")
        values = np.clip(self.transform([picture])[0] * self.deviation + self.mean, 0, 1).mean(0)
        # a tower drops what is left over at the right and below
        edge = self.side * self.patch
        grid = values[:edge, :edge].reshape(self.side, self.patch, self.side, self.patch).mean((1, 3)).reshape(-1)
        return np.where(self.cells >= 0, grid[self.cells], 0).astype(np.float32)

    def inside(self, mask: np.ndarray) -> np.ndarray:
        """(image_tokens,) bool: at least half of the patch is picture, not what pads it to a square."""
        if mask.shape not in self._inside:
            self._inside[mask.shape] = self.shares(np.ones_like(mask)) >= 0.5
        return self._inside[mask.shape]
