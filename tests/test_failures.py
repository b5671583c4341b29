"""A training that fails stops well: all its ranks end soon, the reason is said, and the same command goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import world
from test_training import Runs, checkpoints, finish, log_of, start, torchrun_of

from vdep.errors import TrainingError
from vdep.run import heartbeat
from vdep.run.heartbeat import Heartbeat, Watchdog
from vdep.run.job import Job
from vdep.run.launch import parse_time_left
from vdep.train import extension
from vdep.train.health import FIRST, Health
from vdep.train.out_of_memory import (
    MicroBatchTooLargeError,
    is_out_of_memory,
    memory_for,
    note_smaller_micro_batch,
    smallest_micro_batch,
)


@pytest.fixture(scope="module")
def runs(assets: Path, captions: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """VDEP's stage 1, 36 steps."""
    study = world.make_study(vdep={"alpha": 0.5, "ratio": 0.5}, epochs=4)
    return Runs(study, "pretrain", assets, captions, tmp_path_factory.mktemp("failures"))


def losses(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "losses.jsonl").read_text().splitlines()]


def patched(folder: Path, code: str) -> dict[str, str]:
    """An environment in which every rank runs ``code`` before anything else."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(f"import os\nif 'RANK' in os.environ:\n{code}")
    return {"PYTHONPATH": f"{folder}{os.pathsep}{world.environment()['PYTHONPATH']}"}


OUT_OF_MEMORY = """
    import torch
    import vdep.model.task as task
    forward = task.AlignmentTask.forward
    def full(self, batch):
        if len(batch.input_ids) > {rows} and os.environ['RANK'] == {rank!r}:
            raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB')
        return forward(self, batch)
    task.AlignmentTask.forward = full
"""

NO_ROOM_FOR_A_BATCH = """
    import torch
    import vdep.data.collate as collate
    def full(self, device):
        raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB')
    if os.environ['RANK'] == '1':
        collate.Batch.to = full
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL])
def test_one_rank_that_stops_ends_all_of_them(runs: Runs, how: signal.Signals) -> None:
    name = how.name
    process = start(runs.command(name, processes=2, micro_batch=8, stall_limit=5))
    world.wait_for(lambda: any(c >= "step-00000004" for c in checkpoints(runs.folder(name))))
    workers = torchrun_of(process.pid).children()
    started = time.monotonic()
    os.kill(workers[1].pid, how)
    output, _ = process.communicate(timeout=100)
    assert time.monotonic() - started < 60
    assert process.returncode == 1
    assert not any(w.is_running() and w.status() != psutil.STATUS_ZOMBIE for w in workers)
    assert "The same command resumes from the last checkpoint" in output
    if how == signal.SIGSTOP:
        assert "no sign of life for 5 seconds, all ranks were ended: rank-" in output
    assert "resumed after step" in finish(runs.command(name))
    assert [row["step"] for row in losses(runs.folder(name))] == list(range(36))


@pytest.mark.slow
def test_out_of_memory_on_one_rank_goes_on_with_smaller_micro_batches(runs: Runs, tmp_path: Path) -> None:
    environment = patched(tmp_path / "patch", OUT_OF_MEMORY.format(rows=2, rank="1"))
    process = start(runs.command("memory", processes=2, micro_batch=8), **environment)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output[-3000:]
    assert "going on with a micro-batch of 4" in output
    assert "going on with a micro-batch of 2" in output
    finish(runs.command("undisturbed"))
    for a, b in zip(losses(runs.folder("memory")), losses(runs.folder("undisturbed")), strict=True):
        assert a["samples"] == b["samples"]
        assert a["text_loss"] == pytest.approx(b["text_loss"], rel=1e-4)


def job_of(runs: Runs, folder: Path, **execution: Any) -> Job:
    recipe = runs.study.recipe("tiny", "run", "pretrain")
    return Job(
        recipe=recipe, execution=runs.study.execution.pretrain.model_copy(update=execution), device="cpu",
        tower=runs.assets, language_model=runs.assets, data=runs.prepared, initial=None, deepspeed=world.engines(),
        run=folder, inputs={},
    )  # fmt: skip


