"""The per-sample rows of an evaluation: what a question was, and all of them on disk."""

from __future__ import annotations

import ast
import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..files import write_atomically

_IDS = ("question_id", "id", "index")
_CATEGORY = {
    # where a benchmark groups its questions in a column of another name
    "mmvet": "capability",
    "mmt": "l2-category",
    "seedbench": "question_type_id",
    "ocrbench": "question_type",
    "scienceqa": "topic",
    "ok_vqa": "question_type",
}


def describe(task: str, document: Mapping[str, Any]) -> dict[str, Any]:
    """What a report needs to show a question: its id, its text, its options, its kind, and every answer that counts.

    Args:
        task: lmms-eval's task file; its folder names the benchmark.
        document: a row of the benchmark; columns differ from one to the next, and what one lacks is left out.
    """
    folder = task.split("/")[0]
    described: dict[str, Any] = {"question": document.get("question")}
    described["question_id"] = next((str(document[name]) for name in _IDS if document.get(name) is not None), None)
    described["options"] = _options(document)
    if folder == "mmmu":
        # validation_Art_Theory_3
        described["category"] = str(document["id"]).partition("_")[2].rpartition("_")[0]
    else:
        value = document.get(_CATEGORY.get(folder, "category"))
        described["category"] = None if value is None else str(value)
    answers = document.get("answers", document.get("answer"))
    described["answers"] = [str(answer) for answer in answers] if isinstance(answers, list) else None
    return {name: value for name, value in described.items() if value is not None}


def _options(document: Mapping[str, Any]) -> list[str] | None:
    for name in ("choices", "options"):
        options = document.get(name)
        if isinstance(options, str):
            options = ast.literal_eval(options)
        if options:
            return [str(option) for option in options]
    lettered = [document.get(f"choice_{letter}", document.get(letter.upper())) for letter in "abcdefghi"]
    return [str(option) for option in lettered if option not in (None, "", "nan")] or None


def write_samples(path: Path, passes: Mapping[str, Sequence[dict[str, Any]]]) -> None:
    """All rows of all passes, each with the name of its pass. The same rows make the same bytes."""
    lines = [
        json.dumps({"pass": name, **row}, ensure_ascii=False, sort_keys=True) for name, rows in passes.items() for row in rows
    ]
    write_atomically(path, gzip.compress(("\n".join(lines) + "\n").encode(), mtime=0))


def read_samples(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]
