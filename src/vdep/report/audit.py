"""The audit of printed numbers: which of them cannot be what they are said to be, from the numbers alone.

It reads config/published.csv, what its columns can hold (config/audit.yaml) and which protocols made them
(config/protocols.yaml): no model, no data, no GPU. A number that cannot be a score of so many questions may be another split, a
mean over runs, a slip of the pen: the audit says what does not fit, and what would.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from ..errors import ReportError
from ..files import write_atomically
from ..study.tables import Protocol
from . import audit_checks as checks
from .audit_checks import CellKey, Denominators, Finding
from .audit_expectations import NUMBER, Expectations
from .audit_lattice import Printed
from .results import Published

CHECKS = {
    "granularity": "cannot be a score of so many questions",
    "range": "is below or above all scores",
    "denominator": "fits another number of questions",
    "sum": "is not the sum or the mean of the scores",
    "change": "is not the difference of the two rows above",
    "contradiction": "is printed otherwise elsewhere",
    "reference": "equals a number that others printed",
    "claim": "is not as the text says",
    "protocol": "comes from another protocol, or may do so",
}
"""Check -> what it says of a cell. In the order in which findings are listed."""


@dataclass(frozen=True)
class Audit:
    cells: pd.DataFrame
    """table, model, run, column, printed: everything that was looked at."""
    findings: tuple[Finding, ...]
    searches: tuple[Denominators, ...]
    expectations: Expectations

    def of(self, check: str) -> list[Finding]:
        return [finding for finding in self.findings if finding.check == check]


def audit(published: Sequence[Published], expectations: Expectations, protocols: Mapping[str, Protocol]) -> Audit:
    """Every check on the paper's tables; those of others are compared with, and not audited.

    Raises:
        ReportError: where a cell holds no number.
    """
    for p in published:
        if not re.fullmatch(NUMBER, p.printed or ""):
            raise ReportError(
                f"{p.table}, {p.model}/{p.run}, {p.column}: {p.printed!r} is no number; correct the published cell"
            )
    rows = pd.DataFrame([asdict(p) for p in published], columns=checks.FIELDS).astype(str)
    of_others = pd.Series([p.of_others for p in published], dtype=bool)
    cells, others = rows[~of_others].reset_index(drop=True), rows[of_others]
    searches = checks.search_denominators(cells, expectations)
    columns = checks.settled_columns(expectations.columns, searches)
    in_doubt = {name for search in searches for name in search.search.columns}
    counted = {name: column for name, column in columns.items() if name not in in_doubt}
    findings = (
        *checks.granularity(cells, counted),
        *checks.out_of_range(cells, columns),
        *checks.denominators(searches),
        *checks.sums(cells, columns),
        *checks.changes(cells, columns),
        *checks.contradictions(cells),
        *checks.taken_over(cells, expectations.references, others),
        *checks.claims(cells, expectations.claims),
        *checks.other_protocols(cells, protocols),
    )
    place = {key: i for i, key in enumerate(cells[checks.FIELDS[:4]].itertuples(index=False, name=None))}
    order = sorted(findings, key=lambda finding: (list(CHECKS).index(finding.check), place[finding.cell]))
    return Audit(cells, tuple(order), tuple(searches), expectations)


def remarks(found: Audit) -> dict[CellKey, list[str]]:
    """Cell -> what tables say of it in a note. Protocols have their own marks there."""
    by_cell: dict[CellKey, list[str]] = {}
    for finding in found.findings:
        if finding.check != "protocol":
            by_cell.setdefault(finding.cell, []).append(finding.words)
    return by_cell


def write(found: Audit, table: Path, page: Path) -> None:
    write_atomically(table, as_csv(found))
    write_atomically(page, as_markdown(found))


def as_csv(found: Audit) -> str:
    """A line for every finding."""
    names = [*checks.FIELDS, "check", "fits", "words"]
    return pd.DataFrame([asdict(finding) for finding in found.findings], columns=names).to_csv(index=False, lineterminator="\n")


def as_markdown(found: Audit) -> str:
    """For people: how much there is of what, then the cells, then what the checks can see at all."""
    lines = ["# Audit of the printed numbers", ""]
    marked = {finding.cell for finding in found.findings if finding.check != "protocol"}
    lines.append(
        f"Of {len(found.cells)} printed numbers, {len(marked)} have a line below, protocols aside. From the numbers alone: "
        "what a cell cannot be, or fits. Not why: another split, a mean over runs or a slip of the pen look the same."
    )
    lines += ["", "| check | findings | the cell |", "|---|---:|---|"]
    lines += [f"| {check} | {len(found.of(check))} | {what} |" for check, what in CHECKS.items()]
    for check, what in CHECKS.items():
        if check != "protocol" and (some := found.of(check)):
            lines += [
                "",
                f"## {check}: {what}",
                "",
                "| table | row | column | printed | fits | |",
                "|---|---|---|---:|---|---|",
            ]
            lines += [f"| {f.table} | {f.model}/{f.run} | {f.column} | {f.printed} | {f.fits} | {f.words} |" for f in some]
    if some := found.of("protocol"):
        lines += ["", f"## protocol: {CHECKS['protocol']}", "", "| columns | cells | |", "|---|---:|---|"]
        for words in dict.fromkeys(f.words for f in some):
            marked_columns = [f.column for f in some if f.words == words]
            lines.append(f"| {', '.join(dict.fromkeys(marked_columns))} | {len(marked_columns)} | {words} |")
    lines += [*_denominators(found.searches), *_power(found)]
    return "\n".join(lines) + "\n"


def _denominators(searches: Sequence[Denominators]) -> Iterator[str]:
    for search in searches:
        yield from ("", f"## How many questions {search.name} has", "", f"{search.words[0].upper()}{search.words[1:]}.", "")
        yield f"| questions | of {len(search.different)} cells fit | rounded | cut |"
        yield "|---:|---:|---:|---:|"
        tried = search.tried.sort_values("either", ascending=False, kind="stable").head(4)
        shown = pd.concat([tried, search.tried[search.tried["n"] == search.assumed]]).drop_duplicates("n")
        yield from (f"| {row.n:,} | {row.either} | {row.rounded} | {row.cut} |" for row in shown.itertuples())
        if len(search.fit_all) == 1:
            yield f"\nSo many arbitrary numbers would all fit {search.fit_all[0]:,} with a chance of {search.chance:.1g}."


def _power(found: Audit) -> Iterator[str]:
    yield from (
        "",
        "## What granularity can see",
        "",
        "| column | counted in | cells | different | arbitrary numbers that fit |",
    )
    yield "|---|---|---:|---:|---:|"
    by_column = checks.scores_of(found.cells).groupby("column", sort=False)["printed"]
    for name, texts in by_column:
        column = found.expectations.columns.get(str(name))
        if column is None:
            yield f"| {name} | not in config/audit.yaml | {len(texts)} | {texts.nunique()} | |"
            continue
        lattice = column.lattice
        counted = column.counted or column.any or f"{'sum' if column.sum_of else 'mean'} of others"
        decimals = int(Printed.of(list(texts)).decimals.max())
        share = "" if lattice is None else f"{lattice.share_that_fits(decimals):.0%}"
        yield f"| {name} | {counted} | {len(texts)} | {texts.nunique()} | {share} |"
