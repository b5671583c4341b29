"""Draw how the runs of a study went: losses of both stages, and what the projector did meanwhile.

Against the samples whose text was trained, not against steps: an interleaved run takes up to twice the steps of a baseline for
the same captions. A colour is a method; a line style is a model or, of one model, a seed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from ..artifacts import FinishedStage
from ..errors import ReportError
from .figure_style import PAGE, STYLES, method_colors, save, style

PANELS = (
    ("pretrain", "text_loss", "stage 1: text loss"),
    ("pretrain", "image_loss", "stage 1: image loss"),
    ("pretrain", "gradient_ratio", "stage 1: gradients, image / text"),
    ("pretrain", "projector_norm", "stage 1: length of image tokens"),
    ("pretrain", "projector_cosine", "stage 1: cosine between them"),
    ("finetune", "text_loss", "SFT: text loss"),
)
LOGARITHMIC = ("image_loss", "gradient_ratio")
MORE = ("gradient_norm",)
"""In the table alone."""
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
    samples: float = 1.0
    """Whose text a step trains."""


Runs = Mapping[tuple[str, str], Mapping[str, Log]]
"""(checkpoint, seed) -> stage -> log."""


def read_log(done: Path, samples: float = 1.0) -> Log:
    """``losses.jsonl`` and ``validation.jsonl`` of the run that ``done.json`` is of; the second may be missing.

    ``metrics.jsonl``, if it is there, adds the ratio of the gradients, which is measured now and then.

    Raises:
        ReportError: where the first is missing.
    """
    stage = FinishedStage.read(done)
    stage.check_final()
    losses, metrics, validation = (stage.weights.parent / f"{name}.jsonl" for name in ("losses", "metrics", "validation"))
    if not losses.is_file():
        raise ReportError(f"{losses} is missing: the log of the run that {done} is of")
    ratios = {row["step"]: row["gradient_ratio"] for row in _rows(metrics) if row.get("gradient_ratio") is not None}
    rows = [row | ({"gradient_ratio": ratios[row["step"]]} if row["step"] in ratios else {}) for row in _rows(losses)]
    return Log(rows, _rows(validation), samples)


def _rows(path: Path) -> Rows:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def curve(rows: Rows, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(points,) each: steps, and a running mean of ``name`` over them; steps that have no such value are left out.

    At the beginning the mean is over what there is so far, so that the warm-up is seen.
    """
    found = [(row["step"] + 1, row[name]) for row in rows if row.get(name) is not None]
    if not found:
        return np.empty(0), np.empty(0)
    steps, values = (np.array(column, float) for column in zip(*found, strict=True))
    width = max(1, round(len(values) * SMOOTHED))
    sums = np.concatenate([[0.0], values.cumsum()])
    end = np.arange(1, len(values) + 1)
    start = np.maximum(end - width, 0)
    return steps, (sums[end] - sums[start]) / (end - start)


def draw(runs: Runs, path: Path) -> None:
    """Write the figure: PNG, and a PDF beside it."""
    colors = method_colors(checkpoint.partition("/")[2] for checkpoint, _ in runs)
    styles, meaning = _styles(runs)
    with style():
        figure, axes = plt.subplots(2, 3, figsize=(PAGE, 4.2), layout="constrained")
        for axis, (stage, name, title) in zip(axes.flat, PANELS, strict=True):
            for run, stages in runs.items():
                log, look = stages[stage], {"color": colors[run[0].partition("/")[2]], "linestyle": styles[run]}
                steps, values = curve(log.losses, name)
                axis.plot(steps * log.samples, values, linewidth=0.9, **look)
                if name == "text_loss":
                    measured = pd.DataFrame(log.validation, columns=["step", name])
                    axis.plot(
                        measured["step"] * log.samples, measured[name], "o", color=look["color"], fillstyle="none", markersize=3
                    )
            _finish(axis, name, title)
        for axis in axes[1]:
            axis.set_xlabel("samples whose text was trained")
        handles = [Line2D([], [], color=color, label=f"{name}{_seeds(runs, name)}") for name, color in colors.items()]
        handles += [Line2D([], [], color="#555555", linestyle=line, label=label) for label, line in meaning.items()]
        if any(log.validation for stages in runs.values() for log in stages.values()):
            handles.append(
                Line2D([], [], color="#555555", linestyle="", marker="o", fillstyle="none", label="on validation data")
            )
        figure.legend(handles=handles, loc="outside lower center", ncols=min(5, len(handles)), handlelength=2.2)
        save(figure, path)


def _styles(runs: Runs) -> tuple[dict[tuple[str, str], str], dict[str, str]]:
    """The line style of each run, and what the styles mean: models, or the seeds of one."""
    models = list(dict.fromkeys(checkpoint.partition("/")[0] for checkpoint, _ in runs))
    seeds = list(dict.fromkeys(seed for _, seed in runs))
    names, place = (models, 0) if len(models) > 1 else (seeds, 1)
    if len(names) > len(STYLES):
        return dict.fromkeys(runs, "-"), {}
    meant = dict(zip(names, STYLES, strict=False))
    return {run: meant[run[place].partition("/")[0]] for run in runs}, meant if len(names) > 1 else {}


def _seeds(runs: Runs, variant: str) -> str:
    most = max(Counter(checkpoint for checkpoint, _ in runs if checkpoint.partition("/")[2] == variant).values())
    return f" ({most} seeds)" if most > 1 else ""


def _finish(axis: Axes, name: str, title: str) -> None:
    drawn = any(len(line.get_xdata()) for line in axis.lines)  # type: ignore[arg-type]
    axis.set_title(title)
    axis.grid(alpha=0.3, linewidth=0.5)
    axis.xaxis.set_major_locator(MaxNLocator(4))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    if not drawn:
        axis.text(0.5, 0.5, "none of these runs has it", ha="center", transform=axis.transAxes)
        axis.set_yticks([])
    elif name in LOGARITHMIC:
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())
    elif name == "text_loss":
        _leave_out_the_beginning(axis)


def _leave_out_the_beginning(axis: Axes) -> None:
    """Not so far up that the first steps press the rest to the floor."""
    values = np.concatenate([np.asarray(line.get_ydata(), float) for line in axis.lines])
    low, high = values.min(), float(np.quantile(values, 0.98))
    if high > low:
        axis.set_ylim(low - 0.06 * (high - low), high + 0.06 * (high - low))


def _short(samples: float) -> str:
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if samples >= unit:
            return f"{samples / unit:g}{name}"
    return f"{samples:g}"


def losses_csv(runs: Runs) -> str:
    """Every step of every run, unsmoothed: checkpoint, seed, stage, step, samples whose text was trained, and the values."""
    names = list(dict.fromkeys([*(name for _, name, _ in PANELS), *MORE]))
    frames = []
    for (checkpoint, seed), stages in runs.items():
        for stage, log in stages.items():
            rows = pd.DataFrame(log.losses, columns=["step", *names])
            rows["step"] += 1
            measured = pd.DataFrame(log.validation, columns=["step", "text_loss"]).astype({"step": int})
            rows = rows.merge(measured.rename(columns={"text_loss": "validation_text_loss"}), on="step", how="outer")
            frames.append(rows.assign(checkpoint=checkpoint, seed=seed, stage=stage, text_samples=rows["step"] * log.samples))
    columns = ["checkpoint", "seed", "stage", "step", "text_samples", *names, "validation_text_loss"]
    return pd.concat(frames)[columns].to_csv(index=False, lineterminator="\n")
