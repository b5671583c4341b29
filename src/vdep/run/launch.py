"""Start the ranks of a training, watch them, and write ``done.json`` when the weights are there.

The launcher imports no torch. It starts torchrun in a process group of its own, ends it when the driver (Snakemake) dies,
and hands on the signals it gets. One launcher and one writer per run: both hold a file lock, which ends with the process.
"""

from __future__ import annotations

import logging
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import IO, BinaryIO

import psutil

from ..artifacts import FINAL, FinishedStage
from ..errors import CheckpointError, ConfigError, TrainingError
from ..files import exclusive_lock, write_atomically, write_json
from . import attempts
from .driver import DRIVER_VARIABLE
from .heartbeat import Watchdog
from .job import RESUME_EXIT_CODE, Job

log = logging.getLogger(__name__)

WAIT_FOR_LAUNCHER = 60.0


def launch(job: Job, done: Path) -> int:
    """Train until ``done`` can be written; returns an exit code (``RESUME_EXIT_CODE``: saved, start again).

    Raises:
        UserError: where the run is locked, its checkpoints are of another recipe, or a rank failed.
    """
    if job.execution.wandb and find_spec("wandb") is None:
        raise ConfigError(f"execution.{job.recipe.stage}.wandb is set, but its package is missing: pip install wandb")
    job.run.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(job.run / "launcher.lock", f"the run {job.run}", WAIT_FOR_LAUNCHER):
        if not finished(job):
            code = _attempts(job)
            if code != 0:
                return code
        FinishedStage.publish(job.final, done)
        # masters and moments of a finished run: twelve bytes a parameter that nobody reads again
        shutil.rmtree(job.checkpoints, ignore_errors=True)
    return 0


def finished(job: Job) -> bool:
    """Whether the run's weights are already there, whole and of this recipe.

    Raises:
        CheckpointError: where the folder holds weights of something else, or damaged ones.
    """
    if not (job.final / FINAL).is_file():
        return False
    stage = FinishedStage.open(job.final / FINAL)
    for key, value in job.identity.items():
        if getattr(stage, key) != value:
            raise CheckpointError(
                f"{job.final} was trained with another {key}. Raise the revision of what changed, or delete {job.run}."
            )
    return True


def _attempts(job: Job) -> int:
    """One attempt, and another with a smaller micro-batch for as long as memory does not suffice."""
    while True:
        micro_batch = job.micro_batch
        code = _attempt(job)
        if code != RESUME_EXIT_CODE or job.stopped.exists() or job.micro_batch == micro_batch:
            return code
        log.warning(
            "out of memory: going on with a micro-batch of %d %s, on the same global batches", job.micro_batch, job.unit
        )


def _attempt(job: Job) -> int:
    path = job.run / "job.json"
    write_atomically(path, job.model_dump_json(indent=2) + "\n")
    job.stopped.unlink(missing_ok=True)
    logs = job.run / "logs"
    logs.mkdir(exist_ok=True)
    number = len(list(logs.glob("attempt-*.log"))) + 1
    log_path = logs / f"attempt-{number:03d}.log"
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nnodes=1", "--max-restarts=0",
        "--signals-to-handle=SIGINT,SIGHUP,SIGQUIT",
        f"--nproc-per-node={job.execution.processes}", "-m", "vdep.train.worker", str(path),
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": str(job.execution.threads), "TOKENIZERS_PARALLELISM": "false"}
    log.info("attempt %d of %s, log %s", number, job.run, log_path)
    micro_batch, limit = job.micro_batch, job.execution.stall_limit
    hardware, started = attempts.hardware(job.device, job.execution.processes), time.monotonic()
    with open(log_path, "wb") as log_file:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, start_new_session=True,
            preexec_fn=_ignore_sigterm,
        )  # fmt: skip
        os.set_blocking(process.stdout.fileno(), False)  # type: ignore[union-attr]
        watchdog = Watchdog(job.heartbeats, limit, job.execution.processes)
        hanging, asked_to_stop = _watch(process, log_file, watchdog, job.execution.grace)
    code = process.wait()
    seconds = round(time.monotonic() - started, 1)
    record = attempts.Attempt(hardware=hardware, processes=job.execution.processes, seconds=seconds, exit_code=code)
    attempts.record(job.run, record)
    if code == 0:
        return 0
    if job.stopped.exists():
        return RESUME_EXIT_CODE
    if job.micro_batch < micro_batch:
        if asked_to_stop:
            write_json(job.stopped, {"reason": "asked to stop"})
        return RESUME_EXIT_CODE
    if hanging:
        raise TrainingError(
            f"no sign of life for {limit:g} seconds, all ranks were ended: {'; '.join(hanging)}. Its log: "
            f"{log_path}. The same command resumes from the last checkpoint. (execution.*.stall_limit sets how long to wait.)"
        )
    raise TrainingError(
        f"training failed (exit code {code}); its log: {log_path}. The same command resumes from the last checkpoint."
    )


