"""The per-sample rows of an evaluation, on disk."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..files import write_atomically


def write_samples(path: Path, passes: Mapping[str, Sequence[dict[str, Any]]]) -> None:
    """All rows of all passes, each with the name of its pass. The same rows make the same bytes."""
    lines = [
        json.dumps({"pass": name, **row}, ensure_ascii=False, sort_keys=True) for name, rows in passes.items() for row in rows
    ]
    write_atomically(path, gzip.compress(("\n".join(lines) + "\n").encode(), mtime=0))


def read_samples(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]
