"""Differences that follow from the paper's printed numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from ..study.tables import Column
from .evidence import PublishedChange
from .results import Published

Pair = tuple[str, str, str]
"""(model, treatment, reference)."""


def published_change(
    pair: Pair, name: str, columns: Mapping[str, Column], published: Sequence[Published]
) -> PublishedChange | None:
    """Of two numbers in one table of the paper, or else of the first of each; of what is not printed, by its parts.

    None where a number is missing.
    """
    model, treatment, reference = pair
    cells = [p for p in published if p.model == model and p.column == name and not p.of_others]
    both = [(a, b) for a in cells if a.run == treatment for b in cells if b.run == reference]
    if both:
        a, b = next(((a, b) for a, b in both if a.table == b.table), both[0])
        tables = tuple(dict.fromkeys((a.table, b.table)))
        return PublishedChange(treatment=a.printed, reference=b.printed, change=float(a.value - b.value), tables=tables)
    column = columns[name]
    parts = [published_change(pair, part, columns, published) for part in (*column.mean_of, *column.sum_of)]
    known = [part for part in parts if part is not None]
    if not parts or len(known) < len(parts):
        return None
    return _weighted(known, [1 / len(parts) if column.mean_of else 1.0] * len(parts))


def published_endpoint(
    pair: Pair, names: Sequence[str], columns: Mapping[str, Column], published: Sequence[Published]
) -> PublishedChange | None:
    """Of the mean of columns on a scale from 0 to 100, where the paper has them all."""
    parts = [published_change(pair, name, columns, published) for name in names]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    return _weighted(known, [100 / columns[name].maximum / len(names) for name in names])


def _weighted(parts: Sequence[PublishedChange], weights: Sequence[float]) -> PublishedChange:
    def total(values: Sequence[str]) -> float:
        return sum(weight * float(Decimal(value)) for value, weight in zip(values, weights, strict=True))

    after, before = total([part.treatment for part in parts]), total([part.reference for part in parts])
    tables = tuple(dict.fromkeys(table for part in parts for table in part.tables))
    return PublishedChange(treatment=f"{after:.4f}", reference=f"{before:.4f}", change=after - before, tables=tables)
