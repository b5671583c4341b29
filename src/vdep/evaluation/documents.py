"""The questions of a benchmark: rows of Parquet files that know where they come from, with encoded pictures."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from datasets import Dataset, Image, load_dataset

from ..errors import EvaluationError
from .pictures import Picture

_ROW = "__row__"


class Document(dict[str, Any]):
    """One row, as lmms-eval's task files read it. ``place`` names its row and its file; ``number`` counts in the benchmark."""

    number: int
    place: str


@dataclass(frozen=True)
class PictureFiles:
    """Pictures that lie in files of their own: ``key`` is the column of a question that names the ``id`` of its picture."""

    files: list[str]
    key: str
    id: str = "id"


def read_parquet(name: str, files: list[str], split: str) -> Dataset:
    """The rows of some Parquet files, memory-mapped from the cache of ``datasets``, numbered in a column of their own.

    Raises:
        EvaluationError: where a file cannot be read.
    """
    from datasets.exceptions import DatasetGenerationError

    try:
        # the cache is named again: another part of the process may have imported datasets before it was
        cache = os.environ.get("HF_DATASETS_CACHE")
        rows = load_dataset("parquet", data_files={split: files}, split=split, cache_dir=cache)
    except (OSError, ValueError, DatasetGenerationError) as error:
        named = ", ".join(Path(file).name for file in files)
        reason = error.__cause__ or error
        raise EvaluationError(f"{name}: {named} cannot be read as Parquet ({reason}): download the asset again") from error
    return rows.add_column(_ROW, np.arange(len(rows)))


class Documents(Sequence[Document]):
    """The rows of one split, each read when it is asked for.

    Args:
        rows: from ``read_parquet``, whole or a selection.
        pictures: False leaves the columns with pictures out, wherever a list holds them too. lmms-eval keeps the documents
            that it scores: it takes single pictures out of them, but not lists.
        joined: pictures that lie in other files.
    """

    def __init__(
        self, name: str, rows: Dataset, files: list[str], *, pictures: bool = True, joined: PictureFiles | None = None
    ) -> None:
        self.name = name
        self.features = {column: feature for column, feature in rows.features.items() if column != _ROW}
        self._files = files
        self._ends: list[int] = []
        for file in files:
            self._ends.append(pq.read_metadata(file).num_rows + (self._ends[-1] if self._ends else 0))
        columns = [column for column, feature in self.features.items() if _holds_pictures(feature)]
        self._text = rows.remove_columns(columns)
        self._columns = columns if pictures else []
        self._pictures = rows.select_columns(columns).with_format("arrow") if columns and pictures else None
        self._joined = _Joined(name, joined) if joined and pictures else None

    def __len__(self) -> int:
        return len(self._text)

    def __iter__(self) -> Iterator[Document]:
        for number, row in enumerate(self._text):
            yield self._document(number, row)

    def __getitem__(self, number: Any) -> Any:
        """A document by its number, or a column without pictures by its name, as ``datasets`` has them."""
        if isinstance(number, str):
            return self._text[number]
        return self._document(number, self._text[number])

    @property
    def column_names(self) -> list[str]:
        """Those that can be read by their names: without pictures."""
        return [column for column in self._text.column_names if column != _ROW]

    def _document(self, number: int, row: dict[str, Any]) -> Document:
        source = row.pop(_ROW)
        document = Document(row)
        document.number = number
        document.place = f"{self.name}: row {self._row_in_file(source)}"
        if self._pictures is not None:
            table = self._pictures[number]
            document |= {column: _encoded(table[column][0].as_py(), document.place) for column in self._columns}
        if self._joined is not None:
            document["image"] = self._joined.picture(document)
        return document

    def _row_in_file(self, row: int) -> str:
        file = bisect_right(self._ends, row)
        first = self._ends[file - 1] if file else 0
        return f"{row - first} of {Path(self._files[file]).name}"


class _Joined:
    """Pictures by their id, in the files where each lies once."""

    def __init__(self, name: str, joined: PictureFiles) -> None:
        rows = read_parquet(name, joined.files, "images")
        for column in (joined.id, "image"):
            if column not in rows.column_names:
                raise EvaluationError(
                    f"{name}: {Path(joined.files[0]).name} has no column {column!r}: the data is another revision"
                )
        self._key = joined.key
        self._row_of = {value: row for row, value in enumerate(rows[joined.id])}
        self._pictures = rows.select_columns(["image"]).with_format("arrow")

    def picture(self, document: Document) -> Any:
        name = document.get(self._key)
        if name is None:
            raise EvaluationError(f"{document.place} has nothing in {self._key}, which names its picture")
        if name not in self._row_of:
            raise EvaluationError(f"{document.place} asks about the picture {name!r}, which none of the files holds")
        return _encoded(self._pictures[self._row_of[name]]["image"][0].as_py(), f"{document.place} (picture {name})")


def _holds_pictures(feature: Any) -> bool:
    return isinstance(feature, Image) or isinstance(getattr(feature, "feature", None), Image)


def _encoded(value: Any, place: str) -> Any:
    """A picture, a list of pictures, or None, out of what Parquet holds."""
    if value is None:
        return None
    if isinstance(value, list):
        return [_encoded(item, place) for item in value]
    data = value["bytes"]
    if data is None and value["path"] is not None and Path(value["path"]).is_file():
        data = Path(value["path"]).read_bytes()
    return None if data is None else Picture(data, place)
