"""Simulated studies: arms and seeds whose scores have known effects of training, of seeds and of pictures, as files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vdep.evaluation.samples import write_samples
from vdep.evaluation.scores import SCORERS, Scored
from vdep.files import sha256, write_json
from vdep.report.results import Key
from vdep.study.recipe import canonical_json
from vdep.study.tables import Column

MODEL = "llava-7b"


def write_evaluation(
    path: Path, questions: Sequence[Scored], scorer: str = "mean", asset: str | None = None, image: str = "pad"
) -> Path:
    """Scores and samples as ``vdep evaluate`` leaves them, of questions with their outcomes.

    Args:
        image: how the model of these scores is shown a picture.
    """
    benchmark = path.stem
    samples = path.with_suffix(".samples.jsonl.gz")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_samples(samples, {"seen": [vars(q) for q in questions], "blind": [vars(questions[0].otherwise())]})
    recipe = {"benchmark": benchmark, "settings": {"scorer": scorer, "asset": asset or benchmark}, "image": image}
    parts = {}
    for name, statistic in SCORERS[scorer].parts.items():
        if np.isfinite(value := statistic(questions)):
            parts[name] = {"value": value, "low": value - 1, "high": value + 1, "sensitivity": 1.0}
    scores: dict[str, Any] = {
        "benchmark": benchmark,
        "recipe": recipe,
        "digest": hashlib.sha256(canonical_json(recipe).encode()).hexdigest(),
        "checkpoint": {"recipe": "sft", "initial_recipe": "stage1", "weights": "w", "versions": {"torch": "2.13.0"}},
        "judge": None,
        "lmms_eval": "0.7.3",
        "samples": {"file": samples.name, "sha256": sha256(samples)},
        "seen": {"n": len(questions), "empty": 0, "parts": parts, "clusters": {"by": "picture", "n": 2}},
    }
    write_json(path, scores)
    return path


def questions_of(outcomes: np.ndarray, pictures: np.ndarray) -> list[Scored]:
    return [Scored(i, f"picture {p}", float(o)) for i, (o, p) in enumerate(zip(outcomes, pictures, strict=True))]


@dataclass(frozen=True)
class World:
    """How a simulated study comes about: what a question's answer depends on.

    ``effect`` of the treatment on the probability of a right answer, with ``interaction`` from picture to picture;
    ``seed_spread`` of what a run (arm and seed) adds to it, in all benchmarks; pictures are easy or hard for all runs alike.
    """

    effect: float = 0.0
    seeds: int = 5
    benchmarks: int = 3
    pictures: int = 100
    each: int = 2
    seed_spread: float = 0.005
    interaction: float = 0.0

    @property
    def questions(self) -> int:
        """Of one benchmark."""
        return self.pictures * self.each

    def studies(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Outcomes of ``n`` studies, (studies, arms, seeds, benchmarks, questions); the second arm is the treatment."""
        easy = rng.random((n, 1, 1, self.benchmarks, self.pictures)) < 0.6
        # far enough from 0 and 1 for every effect to be what it says
        probability = np.where(easy, 0.9, 0.1)
        run = rng.normal(0, self.seed_spread, (n, 2, self.seeds, 1, 1)).clip(-0.03, 0.03)
        arm = np.array([0.0, 1.0])[:, None, None, None] * (
            self.effect + self.interaction * rng.choice([-1, 1], (n, 1, 1, self.benchmarks, self.pictures))
        )
        return rng.random((n, 2, self.seeds, self.benchmarks, self.questions)) < np.repeat(
            probability + run + arm, self.each, -1
        )

    @property
    def disagreement(self) -> float:
        """Share of the questions that two runs answer differently."""
        return 2 * 0.9 * 0.1

    @staticmethod
    def differences(outcomes: np.ndarray) -> np.ndarray:
        """Treatment minus reference in points of the mean over benchmarks, (studies, seeds)."""
        scores = 100 * outcomes.mean((-1, -2))
        return scores[:, 1] - scores[:, 0]


def write_study(folder: Path, outcomes: np.ndarray, benchmarks: Sequence[str], each: int = 2) -> dict[Key, Path]:
    """One study as files: (arms, seeds, benchmarks, questions)."""
    pictures = np.arange(outcomes.shape[-1]) // each
    return {
        (MODEL, variant, f"seed-{s}", benchmark): write_evaluation(
            folder / variant / f"seed-{s}" / f"{benchmark}.json", questions_of(outcomes[arm, s, b], pictures)
        )
        for arm, variant in enumerate(("baseline", "vdep"))
        for s in range(outcomes.shape[1])
        for b, benchmark in enumerate(benchmarks)
    }


def columns(benchmarks: Sequence[str]) -> dict[str, Column]:
    return {name: Column(label=name.upper(), benchmark=name) for name in benchmarks}
