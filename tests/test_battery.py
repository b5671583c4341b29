"""However often and whenever a training is killed: weights, moments and the log of every step are the same bytes in the end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import world

from vdep.files import folder_digest
from vdep.run.job import Job

KILLS = [
    pytest.param(3, marks=pytest.mark.slow),
    pytest.param(50, marks=pytest.mark.long),
    pytest.param(200, marks=pytest.mark.full),
]


def left(run: Path) -> dict[str, str]:
    """Digests of what a run leaves: final weights, checkpoints (master weights and moments), losses of every step."""
    found = {name: folder_digest(run / name) for name in ("final", "checkpoints")}
    return found | {"losses": (run / "losses.jsonl").read_text()}


def kill(job: Job, kills: int, seed: int, tmp_path: Path) -> list[str]:
    """Run the battery; returns what the training was doing at each kill, after comparing what the runs left."""
    source = tmp_path / "job.json"
    source.write_text(job.model_dump_json())
    command = [sys.executable, str(Path(__file__).with_name("battery.py")), str(source), str(kills), str(seed)]
    done = subprocess.run(command, env=world.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    undisturbed, *disturbed = (left(Path(run)) for run in result["runs"])
    assert len(result["kills"]) == kills
    assert disturbed
    for run in disturbed:
        assert run == undisturbed
    return list(result["kills"])


def job_of(family: str, stage: str, assets: Path, prepared_root: Path, tmp_path: Path) -> Job:
    """Dropout for Phi; a checkpoint after every step."""
    study = world.make_study(family, vdep={"alpha": 0.5, "ratio": 0.5}, epochs=8)
    recipe = study.recipe("tiny", "run", stage)  # type: ignore[arg-type]
    initial = tmp_path / "initial"
    if stage == "finetune":
        world.untrained_projector(study, assets, initial)
    return Job(
        recipe=recipe,
        execution=getattr(study.execution, stage).model_copy(update={"save_every": 1}),
        device="cpu",
        tower=assets / recipe.vision_tower.weights,
        language_model=assets / recipe.language_model,
        data=world.prepare(study, assets, prepared_root, stage),
        initial=initial / "final" if stage == "finetune" else None,
        deepspeed=world.engines(),
        run=tmp_path / "runs",
        inputs={},
    )


@pytest.mark.parametrize("kills", KILLS)
def test_stage_1_with_dropout(kills: int, assets: Path, prepared_root: Path, tmp_path: Path) -> None:
    hit = kill(job_of("phi", "pretrain", assets, prepared_root, tmp_path), kills, 1, tmp_path)
    if kills >= 50:
        phases = Counter(what.partition(" ")[0] for what in hit)
        assert phases["saving"] >= 3, phases
        assert phases["step"] >= 3, phases


@pytest.mark.parametrize("kills", KILLS)
def test_sft_under_zero_2(kills: int, assets: Path, prepared_root: Path, tmp_path: Path) -> None:
    kill(job_of("llama", "finetune", assets, prepared_root, tmp_path), kills, 2, tmp_path)


def test_the_comparison_can_fail(tmp_path: Path) -> None:
    for name in ("final", "checkpoints"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "shard").write_bytes(b"0")
    (tmp_path / "losses.jsonl").write_text("{}\n")
    before = left(tmp_path)
    (tmp_path / "checkpoints" / "shard").write_bytes(b"1")
    assert left(tmp_path) != before
