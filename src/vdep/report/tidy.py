"""Every number of every finished evaluation, one a line: for whoever computes with them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from ..artifacts import Scores
from .results import Key

FIELDS = ("model", "variant", "seed", "benchmark", "quantity", "value", "n")


def as_csv(files: Mapping[Key, Path]) -> str:
    """``quantity`` is a part of the score (``score``, ``perception``, ...), with ``.low`` and ``.high`` its 95% interval over
    questions, with ``.blind`` the same without the pictures; ``n`` the questions. Numbers are not rounded.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(FIELDS)
    for key, path in sorted(files.items()):
        scores = Scores.read(path)
        blind = (scores.blind or {}).get("parts", {})
        for part, found in scores.seen["parts"].items():
            values = {"": found["value"], ".low": found["low"], ".high": found["high"]}
            if part in blind:
                values[".blind"] = blind[part]["value"]
            writer.writerows((*key, f"{part}{which}", value, scores.seen["n"]) for which, value in values.items())
    return text.getvalue()
