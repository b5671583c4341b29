"""The study's tables, cell by cell, from the files that the workflow wrote: what is on the page is what is in the CSV."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from ..tables import BASELINE, CHANGE, VDEP
from .content import Difference, Outcome, Sheet, ShownTable, TableCell, TableRow
from .request import AskedTable, Request

Outcomes = dict[tuple[str, str, str, str], Outcome]
"""(model, left, right, label of the column) -> outcome."""


def tables(request: Request, differences: Sequence[Difference]) -> tuple[ShownTable, ...]:
    shown = [d for d in differences if d.outcome != "no verdict" and not d.pooled]
    outcomes: Outcomes = {(d.model, d.left, d.right, d.label): d.outcome for d in shown}
    return tuple(_table(Path(request.results) / "tables", table, outcomes) for table in request.tables)


def _table(folder: Path, table: AskedTable, outcomes: Outcomes) -> ShownTable:
    texts: dict[tuple[str, str], dict[str, dict[str, str]]] = {}
    with open(folder / f"{table.name}.csv", newline="") as file:
        for line in csv.DictReader(file):
            row = texts.setdefault((line["model"], line["run"]), {})
            for column in table.columns:
                if line.get(column):
                    row.setdefault(column, {})[line["quantity"]] = line[column]
    sources = _sources(folder / f"{table.name}.provenance.json")
    rows = []
    for (model, run), cells in texts.items():
        shown = tuple(
            TableCell(
                texts=cells.get(column, {}),
                outcome=outcomes.get((model, BASELINE, run, label)),
                sources=sources.get((model, run, column), ()),
            )
            for column, label in table.columns.items()
        )
        rows.append(TableRow(model=model, run=run, cells=shown))
        if {(model, BASELINE), (model, VDEP)} <= {(row.model, row.run) for row in rows} and run in (BASELINE, VDEP):
            rows.append(_change(model, [texts[model, r] for r in (BASELINE, VDEP)], table, outcomes))
    return ShownTable(
        name=table.name,
        title=table.title,
        columns=tuple(table.columns.values()),
        rows=tuple(rows),
        notes=notes(folder / f"{table.name}.md"),
    )


def _change(
    model: str,
    arms: Sequence[dict[str, dict[str, str]]],
    table: AskedTable,
    outcomes: Outcomes,
) -> TableRow:
    """Of the numbers as they are shown, as in the paper."""
    before, after = arms
    cells = []
    for column, label in table.columns.items():
        texts = {}
        for quantity in ("reproduced", "published"):
            ends = [arm.get(column, {}).get(quantity) for arm in (before, after)]
            if ends[0] and ends[1]:
                texts[quantity] = f"{Decimal(ends[1]) - Decimal(ends[0]):+}"
        cells.append(TableCell(texts=texts, outcome=outcomes.get((model, BASELINE, VDEP, label))))
    return TableRow(model=model, run=CHANGE, cells=tuple(cells), change=True)


def _sources(path: Path) -> dict[tuple[str, str, str], tuple[str, ...]]:
    if not path.is_file():
        return {}
    cells: list[dict[str, Any]] = json.loads(path.read_text())["cells"]
    return {(cell["model"], cell["run"], cell["column"]): tuple(cell["results"]) for cell in cells}


def notes(path: Path) -> tuple[str, ...]:
    """What stands under a table in Markdown, as plain text."""
    if not path.is_file():
        return ()
    paragraphs = path.read_text().split("\n\n")
    under = [text for text in paragraphs if text.strip() and not text.startswith(("#", "|"))]
    return tuple(re.sub(r"<[^>]+>|[*`]", "", text).strip().replace("\n", " ") for text in under)


def sheet(path: Path, title: str) -> Sheet:
    """A CSV as it is, its columns of numbers set right; with the notes of the Markdown file beside it, if there is one."""
    with open(path, newline="") as file:
        lines = list(csv.reader(file))
    head, rows = (lines[0] if lines else []), [tuple(line) for line in lines[1:]]
    numbers = [i for i in range(len(head)) if rows and all(_is_number(row[i]) for row in rows) and any(r[i] for r in rows)]
    beside = notes(path.with_suffix(".md"))
    return Sheet(title=title, columns=tuple(head), rows=tuple(rows), numbers=tuple(numbers), notes=beside)


def _is_number(text: str) -> bool:
    return not text or re.fullmatch(r"[-+−]?\d+(\.\d+)?([eE][-+]?\d+)?%?", text) is not None