def _ignore_sigterm() -> None:
    """SLURM sends SIGTERM to every process of a job. torchrun would kill its workers 30 seconds later, while they save."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def seconds_left() -> float | None:
    """Until SLURM ends this job; None elsewhere, or where SLURM does not say."""
    end, number = os.environ.get("SLURM_JOB_END_TIME", ""), os.environ.get("SLURM_JOB_ID")
    if end.isdigit():
        return int(end) - time.time()
    if not number:
        return None
    # within a job of Snakemake's only the number of it is left in the environment
    command = ["squeue", "--noheader", "--jobs", number, "--format", "%L"]
    try:
        return parse_time_left(subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout)
    except (OSError, subprocess.TimeoutExpired):
        return None


def parse_time_left(text: str) -> float | None:
    """``[days-][hours:]minutes:seconds`` as squeue prints them; None for anything else (``UNLIMITED``)."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text.strip())
    if not match:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def _watch(process: subprocess.Popen[bytes], log_file: BinaryIO, watchdog: Watchdog, grace: float) -> tuple[list[str], bool]:
    """Copy the output to the log and to stderr; have the ranks save and stop on a signal, shortly before the time limit, or
    when the driver is gone.

    Returns:
        The ranks for whose silence all of them were ended, and whether they were asked to stop.
    """
    driver = Driver.from_environment()
    left = seconds_left()
    # a short job shall not spend its time on stopping
    time_is_up = time.monotonic() + left - min(grace, left / 10) if left is not None else math.inf
    asked_at: float | None = None
    workers: dict[int, psutil.Process] = {}

    def ask_to_stop(reason: str) -> None:
        nonlocal asked_at
        if asked_at is None:
            log.warning("%s: asking the ranks to save and stop", reason)
            asked_at = time.monotonic()
            # not torchrun itself, which would give its workers 30 seconds to die
            for worker in workers.values():
                with suppress(psutil.NoSuchProcess):
                    worker.send_signal(signal.SIGTERM)

    with _handling((signal.SIGTERM, signal.SIGINT, signal.SIGHUP), lambda number: ask_to_stop(signal.Signals(number).name)):
        try:
            while True:
                code = process.poll()
                workers |= {worker.pid: worker for worker in _children(process.pid)}
                if not _copy(process.stdout, log_file):
                    if code is not None:
                        if any(worker.is_running() for worker in workers.values()):
                            ask_to_stop("torchrun is gone")
                        return [], asked_at is not None
                    time.sleep(0.1)
                if hanging := watchdog.hanging():
                    log.error("no sign of life from %s: ending all ranks", "; ".join(hanging))
                    _end(process, workers)
                    return hanging, asked_at is not None
                if driver is not None and not driver.is_alive():
                    ask_to_stop("the driver is gone")
                if time.monotonic() > time_is_up:
                    ask_to_stop("the job's time is nearly up")
                if asked_at is not None and time.monotonic() - asked_at > grace:
                    _end(process, workers)
        finally:
            # workers outlive a killed torchrun for as long as they save: whoever comes next must not meet them
            psutil.wait_procs(list(workers.values()), timeout=grace)
            _end(process, workers)


def _copy(source: IO[bytes] | None, log_file: BinaryIO) -> bool:
    chunk = source.read() if source else b""
    if not chunk:
        return False
    log_file.write(chunk)
    log_file.flush()
    with suppress(OSError):
        sys.stderr.buffer.write(chunk)
        sys.stderr.buffer.flush()
    return True


def _children(torchrun: int) -> list[psutil.Process]:
    try:
        return psutil.Process(torchrun).children()
    except psutil.NoSuchProcess:
        return []


def _end(process: subprocess.Popen[bytes], workers: dict[int, psutil.Process]) -> None:
    for pid in (process.pid, *workers):
        # torchrun gives every worker a session of its own; their data loaders are in its group
        if pid != process.pid or process.poll() is None:
            with suppress(ProcessLookupError, PermissionError):
                if pid == process.pid or workers[pid].is_running():
                    os.killpg(pid, signal.SIGKILL)


@contextmanager
def _handling(signals: tuple[signal.Signals, ...], action: Callable[[int], None]) -> Iterator[None]:
    previous = {number: signal.signal(number, lambda n, _: action(n)) for number in signals}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class Driver:
    """The Snakemake process that asked for this training, recognised by process id and start time."""

    def __init__(self, process_id: int) -> None:
        self.process_id = process_id
        self.started = self._start_time()

    @classmethod
    def from_environment(cls) -> Driver | None:
        value = os.environ.get(DRIVER_VARIABLE, "")
        return cls(int(value)) if value.isdigit() else None

    def _start_time(self) -> str | None:
        try:
            stat = Path(f"/proc/{self.process_id}/stat").read_text()
        except OSError:
            return None
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]

    def is_alive(self) -> bool:
        return self.started is not None and self._start_time() == self.started
