"""The tables of the paper: reproduced, published, difference; beside them where every number comes from.

Everything of a table is one DataFrame, whose numbers stay numbers until a CSV or a Markdown page is printed from it. A cell is
of all seeds of a run: with several it is their mean with its spread, with one the score with an interval over questions. A
published number that another protocol made carries a mark and a note (config/protocols.yaml). A calibration table lays the
numbers of others for the same checkpoint beside ours, and says of each cell whether they agree.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pandas as pd

from ..artifacts import Scores
from ..errors import ReportError
from ..files import sha256
from ..study.settings import Frozen
from ..study.tables import Calibration, Column, Protocol, Table

Key = tuple[str, str, str, str]
"""(model, variant, seed, benchmark); the seed is ``seed-42``, or ``imported`` for a checkpoint that others trained."""


class TableDefinition(Frozen):
    """A table with everything it refers to."""

    table: Table
    rows: tuple[tuple[str, str], ...]
    """(model, variant)."""
    columns: dict[str, Column]
    """The table's, and those that they are a mean or a sum of."""
    left_out: tuple[str, ...]
    """Columns that need a judge, where none is configured."""
    evaluations: tuple[Key, ...]
    """In the order in which their files are given."""
    protocols: dict[str, Protocol]
    note: str | None = None
    """A sentence on the whole table, shown under it."""


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

    def __init__(self, files: Mapping[Key, Path]) -> None:
        self.files = files
        self._read: dict[Key, Scores] = {}

    def scores(self, key: Key) -> Scores:
        if key not in self.files:
            raise ReportError(f"no evaluation of {'/'.join(key[:3])} on {key[3]} was given to the table")
        if key not in self._read:
            self._read[key] = Scores.open(self.files[key])
        return self._read[key]

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
        squares = [None if p.sensitivity is None else p.sensitivity**2 / divisor for p in parts]
        return Cell(
            by_seed={seed: math.fsum(p.value for p in parts) / divisor},
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


BASELINE, VDEP, CHANGE = "baseline", "vdep", "CHANGE"
"""The third is the second minus the first, a row of the paper's tables."""
SIGNED = ("difference", "change")


@dataclass(frozen=True)
class BuiltTable:
    title: str
    rows: list[tuple[str, str]]
    """(model, run), where a run may be CHANGE, which only the Markdown has: it follows from the two above it."""
    columns: tuple[str, ...]
    labels: dict[str, str]
    numbers: pd.DataFrame
    """model, run, column, quantity; ``value``; ``text``, which is not empty for words and for what is shown as printed."""
    notes: list[str]
    references: tuple[str, ...] = ()
    """Tables of config/published.csv that the rows are calibrated against."""
    protocols: dict[str, Protocol] = field(default_factory=dict)
    """Those that mark a cell, in the order in which they first do."""
    clusters: dict[str, list[str]] = field(default_factory=dict)
    """What intervals resample -> the labels of the columns that do so."""

    @property
    def quantities(self) -> tuple[str, ...]:
        """What a cell can hold, in the order of the CSV."""
        references = [name for r in self.references for name in (r, f"{r}_difference")]
        return (
            *("reproduced", "low", "high", "spread", "n", "published", "difference", "published_elsewhere"),
            *references,
            *("tolerance", "verdict", "note", "blind"),
        )

    @cached_property
    def printed(self) -> pd.DataFrame:
        """model, run, column, quantity, ``text``: as shown."""
        frame = self.numbers
        texts = [
            text or (f"{value:.0f}" if quantity == "n" else f"{shown(value):{'+' if quantity.endswith(SIGNED) else ''}}")
            for quantity, value, text in zip(frame["quantity"], frame["value"], frame["text"], strict=True)
        ]
        return frame[["model", "run", "column", "quantity"]].assign(text=texts)

    @cached_property
    def cells(self) -> dict[tuple[str, str, str], dict[str, str]]:
        """(model, run, column) -> quantity -> text."""
        cells: dict[tuple[str, str, str], dict[str, str]] = {(*row, name): {} for row in self.rows for name in self.columns}
        for model, run, column, quantity, text in self.printed.itertuples(index=False):
            cells[model, run, column][quantity] = text
        return cells

    @cached_property
    def best(self) -> set[tuple[str, str, str, str]]:
        """(model, run, column, quantity) of the highest number, as shown, of a model's several runs."""
        scores = self.numbers[self.numbers["quantity"].isin(["reproduced", "published"])]
        scores = scores.assign(value=[float(shown(value)) for value in scores["value"]])
        runs = scores.groupby(["model", "column", "quantity"])["value"]
        best = scores[(scores["value"] == runs.transform("max")) & (runs.transform("size") > 1)]
        return set(best[["model", "run", "column", "quantity"]].itertuples(index=False, name=None))

    def marks(self, cell: Mapping[str, str], quantity: str) -> str:
        """The letters of the notes on one number: ``a``, ``b``, ..."""
        letters = [chr(ord("a") + i) for i in range(26)]
        names = cell.get(f"{quantity}_protocols", "").split()
        return ",".join(letters[list(self.protocols).index(name)] for name in names)


def shown(value: float) -> Decimal:
    """A number as tables show it. Nothing else rounds, and what is compared with a number is compared with this."""
    return Decimal(f"{value:.2f}")


AGREES, DIFFERS, NO_REFERENCE = "agrees", "differs by more than the tolerance", "no reference"


def tolerance(cell: Cell, reference: Published, flipped: float) -> float:
    """How far two evaluations of one checkpoint on the same questions may lie apart: the 95% half-width of their difference.

    The questions are not drawn anew, so the score's own interval says nothing here. What differs are kernels, rounding and
    library versions, which turn the outcome of a share ``flipped`` of the questions, as often for the better as for the worse.
    Half a unit of the reference's last printed place is added. See docs/decisions.md.
    """
    if cell.n > 1:
        raise ReportError(f"{', '.join(cell.sources)}: a calibration is of one checkpoint, and these are of {cell.n} seeds")
    if cell.sensitivity is None:
        raise ReportError(f"{', '.join(cell.sources)}: no sensitivity is recorded: evaluate again")
    exponent = reference.value.as_tuple().exponent
    assert isinstance(exponent, int)
    return 1.96 * math.sqrt(flipped) * cell.sensitivity + 0.5 * 10.0**exponent


Quantities = dict[str, float | str | Published | None]
"""What a cell holds: numbers, words, and numbers that are shown as they were printed."""


def build_table(definition: TableDefinition, results: Results, published: Sequence[Published]) -> BuiltTable:
    """Everything of a table, unrounded."""
    spec, protocols = definition.table, definition.protocols
    references = spec.calibration.references if spec.calibration else ()
    labels = {name: definition.columns[name].label for name in spec.columns}
    numbers: list[tuple[str, str, str, str, float | None, str]] = []
    notes: list[str] = []
    used: dict[str, Protocol] = {}
    clusters: dict[str, list[str]] = {}
    rows: list[tuple[str, str]] = []
    found: dict[tuple[str, str, str], tuple[Cell | None, Published | None]] = {}
    for model, variant in definition.rows:
        for name in spec.columns:
            printed = [p for p in published if (p.model, p.run, p.column) == (model, variant, name)]
            own = next((p for p in printed if p.table in spec.published), None)
            others = {r: p for r in references for p in printed if p.table == r}
            if name in definition.left_out:
                quantities: Quantities = {"published": own}
                cell, others = None, {}
            else:
                cell = results.cell(model, variant, name, definition.columns)
                quantities = _numbers(cell, own, others)
                if cell.clusters is not None and labels[name] not in clusters.setdefault(cell.clusters, []):
                    clusters[cell.clusters].append(labels[name])
                papers = [p for p in printed if not p.of_others]
                elsewhere = sorted({p.printed for p in papers if own is not None and p.value != own.value})
                if elsewhere:
                    quantities["published_elsewhere"] = " ".join(elsewhere)
                    where = ", ".join(f"{p.printed} in {p.table}" for p in papers)
                    notes.append(f"{model}/{variant}, {labels[name]}: the paper contradicts itself ({where}).")
                if spec.calibration is not None:
                    judging = (p for p in others.values() if all(m.comparable for m in _covering(protocols, p).values()))
                    quantities |= _verdict(cell, next(judging, None), spec.calibration)
            marks = {q: _covering(protocols, p) for q, p in {"published": own, **others}.items() if p is not None}
            quantities |= {f"{quantity}_protocols": " ".join(covering) for quantity, covering in marks.items()}
            quantities["note"] = " ".join(f"{key}: {m.note}" for covering in marks.values() for key, m in covering.items())
            used |= {key: m for covering in marks.values() for key, m in covering.items()}
            numbers += [(model, variant, name, *line) for line in _lines(quantities)]
            found[model, variant, name] = cell, own
        rows.append((model, variant))
        if variant in (BASELINE, VDEP) and {(model, BASELINE), (model, VDEP)} <= set(rows):
            rows.append((model, CHANGE))
            for name in spec.columns:
                change = _change(*found[model, BASELINE, name], *found[model, VDEP, name])
                numbers += [(model, CHANGE, name, *line) for line in _lines(change)]
    judges = sorted({scores.judge for scores in results._read.values() if scores.judge})
    notes += [f"Free-form answers graded by {judge}." for judge in judges]
    notes += [
        f"{labels[name]}: left out, because no judge is configured." for name in spec.columns if name in definition.left_out
    ]
    notes += [definition.note] if definition.note else []
    frame = pd.DataFrame(numbers, columns=["model", "run", "column", "quantity", "value", "text"])
    return BuiltTable(spec.title, rows, spec.columns, labels, frame, notes, references, used, clusters)


def _numbers(cell: Cell, own: Published | None, others: Mapping[str, Published]) -> Quantities:
    quantities: Quantities = {"reproduced": cell.value, "low": cell.low, "high": cell.high, "blind": cell.blind}
    if cell.n > 1:
        quantities |= {"spread": cell.spread, "n": cell.n}
    if own is not None:
        quantities |= {"published": own, "difference": float(shown(cell.value) - own.value)}
    for reference, other in others.items():
        quantities |= {reference: other, f"{reference}_difference": float(shown(cell.value) - other.value)}
    return quantities


def _change(before: Cell | None, printed: Published | None, after: Cell | None, then_printed: Published | None) -> Quantities:
    """Of the numbers as they are shown; its spread is that of the differences between runs of one seed."""
    quantities: Quantities = {}
    if before is not None and after is not None:
        quantities["change"] = float(shown(after.value) - shown(before.value))
        if after.n > 1 and after.by_seed.keys() == before.by_seed.keys():
            quantities["spread"] = stdev(after.by_seed[seed] - before.by_seed[seed] for seed in after.by_seed)
    if printed is not None and then_printed is not None:
        quantities["published_change"] = float(then_printed.value - printed.value)
    return quantities


def _covering(protocols: Mapping[str, Protocol], cell: Published) -> dict[str, Protocol]:
    return {name: p for name, p in protocols.items() if p.covers(cell.table, cell.model, cell.column)}


def _verdict(cell: Cell, reference: Published | None, calibration: Calibration) -> Quantities:
    """Of the numbers as they are shown."""
    if reference is None:
        return {"verdict": NO_REFERENCE}
    bound = tolerance(cell, reference, calibration.flipped)
    within = abs(shown(cell.value) - reference.value) <= shown(bound)
    return {"tolerance": bound, "verdict": f"{AGREES if within else DIFFERS} ({reference.table})"}


def _lines(quantities: Quantities) -> Iterator[tuple[str, float | None, str]]:
    """(quantity, value, text) of what a cell has."""
    for quantity, content in quantities.items():
        if isinstance(content, Published):
            yield quantity, float(content.value), content.printed
        elif isinstance(content, str):
            if content:
                yield quantity, None, content
        elif content is not None:
            yield quantity, content, ""


def as_csv(table: BuiltTable) -> str:
    """One line per run and quantity; quantities that no cell has are left out."""
    present = set(table.printed["quantity"])
    runs = [row for row in table.rows if row[1] != CHANGE]
    order = [(*run, quantity) for run in runs for quantity in table.quantities if quantity in present]
    lines = pd.MultiIndex.from_tuples(order, names=["model", "run", "quantity"])
    wide = table.printed.pivot(index=lines.names, columns="column", values="text")
    return wide.reindex(index=lines, columns=list(table.columns)).to_csv(lineterminator="\n")


def as_markdown(table: BuiltTable) -> str:
    """For people: in each cell the reproduced number, then what it is to be compared with."""
    lines = [f"# {table.title}", ""]
    lines.append("| model | run | " + " | ".join(table.labels[c] for c in table.columns) + " |")
    lines.append("|---|---|" + "---:|" * len(table.columns))
    for row in table.rows:
        cells = (_markdown_cell(table, (*row, name)) for name in table.columns)
        lines.append(f"| {' | '.join(row)} | {' | '.join(cells)} |")
    lines += ["", "; ".join(_legend(table)) + ".", *(f"\n{note}" for note in dict.fromkeys(table.notes))]
    for i, protocol in enumerate(table.protocols.values()):
        lines.append(f"\n<sup>{chr(ord('a') + i)}</sup> {protocol.note} ({protocol.source})")
    return "\n".join(lines) + "\n"


def _legend(table: BuiltTable) -> Iterator[str]:
    present = set(table.printed["quantity"])
    seeds = dict.fromkeys(cell["n"] for cell in table.cells.values() if "n" in cell)
    if seeds:
        yield f"Each cell: the mean over {' or '.join(seeds)} seeds ± their standard deviation"
    if not seeds or "low" in present:
        resampled = "; ".join(f"{how}: {', '.join(labels)}" for how, labels in table.clusters.items())
        how = f"questions resampled {resampled}" if resampled else "questions resampled"
        start = "In a cell without ±" if seeds else "Each cell"
        yield f"{start}: the reproduced score with its 95% interval ({how}); one seed (n = 1): no training noise"
    if "published" in present:
        yield "*published*: that number and the difference to it"
    if table.best:
        yield "bold: the highest of a model's runs"
    if "change" in present or "published_change" in present:
        spread = " ± the standard deviation of the seeds' own changes" if seeds else ""
        yield f"{CHANGE}: {VDEP} minus {BASELINE}{spread}"
    if table.references:
        yield f"*{'*, *'.join(table.references)}*: the same checkpoint, evaluated by others, and the difference to it"
        yield "*tolerance*: how far ours may lie from the number that judges it (docs/decisions.md)"
    if table.protocols:
        yield "letters: the number comes from another protocol, or may do so, or needs a word; see below"
    if "blind" in present:
        yield "*blind*: the same model with the picture replaced by one colour"


def _markdown_cell(table: BuiltTable, key: tuple[str, str, str]) -> str:
    cell = table.cells[key]

    def number(quantity: str) -> str:
        return f"**{cell[quantity]}**" if (*key, quantity) in table.best else cell[quantity]

    def beside(quantity: str, difference: str) -> str:
        marks = table.marks(cell, quantity)
        shown = f" ({cell[difference]})" if cell.get(difference) else ""
        return f"*{quantity}* {number(quantity)}{f'<sup>{marks}</sup>' if marks else ''}{shown}"

    parts = [number("reproduced") if "reproduced" in cell else cell.get("change", "-")]
    if cell.get("spread"):
        parts[0] += f" ± {cell['spread']}"
    if cell.get("published_change"):
        parts.append(f"*published* {cell['published_change']}")
    if cell.get("low"):
        parts.append(f"[{cell['low']}, {cell['high']}]")
    if cell.get("published"):
        parts.append(beside("published", "difference"))
    parts += [beside(r, f"{r}_difference") for r in table.references if cell.get(r)]
    if cell.get("verdict"):
        parts.append(f"{cell['verdict']}, *tolerance* {cell['tolerance']}" if cell.get("tolerance") else cell["verdict"])
    if cell.get("blind"):
        parts.append(f"*blind* {cell['blind']}")
    return "<br>".join(parts)


def provenance(table: BuiltTable, results: Results, definitions: Mapping[str, Column]) -> dict[str, Any]:
    """For every cell its result files of all seeds; for every file the checkpoint, the recipes and the versions behind it."""
    cells: list[dict[str, Any]] = []
    for (model, variant, name), texts in table.cells.items():
        if "reproduced" not in texts:
            continue
        cell = results.cell(model, variant, name, definitions)
        marks = {quantity: texts.get(f"{quantity}_protocols", "").split() for quantity in ("published", *table.references)}
        cells.append(
            {
                "model": model,
                "run": variant,
                "column": name,
                "value": cell.value,
                "results": list(cell.sources),
                "protocols": {quantity: names for quantity, names in marks.items() if names},
            }
        )
    used = sorted({source for cell in cells for source in cell["results"]})
    by_path = {str(path): key for key, path in results.files.items()}
    files = {}
    for source in used:
        scores = results.scores(by_path[source])
        files[source] = {
            "sha256": sha256(Path(source)),
            "samples": scores.samples.model_dump(),
            "n": scores.seen["n"],
            "evaluation_recipe": scores.digest,
            "finetune_recipe": scores.checkpoint.recipe,
            "pretrain_recipe": scores.checkpoint.initial_recipe,
            "weights": scores.checkpoint.weights,
            "versions": scores.checkpoint.versions | {"lmms_eval": scores.lmms_eval},
            "judge": scores.judge,
        }
    return {"title": table.title, "cells": cells, "results": files}
