"""The training loop: stage 1 and SFT, baseline and VDEP, as one rank sees it.

Everything that decides the result is a pure function of the recipe and the step: the batches (``data.plan``), the learning
rate, the seed of each step's dropout. So a checkpoint is weights, moments and a step, and resuming is exact.
"""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import Any

import torch

from ..data.collate import Batch
from ..data.images import ImageTransform, load_processor
from ..data.loader import Counts, MicroBatches, count, micro_batches, trained_lengths
from ..data.plan import GlobalBatch
from ..data.prepared import PreparedData
from ..files import exclusive_lock, write_json
from ..model.task import Report
from ..run.heartbeat import SLOWER, Heartbeat
from ..run.job import RESUME_EXIT_CODE, Job
from .build import build_plan, build_task
from .checkpoint import load_checkpoint, newest_checkpoint, save_checkpoint
from .engine import Engine
from .final import rehearse_final, write_final
from .flops import StepFlops, peak_flops
from .health import Health, MicroBatchTooLargeError, memory_for, note_smaller_micro_batch, smallest_micro_batch
from .logs import TrainingLogs, Work
from .probe import gradient_ratio
from .schedule import learning_rate

log = logging.getLogger(__name__)

WAIT_FOR_WRITER = 60.0


def train(job: Job) -> int:
    """Run or resume a training to its end. Returns 0, or ``RESUME_EXIT_CODE`` where it was asked to stop and saved.

    Raises:
        UserError: for everything a user can mend.
    """
    is_writer = int(os.environ.get("RANK", "0")) == 0
    torch.set_num_threads(job.execution.threads)
    if job.recipe.settings.tf32 and job.device == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
    lock = exclusive_lock(job.run / "writer.lock", f"the run {job.run}", WAIT_FOR_WRITER) if is_writer else nullcontext()
    with lock, asked_to_stop() as stop:
        data = PreparedData(job.data, verify=is_writer)
        execution = job.execution
        micro_batch = job.micro_batch
        # the watchdog is to find who hangs, and not the collective of those that wait
        timeout = timedelta(seconds=2 * SLOWER * execution.stall_limit) if execution.stall_limit else timedelta(days=7)
        with memory_for("building the model"):
            engine = Engine(
                build_task(job), job.recipe.settings, execution.engine, job.deepspeed, micro_batch, job.device == "cpu",
                max(timeout, timedelta(hours=1)),
            )  # fmt: skip
        heart = Heartbeat(job.heartbeats, engine.rank)
        try:
            code = _train(job, data, engine, micro_batch, stop, heart)
        except MicroBatchTooLargeError as error:
            # the process group stays open: the other ranks are in a collective, and closing it would wait for them
            smaller = note_smaller_micro_batch(job, micro_batch, smallest_micro_batch(job, int(data.lengths.max())))
            log.warning("out of memory; next time with a micro-batch of %d %s: %s", smaller, job.unit, error)
            return RESUME_EXIT_CODE
        finally:
            heart.close()
        engine.close()
        return code


