"""Papers for the audit: the layout of the paper's tables, filled from random counts of the real numbers of questions, with and
without a planted error.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from decimal import ROUND_DOWN, ROUND_HALF_DOWN, ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from fractions import Fraction
from itertools import product

import world

from vdep.report.audit import Audit, audit
from vdep.report.audit_checks import CellKey
from vdep.report.audit_expectations import Claims, PrintedColumn, read_expectations
from vdep.report.audit_lattice import Printed
from vdep.report.results import Published, read_published
from vdep.report.tables import CHANGE

PUBLISHED = read_published(world.ROOT / "config" / "published.csv")
PAPERS = [p for p in PUBLISHED if not p.of_others]
EXPECTATIONS = read_expectations(world.ROOT / "config" / "audit.yaml")

ROUNDINGS = (ROUND_HALF_UP, ROUND_HALF_EVEN, ROUND_HALF_DOWN, ROUND_DOWN)


def ways_to_print(value: Fraction, decimals: int) -> set[str]:
    exact = Decimal(value.numerator) / Decimal(value.denominator)
    return {f"{exact.quantize(Decimal(1).scaleb(-decimals), rounding=way):f}" for way in ROUNDINGS}


Scores = dict[tuple[str, str, str], Fraction]
UNTOLD = EXPECTATIONS.model_copy(update={"claims": Claims()})
"""What a made paper is audited with: it has no text."""


def random_score(column: PrintedColumn, chance: random.Random) -> Fraction:
    if column.questions is not None:
        return Fraction(100 * chance.randint(column.questions // 4, column.questions * 9 // 10), column.questions)
    if column.points is not None:
        return Fraction(chance.randint(column.points // 4, column.points))
    if column.pictures is not None:
        both = chance.randint(column.pictures // 3, column.pictures)
        return Fraction(100 * (4 * both + chance.randint(0, column.pictures - both)), 2 * column.pictures)
    return Fraction(chance.randint(250_000, 900_000), 10_000)


def made_scores(chance: random.Random) -> Scores:
    wanted = dict.fromkeys((p.model, p.run, p.column) for p in PAPERS if p.run != CHANGE)
    columns, scores = EXPECTATIONS.columns, {}
    for model, run in dict.fromkeys(key[:2] for key in wanted):
        own = {name: random_score(column, chance) for name, column in columns.items()}
        for name, column in columns.items():
            if parts := column.sum_of or column.mean_of:
                own[name] = sum((own[part] for part in parts), Fraction(0)) / (len(parts) if column.mean_of else 1)
        scores |= {(model, run, name): value for name, value in own.items()}
    return scores


def as_printed(value: Fraction, decimals: int, rounding: str) -> str:
    return (
        f"{(Decimal(value.numerator) / Decimal(value.denominator)).quantize(Decimal(1).scaleb(-decimals), rounding=rounding):f}"
    )


def with_changes(paper: Iterable[Published], scores: Scores | None, rounding: str) -> list[Published]:
    """With CHANGE rows: of the printed numbers, or of the ``scores`` behind them."""
    texts = {(p.table, p.model, p.run, p.column): p.printed for p in paper}
    made = []
    for p in paper:
        if p.run == CHANGE:
            before, after = (Decimal(texts[p.table, p.model, run, p.column]) for run in ("baseline", "vdep"))
            change = after - before
            if scores is not None:
                exact = scores[p.model, "vdep", p.column] - scores[p.model, "baseline", p.column]
                change = Decimal(as_printed(exact, -int(before.as_tuple().exponent), rounding))
            p = replace(p, printed=f"{change:+}")
        made.append(p)
    return made


def clean_paper(seed: int) -> tuple[list[Published], str]:
    """Tables as they would be printed of real counts; seeds take turns in rounding or cutting, and in how changes are made."""
    chance = random.Random(seed)
    scores = made_scores(chance)
    rounding = (ROUND_HALF_UP, ROUND_DOWN, ROUND_HALF_EVEN)[seed % 3]
    paper = [
        p if p.run == CHANGE else replace(
            p, printed=as_printed(scores[p.model, p.run, p.column], 0 if p.column == "ocrbench" else 2, rounding)
        )
        for p in PAPERS
    ]  # fmt: skip
    others = [p for p in PUBLISHED if p.of_others]
    return [*with_changes(paper, scores if seed % 2 else None, rounding), *others], rounding


def suspicious(paper: Iterable[Published]) -> Audit:
    return audit(list(paper), UNTOLD, protocols={})


def printed_anew(paper: list[Published], score: tuple[str, str, str], text: str, rounding: str) -> list[Published]:
    """Changed wherever it is printed, and the CHANGE rows with it, so that only the number itself can give it away."""
    changed = [replace(p, printed=text) if (p.model, p.run, p.column) == score else p for p in paper]
    return [*with_changes([p for p in changed if not p.of_others], None, rounding), *(p for p in changed if p.of_others)]


def other_digits(text: str, chance: random.Random) -> Iterator[str]:
    """The number with one digit changed, in random order, the first digit aside."""
    places = [i for i, letter in enumerate(text) if letter.isdigit() and i > 0]
    choices = [(i, digit) for i in places for digit in "0123456789" if digit != text[i]]
    chance.shuffle(choices)
    yield from (f"{text[:i]}{digit}{text[i + 1 :]}" for i, digit in choices)


Planted = tuple[list[Published], CellKey]


def plant_digit(paper: list[Published], rounding: str, chance: random.Random, columns: tuple[str, ...]) -> Planted:
    """A digit changed to what is off the lattice."""
    victim = chance.choice([p for p in paper if p.column in columns and p.run != CHANGE and not p.of_others])
    lattice = EXPECTATIONS.columns[victim.column].lattice
    assert lattice is not None
    text = next(t for t in other_digits(victim.printed, chance) if not lattice.fits(Printed.of([t]))[0])
    same = (victim.model, victim.run, victim.column)
    planted = printed_anew(paper, same, text, rounding)
    return planted, (victim.table, *same)


def plant_total(paper: list[Published], rounding: str, chance: random.Random, columns: tuple[str, ...]) -> Planted:
    """A sum or a mean off by a unit of its last place, where that is not another way to print it."""
    scores = {(p.table, p.model, p.run, p.column): p for p in paper if p.run != CHANGE}
    while True:
        victim = chance.choice([p for p in scores.values() if p.column in columns and p.run == "vdep"])
        text = f"{victim.value + chance.choice([-1, 1]) * Decimal('0.01')}"
        same = (victim.model, victim.run, victim.column)
        planted = printed_anew(paper, same, text, rounding)
        parts = (EXPECTATIONS.columns[victim.column].sum_of, EXPECTATIONS.columns[victim.column].mean_of)
        if not another_way(victim, text, parts, paper):
            return planted, (victim.table, *same)


def another_way(victim: Published, text: str, parts: tuple[tuple[str, ...], tuple[str, ...]], paper: list[Published]) -> bool:
    """Whether the exact total of counts that print as the parts do, can be printed so."""
    names, divisor = (parts[0], 1) if parts[0] else (parts[1], len(parts[1]))
    texts = {p.column: p.printed for p in paper if (p.model, p.run) == (victim.model, victim.run)}
    ways = []
    for name in names:
        lattice = EXPECTATIONS.columns[name].lattice
        assert lattice is not None
        values = [Fraction(int(n), lattice.denominator) for n in lattice.numerators]
        ways.append([v for v in values if texts[name] in ways_to_print(v, 2)])
    return any(text in ways_to_print(sum(way, Fraction(0)) / divisor, 2) for way in product(*ways))


def plant_change(paper: list[Published], rounding: str, chance: random.Random, columns: tuple[str, ...]) -> Planted:
    """A change with another digit, more than rounding could account for."""
    paper = with_changes([p for p in paper if not p.of_others], None, rounding)
    victim = chance.choice([p for p in paper if p.run == CHANGE and p.column in columns])
    text = next(t for t in other_digits(victim.printed, chance) if abs(Decimal(t) - victim.value) > Decimal("0.01"))
    return [replace(p, printed=text) if p is victim else p for p in paper], (victim.table, victim.model, CHANGE, victim.column)


def plant_contradiction(paper: list[Published], rounding: str, chance: random.Random, columns: tuple[str, ...]) -> Planted:
    """A digit changed in one of several tables that print the number."""
    places = defaultdict(list)
    for p in paper:
        if p.run != CHANGE and not p.of_others and p.column in columns:
            places[p.model, p.run, p.column].append(p)
    victim = chance.choice(chance.choice([each for each in places.values() if len(each) > 1]))
    text = next(other_digits(victim.printed, chance))
    return [replace(p, printed=text) if p is victim else p for p in paper], (
        victim.table,
        victim.model,
        victim.run,
        victim.column,
    )


SCORED = tuple(
    name for name, c in EXPECTATIONS.columns.items() if c.lattice and name not in ("gqa", "seedbench_img", "ocrbench")
)
"""Columns where a changed digit can be off the lattice."""
COUNTED = tuple(name for name in SCORED if not name.startswith("mmbench"))
KINDS = {
    "a digit off the lattice": (plant_digit, COUNTED, "granularity"),
    "a digit of MMBench": (plant_digit, ("mmbench_en", "mmbench_cn"), "denominator"),
    "a total": (plant_total, ("mme_total",), "sum"),
    "a mean": (plant_total, ("mmbench_mean",), "sum"),
    "a change": (plant_change, tuple(EXPECTATIONS.columns), "change"),
    "a contradiction": (plant_contradiction, tuple(EXPECTATIONS.columns), "contradiction"),
}
"""What is planted -> how, in which columns, and which check should see it."""


def plant(kind: str, seed: int) -> tuple[Planted, str]:
    how, columns, check = KINDS[kind]
    paper, rounding = clean_paper(seed)
    return how(paper, rounding, random.Random(seed), columns), check
