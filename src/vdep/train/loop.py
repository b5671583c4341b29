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

from ..data.images import ImageTransform, load_processor
from ..data.loader import MicroBatches, steps
from ..data.plan import BatchPlan
from ..data.prepared import PreparedData
from ..data.step import Step
from ..files import exclusive_lock, write_json
from ..model.task import Report
from ..run.heartbeat import SLOWER, Heartbeat
from ..run.job import RESUME_EXIT_CODE, Job
from .alpha import AlphaRule
from .build import build_plan, build_task
from .checkpoint import load_checkpoint, newest_checkpoint, save_checkpoint
from .engine import Engine
from .final import rehearse_final, write_final
from .flops import StepFlops, peak_flops
from .health import Health
from .logs import NullLogs, TrainingLogs, Work
from .out_of_memory import MicroBatchTooLargeError, guard, memory_for, note_smaller_micro_batch, smallest_micro_batch
from .probe import Gradients, measure
from .schedule import learning_rate
from .validation import Validation

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
    alpha = AlphaRule(vdep.alpha if vdep is not None else 0.0)
    with guard(heart, "reading the last checkpoint"):
        first_step = resume(job, engine, alpha)
    if first_step == 0 and micro_batch == job.configured_micro_batch:
        with guard(heart, "rehearsing the last save"):
            rehearse_final(job, engine)
    plan = build_plan(job, data)
    transform = ImageTransform(load_processor(job.tower), settings.image)
    source = MicroBatches(
        data, plan, transform, engine.rank, engine.ranks, micro_batch, execution.packing, vdep, settings.group_size
    )
    stream = steps(source, first_step, execution.workers, pin=job.device == "cuda")
    health, flops, logs = Health(job, data, first_step), StepFlops(engine.task.model), open_logs(job, engine, first_step, plan)
    validation = Validation(job, engine, transform, micro_batch, heart, logs)
    validation.after(first_step)
    # where steps alternate, none has both losses
    probed = execution.probe_every and vdep is not None and vdep.mixing == "batch" and not engine.partitions_weights
    engine.task.train()
    for number in range(first_step, plan.steps):
        done, is_last = number + 1, number + 1 == plan.steps
        with guard(heart, f"step {done}", micro_batch_helps=True):
            waited = -time.monotonic()
            step, batches = next(stream)
            waited += time.monotonic()
            seed, found = step_seed(settings.seed, number, engine.rank), None
            if alpha.due(number) or (probed and number % execution.probe_every == 0):
                torch.manual_seed(seed)
                found = measure(engine, batches)
                if alpha.due(number):
                    alpha.note(found)
            engine.task.alpha = alpha.value
            torch.manual_seed(seed)
            rate = learning_rate(number, plan.steps, settings)
            reports, norm = engine.step(batches, rate)
            totals = sum_reports(engine, reports, stop[0])
        row = step_row(step, totals, norm, rate)
        if alpha.rule is not None:
            row["alpha"] = alpha.value
        health.check(row, step.batch)
        logs.add(row, Work(len(step.batch), int(step.lengths.sum()), flops(step), waited), probed_row(found, alpha.value))
        stops = totals["stop"] > 0 and not is_last
        if stops or (done % execution.save_every == 0 and not is_last):
            logs.sync()
            with guard(heart, f"saving step {done}"):
                save_checkpoint(job.checkpoints, engine, done, job.identity, execution.keep, alpha.state)
        if stops:
            log.info("asked to stop: saved after step %d; start again to go on", done)
            if engine.rank == 0:
                write_json(job.stopped, {"step": done})
            return RESUME_EXIT_CODE
        if done % execution.save_every == 0 or is_last:
            validation.after(done)
    logs.close()
    with guard(heart, "writing the weights"):
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


def resume(job: Job, engine: Engine, alpha: AlphaRule) -> int:
    """Load the newest intact checkpoint, if there is one; returns the step to start at."""
    found = newest_checkpoint(job.checkpoints, job.identity, engine)
    if found is None:
        return 0
    folder, manifest = found
    load_checkpoint(folder, manifest, engine)
    alpha.restore(manifest.get("alpha"))
    log.info("resumed after step %d from %s", manifest["step"], folder.name)
    return int(manifest["step"])


def open_logs(job: Job, engine: Engine, first_step: int, plan: BatchPlan) -> NullLogs:
    """The files of a run on rank 0, and nothing on the others."""
    log.info("%s: %d samples, %d steps of %d", job.recipe.stage, plan.samples, plan.steps, plan.global_batch)
    if engine.rank != 0:
        return NullLogs()
    peak = peak_flops(engine.device, job.recipe.settings.precision)
    execution = job.execution
    return TrainingLogs(job.run, first_step, plan.steps, execution.log_every, peak and peak * engine.ranks, execution.wandb)


def step_seed(seed: int, step: int, rank: int) -> int:
    """The seed of a step's dropout on one rank."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{step}/{rank}".encode()).digest()[:8], "big") >> 1


def sum_reports(engine: Engine, reports: list[Report], stop: bool) -> dict[str, float]:
    """What adds up over a step's micro-batches and ranks, and on how many ranks the flag to stop is up."""
    mine = torch.zeros(len(Report._fields) + 1, dtype=torch.float64)
    for report in reports:
        mine[:-1] += torch.stack([value.double().cpu() for value in report])
    mine[-1] = float(stop)
    totals = engine.sum_over_ranks(mine.to(engine.device)).tolist()
    return dict(zip((*Report._fields, "stop"), totals, strict=True))


def probed_row(found: Gradients | None, alpha: float) -> dict[str, float]:
    """What the log says of gradients that were measured."""
    if found is None:
        return {}
    values = {"gradient_ratio": found.ratio(alpha), "gradient_cosine": found.cosine}
    return {name: value for name, value in values.items() if value is not None}


def step_row(step: Step, totals: dict[str, float], norm: float, rate: float) -> dict[str, Any]:
    """What ``losses.jsonl`` says of a step: nothing but what the recipe determines."""
    row = {
        "step": step.number,
        "text_loss": totals["text_loss"] if step.text_tokens.any() else None,
        "image_loss": totals["image_loss"] if step.image_positions.any() else None,
        "gradient_norm": norm,
        "learning_rate": rate,
        "samples": hashlib.sha256(step.batch.samples.tobytes()).hexdigest()[:16],
    }
    if images := int(step.images.sum()):
        for name in ("norm", "variance", "cosine"):
            row[f"projector_{name}"] = totals[f"projector_{name}_sum"] / images
    return row
