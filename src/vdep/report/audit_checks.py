"""The checks of the audit: each takes the printed cells, and yields a finding for every cell that it has something to say of.

The cells are a frame of text: table, model, run, column, printed, in the order of config/published.csv. A finding says what a
number cannot be, or what it fits; it never says why.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from itertools import product

import numpy as np
import pandas as pd

from ..study.tables import Protocol
from .audit_expectations import Claims, DenominatorSearch, Expectations, PrintedColumn, Reference
from .audit_lattice import Lattice, Printed, fitting_denominators, is_printed_as, two_decimals
from .tables import BASELINE, CHANGE, VDEP

FIELDS = ["table", "model", "run", "column", "printed"]
CellKey = tuple[str, str, str, str]
"""(table, model, run, column)."""


@dataclass(frozen=True)
class Finding:
    table: str
    model: str
    run: str
    column: str
    printed: str
    check: str
    fits: str
    """What would fit instead, or next to it; empty where that is no question."""
    words: str

    @property
    def cell(self) -> CellKey:
        return self.table, self.model, self.run, self.column


def scores_of(cells: pd.DataFrame) -> pd.DataFrame:
    """Without the CHANGE rows."""
    return cells[cells["run"] != CHANGE]


def _found(rows: pd.DataFrame, check: str, fits: Sequence[str], words: Sequence[str]) -> Iterator[Finding]:
    for row, would_fit, sentence in zip(rows[FIELDS].itertuples(index=False), fits, words, strict=True):
        yield _finding(row, check, would_fit, sentence)


def _finding(row: Sequence[str], check: str, fits: str, words: str) -> Finding:
    table, model, run, column, printed = row
    return Finding(table, model, run, column, printed, check, fits, words)


def _or(values: Sequence[Fraction]) -> str:
    return " or ".join(dict.fromkeys(two_decimals(value) for value in values))


_DECIMALS = {0: "as a whole number", 1: "with one decimal", 2: "with two decimals"}


def _with(decimals: int) -> str:
    return _DECIMALS.get(decimals, f"with {decimals} decimals")


# -- granularity


def granularity(cells: pd.DataFrame, columns: Mapping[str, PrintedColumn]) -> Iterator[Finding]:
    """Cells that no count of the column's questions, points or pictures is printed as, rounded or cut."""
    for name, group in scores_of(cells).groupby("column", sort=False):
        column = columns.get(str(name))
        lattice = column.lattice if column else None
        if column is None or lattice is None:
            continue
        printed = Printed.of(list(group["printed"]))
        decimals = lattice.fitting_decimals(printed)
        odd = decimals < printed.decimals
        if not odd.any():
            continue
        stands_for, near = lattice.candidates(printed), lattice.neighbours(printed)
        fits, words = [], []
        for text, given, fitting, values, around in zip(
            group["printed"][odd], printed.decimals[odd], decimals[odd], _where(stands_for, odd), _where(near, odd), strict=True
        ):
            start = f"cannot be a score of {column.counted} {_with(given)}, rounded or cut"
            if fitting < 0:
                fits.append(_or(around))
                words.append(f"{start}; the nearest that can are {_or(around)}")
            else:
                shorter = str(Decimal(text).quantize(Decimal(1).scaleb(-int(fitting))))
                between = f", nor {_with(1)}" if fitting == 0 and given > 1 else ""
                fits.append(_or(values) if fitting == 0 else f"{shorter} {_with(fitting)}")
                words.append(f"{start}{between}; it can be {shorter} {_with(fitting)}, padded, which stands for {_or(values)}")
        yield from _found(group[odd], "granularity", fits, words)


def _where(values: Sequence[tuple[Fraction, ...]], mask: np.ndarray) -> list[tuple[Fraction, ...]]:
    return [value for value, kept in zip(values, mask, strict=True) if kept]


def out_of_range(cells: pd.DataFrame, columns: Mapping[str, PrintedColumn]) -> Iterator[Finding]:
    """Cells below zero, or above the highest score of a column that may hold any number up to it."""
    for name, group in scores_of(cells).groupby("column", sort=False):
        if (column := columns.get(str(name))) and column.up_to is not None:
            values = group["printed"].map(Decimal)
            rows = group[(values < 0) | (values > column.up_to)]
            yield from _found(
                rows, "range", [""] * len(rows), [f"cannot be: scores are from 0 to {column.up_to:,}"] * len(rows)
            )


