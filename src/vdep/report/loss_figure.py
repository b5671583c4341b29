"""Draw how the runs of a study went: losses of both stages, and what the projector did meanwhile."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from ..artifacts import FinishedStage
from ..errors import ReportError

PANELS = (
    ("pretrain", "text_loss", "stage 1: text loss"),
    ("pretrain", "image_loss", "stage 1: image loss"),
    ("pretrain", "projector_norm", "stage 1: mean length of image tokens"),
    ("pretrain", "projector_cosine", "stage 1: mean cosine between image tokens"),
    ("pretrain", "gradient_norm", "stage 1: norm of the gradient"),
    ("finetune", "text_loss", "SFT: text loss"),
)
SMOOTHED = 0.03
"""Share of a run's steps that one point of a curve is the mean of."""

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Log:
    """What a stage logged."""

    losses: Rows
    """A row a step, the first of which is 0."""
    validation: Rows
    """The text loss on a validation set, if there is one, each time after ``step`` steps."""


Runs = Mapping[tuple[str, str], Mapping[str, Log]]
"""(checkpoint, seed) -> stage -> log."""


def read_log(done: Path) -> Log:
    """``losses.jsonl`` and ``validation.jsonl`` of the run that ``done.json`` is of; the second may be missing.

    Raises:
        ReportError: where the first is missing.
    """
    stage = FinishedStage.read(done)
    stage.check_final()
    losses = stage.weights.parent / "losses.jsonl"
    if not losses.is_file():
        raise ReportError(f"{losses} is missing: the log of the run that {done} is of")
    validation = losses.with_name("validation.jsonl")
    return Log(_rows(losses), _rows(validation) if validation.is_file() else [])


def _rows(path: Path) -> Rows:
    return [json.loads(line) for line in path.read_text().splitlines()]


def curve(rows: Rows, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(points,) each: steps, and a running mean of ``name`` over them; steps that have no such value are left out."""
    found = [(row["step"] + 1, row[name]) for row in rows if row.get(name) is not None]
    if not found:
        return np.empty(0), np.empty(0)
    steps, values = (np.array(column, float) for column in zip(*found, strict=True))
    width = max(1, round(len(values) * SMOOTHED))
    mean = np.convolve(values, np.full(width, 1 / width), "valid")
    return steps[width - 1 :], mean


def draw(runs: Runs, path: Path) -> None:
    """Write the figure: one colour a checkpoint, one line a seed; text losses on validation data are dashed."""
    seeds = Counter(checkpoint for checkpoint, _ in runs)
    colors = {checkpoint: f"C{number}" for number, checkpoint in enumerate(seeds)}
    width = 1.2 if max(seeds.values()) == 1 else 0.7
    figure, axes = plt.subplots(2, 3, figsize=(12, 6.4), layout="constrained")
    for axis, (stage, name, title) in zip(axes.flat, PANELS, strict=True):
        for (checkpoint, _), stages in runs.items():
            axis.plot(*curve(stages[stage].losses, name), color=colors[checkpoint], linewidth=width)
            if name == "text_loss":
                measured = pd.DataFrame(stages[stage].validation, columns=["step", name])
                axis.plot(measured["step"], measured[name], "--.", color=colors[checkpoint], linewidth=width, markersize=3)
        drawn = any(len(line.get_xdata()) for line in axis.lines)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("step", fontsize=8)
        axis.tick_params(which="both", labelsize=8)
        axis.grid(alpha=0.3)
        if name in ("gradient_norm", "image_loss") and drawn:
            axis.set_yscale("log")
        if not drawn:
            axis.text(0.5, 0.5, "none of these runs has it", ha="center", transform=axis.transAxes, fontsize=8)
    handles = [
        Line2D([], [], color=color, label=checkpoint + (f" ({seeds[checkpoint]} seeds)" if seeds[checkpoint] > 1 else ""))
        for checkpoint, color in colors.items()
    ]
    if any(log.validation for stages in runs.values() for log in stages.values()):
        handles.append(Line2D([], [], color="grey", linestyle="--", marker=".", label="on validation data"))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(5, len(handles)), fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=140, metadata={"Software": None})
    plt.close(figure)


def losses_csv(runs: Runs) -> str:
    """Every step of every run, unsmoothed: checkpoint, seed, stage, step, the values of the panels, the validation loss."""
    names = list(dict.fromkeys(name for _, name, _ in PANELS))
    frames = []
    for (checkpoint, seed), stages in runs.items():
        for stage, log in stages.items():
            rows = pd.DataFrame(log.losses, columns=["step", *names])
            rows["step"] += 1
            measured = pd.DataFrame(log.validation, columns=["step", "text_loss"]).astype({"step": int})
            rows = rows.merge(measured.rename(columns={"text_loss": "validation_text_loss"}), on="step", how="outer")
            frames.append(rows.assign(checkpoint=checkpoint, seed=seed, stage=stage))
    columns = ["checkpoint", "seed", "stage", "step", *names, "validation_text_loss"]
    return pd.concat(frames)[columns].to_csv(index=False, lineterminator="\n")
