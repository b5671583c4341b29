"""The loss figure draws what the runs logged."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import world
from PIL import Image

from vdep.errors import ReportError
from vdep.report.loss_figure import curve, draw, losses_csv, read_losses


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


def test_the_figure_and_its_numbers(tmp_path: Path) -> None:
    (tmp_path / "run" / "abc").mkdir(parents=True)
    (tmp_path / "run" / "abc" / "final").mkdir()
    done = world.finish(tmp_path / "run" / "abc" / "final")
    with pytest.raises(ReportError, match=r"losses.jsonl is missing"):
        read_losses(done)
    (tmp_path / "run" / "abc" / "losses.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(40, True)))
    held_out = [{"step": step, "text_loss": 2.5 - step / 40, "tokens": 100} for step in (0, 20, 40)]
    (tmp_path / "run" / "abc" / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in held_out))
    runs = {name: {"pretrain": read_losses(done), "finetune": rows(20, False)} for name in ("m/baseline", "m/vdep")}
    draw(runs, tmp_path / "losses.png")
    with Image.open(tmp_path / "losses.png") as figure:
        assert len(figure.convert("RGB").getcolors(1 << 24) or []) > 50
    table = list(csv.DictReader(io.StringIO(losses_csv(runs))))
    assert len(table) == 2 * (40 + 3 + 20)
    assert [(row["step"], row["validation_text_loss"], row["text_loss"]) for row in table[40:43]] == [
        ("0", "2.5", ""), ("20", "2.0", ""), ("40", "1.5", ""),
    ]  # fmt: skip
    assert table[0] == {
        "checkpoint": "m/baseline", "stage": "pretrain", "step": "1", "text_loss": "3.0", "image_loss": "",
        "projector_norm": "", "projector_cosine": "", "gradient_norm": "1.0", "validation_text_loss": "",
    }  # fmt: skip
