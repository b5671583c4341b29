"""Answers on disk, in a file that grows while an evaluation runs, so that an interrupted one goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def answer_key(prompt: str, pictures: Sequence[str], settings: Mapping[str, Any]) -> str:
    """What an answer of one checkpoint depends on: the prompt, the content of its pictures and how is generated.

    Not the number of the question: equal ones have one answer, and a benchmark whose pictures or texts changed is asked again.
    """
    content = json.dumps([prompt, list(pictures), settings], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()


class AnswerLog:
    """Answers by key, read from and appended to a file of JSON lines; without a path, in memory only.

    A line that a crash tore is skipped, wherever it stands; its question is asked again.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.answers: dict[str, str] = {}
        if path is None or not path.exists():
            return
        for line in path.read_bytes().split(b"\n"):
            try:
                row = json.loads(line)
                key, answer = row["key"], row["answer"]
            except (ValueError, LookupError, TypeError):
                continue
            if isinstance(key, str) and isinstance(answer, str):
                self.answers[key] = answer

    def __contains__(self, key: str) -> bool:
        return key in self.answers

    def __getitem__(self, key: str) -> str:
        return self.answers[key]

    def add(self, answers: Mapping[str, str]) -> None:
        """Keep some answers; they are on the disk when this returns."""
        self.answers.update(answers)
        if self.path is None:
            return
        lines = [json.dumps({"key": key, "answer": answer}, ensure_ascii=False) for key, answer in answers.items()]
        with open(self.path, "a+b") as file:
            # what follows a torn line must not become a part of it
            start = b"\n" if _torn(file) else b""
            file.write(start + "".join(f"{line}\n" for line in lines).encode())
            file.flush()
            os.fsync(file.fileno())


def _torn(file: Any) -> bool:
    if file.seek(0, os.SEEK_END) == 0:
        return False
    file.seek(-1, os.SEEK_END)
    return file.read(1) != b"\n"