def _train(job: Job, data: PreparedData, engine: Engine, micro_batch: int, stop: list[bool], heart: Heartbeat) -> int:
    settings, vdep, execution = job.recipe.settings, job.recipe.vdep, job.execution
    plan = build_plan(job, data)
    heart.beat("reading the last checkpoint")
    first_step = resume(job, engine)
    if first_step == 0 and micro_batch == job.configured_micro_batch:
        heart.beat("rehearsing the last save")
        with memory_for("writing the weights"):
            rehearse_final(job, engine)
    transform = ImageTransform(load_processor(job.tower), settings.image)
    source = MicroBatches(
        data, plan, transform, engine.rank, engine.ranks, micro_batch, execution.packing, vdep, settings.group_size
    )
    stream = micro_batches(source, first_step, execution.workers, pin=job.device == "cuda")
    health = Health(job, data, first_step)
    flops, peak = StepFlops(engine.task.model), peak_flops(engine.device, settings.precision)
    logs = (
        TrainingLogs(job.run, first_step, plan.steps, execution.log_every, peak and peak * engine.ranks, execution.wandb)
        if engine.rank == 0
        else None
    )
    if logs:
        log.info("%s: %d samples, %d steps of %d", job.recipe.stage, plan.samples, plan.steps, plan.global_batch)
    engine.task.train()
    engine.task.model.model.vision_tower.eval()

    # where steps alternate, none has both losses
    probed = vdep is not None and vdep.mixing == "batch" and not engine.uses_deepspeed

    for step in range(first_step, plan.steps):
        heart.beat(f"step {step + 1}")
        batch = plan.batch(step)
        counts = count(batch, data, vdep)
        waited = time.monotonic()
        received = [receive(step, stream, engine.device) for _ in range(source.rounds(step))]
        waited = time.monotonic() - waited

        ratio = None
        if probed and execution.probe_every and step % execution.probe_every == 0:
            torch.manual_seed(step_seed(settings.seed, step, engine.rank))
            with memory_for("training", micro_batch_helps=True):
                ratio = gradient_ratio(engine, [micro for micro, _ in received])

        torch.manual_seed(step_seed(settings.seed, step, engine.rank))
        engine.set_learning_rate(learning_rate(step, plan.steps, settings))
        with memory_for("training", micro_batch_helps=True):
            reports = [engine.micro_step(micro, last) for micro, last in received]
            norm = engine.apply()

        totals = sum_reports(engine, reports, stop[0])
        row = step_row(step, batch, counts, totals, norm, learning_rate(step, plan.steps, settings))
        health.check(row, batch)
        if logs:
            lengths = trained_lengths(batch, data, vdep)
            work = Work(len(batch), int(lengths.sum()), flops(lengths, counts.images, counts.text_tokens), waited)
            logs.add(row, work, ratio)

        stops, is_last = totals["stop"] > 0, step + 1 == plan.steps
        if ((step + 1) % execution.save_every == 0 or stops) and not is_last:
            if logs:
                logs.sync()
            heart.beat(f"saving step {step + 1}")
            save_checkpoint(job.checkpoints, engine, step + 1, job.identity, execution.keep)
        if stops and not is_last:
            if logs:
                log.info("asked to stop: saved after step %d; start again to go on", step + 1)
                write_json(job.stopped, {"step": step + 1})
            return RESUME_EXIT_CODE

    if logs:
        logs.close()
    heart.beat("writing the weights")
    write_final(job, engine, plan.steps)
    return 0


@contextmanager
def asked_to_stop() -> Iterator[list[bool]]:
    """A flag that SIGTERM raises; the loop looks at it after every step, on all ranks together."""
    flag = [False]

    def raise_flag(number: int, frame: object) -> None:
        flag[0] = True

    before = signal.signal(signal.SIGTERM, raise_flag)
    try:
        yield flag
    finally:
        signal.signal(signal.SIGTERM, before)


def resume(job: Job, engine: Engine) -> int:
    """Load the newest intact checkpoint, if there is one; returns the step to start at."""
    found = newest_checkpoint(job.checkpoints, job.identity, engine)
    if found is None:
        return 0
    folder, manifest = found
    load_checkpoint(folder, manifest, engine)
    if engine.rank == 0:
        log.info("resumed after step %d from %s", manifest["step"], folder.name)
    return int(manifest["step"])


def step_seed(seed: int, step: int, rank: int) -> int:
    """The seed of a step's dropout on one rank."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{step}/{rank}".encode()).digest()[:8], "big") >> 1


def receive(step: int, stream: Iterator[tuple[int, bool, Batch]], device: torch.device) -> tuple[Batch, bool]:
    """(micro-batch on the device, whether it is the step's last)."""
    got, last, batch = next(stream)
    assert got == step, f"the loader is at step {got}, the loop at {step}"
    return batch.to(device), last


def sum_reports(engine: Engine, reports: list[Report], stop: bool) -> dict[str, float]:
    """What adds up over a step's micro-batches and ranks, and on how many ranks the flag to stop is up."""
    mine = torch.zeros(len(Report._fields) + 1, dtype=torch.float64)
    for report in reports:
        mine[:-1] += torch.stack([value.double().cpu() for value in report])
    mine[-1] = float(stop)
    totals = engine.sum_over_ranks(mine.to(engine.device)).tolist()
    return dict(zip((*Report._fields, "stop"), totals, strict=True))


def step_row(
    step: int, batch: GlobalBatch, counts: Counts, totals: dict[str, float], norm: float, rate: float
) -> dict[str, Any]:
    """What ``losses.jsonl`` says of a step: nothing but what the recipe determines."""
    row = {
        "step": step,
        "text_loss": totals["text_loss"] if counts.text_tokens else None,
        "image_loss": totals["image_loss"] if counts.image_positions else None,
        "gradient_norm": norm,
        "learning_rate": rate,
        "samples": hashlib.sha256(batch.samples.tobytes()).hexdigest()[:16],
    }
    if counts.images:
        for name in ("norm", "variance", "cosine"):
            row[f"projector_{name}"] = totals[f"projector_{name}_sum"] / counts.images
    return row
