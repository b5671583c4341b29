"""A prepared dataset on disk: token ids, labels and image locations in one memory-mapped Arrow file.

Nothing is tokenised or scanned in the training loop. Row ``i`` of the file is sample ``i`` of the batch plan.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..artifacts import MANIFEST, PreparedManifest
from ..errors import DataError
from .archive import ImageArchive, ImageFolder, Location, open_images
from .conversation import IGNORE_INDEX, IMAGE_INDEX

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("input_ids", pa.list_(pa.int32())),
        ("supervised", pa.list_(pa.bool_())),
        ("archive", pa.int16()),
        ("offset", pa.int64()),
        ("packed_size", pa.int64()),
        ("size", pa.int64()),
        ("crc", pa.int64()),
        ("method", pa.int16()),
    ]
)
MEMBER = pa.field("member", pa.string())
"""Where images are files of a folder."""
ORACLE = pa.field("oracle", pa.list_(pa.int32()))
"""Where samples name words for their picture, which a target can be made of (``VdepSettings.target``): their ids."""
NO_IMAGE = -1


@dataclass(frozen=True)
class Sample:
    """``input_ids`` and ``labels`` (length,), one index for the image; ``location`` is None for a text-only sample."""

    id: str
    input_ids: np.ndarray
    labels: np.ndarray
    archive: int
    location: Location | None
    oracle: np.ndarray | None = None
    """(words,) ids of the words that it names for its picture."""


def schema_with(member: bool, oracle: bool) -> pa.Schema:
    """The columns of a file with these optional ones."""
    return pa.schema([*SCHEMA, *([MEMBER] if member else []), *([ORACLE] if oracle else [])])


class PreparedData:
    """Random access to the samples, and the arrays that the batch plan is made from.

    Args:
        folder: holds ``manifest.json`` and ``samples.arrow``.
        verify: compare the file with the hash in its manifest first.

    Raises:
        DataError: where the file is missing or not the one that was prepared.
    """

    def __init__(self, folder: Path, verify: bool = True) -> None:
        self.manifest = (PreparedManifest.open if verify else PreparedManifest.read)(folder / MANIFEST)
        path = folder / "samples.arrow"
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        if table.schema not in [schema_with(member, oracle) for member in (False, True) for oracle in (False, True)]:
            raise DataError(f"{path} has other columns than this version writes. Delete {folder} and prepare it again.")
        self._columns = {name: table.column(name).chunks for name in table.schema.names}
        self._starts = np.cumsum([0, *(len(chunk) for chunk in self._columns["id"])])
        self.image_tokens: int = self.manifest.recipe["image_tokens"]
        self._archives: dict[int, ImageArchive | ImageFolder] = {}

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> Sample:
        chunk = int(np.searchsorted(self._starts, index, side="right")) - 1
        row = index - int(self._starts[chunk])

        def scalar(name: str) -> Any:
            return self._columns[name][chunk][row].as_py()

        ids = self._list("input_ids", chunk, row)
        supervised = self._list("supervised", chunk, row)
        labels = np.where(supervised, ids, IGNORE_INDEX).astype(np.int32)
        archive = scalar("archive")
        location = None
        if archive != NO_IMAGE:
            location = Location(**{field.name: scalar(field.name) for field in fields(Location) if field.name in self._columns})
        oracle = self._list("oracle", chunk, row) if self.has_oracle else None
        return Sample(scalar("id"), ids, labels, archive, location, oracle)

    def _list(self, name: str, chunk: int, row: int) -> np.ndarray:
        column = self._columns[name][chunk]
        offsets = column.offsets
        start, stop = offsets[row].as_py(), offsets[row + 1].as_py()
        return column.values.slice(start, stop - start).to_numpy(zero_copy_only=False)

    def _per_chunk(self, compute: Any) -> np.ndarray:
        return np.concatenate([compute(i) for i in range(len(self._starts) - 1)] or [np.empty(0, np.int64)])

    @cached_property
    def has_image(self) -> np.ndarray:
        """(samples,) bool."""
        return self._per_chunk(lambda i: self._columns["archive"][i].to_numpy() != NO_IMAGE)

    @property
    def has_oracle(self) -> bool:
        """Whether samples may name words for their pictures."""
        return "oracle" in self._columns

    @cached_property
    def pictures(self) -> np.ndarray:
        """(samples,) the number of each sample's picture, the same for files of the same content; -1 where there is none."""
        crc, size = (self._per_chunk(lambda i, n=n: self._columns[n][i].to_numpy().astype(np.uint64)) for n in ("crc", "size"))
        found = np.full(len(self), -1)
        contents = (size << np.uint64(32)) ^ crc
        found[self.has_image] = np.unique(contents[self.has_image], return_inverse=True)[1]
        return found

    @cached_property
    def lengths(self) -> np.ndarray:
        """(samples,) tokens, an image counted as its image tokens."""
        texts = self._per_chunk(lambda i: np.diff(self._columns["input_ids"][i].offsets.to_numpy()))
        return texts + self.has_image * (self.image_tokens - 1)

    @cached_property
    def supervised_tokens(self) -> np.ndarray:
        """(samples,) tokens that the text loss reads: the supervised ones that have a predecessor."""

        def count(i: int) -> np.ndarray:
            column = self._columns["supervised"][i]
            flags = column.values.to_numpy(zero_copy_only=False).astype(np.int64)
            offsets = column.offsets.to_numpy()
            totals = np.concatenate([[0], np.cumsum(flags)])
            nonempty = offsets[1:] > offsets[:-1]
            first = np.zeros(len(column), np.int64)
            first[nonempty] = flags[offsets[:-1][nonempty]]
            return totals[offsets[1:]] - totals[offsets[:-1]] - first

        return self._per_chunk(count)

    @cached_property
    def image_at(self) -> np.ndarray:
        """(samples,) position of the image index, -1 where there is none."""

        def find(i: int) -> np.ndarray:
            column = self._columns["input_ids"][i]
            offsets = column.offsets.to_numpy()
            places = np.flatnonzero(column.values.to_numpy() == IMAGE_INDEX)
            rows = np.searchsorted(offsets, places, side="right") - 1
            found = np.full(len(column), -1, np.int64)
            found[rows] = places - offsets[rows]
            return found

        return self._per_chunk(find)

    def read_image(self, sample: Sample) -> bytes:
        """The bytes of a sample's image file.

        Raises:
            DataError: naming the sample, where the archive is not what it was.
        """
        assert sample.location is not None
        if sample.archive not in self._archives:
            self._archives[sample.archive] = open_images(self.manifest.image_sources()[sample.archive])
        try:
            return self._archives[sample.archive].read(sample.location)
        except DataError as error:
            raise DataError(f"sample {sample.id}: {error}") from error
