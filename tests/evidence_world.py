"""Simulated studies: arms and seeds whose scores have known effects of training, of seeds and of pictures, as files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from vdep.evaluation.samples import write_samples
from vdep.evaluation.scores import SCORERS, Scored
from vdep.files import sha256, write_json
from vdep.study.recipe import canonical_json
from vdep.study.tables import Column

MODEL = "llava-7b"


def write_evaluation(path: Path, questions: Sequence[Scored], scorer: str = "mean", asset: str | None = None) -> Path:
    """Scores and samples as ``vdep evaluate`` leaves them, of questions with their outcomes."""
    benchmark = path.stem
    samples = path.with_suffix(".samples.jsonl.gz")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_samples(samples, {"seen": [asdict(q) for q in questions], "blind": [asdict(q.otherwise()) for q in questions]})
    recipe = {"benchmark": benchmark, "settings": {"scorer": scorer, "asset": asset or benchmark}}
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


def simulated(
    folder: Path,
    effects: Mapping[str, float],
    seeds: Sequence[int],
    benchmarks: Sequence[str],
    rng: np.random.Generator,
    *,
    pictures: int = 100,
    each: int = 2,
    seed_spread: float = 0.01,
    picture_spread: float = 0.15,
) -> dict[tuple[str, str, str, str], Path]:
    """A study: a question is answered rightly with a probability that depends on its picture, its arm and its seed.

    Args:
        effects: variant -> what it adds to the probability.
        seed_spread: standard deviation of what a run (arm and seed) adds to it.
        picture_spread: of what a picture adds, in all runs alike.
    """
    files = {}
    of_run = {(v, s): rng.normal(0, seed_spread) for v in effects for s in seeds}
    for benchmark in benchmarks:
        picture = np.repeat(np.arange(pictures), each)
        difficulty = np.clip(0.6 + rng.normal(0, picture_spread, pictures), 0.2, 0.85)[picture]
        for variant, effect in effects.items():
            for seed in seeds:
                right = rng.random(len(picture)) < difficulty + effect + of_run[variant, seed]
                path = folder / variant / f"seed-{seed}" / f"{benchmark}.json"
                files[MODEL, variant, f"seed-{seed}", benchmark] = write_evaluation(path, questions_of(right, picture))
    return files


def columns(benchmarks: Sequence[str]) -> dict[str, Column]:
    return {name: Column(label=name.upper(), benchmark=name) for name in benchmarks}
