"""The evaluations at hand, and the numbers that were published: what a cell of a table is made of."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from ..artifacts import Scores
from ..errors import ReportError
from ..study.tables import Column

Key = tuple[str, str, str, str]
"""(model, variant, seed, benchmark); the seed is ``seed-42``, or ``imported`` for a checkpoint that others trained."""


Interval = Callable[[Mapping[str, Path], str, Mapping[str, Column]], tuple[float, float]]
"""(benchmark -> scores of one run, column, columns) -> its 95% interval over clusters of questions."""


@dataclass(frozen=True)
class Published:
    """One number as the paper prints it, or others who evaluated a checkpoint that is not the paper's."""

    table: str
    model: str
    run: str
    column: str
    printed: str

    @property
    def value(self) -> Decimal:
        return Decimal(self.printed)

    @property
    def of_others(self) -> bool:
        return not self.table.startswith("table")


def read_published(path: Path) -> list[Published]:
    with open(path, newline="") as file:
        return [Published(**row) for row in csv.DictReader(file)]


@dataclass(frozen=True)
class Cell:
    """One number of a run, with what stands beside it. None where there is no such thing."""

    by_seed: dict[str, float]
    """Seed -> score."""
    low: float | None = None
    """Of the interval over questions, which is shown of a single seed only: it holds no training noise."""
    high: float | None = None
    blind: float | None = None
    sensitivity: float | None = None
    """How far the score of one seed moves with single outcomes (``Statistic.sensitivity``)."""
    clusters: str | None = None
    """What its interval resamples, in words."""
    sources: tuple[str, ...] = ()

    @property
    def value(self) -> float:
        return fmean(self.by_seed.values())

    @property
    def n(self) -> int:
        return len(self.by_seed)

    @property
    def spread(self) -> float | None:
        """Sample standard deviation over seeds."""
        return stdev(self.by_seed.values()) if self.n > 1 else None


class Results:
    """The evaluations at hand."""

    def __init__(
        self,
        files: Mapping[Key, Path],
        recipes: Mapping[Key, tuple[str, str]] | None = None,
        interval: Interval | None = None,
    ) -> None:
        """
        Args:
            recipes: the digests of the checkpoint's and of the evaluation's recipe, which the scores have to be of.
            interval: of a column that is a mean or a sum of others (``combined.interval``); None leaves it out.
        """
        self.files = files
        self.interval = interval
        self.recipes = recipes or {}
        self._read: dict[Key, Scores] = {}

    def scores(self, key: Key) -> Scores:
        if key not in self.files:
            raise ReportError(f"no evaluation of {'/'.join(key[:3])} on {key[3]} was given to the table")
        if key not in self._read:
            scores = Scores.open(self.files[key])
            if self.recipes.get(key) not in (None, (scores.checkpoint.recipe, scores.digest)):
                raise ReportError(
                    f"{self.files[key]} is of another recipe than the configuration has, which was edited while jobs were "
                    "waiting or running. Start again with the same command: what is affected is made anew (else delete it)"
                )
            self._read[key] = scores
        return self._read[key]

    @property
    def judges(self) -> list[str]:
        """Who graded what was read."""
        return sorted({scores.judge for scores in self._read.values() if scores.judge})

    def cell(self, model: str, variant: str, name: str, columns: Mapping[str, Column]) -> Cell:
        """The number in a column, over every seed that the run was given with.

        Raises:
            ReportError: where a seed has no evaluation on one of the column's benchmarks, or that one has no such part.
        """
        seeds = dict.fromkeys(seed for m, v, seed, _ in self.files if (m, v) == (model, variant))
        if not seeds:
            raise ReportError(f"no evaluation of {model}/{variant} was given to the table")
        cells = [self._of_seed(model, variant, seed, name, columns) for seed in seeds]
        if len(cells) == 1:
            return cells[0]
        return Cell(
            by_seed={seed: value for cell in cells for seed, value in cell.by_seed.items()},
            blind=_combined([cell.blind for cell in cells], len(cells)),
            sources=_sources(cells),
        )

    def _of_seed(self, model: str, variant: str, seed: str, name: str, columns: Mapping[str, Column]) -> Cell:
        """The number in a column, or the mean or the sum of the columns it is made of."""
        column = columns[name]
        if column.benchmark is not None:
            return self._part((model, variant, seed, column.benchmark), column.part)
        parts = [self._of_seed(model, variant, seed, part, columns) for part in (*column.mean_of, *column.sum_of)]
        divisor = len(parts) if column.mean_of else 1
        low, high = None, None
        if self.interval is not None:
            files = {b: path for (m, v, s, b), path in self.files.items() if (m, v, s) == (model, variant, seed)}
            low, high = self.interval(files, name, columns)
        squares = [None if p.sensitivity is None else p.sensitivity**2 / divisor for p in parts]
        return Cell(
            by_seed={seed: math.fsum(p.value for p in parts) / divisor},
            low=low,
            high=high,
            clusters=parts[0].clusters if low is not None and len({p.clusters for p in parts}) == 1 else None,
            # the parts are of different questions, so what single outcomes move adds up in squares
            sensitivity=None if (total := _combined(squares, divisor)) is None else math.sqrt(total),
            blind=_combined([p.blind for p in parts], divisor),
            sources=_sources(parts),
        )

    def _part(self, key: Key, part: str) -> Cell:
        scores = self.scores(key)
        parts = scores.seen["parts"]
        if part not in parts:
            raise ReportError(f"{self.files[key]} has no part {part!r} (it has {', '.join(parts)})")
        return Cell(
            by_seed={key[2]: parts[part]["value"]},
            low=parts[part]["low"],
            high=parts[part]["high"],
            blind=(scores.blind or {}).get("parts", {}).get(part, {}).get("value"),
            sensitivity=parts[part].get("sensitivity"),
            clusters=_clusters(scores.seen),
            sources=(str(self.files[key]),),
        )


def _combined(values: Sequence[float | None], divisor: int) -> float | None:
    """Their sum over ``divisor``, where all are known."""
    known = [v for v in values if v is not None]
    return math.fsum(known) / divisor if len(known) == len(values) else None


def _sources(cells: Sequence[Cell]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(source for cell in cells for source in cell.sources))


def _clusters(seen: Mapping[str, Any]) -> str | None:
    clusters = seen.get("clusters")
    if clusters is None:
        return None
    if clusters["by"] != "question":
        return f"by {clusters['by']}"
    return "one by one" if clusters["n"] == seen["n"] else "together with what is scored with them"
