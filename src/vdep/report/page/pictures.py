"""The pictures of questions, small enough for the page. They are found by the SHA-256 that the evaluation recorded: a picture
that is shown is the one that was asked about, wherever in the data it lies."""

from __future__ import annotations

import base64
import hashlib
import io
import logging
from collections.abc import Collection, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageOps

log = logging.getLogger(__name__)

SIDE = 192
"""Pixels of the longer side."""
QUALITY = 60
SMALL = 100
"""A picture up to this many pixels wide and high is drawn, not photographed, and is kept as it is where that is not larger."""


def found(files: Collection[Path], wanted: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """(SHA-256, encoded picture) for each that is in one of the Parquet files; a row group of them is in memory at a time."""
    left = set(wanted)
    for file in files:
        if not left:
            return
        table = pq.ParquetFile(file)
        columns = [name for name in table.schema_arrow.names if _holds_pictures(table.schema_arrow.field(name).type)]
        if not columns:
            continue
        for batch in table.iter_batches(batch_size=32, columns=columns):
            for data in (data for name in columns for value in batch.column(name).to_pylist() for data in _encoded(value)):
                digest = hashlib.sha256(data).hexdigest()
                if digest in left:
                    left.remove(digest)
                    yield digest, data


def _holds_pictures(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _holds_pictures(kind.value_type)
    return pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0


def _encoded(value: object) -> Iterator[bytes]:
    if isinstance(value, list):
        for item in value:
            yield from _encoded(item)
    elif isinstance(value, dict) and isinstance(value.get("bytes"), bytes):
        yield value["bytes"]


def thumbnail(data: bytes) -> str | None:
    """A WebP picture as a data URL; None for what cannot be decoded."""
    try:
        with Image.open(io.BytesIO(data)) as opened:
            opened.draft("RGB", (2 * SIDE, 2 * SIDE))
            picture = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        log.warning("a picture of the data cannot be shown: %s", error)
        return None
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    encoded = _webp(picture, lossless=False)
    if max(picture.size) <= SMALL:
        encoded = min(encoded, _webp(picture, lossless=True), key=len)
    return data_url(encoded)


def _webp(picture: Image.Image, lossless: bool) -> bytes:
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=QUALITY, lossless=lossless, method=4)
    return file.getvalue()


def data_url(encoded: bytes, kind: str = "webp") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(encoded).decode()}"
