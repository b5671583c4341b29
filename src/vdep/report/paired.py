"""From what two checkpoints answered to the paired difference of any score, on the same questions.

A score is a function of sums over clusters (``evaluation.scores.Statistic``). Around its value it is linear: what one cluster
contributes is its sums times the gradient of the score, and all contributions of a benchmark add up to zero. So the difference
of two checkpoints, of F1 or of MME's sums as of a mean, and a mean over benchmarks, have contributions cluster by cluster, by
subtraction and addition; the intervals of ``inference`` are made of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..artifacts import Scores
from ..errors import ReportError
from ..evaluation.samples import read_samples
from ..evaluation.scores import SCORERS, Scored, Statistic
from ..study.tables import Column

Influence = dict[str, pd.Series]
"""Source of the data -> contribution of each cluster, by its name. Benchmarks of one source share their clusters."""


@dataclass(frozen=True)
class Measured:
    """One number of one run, with what each cluster of questions contributes to it."""

    value: float
    influence: Influence


@dataclass(frozen=True)
class Answered:
    """A benchmark as one checkpoint answered it, with its picture."""

    benchmark: str
    digest: str
    """Of the evaluation's recipe: of how it was evaluated."""
    recipe: dict[str, Any]
    source: str
    parts: dict[str, Measured]
    clusters: tuple[str, ...]
    points: pd.Series
    """By document, in [0, 1]; of MMBench by question, with all its rotations."""
    path: Path


def read_answered(path: Path, parts: Sequence[str]) -> Answered:
    """Scores with their samples; every part is computed again from these.

    Raises:
        ReportError: where the samples do not yield the recorded score, or all questions are one cluster.
    """
    scores = Scores.open(path)
    rows = (row for row in read_samples(scores.samples_path) if row["pass"] == "seen")  # noqa: S105
    names = ("document", "cluster", "points", "group", "predicted_yes", "is_yes", "unit")
    questions = sorted((Scored(**{name: row[name] for name in names}) for row in rows), key=lambda q: q.document)
    clusters = tuple(dict.fromkeys(question.cluster for question in questions))
    if len(questions) > 1 and len(clusters) == 1:
        raise ReportError(
            f"{path}: all {len(questions)} questions are one cluster ({clusters[0]!r}), over which no interval can be had: "
            f"name another field in benchmarks.{scores.benchmark}.cluster and evaluate again"
        )
    settings = scores.recipe["settings"]
    source, known = settings["asset"], SCORERS[settings["scorer"]].parts
    measured = {}
    for part in parts:
        recorded = scores.seen["parts"].get(part)
        if part not in known or recorded is None:
            raise ReportError(f"{path} has no part {part!r} (it has {', '.join(scores.seen['parts'])})")
        measured[part] = measure(known[part], questions, source)
        if abs(measured[part].value - recorded["value"]) > 1e-6 * max(1.0, abs(recorded["value"])):
            raise ReportError(
                f"{path}: its samples yield {measured[part].value} for {part}, and it says {recorded['value']}: evaluate again"
            )
    whole = settings["scorer"] == "circular"
    points = pd.Series([q.points for q in questions], index=[q.unit if whole else q.document for q in questions], dtype=float)
    if whole:
        # a question is right where all its rotations are
        points = points.groupby(level=0, sort=False).min()
    return Answered(scores.benchmark, scores.digest, scores.recipe, source, measured, clusters, points, path)


def measure(statistic: Statistic, questions: Sequence[Scored], source: str = "") -> Measured:
    """A score and what each cluster contributes to it, (clusters,): the sums of a cluster times the gradient of the score."""
    clusters = list(dict.fromkeys(question.cluster for question in questions))
    matrix = statistic.matrix(questions)  # (clusters, totals), in the order in which clusters first occur
    totals = matrix.sum(0)
    step = 1e-4 * np.maximum(1.0, np.abs(totals))
    shifts = np.diag(step)
    with np.errstate(all="ignore"):
        gradient = (statistic.combine(totals + shifts) - statistic.combine(totals - shifts)) / (2 * step)
    # sums that no question adds to, such as those of a category that is not in the data, move nothing
    gradient = np.where(np.any(matrix != 0, axis=0), gradient, 0.0)
    return Measured(float(statistic.combine(totals)), {source: pd.Series(matrix @ gradient, index=clusters)})


def combined(parts: Sequence[Measured], weights: Sequence[float]) -> Measured:
    """A weighted sum of numbers; contributions of the same cluster are added before anything is squared."""
    value = float(sum(weight * part.value for part, weight in zip(parts, weights, strict=True)))
    influence: Influence = {}
    for part, weight in zip(parts, weights, strict=True):
        for source, contributions in part.influence.items():
            known = influence.get(source)
            influence[source] = weight * contributions if known is None else known.add(weight * contributions, fill_value=0.0)
    return Measured(value, influence)


def column_of(answered: Mapping[str, Answered], name: str, columns: Mapping[str, Column]) -> Measured:
    """A column's number, of one benchmark or of other columns.

    Raises:
        KeyError: naming the benchmark that is missing.
    """
    column = columns[name]
    if column.benchmark is not None:
        return answered[column.benchmark].parts[column.part]
    parts = [column_of(answered, part, columns) for part in (*column.mean_of, *column.sum_of)]
    weight = 1 / len(parts) if column.mean_of else 1.0
    return combined(parts, [weight] * len(parts))


def endpoint_of(answered: Mapping[str, Answered], names: Sequence[str], columns: Mapping[str, Column]) -> Measured:
    """The mean of columns, each on a scale from 0 to 100."""
    parts = [column_of(answered, name, columns) for name in names]
    return combined(parts, [100 / columns[name].maximum / len(names) for name in names])


def difference(treatment: Measured, reference: Measured) -> Measured:
    return combined([treatment, reference], [1.0, -1.0])


def check_pair(treatment: Answered, reference: Answered) -> None:
    """Whether evaluations of one recipe are of the same questions.

    Raises:
        ReportError: naming both files.
    """
    both = f"{treatment.path} and {reference.path}"
    if treatment.clusters != reference.clusters or not treatment.points.index.equals(reference.points.index):
        raise ReportError(f"{both} are not of the same questions: evaluate both again on the same data")


def gained_and_lost(treatment: Answered, reference: Answered) -> tuple[int, int]:
    """Questions that the treatment answers better than the reference, and those that it answers worse."""
    change = treatment.points - reference.points
    return int((change > 0).sum()), int((change < 0).sum())
