"""Power before the money: the smallest effect that some seeds can detect, on each benchmark and pooled.

A paired difference of two arms varies from seed to seed for two reasons: single questions turn out otherwise by chance (a
share of them, ``disagreement``; the more questions, the less it matters), and a run as a whole is better or worse
(``seed_spread``). Before any run both are assumed (config/verdicts.yaml). What finished runs measure takes their place: single
questions from one seed on, both together from as many seeds as a verdict needs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Literal

import numpy as np

from ..errors import ReportError
from ..study.settings import Frozen
from ..study.verdicts import Assumptions, Rules
from .evidence import Comparison, Definition, Difference
from .inference import MOST_SEEDS, detectable, detectable_by_questions, seeds_needed
from .quantities import Quantity, benchmarks_of, quantities
from .results import Published

Basis = Literal["assumed", "questions measured, seeds assumed", "measured"]


class Detectable(Frozen):
    """What can be detected in one quantity, all in points of 100."""

    quantity: str
    label: str
    pooled: bool
    questions: int | None
    """None where the configuration does not say, and nothing is evaluated."""
    spread: float | None
    """Standard deviation over seeds of a paired difference; None where nothing is known of it."""
    by_questions: float | None
    """Standard error of one seed's difference over questions."""
    basis: Basis
    smallest: dict[int, float]
    """Number of seeds -> smallest effect; of 1 seed, of two checkpoints over questions: no training noise is in it."""


class PublishedDifference(Frozen):
    """One difference of the paper, held against what can be detected."""

    model: str
    treatment: str
    reference: str
    quantity: str
    label: str
    change: float
    """As printed, in the unit of the column."""
    points: float
    """Of 100."""
    detected_with: int | None
    """The fewest of the numbers of seeds (2 at least) that would detect an effect of this size; None: none of them."""
    needed: int | None
    """How many would; None where no spread is known, or the difference is 0."""


class Power(Frozen):
    """``power.json``."""

    rules: Rules
    rules_sha256: str
    rows: tuple[Detectable, ...]
    published: tuple[PublishedDifference, ...]
    note: str | None = None


def assumed_spread(columns: int, assumed: Assumptions) -> float:
    """Standard deviation over seeds of a difference of two arms in a mean of columns (0-100), beyond single questions."""
    shared = assumed.seed_correlation
    return math.sqrt(2) * assumed.seed_spread * math.sqrt((1 - shared) / columns + shared)


def chance_of_questions(questions: Sequence[int], assumed: Assumptions) -> float:
    """What single questions add to that of a mean of columns with so many questions: 100 sqrt(d / N) for one of them."""
    return 100 * math.sqrt(assumed.disagreement * math.fsum(1 / n for n in questions)) / len(questions)


def build_power(comparison: Comparison, published: Sequence[Published]) -> Power:
    """For every column and endpoint, from what is measured and otherwise from what is assumed.

    Raises:
        ReportError: where no rules are configured.
    """
    definition = comparison.definition
    rules = definition.rules
    if rules is None or definition.rules_sha256 is None:
        raise ReportError(
            "power follows from the level, the numbers of seeds and the assumptions of `verdicts`: configure them"
        )
    rows = [_detectable(quantity, definition, rules, comparison) for quantity in quantities(definition)]
    differences = [
        difference
        for pair in definition.pairs
        for quantity, row in zip(quantities(definition), rows, strict=True)
        if (difference := _published(pair, quantity, row, definition, rules, published)) is not None
    ]
    return Power(
        rules=rules,
        rules_sha256=definition.rules_sha256,
        rows=tuple(rows),
        published=tuple(differences),
        note=definition.note,
    )


def _detectable(quantity: Quantity, definition: Definition, rules: Rules, comparison: Comparison) -> Detectable:
    found = [d for d in comparison.differences if d.quantity == quantity.name and d.pooled == quantity.pooled]
    by_questions = _measured_error(found) if found else _assumed_error(quantity, definition, rules.assumed)
    spread, measured = _measured_spread(found, rules), True
    if spread is None:
        measured = False
        if by_questions is not None:
            spread = math.hypot(assumed_spread(len(quantity.columns), rules.assumed), by_questions)
    smallest = {}
    for n in rules.seeds:
        if n == 1 and by_questions is not None:
            smallest[n] = detectable_by_questions(by_questions, rules.level, rules.power)
        elif n > 1 and spread is not None:
            smallest[n] = detectable(spread, n, rules.level, rules.power)
    return Detectable(
        quantity=quantity.name,
        label=quantity.label,
        pooled=quantity.pooled,
        questions=found[0].questions if found else _questions(quantity, definition),
        spread=spread,
        by_questions=by_questions,
        basis="measured" if measured else "questions measured, seeds assumed" if found else "assumed",
        smallest=smallest,
    )


def _measured_error(found: Sequence[Difference]) -> float:
    return math.sqrt(fmean((d.question_error * d.scale) ** 2 for d in found))


def _measured_spread(found: Sequence[Difference], rules: Rules) -> float | None:
    """Pooled over the pairs of arms that have as many seeds as a verdict needs; None where no pair has."""
    several = [np.asarray(d.differences) * d.scale for d in found if d.n >= max(2, rules.minimum_seeds)]
    if not several:
        return None
    freedom = sum(len(values) - 1 for values in several)
    return math.sqrt(math.fsum(float(np.sum((values - values.mean()) ** 2)) for values in several) / freedom)


def _questions(quantity: Quantity, definition: Definition) -> int | None:
    names = dict.fromkeys(b for column in quantity.columns for b in benchmarks_of(column, definition.columns))
    counts = [definition.questions.get(name) for name in names]
    return None if None in counts else sum(n for n in counts if n is not None)


def _assumed_error(quantity: Quantity, definition: Definition, assumed: Assumptions) -> float | None:
    counts = [_effective(column, definition, assumed) for column in quantity.columns]
    known = [n for n in counts if n is not None]
    return chance_of_questions(known, assumed) if len(known) == len(counts) else None


def _effective(name: str, definition: Definition, assumed: Assumptions) -> int | None:
    """How many equal questions would leave as much to chance as this column does."""
    if name in assumed.questions:
        return assumed.questions[name]
    column = definition.columns[name]
    if column.benchmark is not None:
        return definition.questions.get(column.benchmark)
    parts = [_effective(part, definition, assumed) for part in (*column.mean_of, *column.sum_of)]
    known = [n for n in parts if n is not None]
    # of a mean of k columns 1 / N is the mean of their 1 / N over k
    return round(len(known) ** 2 / math.fsum(1 / n for n in known)) if len(known) == len(parts) else None


def _published(
    pair: tuple[str, str, str],
    quantity: Quantity,
    row: Detectable,
    definition: Definition,
    rules: Rules,
    published: Sequence[Published],
) -> PublishedDifference | None:
    change = quantity.published(pair, definition.columns, published)
    if change is None:
        return None
    points = change.change * 100 / quantity.maximum
    enough = [n for n in rules.seeds if n > 1 and n in row.smallest and row.smallest[n] <= abs(points)]
    needed = None
    if row.spread is not None and points:
        needed = seeds_needed(points, row.spread, rules.level, rules.power)
    return PublishedDifference(
        model=pair[0],
        treatment=pair[1],
        reference=pair[2],
        quantity=quantity.name,
        label=quantity.label,
        change=change.change,
        points=points,
        detected_with=min(enough, default=None),
        needed=needed,
    )


def beyond(needed: int | None) -> str:
    """A number of seeds, in words where it is out of reach."""
    return "-" if needed is None else f"more than {MOST_SEEDS}" if needed >= MOST_SEEDS else str(needed)
