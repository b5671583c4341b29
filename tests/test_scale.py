"""Ranks, accumulation, packing and engines are ways to run a training, and no part of what it computes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import world
from test_training import Runs, checkpoints, finish, kill_trainer, start, weights


def losses(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "losses.jsonl").read_text().splitlines()]


def assert_same_training(one: Path, other: Path, loss: float, norm: float) -> None:
    """The same samples in the same order, and the same losses and norms to a relative tolerance."""
    a, b = losses(one), losses(other)
    assert [row["samples"] for row in a] == [row["samples"] for row in b]
    for x, y in zip(a, b, strict=True):
        assert y["text_loss"] == pytest.approx(x["text_loss"], rel=loss)
        assert y["image_loss"] == (x["image_loss"] if x["image_loss"] is None else pytest.approx(x["image_loss"], rel=loss))
        assert y["gradient_norm"] == pytest.approx(x["gradient_norm"], rel=norm)


@pytest.mark.long
def test_one_rank_then_two_then_four_then_one_with_accumulation_and_packing(
    assets: Path, captions: Path, tmp_path: Path
) -> None:
    study = world.make_study(vdep={"alpha": 0.5, "ratio": 0.5}, epochs=8)
    runs = Runs(study, "pretrain", assets, captions, tmp_path)
    finish(runs.command("undisturbed"))
    for ranks, at in ((1, 10), (2, 26), (4, 44)):
        process = start(runs.command("elastic", processes=ranks, micro_batch=2, packing=True))
        world.wait_for(lambda step=at: any(c >= f"step-{step:08d}" for c in checkpoints(runs.folder("elastic"))))  # type: ignore[misc]
        kill_trainer(process.pid)
        process.communicate(timeout=60)
    finish(runs.command("elastic", micro_batch=2, packing=True))
    assert_same_training(runs.folder("undisturbed"), runs.folder("elastic"), loss=1e-4, norm=1e-3)


@pytest.mark.long
def test_engines_train_the_same_model(assets: Path, conversations: Path, tmp_path: Path) -> None:
    study = world.make_study(vdep={"alpha": 0.5, "ratio": 0.5})
    world.untrained_projector(study, assets, tmp_path / "initial")
    initial = tmp_path / "initial"
    (initial / "done.json").write_text(json.dumps({"run": "."}))
    runs = Runs(study, "finetune", assets, conversations, tmp_path, initial)
    ways: dict[str, dict[str, Any]] = {
        "ddp": {"engine": "ddp"},
        "zero2": {"engine": "zero2"},
        "zero3": {"engine": "zero3"},
        "zero3-two-ranks": {"engine": "zero3", "processes": 2, "micro_batch": 4},
        "packed": {"engine": "ddp", "packing": True, "micro_batch": 8},
        "recomputed": {"engine": "ddp", "activation_checkpointing": True},
    }
    for name, execution in ways.items():
        finish(runs.command(name, **execution))
    reference = weights(runs.folder("ddp"))
    for name in list(ways)[1:]:
        assert_same_training(runs.folder("ddp"), runs.folder(name), loss=1e-4, norm=1e-3)
        for key, value in weights(runs.folder(name)).items():
            assert torch.allclose(value, reference[key], atol=2e-4), (name, key)
