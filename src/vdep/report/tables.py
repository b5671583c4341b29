"""The tables of the paper: reproduced, published, difference; beside them where every number comes from."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from ..errors import ReportError
from ..files import read_json, sha256
from ..settings import Column

Key = tuple[str, str, str]
"""(model, variant, benchmark)."""


@dataclass(frozen=True)
class Published:
    """One number as the paper prints it."""

    table: str
    model: str
    run: str
    column: str
    printed: str

    @property
    def value(self) -> Decimal:
        return Decimal(self.printed)


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
    chance: float | None = None
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

        return Cell(
            value=math.fsum(p.value for p in parts) / divisor,
            blind=combined([p.blind for p in parts]),
            chance=combined([p.chance for p in parts]),
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
            chance=scores["seen"].get("chance", {}).get(part),
            sources=(str(self.files[key]),),
        )


QUANTITIES = ("reproduced", "low", "high", "published", "difference", "published_elsewhere", "blind", "chance")


@dataclass(frozen=True)
class BuiltTable:
    title: str
    columns: tuple[str, ...]
    labels: dict[str, str]
    rows: list[tuple[str, str, dict[str, dict[str, str]]]]
    """(model, variant, column -> quantity -> text)."""
    notes: list[str]


def number(value: float | Decimal | None, places: int = 2) -> str:
    return "" if value is None else f"{value:.{places}f}"


def build_table(
    title: str,
    rows: Sequence[tuple[str, str]],
    columns: Sequence[str],
    definitions: Mapping[str, Column],
    results: Results,
    published: Sequence[Published],
    own_tables: Sequence[str],
) -> BuiltTable:
    """Everything of a table as text, rounded once, here."""
    built, notes = [], []
    for model, variant in rows:
        cells: dict[str, dict[str, str]] = {}
        for name in columns:
            cell = results.cell(model, variant, name, definitions)
            entry = {
                "reproduced": number(cell.value),
                "low": number(cell.low),
                "high": number(cell.high),
                "blind": number(cell.blind),
                "chance": number(cell.chance),
            }
            printed = [p for p in published if (p.model, p.run, p.column) == (model, variant, name)]
            own = next((p for p in printed if p.table in own_tables), None)
            if own is not None:
                entry["published"] = own.printed
                entry["difference"] = f"{Decimal(number(cell.value)) - own.value:+.2f}"
                elsewhere = sorted({p.printed for p in printed if p.value != own.value})
                if elsewhere:
                    entry["published_elsewhere"] = " ".join(elsewhere)
                    where = ", ".join(f"{p.printed} in {p.table}" for p in printed)
                    notes.append(f"{model}/{variant}, {definitions[name].label}: the paper contradicts itself ({where}).")
            cells[name] = entry
        built.append((model, variant, cells))
    labels = {name: definitions[name].label for name in columns}
    judges = sorted({str(j) for j in (s.get("judge") for s in results._read.values()) if j})
    notes += [f"Free-form answers graded by {judge}." for judge in judges]
    return BuiltTable(title, tuple(columns), labels, built, notes)


def as_csv(table: BuiltTable) -> str:
    """One line per checkpoint and quantity; quantities that no cell has are left out."""
    present = [q for q in QUANTITIES if any(cells[c].get(q) for _, _, cells in table.rows for c in table.columns)]
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
        lines.append(f"| {model} | {variant} | " + " | ".join(_markdown_cell(cells[c]) for c in table.columns) + " |")
    legend = "Each cell: the reproduced score with its 95% interval (questions resampled by image; no training noise)"
    if any("published" in cells[c] for _, _, cells in table.rows for c in table.columns):
        legend += "; *published*: that number and the difference to it"
    if any(cells[c].get("blind") for _, _, cells in table.rows for c in table.columns):
        legend += (
            "; *blind*: the same model with the picture replaced by one colour; *chance*: the better of the best constant "
        )
        legend += "answer and an even guess"
    lines += ["", legend + ".", *(f"\n{note}" for note in dict.fromkeys(table.notes))]
    return "\n".join(lines) + "\n"


def _markdown_cell(cell: Mapping[str, str]) -> str:
    parts = [f"**{cell['reproduced']}**"]
    if cell.get("low"):
        parts.append(f"[{cell['low']}, {cell['high']}]")
    if cell.get("published"):
        parts.append(f"*published* {cell['published']} ({cell['difference']})")
    if cell.get("blind"):
        parts.append(f"*blind* {cell['blind']}")
    if cell.get("chance"):
        parts.append(f"*chance* {cell['chance']}")
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
        }
        for model, variant, _ in table.rows
        for name in table.columns
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
