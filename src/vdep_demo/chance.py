"""What guessing would score: the better of the best constant answer and an even draw among the possible answers.

Beside the data of each of the demo's benchmarks, ``questions.json`` says what could have been answered.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from vdep.artifacts import Scores
from vdep.evaluation.samples import read_samples
from vdep.evaluation.scores import SCORERS, Scored, Statistic

DRAWS = 200


def read_questions(asset: Path) -> list[dict[str, Any]]:
    """One entry per document of a benchmark, in their order."""
    return list(json.loads((asset / "questions.json").read_text()))


def _answered(scored: Sequence[Scored], questions: list[dict[str, Any]], answers: Sequence[str]) -> list[Scored]:
    return [
        replace(s, points=float(answers[i] == questions[s.document]["answer"]), predicted_yes=answers[i].lower() == "yes")
        for i, s in enumerate(scored)
    ]


def chance_of(statistic: Statistic, scored: Sequence[Scored], questions: list[dict[str, Any]], seed: int = 0) -> float:
    """The score of a guesser who never looks."""
    common = Counter(q["answer"] for q in questions)
    constant = max(statistic(_answered(scored, questions, [answer] * len(scored))) for answer in common)
    rng = np.random.default_rng(seed)
    draws = [
        statistic(
            _answered(
                scored,
                questions,
                [c[int(rng.integers(len(c)))] for s in scored if (c := questions[s.document]["candidates"])],
            )
        )
        for _ in range(DRAWS)
    ]
    return max(constant, float(np.mean(draws)))


def chance_by_part(kind: str, samples: Sequence[dict[str, Any]], questions: list[dict[str, Any]]) -> dict[str, float]:
    """What guessing scores in each part of a benchmark. ``samples``: rows of its ``.samples.jsonl.gz``, of one pass."""
    names = [field.name for field in fields(Scored)]
    scored = [Scored(**{name: row[name] for name in names}) for row in samples]
    values = {name: chance_of(statistic, scored, questions) for name, statistic in SCORERS[kind].parts.items()}
    return {name: value for name, value in values.items() if not np.isnan(value)}


def guess_rates(questions: list[dict[str, Any]]) -> list[float]:
    """For each question, the rate at which a guesser is right on questions of its skill with the same possible answers."""
    groups: dict[tuple[str, tuple[str, ...]], list[int]] = defaultdict(list)
    for i, question in enumerate(questions):
        groups[question["skill"], tuple(question["candidates"])].append(i)
    rates = [0.0] * len(questions)
    for (_, candidates), members in groups.items():
        most_common = Counter(questions[i]["answer"] for i in members).most_common(1)[0][1]
        rate = max(most_common / len(members), 1 / len(candidates)) if len(members) > 4 else 1 / len(candidates)
        for i in members:
            rates[i] = rate
    return rates


def chance_csv(scores: Mapping[str, Path], assets: Mapping[str, Path]) -> str:
    """What guessing scores in every part of every benchmark. ``scores``: benchmark -> one scores file of it, whosoever."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["benchmark", "part", "chance"])
    for benchmark, path in scores.items():
        opened = Scores.open(path)
        samples = [row for row in read_samples(opened.samples_path) if row["pass"] == "seen"]  # noqa: S105
        for part, value in chance_by_part(
            opened.recipe["settings"]["scorer"], samples, read_questions(assets[benchmark])
        ).items():
            writer.writerow([benchmark, part, f"{value:.2f}"])
    return buffer.getvalue()
