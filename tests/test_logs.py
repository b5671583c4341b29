"""What a training writes down: rows that a resumed run continues, and reports to whoever was asked for."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from vdep.train.logs import StepLog, TrainingLogs, Work


def row(step: int) -> dict[str, Any]:
    return {"step": step, "text_loss": 2.0, "image_loss": None, "gradient_norm": 1.0, "learning_rate": 1e-3}


def test_resuming_cuts_off_what_the_checkpoint_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "losses.jsonl"
    log = StepLog(path, 0)
    for step in range(6):
        log.write(row(step))
    log.close()
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"step": 6, "text')  # a row that was being written
    log = StepLog(path, 4)
    for step in (4, 5):
        log.write(row(step))
    log.close()
    assert path.read_bytes() == whole


class FakeRun:
    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, Any]]] = []
        self.finished = False

    def log(self, row: dict[str, Any], step: int) -> None:
        self.rows.append((step, row))

    def finish(self) -> None:
        self.finished = True


def test_weights_and_biases_gets_the_same_rows_and_goes_on_under_the_same_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    run = FakeRun()

    def init(**settings: Any) -> FakeRun:
        asked.append(settings)
        return run

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    folder = tmp_path / "demo-llava" / "vdep" / "pretrain" / "0123abcd"
    logs = TrainingLogs(folder, 0, 20, every=5, project="mine")
    for step in range(20):
        logs.add(row(step), Work(4, 100, 1e9, 0.0), {})
    logs.close()
    assert asked == [
        {"project": "mine", "id": "0123abcd", "name": "demo-llava/vdep/pretrain", "dir": str(folder), "resume": "allow"}
    ]
    written = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [step for step, _ in run.rows] == [w["step"] for w in written] == [0, 5, 10, 15, 19]
    assert run.rows[1][1]["text_loss"] == 2.0
    assert run.finished
