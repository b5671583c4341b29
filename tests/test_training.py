"""Trainings as the pipeline runs them: real processes, torchrun, DDP and DeepSpeed on the CPU; killed, stopped, resumed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import world
from safetensors.torch import load_file

from vdep.run import attempts
from vdep.study.study import Study

pytestmark = pytest.mark.slow

VDEP = {"alpha": 0.5, "ratio": 0.5}


def start(command: list[str], **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "vdep", *command],
        env=world.environment() | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(command: list[str]) -> str:
    done = world.vdep(*command)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {k: v for path in sorted((folder / "final").glob("*.safetensors")) for k, v in load_file(path).items()}


def same(one: Path, other: Path) -> bool:
    """Bit for bit: the weights, and the log of every step's loss."""
    a, b = weights(one), weights(other)
    losses = [(folder / "losses.jsonl").read_bytes() for folder in (one, other)]
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a) and losses[0] == losses[1]


def checkpoints(run: Path) -> list[str]:
    folder = run / "checkpoints"
    return sorted(p.name for p in folder.glob("step-*")) if folder.is_dir() else []


def kill_trainer(launcher: int) -> None:
    """SIGKILL to torchrun's process group and to those of its workers, all at once."""
    torchrun = torchrun_of(launcher)
    for process in (torchrun, *torchrun.children(recursive=True)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


def torchrun_of(launcher: int) -> psutil.Process:
    return next(c for c in psutil.Process(launcher).children() if "torch.distributed.run" in " ".join(c.cmdline()))


class Runs:
    """Trainings of one recipe in folders of their own, beside one that nothing disturbed."""

    def __init__(self, study: Study, stage: str, assets: Path, prepared: Path, root: Path, initial: Path | None = None) -> None:
        self.study, self.stage, self.assets, self.prepared, self.root, self.initial = (
            study,
            stage,
            assets,
            prepared,
            root,
            initial,
        )

    def command(self, name: str, **execution: Any) -> list[str]:
        return world.train_command(
            self.study, self.assets, self.prepared, self.root / name, self.stage, self.initial, **execution
        )

    def folder(self, name: str) -> Path:
        return world.run_folder(self.study, self.root / name, self.stage)


@pytest.fixture(scope="module")
def stage1(assets: Path, captions: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """VDEP's stage 1, 90 steps, with its undisturbed run."""
    runs = Runs(world.make_study(vdep=VDEP, epochs=10), "pretrain", assets, captions, tmp_path_factory.mktemp("stage1"))
    finish(runs.command("undisturbed"))
    return runs


@pytest.fixture(scope="module")
def sft(stage1: Runs, conversations: Path) -> Runs:
    """SFT of the same model under ZeRO-2, 40 steps, with its undisturbed run."""
    initial = stage1.root / "undisturbed"
    runs = Runs(stage1.study, "finetune", stage1.assets, conversations, stage1.root / "sft", initial)
    finish(runs.command("undisturbed"))
    return runs


def test_done_says_what_the_weights_are(stage1: Runs, sft: Runs) -> None:
    for runs in (stage1, sft):
        done = json.loads((runs.root / "undisturbed" / "done.json").read_text())
        recipe = runs.study.recipe("tiny", "run", runs.stage)  # type: ignore[arg-type]
        assert done["recipe"] == recipe.digest
        assert done["run"] == f"{recipe.key}/final"
        assert str(runs.root) not in json.dumps(done), "no path of this machine: the same weights have the same file"
        assert (runs.root / "undisturbed" / done["run"] / next(iter(done["files"]))).is_file()
    rows = [json.loads(line) for line in (stage1.folder("undisturbed") / "losses.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(90))
    assert rows[-1]["text_loss"] < rows[0]["text_loss"]


def test_a_finished_run_is_not_trained_again(stage1: Runs) -> None:
    assert not checkpoints(stage1.folder("undisturbed")), "nobody needs them any more"
    done = stage1.root / "undisturbed" / "done.json"
    before = done.read_bytes()
    done.unlink()
    started = time.monotonic()
    finish(stage1.command("undisturbed"))
    assert done.read_bytes() == before
    assert time.monotonic() - started < 5, "nothing was loaded"
    assert len(list((stage1.folder("undisturbed") / "logs").iterdir())) == 1
    (attempt,) = attempts.read(stage1.folder("undisturbed"))
    assert (attempt.processes, attempt.exit_code) == (1, 0)
    assert attempt.seconds > 1


@pytest.mark.parametrize("at", ["step-00000002", "step-00000040"])
def test_killing_the_trainers_process_group(stage1: Runs, at: str) -> None:
    name = f"killed-{at}"
    process = start(stage1.command(name))
    world.wait_for(lambda: any(c >= at for c in checkpoints(stage1.folder(name))))
    kill_trainer(process.pid)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "The same command resumes from the last checkpoint" in output
    assert not (stage1.root / name / "done.json").exists()
    assert "resumed after step" in finish(stage1.command(name))
    assert same(stage1.folder(name), stage1.folder("undisturbed"))


def test_killing_sft_under_zero_2(sft: Runs) -> None:
    process = start(sft.command("killed"))
    world.wait_for(lambda: any(c >= "step-00000010" for c in checkpoints(sft.folder("killed"))))
    kill_trainer(process.pid)
    process.communicate(timeout=60)
    assert "resumed after step" in finish(sft.command("killed"))
    assert same(sft.folder("killed"), sft.folder("undisturbed"))


def test_killing_sft_under_zero_3(assets: Path, conversations: Path, tmp_path: Path) -> None:
    """As the paper's plan runs it: in bf16, on more than one rank, with float32 masters that are not the weights."""
    study = world.make_study(epochs=6, precision="bf16")
    world.untrained_projector(study, assets, tmp_path / "initial")
    runs = Runs(study, "finetune", assets, conversations, tmp_path, tmp_path / "initial")
    execution = {"engine": "zero3", "processes": 2, "micro_batch": 4}
    finish(runs.command("undisturbed", **execution))
    process = start(runs.command("killed", **execution))
    world.wait_for(lambda: any(c >= "step-00000010" for c in checkpoints(runs.folder("killed"))))
    kill_trainer(process.pid)
    process.communicate(timeout=60)
    assert "resumed after step" in finish(runs.command("killed", **execution))
    assert same(runs.folder("killed"), runs.folder("undisturbed"))


def test_killing_the_launcher_leaves_no_second_writer(stage1: Runs) -> None:
    process = start(stage1.command("orphaned"))
    world.wait_for(lambda: any(c >= "step-00000006" for c in checkpoints(stage1.folder("orphaned"))))
    workers = torchrun_of(process.pid).children()
    process.kill()
    process.wait()
    # at once, while the orphans may still be saving: the second launcher waits for the writer's lock
    finish(stage1.command("orphaned"))
    assert not any(w.is_running() and w.status() != psutil.STATUS_ZOMBIE for w in workers)
    assert same(stage1.folder("orphaned"), stage1.folder("undisturbed"))


def test_a_trainer_saves_and_stops_when_its_driver_dies(stage1: Runs) -> None:
    driver = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    process = start(stage1.command("driverless"), VDEP_DRIVER=str(driver.pid))
    world.wait_for(lambda: any(c >= "step-00000006" for c in checkpoints(stage1.folder("driverless"))))
    driver.kill()
    driver.wait()
    output, _ = process.communicate(timeout=60)
    assert "the driver is gone" in output
    assert not (stage1.root / "driverless" / "done.json").exists()
    finish(stage1.command("driverless"))
    assert same(stage1.folder("driverless"), stage1.folder("undisturbed"))


@pytest.mark.parametrize("receivers", ["launcher", "everybody"])
def test_sigterm_saves_and_asks_to_be_started_again(receivers: str, sft: Runs) -> None:
    """Sent to the launcher alone, or to torchrun, the rank and its data workers as well, as SLURM does to a job."""
    folder = sft.folder(receivers)
    process = start(sft.command(receivers, save_every=1000, workers=1))
    world.wait_for(lambda: "step 5/" in log_of(folder))
    others = psutil.Process(process.pid).children(recursive=True) if receivers == "everybody" else []
    for receiver in (*others, process):
        receiver.terminate()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 75, output[-2000:]
    assert "start again to go on" in output
    assert len(checkpoints(folder)) == 1
    finish(sft.command(receivers))
    assert same(folder, sft.folder("undisturbed"))


def test_it_saves_before_slurms_time_limit(assets: Path, captions: Path, tmp_path: Path) -> None:
    runs = Runs(world.make_study(epochs=400), "pretrain", assets, captions, tmp_path)
    process = start(runs.command("limited", save_every=100000), SLURM_JOB_END_TIME=str(int(time.time()) + 30))
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 75, output[-2000:]
    assert "the job's time is nearly up: asking the ranks to save and stop" in output
    assert len(checkpoints(runs.folder("limited"))) == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="this torch sees a GPU")
def test_ranks_do_not_train_alone_where_torch_sees_no_gpu(assets: Path, captions: Path, tmp_path: Path) -> None:
    runs = Runs(world.make_study(), "pretrain", assets, captions, tmp_path)
    command = runs.command("refused", processes=2, micro_batch=8)
    done = world.vdep(*(part.replace('"device": "cpu"', '"device": "cuda"') for part in command))
    assert done.returncode != 0
    assert "this should be one of 2 ranks on cuda, and torch makes it one of 1 on cpu" in done.stderr
    assert not checkpoints(runs.folder("refused"))


def log_of(run: Path) -> str:
    return "".join(p.read_text(errors="replace") for p in sorted((run / "logs").glob("*.log"))) if run.is_dir() else ""


def test_a_damaged_checkpoint_costs_one_interval_and_no_bit(stage1: Runs) -> None:
    process = start(stage1.command("damaged"))
    world.wait_for(lambda: any(c >= "step-00000010" for c in checkpoints(stage1.folder("damaged"))))
    kill_trainer(process.pid)
    process.communicate(timeout=60)
    last = stage1.folder("damaged") / "checkpoints" / checkpoints(stage1.folder("damaged"))[-1]
    shard = next(last.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1])
    assert f"{last.name}" in finish(stage1.command("damaged"))
    assert same(stage1.folder("damaged"), stage1.folder("undisturbed"))


def test_two_ranks_train_the_same_samples_to_the_same_losses(stage1: Runs, sft: Runs) -> None:
    for runs in (stage1, sft):
        finish(runs.command("two", processes=2, micro_batch=4))
        one, two = (
            [json.loads(line) for line in (runs.folder(n) / "losses.jsonl").read_text().splitlines()]
            for n in ("undisturbed", "two")
        )
        assert [row["samples"] for row in one] == [row["samples"] for row in two]
        for a, b in zip(one, two, strict=True):
            assert b["text_loss"] == pytest.approx(a["text_loss"], rel=1e-4)
            assert b["gradient_norm"] == pytest.approx(a["gradient_norm"], rel=1e-3)


def test_a_run_goes_on_at_another_number_of_ranks(sft: Runs) -> None:
    process = start(sft.command("elastic", processes=2, micro_batch=4))
    world.wait_for(lambda: any(c >= "step-00000010" for c in checkpoints(sft.folder("elastic"))))
    kill_trainer(process.pid)
    process.communicate(timeout=60)
    assert "resumed after step" in finish(sft.command("elastic"))
    a, b = weights(sft.folder("elastic")), weights(sft.folder("undisturbed"))
    for key, value in b.items():
        assert torch.allclose(a[key], value, atol=1e-4), key


def test_fused_without_image_loss_is_a_plain_run_at_half_the_batch(assets: Path, captions: Path, tmp_path: Path) -> None:
    fused = world.make_study(vdep={"alpha": 0.0, "ratio": 1.0, "schedule": "fused"}, global_batch=16)
    plain = world.make_study(global_batch=8)
    folders = []
    for name, study in (("fused", fused), ("plain", plain)):
        finish(world.train_command(study, assets, captions, tmp_path / name, "pretrain"))
        folders.append(world.run_folder(study, tmp_path / name, "pretrain"))
    a, b = (weights(folder) for folder in folders)
    assert all(torch.equal(a[key], b[key]) for key in b)


def test_dropout_is_resumed_exactly(assets: Path, prepared_root: Path, tmp_path: Path) -> None:
    study = world.make_study("phi", vdep=VDEP, epochs=8)
    prepared = world.prepare(study, assets, prepared_root, "pretrain")
    runs = Runs(study, "pretrain", assets, prepared, tmp_path)
    ranks = {"processes": 2, "micro_batch": 4}
    finish(runs.command("undisturbed", **ranks))
    process = start(runs.command("killed", **ranks))
    world.wait_for(lambda: any(c >= "step-00000020" for c in checkpoints(runs.folder("killed"))))
    kill_trainer(process.pid)
    process.communicate(timeout=60)
    finish(runs.command("killed", **ranks))
    assert same(runs.folder("killed"), runs.folder("undisturbed"))
    # the masks are each rank's own: other than those of one rank alone
    finish(runs.command("alone"))
    assert not same(runs.folder("alone"), runs.folder("undisturbed"))


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_samples(assets: Path, captions: Path, tmp_path: Path) -> None:
    study = world.make_study(learning_rate=1e30, warmup_ratio=0.0)
    done = world.vdep(*world.train_command(study, assets, captions, tmp_path, "pretrain", save_every=1))
    assert done.returncode == 1
    assert "is not finite" in done.stderr
    assert "Samples of this step: 00000-" in done.stderr
    assert checkpoints(world.run_folder(study, tmp_path, "pretrain")), "the last good checkpoint is kept"


def test_other_inputs_under_the_same_recipe_are_refused(stage1: Runs, tmp_path: Path) -> None:
    command = stage1.command("undisturbed")
    other = shutil.copytree(stage1.assets / "clip", tmp_path / "other")
    command[command.index("--tower") + 1] = str(world.write_manifest(other))
    done = world.vdep(*command)
    assert done.returncode == 1
    assert "was trained with another input_tower" in done.stderr


def test_a_second_launcher_is_refused_with_a_message(stage1: Runs, tmp_path: Path) -> None:
    from vdep.files import exclusive_lock

    code = "import sys; import vdep.run.launch as l; l.WAIT_FOR_LAUNCHER = 0.5; import vdep.__main__ as m; sys.exit(m.main())"
    folder = stage1.folder("locked")
    with exclusive_lock(folder / "launcher.lock", "the run"):
        done = subprocess.run(
            [sys.executable, "-c", code, *stage1.command("locked")],
            env=world.environment(), capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert f"is being written by process {os.getpid()} on " in done.stderr
    assert not (folder / "logs").exists()