def test_two_ranks_that_run_out_of_memory_halve_it_once(runs: Runs, tmp_path: Path) -> None:
    job = job_of(runs, tmp_path, micro_batch=32)
    for _ in range(2):
        assert note_smaller_micro_batch(job, 32, 1) == 16
    assert job.micro_batch == 16
    assert job_of(runs, tmp_path, micro_batch=64).micro_batch == 64, "what was found of another setting does not count"


def test_packed_micro_batches_are_halved_until_they_hold_the_longest_sample(runs: Runs, tmp_path: Path) -> None:
    job = job_of(runs, tmp_path, packing=True, micro_batch_tokens=5000)
    assert [note_smaller_micro_batch(job, job.micro_batch, 2000) for _ in range(2)] == [2500, 2000]
    with pytest.raises(TrainingError, match="with one sample at a time"):
        note_smaller_micro_batch(job, job.micro_batch, 2000)


def test_a_normalisation_group_that_stays_whole_is_the_smallest_micro_batch(runs: Runs, tmp_path: Path) -> None:
    study = world.make_study(vdep={"loss": "sigmoid_l2", "form": "group"}, normalization={"micro_batch": 8})
    job = job_of(runs, tmp_path, micro_batch=16).model_copy(update={"recipe": study.recipe("tiny", "run", "pretrain")})
    assert smallest_micro_batch(job_of(runs, tmp_path), 50) == 1
    assert smallest_micro_batch(job, 50) == 8
    assert note_smaller_micro_batch(job, 16, 8) == 8
    with pytest.raises(TrainingError, match="with a normalisation group of 8 samples at a time"):
        note_smaller_micro_batch(job, 8, 8)


@pytest.mark.slow
def test_what_does_not_fit_at_all_is_said(runs: Runs, tmp_path: Path) -> None:
    environment = patched(tmp_path / "patch", NO_ROOM_FOR_A_BATCH)
    process = start(runs.command("too-large", micro_batch=1, processes=2), **environment)
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 1
    assert "error on rank 1: out of memory with one sample at a time" in output
    assert "execution.pretrain.activation_checkpointing" in output


@pytest.mark.slow
def test_weights_that_cannot_be_saved_fail_before_the_first_step(runs: Runs, tmp_path: Path) -> None:
    code = "    import vdep.train.final as final\n    def full(*_): raise OSError('no space left on device')\n"
    environment = patched(tmp_path / "patch", f"{code}    final.save_file = full\n")
    process = start(runs.command("unsaved"), **environment)
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 1
    assert "no space left on device" in output
    assert "step 1/" not in log_of(runs.folder("unsaved"))


def row(step: int, norm: float, loss: float | None = 1.0) -> dict[str, Any]:
    return {"step": step, "gradient_norm": norm, "text_loss": loss, "image_loss": None}


def test_a_jump_of_the_gradient_names_the_step_and_its_samples(runs: Runs, captions: Path, tmp_path: Path) -> None:
    from vdep.data.plan import BatchPlan
    from vdep.data.prepared import PreparedData

    data = PreparedData(captions)
    batch = BatchPlan(data.lengths, data.has_image, global_batch=4, epochs=1, seed=0).batch(0)

    class Job:
        execution = runs.study.execution.pretrain.model_copy(update={"gradient_jump": 10.0})
        checkpoints = Path("checkpoints")
        run = tmp_path

    health = Health(Job(), data)  # type: ignore[arg-type]
    health.check(row(0, 1000.0), batch)
    for step in range(1, FIRST):
        health.check(row(step, 1.0 + step % 2), batch)
    health.check(row(FIRST, 9.0), batch)
    with pytest.raises(TrainingError, match=rf"step {FIRST + 2}: the gradient jumped to .* {data[int(batch.samples[0])].id}"):
        health.check(row(FIRST + 1, 60.0), batch)
    # an attempt that resumes knows what the gradients were before
    (tmp_path / "losses.jsonl").write_text("".join(json.dumps(row(step, 1.0)) + "\n" for step in range(FIRST + 5)))
    with pytest.raises(TrainingError, match="jumped to 60 times"):
        Health(Job(), data, FIRST).check(row(FIRST, 60.0), batch)  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match="not finite"):
        Health(Job(), data).check(row(0, float("nan")), batch)  # type: ignore[arg-type]
    # steps of one mode that take turns (``mixing: steps``) are compared with those of their own mode
    alternating = [row(i, *((1.0, 1.0) if i % 2 else (0.001, None))) for i in range(3 * FIRST)]
    health = Health(Job(), data)  # type: ignore[arg-type]
    for step in alternating:
        health.check(step, batch)
    (tmp_path / "losses.jsonl").write_text("".join(json.dumps(step) + "\n" for step in alternating))
    for resumed in (health, Health(Job(), data, 3 * FIRST)):  # type: ignore[arg-type]
        with pytest.raises(TrainingError, match="jumped to 60 times"):
            resumed.check(row(3 * FIRST, 0.06, None), batch)


