"""The file of answers that a benchmark's server scores, where the answers of a split are not public.

lmms-eval's own task files write it: a JSON list of ``image`` and ``answer`` for VizWiz, a sheet with ``index`` and
``prediction`` for MMBench. Here it is compared with what the model answered, and given a name that stays the same.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import EvaluationError
from ..files import sha256

FIELDS = {".json": ("image", "answer"), ".xlsx": ("index", "prediction")}
"""What a row must say, by the kind of the file: which question, and the answer."""

TIME = re.compile(r"-\d{4}-\d{4}-\d{4}-\d{2}(?=\.)")
"""lmms-eval puts the time into some names."""


def take_submission(name: str, samples: Sequence[Mapping[str, Any]], written: Path, target: Path) -> dict[str, Any]:
    """Check the one file that lmms-eval wrote into the folder ``written``, and move it into the folder ``target``.

    Args:
        samples: lmms-eval's logged samples; ``submission`` is what each has to be in the file.

    Returns:
        the file's name, its SHA-256 and its number of rows.

    Raises:
        EvaluationError: where there is no such file, or a question is missing in it, or has another answer than the model's.
    """
    files = sorted(written.iterdir()) if written.is_dir() else []
    if len(files) != 1 or files[0].suffix not in FIELDS:
        raise EvaluationError(f"{name}: lmms-eval wrote no submission of a known kind, but {[f.name for f in files]}")
    (file,) = files
    question, answer = FIELDS[file.suffix]
    rows = _read(file)
    expected = [(_text(s["submission"][question]), _text(s["submission"][answer])) for s in samples]
    given = [(_text(row.get(question)), _text(row.get(answer))) for row in rows]
    if len(given) != len(expected):
        raise EvaluationError(f"{name}: {file.name} has {len(given)} rows for {len(expected)} questions")
    for number, (one, other) in enumerate(zip(expected, given, strict=True)):
        if one != other:
            raise EvaluationError(
                f"{name}: row {number} of {file.name} is {question} {other[0]!r}, {answer} {other[1]!r}; it should be {one}"
            )
    if len({one for one, _ in expected}) != len(expected):
        raise EvaluationError(f"{name}: {file.name} has more than one row for the same {question}")
    final = target / TIME.sub("", file.name)
    target.mkdir(parents=True, exist_ok=True)
    partial = final.with_name(f".{final.name}.partial")
    shutil.copyfile(file, partial)
    partial.replace(final)
    return {"file": final.name, "sha256": sha256(final), "rows": len(rows)}


def _read(file: Path) -> list[dict[str, Any]]:
    if file.suffix == ".json":
        rows: list[dict[str, Any]] = json.loads(file.read_text())
        return rows
    import pandas

    # a model may well answer "nan" or "None": nothing is read as missing
    return pandas.read_excel(file, dtype=str, keep_default_na=False).to_dict("records")


def _text(value: Any) -> str:
    return "" if value is None else str(value)
