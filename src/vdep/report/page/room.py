"""How the bytes of the page are shared out, and what becomes a page of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...artifacts import AssetManifest
from ...errors import AssetError
from . import answers, pictures
from .answers import Asked
from .content import AnsweredBenchmark, Answers, Question
from .request import AskedBenchmark, Request

SMALLEST = 700
"""Bytes of the smallest pictures in a page: no more are read than could have room."""


@dataclass(frozen=True)
class Room:
    """Bytes for the texts and for the pictures of questions: of the page, and of each further page."""

    texts: int = 4_200_000
    pictures: int = 7_000_000


More = Callable[[str, Answers], None]
"""Takes a benchmark of which the page shows a part, and all of its questions."""


def one_page(request: Request, room: Room, more: More) -> Answers | None:
    """The answers as the page shows them."""
    if not request.benchmarks:
        return None
    checkpoints = answers.checkpoints_of(request.benchmarks)
    store, shown = _Pictures(), []
    for benchmark in request.benchmarks:
        asked = answers.read(benchmark, checkpoints)
        shown.append(_benchmark(asked, room, len(request.benchmarks), store, more))
    return Answers(checkpoints=checkpoints, benchmarks=tuple(shown), pictures=tuple(store.urls))


def _benchmark(asked: Asked, room: Room, sharing: int, store: _Pictures, more: More) -> AnsweredBenchmark:
    """Its share of the page; and the further page, where that is not everything."""
    order = answers.by_priority(asked)
    questions = answers.within(asked, order, room.texts // sharing)
    whole = len(questions) == len(order) and not any("…" in text for q in questions for text in (q.q, q.t, *q.w))
    share = room.pictures // sharing
    thumbnails = _thumbnails(asked, order, share if whole else room.pictures)
    if not whole:
        alone = _Pictures()
        every = alone.add(asked, order, [answers.question(asked, n, None) for n in order], thumbnails, room.pictures)
        described = answers.described(asked, every)
        more(
            asked.benchmark.name,
            Answers(checkpoints=asked.checkpoints, benchmarks=(described,), pictures=tuple(alone.urls)),
        )
    questions = store.add(asked, order, questions, thumbnails, share)
    return answers.described(asked, questions, "" if whole else further(asked.benchmark.name))


def further(benchmark: str) -> str:
    """The further page of a benchmark, from where the page lies."""
    return f"report/{benchmark}.html"


def _thumbnails(asked: Asked, order: Sequence[int], room: int) -> dict[str, str]:
    """SHA-256 -> data URL, of the first that could have room."""
    wanted: dict[str, None] = {}
    for number in order:
        if len(wanted) * SMALLEST > room:
            break
        wanted |= dict.fromkeys(answers.pictures_of(asked, number))
    made = {digest: pictures.thumbnail(data) for digest, data in pictures.found(_files(asked.benchmark), wanted)}
    return {digest: url for digest, url in made.items() if url is not None}


class _Pictures:
    """Those of a page, each once, though several benchmarks may ask about it."""

    def __init__(self) -> None:
        self.urls: list[str] = []
        self._number: dict[str, int] = {}

    def add(
        self, asked: Asked, order: Sequence[int], questions: Sequence[Question], thumbnails: Mapping[str, str], room: int
    ) -> list[Question]:
        """The questions, in ``order``, with their pictures while there is room."""
        shown = []
        for number, question in zip(order, questions, strict=False):
            places = []
            for digest in answers.pictures_of(asked, number):
                url = thumbnails.get(digest, "")
                if digest not in self._number and url and len(url) <= room:
                    room -= len(url)
                    self._number[digest] = len(self.urls)
                    self.urls.append(url)
                if digest in self._number:
                    places.append(self._number[digest])
            shown.append(question.model_copy(update={"p": tuple(places)}))
        return shown


def _files(benchmark: AskedBenchmark) -> list[Path]:
    """The Parquet files of its data. Without them there are no pictures, and the page says so."""
    try:
        manifest = AssetManifest.read(Path(benchmark.data))
    except AssetError:
        return []
    named = [manifest.folder / file.path for file in manifest.files if file.path.endswith(".parquet")]
    return [path for path in named if path.is_file()]
