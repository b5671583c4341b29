"""What a checkpoint can see, skill by skill, pooled over the benchmarks: seen, blind, chance, and the interval of the gap."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vdep.artifacts import Scores
from vdep.evaluation.samples import read_samples

from .chance import guess_rates, read_questions

RESAMPLES = 2000


@dataclass(frozen=True)
class SkillScore:
    """Percent right, over ``questions`` questions; ``low`` and ``high`` bound seen minus blind (95%, paired by question)."""

    model: str
    run: str
    skill: str
    questions: int
    seen: float
    blind: float
    chance: float
    low: float
    high: float

    @property
    def above_chance(self) -> float:
        return self.seen - self.chance


def pooled(files: Mapping[tuple[str, str, str], Path], assets: Mapping[str, Path]) -> list[SkillScore]:
    """One score per checkpoint and skill.

    Args:
        files: (model, variant, benchmark) -> scores file.
        assets: benchmark -> folder with its ``questions.json``.
    """
    rows: dict[tuple[str, str, str], list[tuple[float, float, float]]] = defaultdict(list)
    for (model, variant, benchmark), path in files.items():
        questions = read_questions(assets[benchmark])
        guesses = guess_rates(questions)
        passes: dict[str, dict[int, dict[str, Any]]] = {"seen": {}, "blind": {}}
        for row in read_samples(Scores.open(path).samples_path):
            passes[row["pass"]][row["document"]] = row
        for document, seen in passes["seen"].items():
            blind = passes["blind"].get(document)
            if blind is not None:
                skill = questions[document]["skill"]
                rows[model, variant, skill].append((seen["points"], blind["points"], guesses[document]))
    scores = []
    for (model, variant, skill), values in sorted(rows.items()):
        table = 100 * np.array(values)
        gap = table[:, 0] - table[:, 1]
        rng = np.random.default_rng(0)
        means = gap[rng.integers(len(gap), size=(RESAMPLES, len(gap)))].mean(1)
        low, high = np.quantile(means, [0.025, 0.975])
        seen, blind, chance = table.mean(0)
        scores.append(SkillScore(model, variant, skill, len(values), seen, blind, chance, float(low), float(high)))
    return scores


HEADER = ("model", "run", "skill", "questions", "seen", "chance", "above chance", "blind", "seen - blind", "low", "high")


def _fields(score: SkillScore) -> list[str]:
    numbers = (score.seen, score.chance, score.above_chance, score.blind, score.seen - score.blind, score.low, score.high)
    return [score.model, score.run, score.skill, str(score.questions), *(f"{n:.1f}" for n in numbers)]


def as_csv(scores: Sequence[SkillScore]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows(_fields(score) for score in scores)
    return buffer.getvalue()


def as_markdown(scores: Sequence[SkillScore]) -> str:
    lines = ["# What the models see", "", "| " + " | ".join(HEADER) + " |", "|---|---|---|" + "---:|" * (len(HEADER) - 3)]
    lines += ["| " + " | ".join(_fields(score)) + " |" for score in scores]
    lines += [
        "",
        "Percent of questions answered rightly, pooled over the benchmarks. *blind*: the picture replaced by one colour. "
        "*chance*: the better of the best constant answer and an even guess. *low*, *high*: 95% interval of seen - blind, "
        "questions resampled in pairs.",
    ]
    return "\n".join(lines) + "\n"
