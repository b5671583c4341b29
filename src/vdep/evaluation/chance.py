"""What guessing would score: the better of the best constant answer and an even draw among the possible answers.

Known for the demo's benchmarks only, whose ``questions.json`` says what could have been answered.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import EvaluationError
from .scores import SCORERS, Scored, Statistic

DRAWS = 200


def read_questions(asset: Path, samples: int) -> list[dict[str, Any]] | None:
    """One entry per document, in their order, or None where the benchmark has none."""
    path = asset / "questions.json"
    if not path.is_file():
        return None
    questions = json.loads(path.read_text())
    if len(questions) != samples:
        raise EvaluationError(f"{path} describes {len(questions)} questions, but {samples} were asked")
    return questions


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


def chance_by_part(kind: str, scored: Sequence[Scored], questions: list[dict[str, Any]]) -> dict[str, float]:
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
