"""The tables of the paper: reproduced, published, difference; beside them where every number comes from.

A published number that another protocol made carries a mark and a note (config/protocols.yaml). A calibration table lays the
numbers of others for the same checkpoint beside ours, and says of each cell whether they agree.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from ..errors import ReportError
from ..files import read_json, sha256
from ..study.settings import Calibration, Column, Protocol

Key = tuple[str, str, str]
"""(model, variant, benchmark)."""


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
    """One number of one checkpoint, with what stands beside it. None where there is no such thing."""

    value: float
    low: float | None = None
    high: float | None = None
    blind: float | None = None
    sensitivity: float | None = None
    """How far the score moves with single outcomes (``Statistic.sensitivity``)."""
    clusters: str | None = None
    """What its interval resamples, in words."""
    sources: tuple[str, ...] = ()


class Results:
    """The evaluations at hand."""

    def __init__(self, files: Mapping[Key, Path]) -> None:
        self.files = files
        self._read: dict[Key, dict[str, Any]] = {}

    def scores(self, key: Key) -> dict[str, Any]:
        if key not in self.files:
            raise ReportError(f"no evaluation of {key[0]}/{key[1]} on {key[2]} was given to the table")
        if key not in self._read:
            self._read[key] = read_json(self.files[key])
        return self._read[key]

    def cell(self, model: str, variant: str, name: str, columns: Mapping[str, Column]) -> Cell:
        """The number in a column, or the mean or the sum of the columns it is made of."""
        column = columns[name]
        if column.benchmark is not None:
            return self._part((model, variant, column.benchmark), column.part)
        parts = [self.cell(model, variant, part, columns) for part in (*column.mean_of, *column.sum_of)]
        divisor = len(parts) if column.mean_of else 1

        def combined(values: Sequence[float | None]) -> float | None:
            known = [v for v in values if v is not None]
            return math.fsum(known) / divisor if len(known) == len(values) else None

        squares = [None if p.sensitivity is None else p.sensitivity**2 / divisor for p in parts]
        return Cell(
            value=math.fsum(p.value for p in parts) / divisor,
            # the parts are of different questions, so what single outcomes move adds up in squares
            sensitivity=None if (total := combined(squares)) is None else math.sqrt(total),
            blind=combined([p.blind for p in parts]),
            sources=tuple(dict.fromkeys(source for p in parts for source in p.sources)),
        )

    def _part(self, key: Key, part: str) -> Cell:
        scores = self.scores(key)
        parts = scores["seen"]["parts"]
        if part not in parts:
            raise ReportError(f"{self.files[key]} has no part {part!r} (it has {', '.join(parts)})")
        blind = scores.get("blind", {}).get("parts", {}).get(part, {}).get("value")
        return Cell(
            value=parts[part]["value"],
            low=parts[part]["low"],
            high=parts[part]["high"],
            blind=blind,
            sensitivity=parts[part].get("sensitivity"),
            clusters=_clusters(scores["seen"]),
            sources=(str(self.files[key]),),
        )


def _clusters(seen: Mapping[str, Any]) -> str | None:
    clusters = seen.get("clusters")
    if clusters is None:
        return None
    if clusters["by"] != "question":
        return f"by {clusters['by']}"
    return "one by one" if clusters["n"] == seen["n"] else "together with what is scored with them"


@dataclass(frozen=True)
class BuiltTable:
    title: str
    columns: tuple[str, ...]
    labels: dict[str, str]
    rows: list[tuple[str, str, dict[str, dict[str, str]]]]
    """(model, variant, column -> quantity -> text)."""
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
            *("reproduced", "low", "high", "published", "difference", "published_elsewhere"),
            *references,
            *("tolerance", "verdict", "note", "blind"),
        )

    def marks(self, cell: Mapping[str, str], quantity: str) -> str:
        """The letters of the notes on one number: ``a``, ``b``, ..."""
        letters = [chr(ord("a") + i) for i in range(26)]
        names = cell.get(f"{quantity}_protocols", "").split()
        return ",".join(letters[list(self.protocols).index(name)] for name in names)


def number(value: float | Decimal | None, places: int = 2) -> str:
    return "" if value is None else f"{value:.{places}f}"


AGREES, DIFFERS, NO_REFERENCE = "agrees", "differs by more than the tolerance", "no reference"


def tolerance(cell: Cell, reference: Published, flipped: float) -> float:
    """How far two evaluations of one checkpoint on the same questions may lie apart: the 95% half-width of their difference.

    The questions are not drawn anew, so the score's own interval says nothing here. What differs are kernels, rounding and
    library versions, which turn the outcome of a share ``flipped`` of the questions, as often for the better as for the worse.
    Half a unit of the reference's last printed place is added. See docs/decisions.md.
    """
    if cell.sensitivity is None:
        raise ReportError(f"{', '.join(cell.sources)}: no sensitivity is recorded: evaluate again")
    exponent = reference.value.as_tuple().exponent
    assert isinstance(exponent, int)
    return 1.96 * math.sqrt(flipped) * cell.sensitivity + 0.5 * 10.0**exponent


def build_table(
    title: str,
    rows: Sequence[tuple[str, str]],
    columns: Sequence[str],
    definitions: Mapping[str, Column],
    results: Results,
    published: Sequence[Published],
    own_tables: Sequence[str],
    protocols: Mapping[str, Protocol] | None = None,
    calibration: Calibration | None = None,
    left_out: Collection[str] = (),
) -> BuiltTable:
    """Everything of a table as text, rounded once, here. ``left_out``: columns that need a judge, where none is configured."""
    references = calibration.references if calibration else ()
    built, notes = [], []
    used: dict[str, Protocol] = {}
    clusters: dict[str, list[str]] = {}
    for model, variant in rows:
        cells: dict[str, dict[str, str]] = {}
        for name in columns:
            if name in left_out:
                printed = [p for p in published if (p.model, p.run, p.column) == (model, variant, name)]
                own = next((p for p in printed if p.table in own_tables), None)
                cells[name] = {"published": own.printed} if own else {}
                used |= _mark(cells[name], {"published": own}, protocols or {})
                continue
            cell = results.cell(model, variant, name, definitions)
            label = definitions[name].label
            if cell.clusters is not None and label not in clusters.setdefault(cell.clusters, []):
                clusters[cell.clusters].append(label)
            entry = {
                "reproduced": number(cell.value),
                "low": number(cell.low),
                "high": number(cell.high),
                "blind": number(cell.blind),
            }
            printed = [p for p in published if (p.model, p.run, p.column) == (model, variant, name)]
            own = next((p for p in printed if p.table in own_tables), None)
            if own is not None:
                entry |= _beside(cell, own, "published", "difference")
                papers = [p for p in printed if not p.of_others]
                elsewhere = sorted({p.printed for p in papers if p.value != own.value})
                if elsewhere:
                    entry["published_elsewhere"] = " ".join(elsewhere)
                    where = ", ".join(f"{p.printed} in {p.table}" for p in papers)
                    notes.append(f"{model}/{variant}, {label}: the paper contradicts itself ({where}).")
            others = {r: p for r in references for p in printed if p.table == r}
            for r, other in others.items():
                entry |= _beside(cell, other, r, f"{r}_difference")
            used |= _mark(entry, {"published": own, **others}, protocols or {})
            if calibration is not None:
                judging = (p for p in others.values() if all(m.comparable for m in _covering(protocols or {}, p).values()))
                entry |= _verdict(cell, next(judging, None), calibration)
            cells[name] = entry
        built.append((model, variant, cells))
    labels = {name: definitions[name].label for name in columns}
    judges = sorted({str(j) for j in (s.get("judge") for s in results._read.values()) if j})
    notes += [f"Free-form answers graded by {judge}." for judge in judges]
    notes += [f"{labels[name]}: left out, because no judge is configured." for name in columns if name in left_out]
    return BuiltTable(title, tuple(columns), labels, built, notes, tuple(references), used, clusters)


def _beside(cell: Cell, other: Published, quantity: str, difference: str) -> dict[str, str]:
    return {quantity: other.printed, difference: f"{Decimal(number(cell.value)) - other.value:+.2f}"}


def _mark(
    entry: dict[str, str], numbers: Mapping[str, Published | None], protocols: Mapping[str, Protocol]
) -> dict[str, Protocol]:
    """Note in a cell which protocols its published numbers come from, by quantity; returns those."""
    marks = {quantity: _covering(protocols, p) for quantity, p in numbers.items() if p is not None}
    entry |= {f"{quantity}_protocols": " ".join(covering) for quantity, covering in marks.items()}
    entry["note"] = " ".join(f"{key}: {m.note}" for covering in marks.values() for key, m in covering.items())
    return {key: m for covering in marks.values() for key, m in covering.items()}


def _covering(protocols: Mapping[str, Protocol], cell: Published) -> dict[str, Protocol]:
    return {name: p for name, p in protocols.items() if p.covers(cell.table, cell.model, cell.column)}


def _verdict(cell: Cell, reference: Published | None, calibration: Calibration) -> dict[str, str]:
    """Of the numbers as they are shown."""
    if reference is None:
        return {"verdict": NO_REFERENCE}
    bound = Decimal(number(tolerance(cell, reference, calibration.flipped)))
    within = abs(Decimal(number(cell.value)) - reference.value) <= bound
    verdict = f"{AGREES if within else DIFFERS} ({reference.table})"
    return {"tolerance": str(bound), "verdict": verdict}


def as_csv(table: BuiltTable) -> str:
    """One line per checkpoint and quantity; quantities that no cell has are left out."""
    present = [q for q in table.quantities if any(cells[c].get(q) for _, _, cells in table.rows for c in table.columns)]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["model", "run", "quantity", *table.columns])
    for model, variant, cells in table.rows:
        for quantity in present:
            writer.writerow([model, variant, quantity, *(cells[c].get(quantity, "") for c in table.columns)])
    return buffer.getvalue()


def as_markdown(table: BuiltTable) -> str:
    """For people: in each cell the reproduced number, then what it is to be compared with."""
    lines = [f"# {table.title}", ""]
    lines.append("| model | run | " + " | ".join(table.labels[c] for c in table.columns) + " |")
    lines.append("|---|---|" + "---:|" * len(table.columns))
    for model, variant, cells in table.rows:
        lines.append(f"| {model} | {variant} | " + " | ".join(_markdown_cell(table, cells[c]) for c in table.columns) + " |")
    lines += ["", "; ".join(_legend(table)) + ".", *(f"\n{note}" for note in dict.fromkeys(table.notes))]
    for i, protocol in enumerate(table.protocols.values()):
        lines.append(f"\n<sup>{chr(ord('a') + i)}</sup> {protocol.note} ({protocol.source})")
    return "\n".join(lines) + "\n"


def _legend(table: BuiltTable) -> Iterator[str]:
    cells = [cell for _, _, row in table.rows for cell in row.values()]
    resampled = "; ".join(f"{how}: {', '.join(labels)}" for how, labels in table.clusters.items())
    how = f"questions resampled {resampled}" if resampled else "questions resampled"
    yield f"Each cell: the reproduced score with its 95% interval ({how}; no training noise)"
    if any("published" in cell for cell in cells):
        yield "*published*: that number and the difference to it"
    if table.references:
        yield f"*{'*, *'.join(table.references)}*: the same checkpoint, evaluated by others, and the difference to it"
        yield "*tolerance*: how far ours may lie from the number that judges it (docs/decisions.md)"
    if table.protocols:
        yield "letters: the number comes from another protocol, or may do so, or needs a word; see below"
    if any(cell.get("blind") for cell in cells):
        yield "*blind*: the same model with the picture replaced by one colour"


def _markdown_cell(table: BuiltTable, cell: Mapping[str, str]) -> str:
    def beside(quantity: str, difference: str) -> str:
        marks = table.marks(cell, quantity)
        shown = f" ({cell[difference]})" if cell.get(difference) else ""
        return f"*{quantity}* {cell[quantity]}{f'<sup>{marks}</sup>' if marks else ''}{shown}"

    parts = [f"**{cell['reproduced']}**" if cell.get("reproduced") else "-"]
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
    """For every cell its result files, and for every result file the checkpoint, the recipes and the versions behind it."""
    cells: list[dict[str, Any]] = [
        {
            "model": model,
            "run": variant,
            "column": name,
            "value": results.cell(model, variant, name, definitions).value,
            "results": list(results.cell(model, variant, name, definitions).sources),
            "protocols": {
                quantity: row[name][f"{quantity}_protocols"].split()
                for quantity in ("published", *table.references)
                if row[name].get(f"{quantity}_protocols")
            },
        }
        for model, variant, row in table.rows
        for name in table.columns
        if row[name].get("reproduced")
    ]
    used = sorted({source for cell in cells for source in cell["results"]})
    by_path = {str(path): key for key, path in results.files.items()}
    files = {}
    for source in used:
        scores = results.scores(by_path[source])
        files[source] = {
            "sha256": sha256(Path(source)),
            "samples": scores["samples"],
            "n": scores["seen"]["n"],
            "evaluation_recipe": scores["digest"],
            "finetune_recipe": scores["checkpoint"]["recipe"],
            "pretrain_recipe": scores["checkpoint"]["initial_recipe"],
            "weights": scores["checkpoint"]["weights"],
            "versions": scores["checkpoint"]["versions"] | {"lmms_eval": scores["lmms_eval"]},
            "judge": scores["judge"],
        }
    return {"title": table.title, "cells": cells, "results": files}