# -- denominators


@dataclass(frozen=True)
class Denominators:
    """What all cells of a benchmark say of its number of questions."""

    name: str
    search: DenominatorSearch
    assumed: int
    """By config/audit.yaml."""
    rows: pd.DataFrame

    @cached_property
    def different(self) -> list[str]:
        return list(dict.fromkeys(self.rows["printed"]))

    @cached_property
    def tried(self) -> pd.DataFrame:
        """n; how many different cells fit it ``rounded``, ``cut``, and ``either`` way."""
        n, rounded, cut = fitting_denominators(Printed.of(self.different), self.search.low, self.search.high)
        return pd.DataFrame(
            {"n": n, "rounded": rounded.sum(1), "cut": cut.sum(1), "either": (rounded | cut).sum(1)},
        )

    @cached_property
    def fit_all(self) -> list[int]:
        return self.tried["n"][self.tried["either"] == len(self.different)].tolist()

    @property
    def chance(self) -> float:
        """How often all of so many arbitrary numbers would fit the first of ``fit_all``."""
        return Lattice.of_questions(self.fit_all[0]).share_that_fits(2) ** len(self.different) if self.fit_all else 1.0

    @cached_property
    def settled(self) -> int:
        """The number of questions that is gone by: the only one that fits all cells, or else the assumed one."""
        return self.fit_all[0] if len(self.fit_all) == 1 else self.assumed

    @property
    def words(self) -> str:
        many, span = len(self.different), f"from {self.search.low:,} to {self.search.high:,}"
        all_cells = f"all {many} different cells, rounded or cut"
        if len(self.fit_all) == 1:
            return f"{self.fit_all[0]:,} is the only number of questions {span} that fits {all_cells}"
        if self.fit_all:
            return f"{len(self.fit_all):,} numbers of questions {span} fit {all_cells}"
        return f"no number of questions {span} fits {all_cells}"


def search_denominators(cells: pd.DataFrame, expectations: Expectations) -> list[Denominators]:
    searches = []
    for name, search in expectations.denominators.items():
        assumed = expectations.columns[search.columns[0]].questions
        rows = scores_of(cells)[scores_of(cells)["column"].isin(search.columns)]
        if assumed is not None and not rows.empty:
            searches.append(Denominators(name, search, assumed, rows))
    return searches


def settled_columns(columns: Mapping[str, PrintedColumn], searches: Sequence[Denominators]) -> dict[str, PrintedColumn]:
    """The columns with the numbers of questions that the searches come to."""
    changed = {name: {"questions": search.settled} for search in searches for name in search.search.columns}
    return {name: column.model_copy(update=changed.get(name, {})) for name, column in columns.items()}


def denominators(searches: Sequence[Denominators]) -> Iterator[Finding]:
    """Cells that the assumed number of questions does not fit, beside what would."""
    for search in searches:
        if search.assumed in search.fit_all:
            continue
        lattice = Lattice.of_questions(search.assumed)
        printed = Printed.of(list(search.rows["printed"]))
        odd = ~lattice.fits(printed)
        near = [_or(values) for values in _where(lattice.neighbours(printed), odd)]
        words = f"fits none of {search.assumed:,} questions, rounded or cut; {search.words}"
        fits = [f"a score of {search.settled:,} questions"] * len(near) if len(search.fit_all) == 1 else near
        yield from _found(search.rows[odd], "denominator", fits, [words] * len(near))


# -- sums and means


def possible_scores(cells: pd.DataFrame, columns: Mapping[str, PrintedColumn]) -> dict[CellKey, tuple[Fraction, ...]]:
    """The exact scores that a cell can stand for, of cells whose scores move in steps and that fit one."""
    possible: dict[CellKey, tuple[Fraction, ...]] = {}
    for name, group in scores_of(cells).groupby("column", sort=False):
        if (column := columns.get(str(name))) and (lattice := column.lattice) is not None:
            values = lattice.candidates(Printed.of(list(group["printed"])))
            keys = group[FIELDS[:4]].itertuples(index=False, name=None)
            possible |= {key: each for key, each in zip(keys, values, strict=True) if each}
    return possible


