"""The answers of all checkpoints, question by question: every count, and as many of the questions as there is room for.

A benchmark of the paper has up to 14,233 questions, all of them 72,323. Counts are of every one. Shown are first those on
which baseline and VDEP differ, then those on which any two checkpoints do, then the others, spread over the categories; a
benchmark's share of the page ends it. A further page has them all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import combinations, zip_longest
from pathlib import Path
from typing import Any

from ...artifacts import Scores
from ...errors import ReportError
from ...evaluation.samples import read_samples
from ...study.study import IMPORTED
from ..tables import BASELINE, VDEP
from .content import AnsweredBenchmark, PairCounts, Question
from .request import AskedBenchmark

SEEN = "seen"
LONGEST = 600
"""Characters of a text on the page; a further page has it whole."""


@dataclass(frozen=True)
class Asked:
    """A benchmark's questions with all their answers, in the order of the documents."""

    benchmark: AskedBenchmark
    checkpoints: tuple[str, ...]
    """Of the whole page."""
    rows: tuple[dict[str, Any], ...]
    """Of the question: without what depends on the checkpoint."""
    answers: tuple[tuple[str | None, ...], ...]
    """(questions, checkpoints)."""
    points: tuple[tuple[float, ...], ...]
    """(questions, checkpoints)."""

    @cached_property
    def categories(self) -> tuple[str, ...]:
        return tuple(sorted({_category(row) for row in self.rows}))

    @cached_property
    def taken_part(self) -> list[int]:
        """The checkpoints that were asked."""
        return [] if not self.rows else [i for i, answer in enumerate(self.answers[0]) if answer is not None]


def checkpoints_of(benchmarks: Sequence[AskedBenchmark]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(scores.checkpoint for benchmark in benchmarks for scores in benchmark.scores))


def read(benchmark: AskedBenchmark, checkpoints: tuple[str, ...]) -> Asked:
    """Every answer that was given with the picture, as the evaluations recorded it.

    Raises:
        EvaluationError: where a file of samples is not the one that its scores are of.
        ReportError: where two checkpoints were asked different questions.
    """
    rows: tuple[dict[str, Any], ...] | None = None
    given: dict[str, list[tuple[str, float]]] = {}
    for scores in benchmark.scores:
        samples = read_samples(Scores.open(Path(scores.file)).samples_path)
        seen = [row for row in samples if row["pass"] == SEEN]
        given[scores.checkpoint] = [(str(row["answer"]), _points(row)) for row in seen]
        if rows is None:
            rows = tuple(seen)
        elif list(map(_identity, seen)) != list(map(_identity, rows)):
            raise ReportError(
                f"{scores.file}: these are other questions than those of {benchmark.scores[0].file}: evaluate both on the same "
                "data, or take one of the two away"
            )
    assert rows is not None
    by_checkpoint = [given.get(checkpoint) for checkpoint in checkpoints]
    return Asked(
        benchmark=benchmark,
        checkpoints=checkpoints,
        rows=rows,
        answers=tuple(tuple(None if c is None else c[i][0] for c in by_checkpoint) for i in range(len(rows))),
        points=tuple(tuple(0.0 if c is None else c[i][1] for c in by_checkpoint) for i in range(len(rows))),
    )


