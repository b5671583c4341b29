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
from vdep.study.settings import VdepSettings


def rows(steps: int, image: bool) -> list[dict[str, Any]]:
    return [
        {"step": i, "text_loss": 3.0 - i / steps, "image_loss": 0.5 if image and i % 2 else None, "gradient_norm": 1.0}
        for i in range(steps)
    ]


def test_a_curve_is_a_running_mean_of_what_is_there() -> None:
    steps, values = curve(rows(100, True), "text_loss")
    assert list(steps) == list(range(1, 101)), "from the first step, so that the warm-up is seen"
    assert values[:2] == pytest.approx([3.0, 2.995])
    assert values[2] == pytest.approx(np.mean([3.0, 2.99, 2.98]))
    assert values[-1] == pytest.approx(np.mean([2.03, 2.02, 2.01]))
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
    done = write_run(tmp_path / "run", rows(40, True))
    (tmp_path / "run" / "abc" / "metrics.jsonl").write_text('{"step": 0, "gradient_ratio": 0.25}\n{"step": 20}\n')
    pretrain = read_log(done, 8.0)
    finetune = Log(rows(20, False), [{"step": s, "text_loss": 2.5 - s / 40, "tokens": 7} for s in (0, 10)])
    runs = {(name, "seed-42"): {"pretrain": pretrain, "finetune": finetune} for name in ("m/baseline", "m/vdep")}
    draw(runs, tmp_path / "losses.png")
    with Image.open(tmp_path / "losses.png") as figure:
        assert len(figure.convert("RGB").getcolors(1 << 24) or []) > 50
    table = list(csv.DictReader(io.StringIO(losses_csv(runs))))
    assert len(table) == 2 * (40 + 1 + 20)
    assert table[0] == {
        "checkpoint": "m/baseline", "seed": "seed-42", "stage": "pretrain", "step": "1", "text_samples": "8.0",
        "text_loss": "3.0", "image_loss": "", "gradient_ratio": "0.25", "projector_norm": "", "projector_cosine": "",
        "gradient_norm": "1.0", "validation_text_loss": "",
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


def test_a_colour_is_a_method_and_a_line_style_a_model_or_a_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(rows(40, True), [])
    stages = {"pretrain": log, "finetune": log}
    keys = [(f"{model}/{variant}", "seed-1") for model in ("m", "n") for variant in ("baseline", "vdep")]
    lines, labels = drawn(dict.fromkeys(keys, stages), tmp_path, monkeypatch)
    looks = [(line.get_color(), line.get_linestyle()) for line in lines["stage 1: text loss"]]
    assert len(set(looks)) == 4
    assert looks[0][0] == looks[2][0] != looks[1][0]
    assert looks[0][1] == looks[1][1] != looks[2][1]
    assert labels == ["baseline", "vdep", "m", "n"]
    keys = [("m/baseline", "seed-1"), ("m/baseline", "seed-2"), ("m/vdep", "seed-1"), ("m/vdep", "seed-2")]
    lines, labels = drawn(dict.fromkeys(keys, stages), tmp_path, monkeypatch)
    assert [line.get_linestyle() for line in lines["SFT: text loss"]] == ["-", "--"] * 2
    assert labels == ["baseline (2 seeds)", "vdep (2 seeds)", "seed-1", "seed-2"]
    lines, labels = drawn({("m/vdep", "seed-1"): stages}, tmp_path, monkeypatch)
    assert (len(lines["SFT: text loss"]), labels) == (1, ["vdep"])


def test_arms_that_have_read_as_much_stand_at_the_same_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interleaved run takes twice the steps, and half of each batch trains text."""
    keys = {("m/baseline", "seed-1"): Log(rows(20, False), [], 16), ("m/vdep", "seed-1"): Log(rows(40, True), [], 8)}
    lines, _ = drawn({run: {"pretrain": log, "finetune": log} for run, log in keys.items()}, tmp_path, monkeypatch)
    assert [line.get_xdata()[-1] for line in lines["stage 1: text loss"]] == [320, 320]


def test_how_many_samples_a_step_trains_the_text_of() -> None:
    study = world.make_study("llama")
    recipe = study.recipe("tiny", "run", "pretrain")
    batch = recipe.settings.global_batch
    for vdep, wanted in (
        (None, batch),
        (VdepSettings(ratio=1.0), batch / 2),
        (VdepSettings(ratio=0.5), batch / 1.5),
        (VdepSettings(schedule="fused"), batch),
    ):
        assert recipe.model_copy(update={"vdep": vdep}).text_samples_a_step == pytest.approx(wanted)


def test_validation_losses_are_circles_where_they_were_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    validation = [{"step": step, "text_loss": 4.0 - step / 40, "tokens": 100} for step in (0, 20, 40)]
    read = read_log(write_run(tmp_path / "run", rows(40, True), validation), 2)
    lines, labels = drawn({("m/a", "seed-1"): {"pretrain": read, "finetune": read}}, tmp_path, monkeypatch)
    assert labels == ["a", "on validation data"]
    for panel, found in lines.items():
        circles = [line for line in found if line.get_marker() == "o"]
        assert len(circles) == ("text loss" in panel), panel
        for line in circles:
            assert list(line.get_xdata()) == [0, 40, 80]
            assert list(line.get_ydata()) == [row["text_loss"] for row in validation]
