"""Draw how the runs of a study went: losses of both stages, and what the projector did meanwhile."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from ..artifacts import FinishedStage
from ..errors import ReportError

PANELS = (
    ("pretrain", "text_loss", "stage 1: text loss (dotted: validation)"),
    ("pretrain", "image_loss", "stage 1: image loss"),
    ("pretrain", "projector_norm", "stage 1: mean length of image tokens"),
    ("pretrain", "projector_cosine", "stage 1: mean cosine between image tokens"),
    ("pretrain", "gradient_norm", "stage 1: norm of the gradient"),
    ("finetune", "text_loss", "SFT: text loss (dotted: validation)"),
)
VALIDATION = "validation_text_loss"
"""Drawn dotted, in the panels of the text loss, where a run had validation data."""
SMOOTHED = 0.03
"""Share of a run's steps that one point of a curve is the mean of."""


def read_losses(done: Path) -> list[dict[str, Any]]:
    """``losses.jsonl`` of the run that ``done.json`` is of, one row a step, and then the rows of ``validation.jsonl``.

    Raises:
        ReportError: where it is missing.
    """
    stage = FinishedStage.read(done)
    stage.check_final()
    path = stage.weights.parent / "losses.jsonl"
    if not path.is_file():
        raise ReportError(f"{path} is missing: the log of the run that {done} is of")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    held_out = path.with_name("validation.jsonl")
    for line in held_out.read_text().splitlines() if held_out.is_file() else ():
        row = json.loads(line)
        # measured after so many steps, and the others say how many were done before theirs
        rows.append({"step": row["step"] - 1, VALIDATION: row["text_loss"]})
    return rows


def curve(rows: list[dict[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """(points,) each: steps, and a running mean of ``name`` over them; steps that have no such value are left out."""
    found = [(row["step"] + 1, row[name]) for row in rows if row.get(name) is not None]
    if not found:
        return np.empty(0), np.empty(0)
    steps, values = (np.array(column, float) for column in zip(*found, strict=True))
    width = max(1, round(len(values) * SMOOTHED))
    mean = np.convolve(values, np.full(width, 1 / width), "valid")
    return steps[width - 1 :], mean


def draw(runs: dict[str, dict[str, list[dict[str, Any]]]], path: Path) -> None:
    """Write the figure.

    Args:
        runs: checkpoint -> stage -> rows of its log.
    """
    figure, axes = plt.subplots(2, 3, figsize=(12, 6.4), layout="constrained")
    for axis, (stage, name, title) in zip(axes.flat, PANELS, strict=True):
        for number, (checkpoint, stages) in enumerate(runs.items()):
            steps, values = curve(stages[stage], name)
            if len(steps):
                axis.plot(steps, values, label=checkpoint, color=f"C{number}", linewidth=1.2)
            if name == "text_loss":
                axis.plot(*curve(stages[stage], VALIDATION), ".:", color=f"C{number}", linewidth=1.0, markersize=3)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("step", fontsize=8)
        axis.tick_params(which="both", labelsize=8)
        axis.grid(alpha=0.3)
        if name in ("gradient_norm", "image_loss") and axis.lines:
            axis.set_yscale("log")
        if not axis.lines:
            axis.text(0.5, 0.5, "none of these runs has it", ha="center", transform=axis.transAxes, fontsize=8)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=140, metadata={"Software": None})
    plt.close(figure)


def losses_csv(runs: dict[str, dict[str, list[dict[str, Any]]]]) -> str:
    """Every step of every run: checkpoint, stage, step, and the values of the panels, unsmoothed."""
    names = [*dict.fromkeys(name for _, name, _ in PANELS), VALIDATION]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["checkpoint", "stage", "step", *names])
    for checkpoint, stages in runs.items():
        for stage, rows in stages.items():
            for row in rows:
                writer.writerow([checkpoint, stage, row["step"] + 1, *("" if row.get(n) is None else row[n] for n in names)])
    return buffer.getvalue()