def sums(cells: pd.DataFrame, columns: Mapping[str, PrintedColumn]) -> Iterator[Finding]:
    """Totals and means that are not those of the scores that their parts stand for.

    A part stands in the same table, or where the paper prints that run's score. The sum of printed, so already rounded, parts
    is named as that.
    """
    possible = possible_scores(cells, columns)
    texts = {key: text for *key_parts, text in cells[FIELDS].itertuples(index=False) for key in [tuple(key_parts)]}
    elsewhere = {key[1:]: key for key in reversed(texts)}
    for name, column in columns.items():
        parts = column.sum_of or column.mean_of
        if not parts:
            continue
        divisor, what = (len(parts), "mean") if column.mean_of else (1, "sum")
        rows = scores_of(cells)[scores_of(cells)["column"] == name]
        for row in rows[FIELDS].itertuples(index=False):
            table, model, run, _, printed = row
            keys = [
                (table, model, run, p) if (table, model, run, p) in texts else elsewhere.get((model, run, p)) for p in parts
            ]
            known = [key for key in keys if key is not None]
            if len(known) < len(parts):
                yield from _of_unknown_parts(row, [columns.get(part) for part in parts], divisor)
                continue
            of_printed = sum((Fraction(Decimal(texts[key])) for key in known), Fraction(0)) / divisor
            exact = sorted(
                {sum(values, Fraction(0)) / divisor for values in product(*(possible.get(key, ()) for key in known))}
            )
            if any(is_printed_as(value, printed) for value in exact):
                continue
            if is_printed_as(of_printed, printed):
                if exact:
                    words = f"is the {what} of the printed parts, which are rounded; that of their scores would be {_or(exact)}"
                    yield _finding(row, "sum", _or(exact), words)
                continue
            values = [*exact, of_printed]
            words = f"cannot be the {what}: the printed parts give {two_decimals(of_printed)}"
            words += f", their scores {_or(exact)}" if exact else ""
            yield _finding(row, "sum", _or(values), words)


def _of_unknown_parts(row: Sequence[str], parts: Sequence[PrintedColumn | None], divisor: int) -> Iterator[Finding]:
    """A mean of scores of equally many questions, which are not printed, is a share of twice as many."""
    counts = {part.questions if part else None for part in parts}
    if divisor == 1 or len(counts) > 1 or None in counts:
        return
    (questions,) = counts
    assert questions is not None
    lattice, printed = Lattice.of_questions(divisor * questions), Printed.of([row[4]])
    (decimals,) = lattice.fitting_decimals(printed)
    if decimals < printed.decimals[0]:
        (near,) = lattice.neighbours(printed)
        words = (
            f"cannot be the mean of {divisor} unrounded scores of {questions:,} questions, the number that is gone by here, "
        )
        words += f"{_with(printed.decimals[0])}, rounded or cut" + (
            f"; it can {_with(decimals)}, padded" if decimals >= 0 else ""
        )
        yield _finding(row, "denominator", _or(near), words)


# -- changes


def changes(cells: pd.DataFrame, columns: Mapping[str, PrintedColumn]) -> Iterator[Finding]:
    """CHANGE rows that are not the difference of the two rows above.

    A change may have been taken before rounding, and then differ by a unit of the last place: that is excused where the scores
    allow it, and where changes in these tables are not as a rule the differences of what is printed.
    """
    possible = possible_scores(cells, columns)
    keys = ["table", "model", "column"]
    wide = cells.pivot_table(index=keys, columns="run", values="printed", aggfunc="first", sort=False)
    if not {BASELINE, VDEP, CHANGE} <= set(wide.columns):
        return
    wide = wide[[BASELINE, VDEP, CHANGE]].dropna().reset_index()
    values = wide[[BASELINE, VDEP, CHANGE]].map(Decimal)
    expected = values[VDEP] - values[BASELINE]
    off = (values[CHANGE] - expected).abs()
    unit = wide[CHANGE].map(lambda text: Decimal(1).scaleb(min(0, int(Decimal(text).as_tuple().exponent))))
    of_printed = (off > 0).sum() <= len(off) / 20
    for i in wide.index[off > 0]:
        table, model, column = wide.loc[i, keys]
        before, after = (possible.get((table, model, run, column)) for run in (BASELINE, VDEP))
        exact = [b - a for a, b in product(before, after)] if before and after else None
        allowed = off[i] <= unit[i] and (exact is None or any(is_printed_as(value, wide.loc[i, CHANGE]) for value in exact))
        if allowed and not of_printed:
            continue
        words = f"{'is not' if allowed else 'cannot be'} the change from {wide.loc[i, BASELINE]} to {wide.loc[i, VDEP]}"
        words += f", which is {expected[i]:+}"
        words += "; rounding may account for it, though the other changes are those of the printed numbers" if allowed else ""
        yield Finding(table, model, CHANGE, column, wide.loc[i, CHANGE], "change", f"{expected[i]:+}", words)


