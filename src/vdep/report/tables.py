"""The tables of the paper: reproduced, published, difference; beside them where every number comes from.

Everything of a table is one DataFrame, whose numbers stay numbers until a CSV or a Markdown page is printed from it. A cell is
of all seeds of a run: with several it is their mean with its spread, with one the score with an interval over questions. A
published number that another protocol made carries a mark and a note (config/protocols.yaml), and so does one of which the
audit has something to say (report/audit.py). A calibration table lays the numbers of others for the same checkpoint beside
ours, and says of each cell whether they agree.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from statistics import stdev

import pandas as pd

from ..errors import ReportError
from ..study.settings import Frozen
from ..study.tables import Calibration, Column, Protocol, Table
from .results import Cell, Key, Published, Results


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
    recipes: tuple[tuple[str, str], ...]
    """What each is of: the digests of the checkpoint's recipe and of the evaluation's."""
    protocols: dict[str, Protocol]
    note: str | None = None
    """A sentence on the whole table, shown under it."""


BASELINE, VDEP, CHANGE = "baseline", "vdep", "CHANGE"
"""The third is the second minus the first, a row of the paper's tables."""
SIGNED = ("difference", "change")
AUDITED = "†"
"""Marks a published number of which the audit has something to say."""
Remarks = Mapping[tuple[str, str, str, str], Sequence[str]]
"""(table, model, run, column) of a published number -> what the audit says of it."""


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
        """Of the notes on one number: ``a``, ``b``, ... for protocols, and the audit's."""
        letters = [chr(ord("a") + i) for i in range(26)]
        names = cell.get(f"{quantity}_protocols", "").split()
        marks = [letters[list(self.protocols).index(name)] for name in names]
        return ",".join([*marks, AUDITED] if f"{quantity}_audit" in cell else marks)


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


def build_table(
    definition: TableDefinition, results: Results, published: Sequence[Published], remarks: Remarks | None = None
) -> BuiltTable:
    """Everything of a table, unrounded."""
    remarks = remarks or {}
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
            paper = next((p for p in printed if p.table in spec.published), None)
            others = {r: p for r in references for p in printed if p.table == r}
            if name in definition.left_out:
                quantities: Quantities = {"published": paper}
                cell, others = None, {}
            else:
                cell = results.cell(model, variant, name, definition.columns)
                quantities = _numbers(cell, paper, others)
                if cell.clusters is not None and labels[name] not in clusters.setdefault(cell.clusters, []):
                    clusters[cell.clusters].append(labels[name])
                papers = [p for p in printed if not p.of_others]
                elsewhere = sorted({p.printed for p in papers if paper is not None and p.value != paper.value})
                if elsewhere:
                    quantities["published_elsewhere"] = " ".join(elsewhere)
                if spec.calibration is not None:
                    judging = (p for p in others.values() if all(m.comparable for m in _covering(protocols, p).values()))
                    quantities |= _verdict(cell, next(judging, None), spec.calibration)
            marks = {q: _covering(protocols, p) for q, p in {"published": paper, **others}.items() if p is not None}
            quantities |= {f"{quantity}_protocols": " ".join(covering) for quantity, covering in marks.items()}
            audited = remarks.get((paper.table, model, variant, name), ()) if paper is not None else ()
            quantities["published_audit"] = "\n".join(audited)
            words = [f"{key}: {m.note}" for covering in marks.values() for key, m in covering.items()]
            quantities["note"] = " ".join([*words, *(f"audit: {remark}." for remark in audited)])
            used |= {key: m for covering in marks.values() for key, m in covering.items()}
            numbers += [(model, variant, name, *line) for line in _lines(quantities)]
            found[model, variant, name] = cell, paper
        rows.append((model, variant))
        if variant in (BASELINE, VDEP) and {(model, BASELINE), (model, VDEP)} <= set(rows):
            rows.append((model, CHANGE))
            for name in spec.columns:
                change = _change(*found[model, BASELINE, name], *found[model, VDEP, name])
                audited = [r for t in spec.published for r in remarks.get((t, model, CHANGE, name), ())]
                change["published_change_audit"] = "\n".join(audited)
                numbers += [(model, CHANGE, name, *line) for line in _lines(change)]
    notes += [f"Free-form answers graded by {judge}." for judge in results.judges]
    notes += [
        f"{labels[name]}: left out, because no judge is configured." for name in spec.columns if name in definition.left_out
    ]
    notes += [definition.note] if definition.note else []
    frame = pd.DataFrame(numbers, columns=["model", "run", "column", "quantity", "value", "text"])
    return BuiltTable(spec.title, rows, spec.columns, labels, frame, notes, references, used, clusters)


def _numbers(cell: Cell, paper: Published | None, others: Mapping[str, Published]) -> Quantities:
    quantities: Quantities = {"reproduced": cell.value, "low": cell.low, "high": cell.high, "blind": cell.blind}
    if cell.n > 1:
        quantities |= {"spread": cell.spread, "n": cell.n}
    if paper is not None:
        quantities |= {"published": paper, "difference": float(shown(cell.value) - paper.value)}
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
