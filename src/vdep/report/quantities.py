"""What is compared: columns, and endpoints on a scale from 0 to 100."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..study.tables import Column
from .evidence import Definition, PublishedChange
from .paired import Answered, Measured, column_of, endpoint_of
from .published import Pair, published_change, published_endpoint
from .results import Published


@dataclass(frozen=True)
class Quantity:
    """A number of a run: a column, or an endpoint on the scale from 0 to 100."""

    name: str
    label: str
    maximum: float
    columns: tuple[str, ...]
    pooled: bool

    def of(self, answered: Mapping[str, Answered], columns: Mapping[str, Column]) -> Measured:
        return endpoint_of(answered, self.columns, columns) if self.pooled else column_of(answered, self.name, columns)

    def published(self, pair: Pair, columns: Mapping[str, Column], published: Sequence[Published]) -> PublishedChange | None:
        if self.pooled:
            return published_endpoint(pair, self.columns, columns, published)
        return published_change(pair, self.name, columns, published)


def quantities(definition: Definition) -> list[Quantity]:
    """First the columns that are compared, then those that only endpoints need, then the endpoints."""
    names = dict.fromkeys((*definition.family, *(c for e in definition.endpoints.values() for c in e.columns)))
    columns = [(name, definition.columns[name]) for name in names]
    return [
        *(Quantity(name, column.label, column.maximum, (name,), False) for name, column in columns),
        *(Quantity(name, e.label, 100.0, e.columns, True) for name, e in definition.endpoints.items()),
    ]


def benchmarks_of(name: str, columns: Mapping[str, Column]) -> list[str]:
    """Those that a column is computed from."""
    column = columns[name]
    parts = (b for part in (*column.mean_of, *column.sum_of) for b in benchmarks_of(part, columns))
    return [column.benchmark] if column.benchmark else list(dict.fromkeys(parts))