# -- the same score twice


def contradictions(cells: pd.DataFrame) -> Iterator[Finding]:
    """One run's score in one column, printed differently in different places."""
    rows = scores_of(cells).assign(value=lambda frame: frame["printed"].map(Decimal))
    different = rows.groupby(["model", "run", "column"])["value"].transform("nunique") > 1
    for _, group in rows[different].groupby(["model", "run", "column"], sort=False):
        places = [f"{text} in {', '.join(part['table'])}" for text, part in group.groupby("printed", sort=False)]
        words = f"printed {' and '.join(places)}: these cannot both be the score of one evaluation"
        others = [" or ".join(t for t in dict.fromkeys(group["printed"]) if t != own) for own in group["printed"]]
        yield from _found(group, "contradiction", others, [words] * len(group))


# -- numbers of others


def taken_over(cells: pd.DataFrame, references: Sequence[Reference], others: pd.DataFrame) -> Iterator[Finding]:
    """Cells that equal what others printed for a checkpoint, to as many decimals as they did. ``others`` are their cells."""
    for reference in references:
        theirs = others[(others["table"] == reference.table) & (others["model"] == reference.model)]
        numbers = dict(zip(theirs["column"], theirs["printed"], strict=True)) | reference.more
        rows = cells[(cells["model"] == reference.model) & (cells["run"] == reference.run) & cells["column"].isin(numbers)]
        their = [numbers[column] for column in rows["column"]]
        same = [is_printed_as(Fraction(Decimal(own)), t) for own, t in zip(rows["printed"], their, strict=True)]
        equal = np.array(same, dtype=bool)
        words = [
            f"equals {number}, which {reference.name} has for the released checkpoint ({equal.sum()} of {len(equal)} cells "
            "that can be compared do so): it may be that number, and not of a run trained beside the others"
            for number, taken in zip(their, equal, strict=True)
            if taken
        ]
        yield from _found(rows[equal], "reference", [""] * len(words), words)


# -- what the text says


def claims(cells: pd.DataFrame, said: Claims) -> Iterator[Finding]:
    """Changes that the text's words do not fit."""
    if said.better_everywhere is not None:
        rows = cells[(cells["run"] == CHANGE) & cells["table"].isin(said.better_everywhere.tables)]
        rows = rows[rows["printed"].map(Decimal) <= 0]
        words = f"{said.better_everywhere.where} say that VDEP is better than the baseline throughout; here it is not"
        yield from _found(rows, "claim", [""] * len(rows), [words] * len(rows))
    for gain in said.gains:
        rows = cells[(cells["model"] == gain.model) & (cells["column"] == gain.column)]
        by_run = rows.drop_duplicates("run").set_index("run")
        if not {BASELINE, VDEP, CHANGE} <= set(by_run.index):
            continue
        before, after = (Fraction(Decimal(by_run.loc[run, "printed"])) for run in (BASELINE, VDEP))
        relative = 100 * (after - before) / before
        fits = is_printed_as(relative, gain.printed)
        words = f"{gain.where} gives this change as {gain.printed}%: "
        words += f"{'it is' if fits else 'it cannot be'} one in percent of the baseline's {by_run.loc[BASELINE, 'printed']}"
        words += ", not in points" if fits else f", which would be {two_decimals(relative)}"
        yield from _found(by_run.reset_index()[lambda f: f["run"] == CHANGE], "claim", [f"{two_decimals(relative)}%"], [words])


# -- protocols


def other_protocols(cells: pd.DataFrame, protocols: Mapping[str, Protocol]) -> Iterator[Finding]:
    """Cells that another protocol made than the numbers they stand beside, or may have."""
    for name, protocol in protocols.items():
        places = cells[["table", "model", "column"]].itertuples(index=False)
        rows = scores_of(cells[np.array([protocol.covers(*place) for place in places], dtype=bool)])
        yield from _found(rows, "protocol", [""] * len(rows), [f"{name}: {protocol.note}"] * len(rows))
