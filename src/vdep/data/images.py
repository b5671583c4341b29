"""One image file -> the pixels that the vision tower sees.

The three paths of the originals: ``crop`` resizes the short side and crops the centre (LLaVA, stage 1), ``pad`` pads to a
square with the processor's mean colour first (LLaVA, SFT), ``warp`` resizes to a square (SigLIP, both stages). The PIL
processors of transformers are named explicitly: where torchvision is installed, the automatic choice is another one, whose
bicubic filter differs. What the originals ignore is ignored: transparency, and the rotation that a camera notes in EXIF.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..errors import DataError


def decode_image(data: bytes, name: str) -> Image.Image:
    """A whole RGB image, whatever its file is called.

    Raises:
        DataError: for a file that is no image, or only the beginning of one.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.convert("RGB")
    except UnidentifiedImageError as error:
        raise DataError(f"{name} is not an image") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{name} is damaged or truncated: {error}") from error


def pad_to_square(image: Image.Image, color: tuple[int, ...]) -> Image.Image:
    """LLaVA ``expand2square``: the image centred on a square of one colour."""
    width, height = image.size
    if width == height:
        return image
    side = max(width, height)
    square = Image.new(image.mode, (side, side), color)
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square


class ImageTransform:
    """Images -> float32 (images, 3, height, width), by the vision tower's own processor and one of the three paths."""

    def __init__(self, processor: Any, path: str) -> None:
        if path not in ("crop", "pad", "warp"):
            raise ValueError(f"unknown image path {path!r}")
        self.processor = processor
        self.path = path
        self.background = tuple(int(x * 255) for x in processor.image_mean)

    def __call__(self, images: list[Image.Image]) -> np.ndarray:
        images = [image if image.mode == "RGB" else image.convert("RGB") for image in images]
        if self.path == "pad":
            images = [pad_to_square(image, self.background) for image in images]
        # the processor's own conversion would lay a palette's transparency, which Pillow notes in an RGB image too, onto white
        pixels = self.processor(images, return_tensors="np", do_convert_rgb=False)["pixel_values"]
        return pixels.astype(np.float32, copy=False)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of what comes out."""
        size = getattr(self.processor, "crop_size", None) or self.processor.size
        return size["height"], size["width"]


def load_processor(folder: Path) -> Any:
    """The PIL image processor of a CLIP or SigLIP folder, or of a checkpoint that was made from one.

    Raises:
        DataError: for another kind of processor.
    """
    separate, whole = folder / "preprocessor_config.json", folder / "processor_config.json"
    config = json.loads(separate.read_text()) if separate.is_file() else json.loads(whole.read_text())["image_processor"]
    kind = str(config.get("image_processor_type", ""))
    settings = {key: config[key] for key in ("size", "crop_size", "image_mean", "image_std", "resample") if key in config}
    if kind.startswith(("CLIP", "Llava")):
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        return CLIPImageProcessorPil(**settings)
    if kind.startswith("Siglip"):
        from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

        return SiglipImageProcessorPil(**settings)
    raise DataError(f"{folder}: image processor {kind!r} is neither CLIP's nor SigLIP's")