@pytest.mark.slow
def test_what_a_killed_rank_left_of_torchs_own_lock_stops_nobody() -> None:
    """torch waits without end for a file that says that an extension is being loaded; SIGKILL leaves it behind."""
    environment = world.environment()
    lock = Path(environment["TORCH_EXTENSIONS_DIR"]) / extension.NAME / "lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.touch()
    command = [sys.executable, "-m", "vdep.train.extension"]
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(timeout=240) for process in processes] == [0, 0]
    assert not lock.exists()


def test_memory_that_does_not_suffice_is_recognised() -> None:
    import torch

    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(RuntimeError("CUDA error: out of memory"))
    assert not is_out_of_memory(RuntimeError("something else"))
    with pytest.raises(TrainingError, match="out of memory while building the model"), memory_for("building the model"):
        raise MemoryError
    with pytest.raises(MicroBatchTooLargeError), memory_for("training", micro_batch_helps=True):
        raise MemoryError
    code = (
        "import resource, torch; from vdep.train.out_of_memory import is_out_of_memory\n"
        "resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30, 6 * 2**30))\n"
        "try: torch.zeros(2**33)\n"
        "except Exception as error: print(is_out_of_memory(error))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=world.environment(), capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.stdout.split()[-1:] == ["True"], done.stderr


def look(watchdog: Watchdog, seconds: float) -> list[str]:
    """What the watchdog says after it has looked often enough for so long."""
    end = time.monotonic() + seconds
    said = watchdog.hanging()
    while time.monotonic() < end:
        time.sleep(0.03)
        said = watchdog.hanging() or said
    return said


def test_the_time_left_as_slurm_says_it() -> None:
    assert parse_time_left("1-02:03:04\n") == 93784
    assert parse_time_left("22:59:30") == 82770
    assert parse_time_left("4:50") == 290
    assert parse_time_left("UNLIMITED") is None
    assert parse_time_left("") is None


def test_the_watchdog_names_who_stopped_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "STARTING", 1.2)
    monkeypatch.setattr(heartbeat, "SLOWER", 3)
    monkeypatch.setattr(heartbeat, "EVERY", 0.05)
    watchdog = Watchdog(tmp_path, limit=0.3, ranks=4)
    hearts = [Heartbeat(tmp_path, rank) for rank in (0, 1, 2)]
    for step in range(3):
        hearts[0].beat(f"step {step}")
    hearts[1].beat("step 0")
    hearts[2].beat("saving step 2")
    (tmp_path / "rank-9").write_text("1 left by another run")
    assert look(watchdog, 0.15) == []
    assert look(watchdog, 0.4) == ["rank-1 (last: step 0)", "rank-0 (last: step 2)"], "a save may take longer"
    assert [name.split()[0] for name in look(watchdog, 0.6)] == ["rank-1", "rank-2", "rank-0"]
    assert [name.split()[0] for name in look(watchdog, 0.6)] == ["rank-3", "rank-1", "rank-2", "rank-0"]
    hearts[0].beat("step 3")
    assert "rank-0" not in "".join(look(watchdog, 0.1)[-1:])


def test_a_launcher_that_stood_still_suspects_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "EVERY", 0.02)
    watchdog = Watchdog(tmp_path, limit=0.3, ranks=1)
    Heartbeat(tmp_path, 0).beat("step 1")
    assert look(watchdog, 0.1) == []
    time.sleep(0.6)  # as under SIGSTOP, with the ranks stopped too
    assert watchdog.hanging() == []
    assert look(watchdog, 0.5) == ["rank-0 (last: step 1)"]
    assert look(Watchdog(tmp_path, limit=0.0, ranks=1), 0.2) == []
