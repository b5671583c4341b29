"""The loss figure draws what the runs logged."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import world
from matplotlib.lines import Line2D
from PIL import Image

from vdep.errors import ReportError
from vdep.report.loss_figure import Log, Runs, curve, draw, losses_csv, read_log


def rows(steps: int, image: bool) -> list[dict[str, Any]]:
    return [
        {"step": i, "text_loss": 3.0 - i / steps, "image_loss": 0.5 if image and i % 2 else None, "gradient_norm": 1.0}
        for i in range(steps)
    ]


def test_a_curve_is_a_running_mean_of_what_is_there() -> None:
    steps, values = curve(rows(100, True), "text_loss")
    assert len(steps) == 98
    assert steps[0] == 3
    assert steps[-1] == 100
    assert values[0] == pytest.approx(np.mean([3.0, 2.99, 2.98]))
    steps, values = curve(rows(100, True), "image_loss")
    assert set(steps) <= set(range(2, 101, 2))
    assert (values == 0.5).all()
    assert len(curve(rows(100, False), "image_loss")[0]) == 0


def write_run(folder: Path, losses: list[dict[str, Any]], validation: list[dict[str, Any]] | None = None) -> Path:
    (folder / "abc" / "final").mkdir(parents=True)
    for name, written in (("losses", losses), ("validation", validation)):
        if written is not None:
            (folder / "abc" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in written))
    return world.finish(folder / "abc" / "final")


def test_the_figure_and_its_numbers(tmp_path: Path) -> None:
    unlogged = tmp_path / "unlogged" / "abc" / "final"
    unlogged.mkdir(parents=True)
    with pytest.raises(ReportError, match=r"losses.jsonl is missing"):
        read_log(world.finish(unlogged))
    pretrain = read_log(write_run(tmp_path / "run", rows(40, True)))
    finetune = Log(rows(20, False), [{"step": s, "text_loss": 2.5 - s / 40, "tokens": 7} for s in (0, 10)])
    runs = {(name, "seed-42"): {"pretrain": pretrain, "finetune": finetune} for name in ("m/baseline", "m/vdep")}
    draw(runs, tmp_path / "losses.png")
    with Image.open(tmp_path / "losses.png") as figure:
        assert len(figure.convert("RGB").getcolors(1 << 24) or []) > 50
    table = list(csv.DictReader(io.StringIO(losses_csv(runs))))
    assert len(table) == 2 * (40 + 1 + 20)
    assert table[0] == {
        "checkpoint": "m/baseline", "seed": "seed-42", "stage": "pretrain", "step": "1", "text_loss": "3.0", "image_loss": "",
        "projector_norm": "", "projector_cosine": "", "gradient_norm": "1.0", "validation_text_loss": "",
    }  # fmt: skip
    measured = [(row["stage"], row["step"], row["validation_text_loss"]) for row in table if row["validation_text_loss"]]
    assert measured == [("finetune", "0", "2.5"), ("finetune", "10", "2.25")] * 2
    assert [row["step"] for row in table if row["stage"] == "finetune"][:3] == ["0", "1", "2"]


def drawn(runs: Runs, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, list[Line2D]], list[str]]:
    """(panel -> its lines, labels of the legend)."""
    figures = []
    monkeypatch.setattr(plt, "close", figures.append)
    draw(runs, folder / "losses.png")
    (figure,) = figures
    monkeypatch.undo()
    plt.close(figure)
    lines = {axis.get_title(): [line for line in axis.lines if len(line.get_xdata())] for axis in figure.axes}
    return lines, [text.get_text() for text in figure.legends[0].get_texts()]


def test_every_seed_is_a_line_in_its_checkpoints_colour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(rows(40, True), [])
    stages = {"pretrain": log, "finetune": log}
    keys = [("m/a", "seed-1"), ("m/a", "seed-2"), ("m/b", "seed-1"), ("m/b", "seed-2")]
    lines, labels = drawn(dict.fromkeys(keys, stages), tmp_path, monkeypatch)
    colors = [line.get_color() for line in lines["stage 1: text loss"]]
    assert colors == ["C0", "C0", "C1", "C1"]
    assert labels == ["m/a (2 seeds)", "m/b (2 seeds)"]
    lines, labels = drawn({("m/a", "seed-1"): stages}, tmp_path, monkeypatch)
    assert (len(lines["SFT: text loss"]), labels) == (1, ["m/a"])


def test_the_loss_on_validation_data_is_dashed_and_as_it_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    validation = [{"step": step, "text_loss": 4.0 - step / 40, "tokens": 100} for step in (0, 20, 40)]
    read = read_log(write_run(tmp_path / "run", rows(40, True), validation))
    lines, labels = drawn({("m/a", "seed-1"): {"pretrain": read, "finetune": read}}, tmp_path, monkeypatch)
    assert labels == ["m/a", "on validation data"]
    for panel, found in lines.items():
        dashed = [line for line in found if line.get_linestyle() == "--"]
        assert len(dashed) == ("text loss" in panel), panel
        for line in dashed:
            assert list(line.get_xdata()) == [0, 20, 40]
            assert list(line.get_ydata()) == [row["text_loss"] for row in validation]