def _identity(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["document"], row.get("question_id"), row.get("question"), row.get("pictures")


def _points(row: Mapping[str, Any]) -> float:
    return round(min(1.0, max(0.0, float(row["points"]))), 3)


def _category(row: Mapping[str, Any]) -> str:
    return str(row.get("category") or row.get("group") or "all")


def pairs(checkpoints: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Which two checkpoints can be laid side by side: of one model, and of one seed or one variant."""
    for (i, left), (j, right) in combinations(enumerate(checkpoints), 2):
        model, variant, seed = left.split("/")
        other_model, other_variant, other_seed = right.split("/")
        if model == other_model and (variant == other_variant or seed == other_seed or IMPORTED in (seed, other_seed)):
            yield i, j


def counts(asked: Asked) -> tuple[PairCounts, ...]:
    """Of all questions, for every pair: both right, gained, lost, neither; a change of points is a gain or a loss."""
    categories = {name: number for number, name in enumerate(asked.categories)}
    places = [categories[_category(row)] for row in asked.rows]
    taken_part = set(asked.taken_part)
    found = []
    for left, right in pairs(asked.checkpoints):
        if not {left, right} <= taken_part:
            continue
        table = [[0, 0, 0, 0] for _ in categories]
        for place, points in zip(places, asked.points, strict=True):
            table[place][_outcome(points[left], points[right])] += 1
        found.append(PairCounts(left=left, right=right, counts=tuple((a, b, c, d) for a, b, c, d in table)))
    return tuple(found)


def _outcome(left: float, right: float) -> int:
    if left != right:
        return 1 if right > left else 2
    return 0 if left > 0 else 3


def by_priority(asked: Asked) -> list[int]:
    """Numbers of all questions, the most telling first; of equal ones, one category after the other."""
    main = [
        (i, j)
        for i, j in pairs(asked.checkpoints)
        if {asked.checkpoints[i].split("/")[1], asked.checkpoints[j].split("/")[1]} == {BASELINE, VDEP}
    ]
    taken_part = asked.taken_part
    groups: tuple[dict[str, list[int]], ...] = ({}, {}, {})
    for number, (row, points) in enumerate(zip(asked.rows, asked.points, strict=True)):
        if any(points[i] != points[j] for i, j in main):
            group = groups[0]
        else:
            group = groups[1 if len({points[i] for i in taken_part}) > 1 else 2]
        group.setdefault(_category(row), []).append(number)
    order: list[int] = []
    for group in groups:
        # not the first of a file, which may be of one kind, but the same ones whenever the page is made
        lists = [sorted(group[name], key=lambda n: sha256(f"{n}".encode()).digest()) for name in sorted(group)]
        order += [number for turn in zip_longest(*lists) for number in turn if number is not None]
    return order


def question(asked: Asked, number: int, longest: int | None) -> Question:
    row, answers = asked.rows[number], asked.answers[number]

    def cut(text: Any) -> str:
        text = str(text)
        return text if longest is None or len(text) <= longest else text[: longest - 1] + "…"

    words = tuple(dict.fromkeys(answer for answer in answers if answer is not None))
    several = tuple(dict.fromkeys(row.get("answers") or ()))
    return Question(
        id=str(row.get("question_id", row["document"])),
        q=cut(row.get("question") or row["prompt"]),
        t=cut(row["target"]),
        c=asked.categories.index(_category(row)),
        w=tuple(cut(word) for word in words),
        a=tuple(-1 if answer is None else words.index(answer) for answer in answers),
        s=asked.points[number],
        o=tuple(cut(option) for option in row.get("options") or ()),
        r=tuple(cut(answer) for answer in several) if len(several) > 1 else (),
    )


def pictures_of(asked: Asked, number: int) -> list[str]:
    """The SHA-256 of each of its files."""
    return str(asked.rows[number].get("pictures", "")).split()


def size(shown: Question) -> int:
    """Bytes in the page."""
    return len(json.dumps(shown.model_dump(mode="json", exclude_defaults=True), ensure_ascii=False).encode())


def within(asked: Asked, order: Sequence[int], room: int) -> list[Question]:
    """The first questions of an order, as many as fit into ``room`` bytes."""
    shown = []
    for number in order:
        entry = question(asked, number, LONGEST)
        room -= size(entry)
        if room < 0:
            break
        shown.append(entry)
    return shown


def described(asked: Asked, shown: Sequence[Question], page: str = "") -> AnsweredBenchmark:
    return AnsweredBenchmark(
        name=asked.benchmark.name,
        label=asked.benchmark.label,
        categories=asked.categories,
        asked=len(asked.rows),
        pairs=counts(asked),
        questions=tuple(shown),
        page=page,
    )
