"""Intervals of cells that are a mean or a sum of others, over clusters of questions: MME's total, both MMBench together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..study.tables import Column
from .inference import cluster_interval
from .paired import column_of, read_answered


def parts_by_benchmark(name: str, columns: Mapping[str, Column]) -> dict[str, list[str]]:
    """Benchmark -> the parts of it that a column is computed from."""
    found: dict[str, list[str]] = {}
    waiting = [name]
    while waiting:
        column = columns[waiting.pop()]
        if column.benchmark is not None and column.part not in found.setdefault(column.benchmark, []):
            found[column.benchmark].append(column.part)
        waiting += (*column.mean_of, *column.sum_of)
    return found


def interval(files: Mapping[str, Path], name: str, columns: Mapping[str, Column]) -> tuple[float, float]:
    """The 95% interval of a column of one run, from the samples of its benchmarks.

    What the parts contribute cluster by cluster is added before anything is squared: categories of MME share no picture, the
    same question in English and in Chinese does.

    Args:
        files: benchmark -> scores.
    """
    answered = {b: read_answered(files[b], parts) for b, parts in parts_by_benchmark(name, columns).items()}
    measured = column_of(answered, name, columns)
    found = cluster_interval(measured.value, [contributions.to_numpy() for contributions in measured.influence.values()])
    return found.low, found.high
