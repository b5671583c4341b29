"""How the bytes of the page are shared out, and what becomes a page of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...artifacts import AssetManifest
from ...errors import AssetError
from . import answers, pictures
from .answers import Asked
from .content import Answers, Question
from .request import AskedBenchmark, Request


@dataclass(frozen=True)
class Room:
    """Bytes for the texts and for the pictures of questions, on a page."""

    texts: int = 4_500_000
    pictures: int = 7_500_000

    def share(self, benchmarks: int) -> Room:
        return replace(self, texts=self.texts // max(1, benchmarks), pictures=self.pictures // max(1, benchmarks))


def one_page(request: Request, room: Room) -> tuple[Answers | None, list[str]]:
    """The answers as the page shows them, and the benchmarks of which it does not show everything."""
    if not request.benchmarks:
        return None, []
    checkpoints = answers.checkpoints_of(request.benchmarks)
    share, store, shown, incomplete = room.share(len(request.benchmarks)), _Pictures(), [], []
    for benchmark in request.benchmarks:
        asked = answers.read(benchmark, checkpoints)
        numbers, questions = answers.within(asked, share.texts)
        questions = store.add(asked, numbers, questions, share.pictures)
        whole = len(questions) == len(asked.rows) and not any("…" in text for q in questions for text in (q.q, q.t, *q.w))
        if not whole:
            incomplete.append(benchmark.name)
        shown.append(answers.described(asked, questions, "" if whole else further(benchmark.name)))
    return Answers(checkpoints=checkpoints, benchmarks=tuple(shown), pictures=tuple(store.urls)), incomplete


def further(benchmark: str) -> str:
    """The further page of a benchmark, from where the page lies."""
    return f"report/{benchmark}.html"


def further_page(request: Request, name: str, room: Room) -> Answers:
    """All questions of one benchmark, with whole texts."""
    benchmark = next(b for b in request.benchmarks if b.name == name)
    asked = answers.read(benchmark, answers.checkpoints_of(request.benchmarks))
    numbers = answers.by_priority(asked)
    store = _Pictures()
    questions = store.add(asked, numbers, [answers.question(asked, n, None) for n in numbers], room.pictures)
    return Answers(checkpoints=asked.checkpoints, benchmarks=(answers.described(asked, questions),), pictures=tuple(store.urls))


class _Pictures:
    """Those of a page, each once, though several benchmarks may ask about it."""

    def __init__(self) -> None:
        self.urls: list[str] = []
        self._number: dict[str, int] = {}

    def add(self, asked: Asked, numbers: Sequence[int], questions: Sequence[Question], room: int) -> list[Question]:
        """The questions, with their pictures while there is room; those come in the order of the questions."""
        wanted: dict[str, None] = {}
        for number in numbers:
            if len(wanted) * SMALLEST > room:
                break
            wanted |= dict.fromkeys(d for d in answers.pictures_of(asked, number) if d not in self._number)
        urls = {}
        for digest, data in pictures.found(_files(asked.benchmark), wanted):
            if (url := pictures.thumbnail(data)) is not None:
                urls[digest] = url
        shown = []
        for number, question in zip(numbers, questions, strict=True):
            places = []
            for digest in answers.pictures_of(asked, number):
                if digest not in self._number and digest in urls and len(urls[digest]) <= room:
                    room -= len(urls[digest])
                    self._number[digest] = len(self.urls)
                    self.urls.append(urls[digest])
                if digest in self._number:
                    places.append(self._number[digest])
            shown.append(question.model_copy(update={"p": tuple(places)}))
        return shown


SMALLEST = 700
"""Bytes of the smallest pictures in a page: no more are read than could have room."""


def _files(benchmark: AskedBenchmark) -> list[Path]:
    """The Parquet files of its data. Without them there are no pictures, and the page says so."""
    try:
        manifest = AssetManifest.read(Path(benchmark.data))
    except AssetError:
        return []
    named = [manifest.folder / file.path for file in manifest.files if file.path.endswith(".parquet")]
    return [path for path in named if path.is_file()]
