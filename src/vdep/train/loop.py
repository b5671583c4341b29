"""The training loop: stage 1 and SFT, baseline and VDEP, one rank's view.

Everything that decides the result is a pure function of the recipe and the step: the batches (``data.plan``), the learning
rate, and the seed of each step's dropout. So a checkpoint holds weights, moments and a step, and resuming is exact.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..data.collate import Batch
from ..data.images import ImageTransform, load_processor
from ..data.loader import Counts, MicroBatches, count, micro_batches
from ..data.plan import BatchPlan, GlobalBatch, Hybrid
from ..data.prepared import PreparedData
from ..errors import TrainingError
from ..files import exclusive_lock, folder_digest, sha256, write_json
from ..model.export import export_checkpoint
from ..model.llava import DTYPES, build_model, projector, set_dropout
from ..model.task import AlignmentTask, Report, Scales
from .checkpoint import load_checkpoint, newest_checkpoint, save_checkpoint
from .engine import Engine
from .job import RESUME_EXIT_CODE, Job
from .logs import StepLog, Throughput, progress_line
from .schedule import learning_rate

log = logging.getLogger(__name__)

PROJECTOR_FILE = "projector.safetensors"
WAIT_FOR_WRITER = 60.0


def train(job: Job) -> int:
    """Run or resume a training to its end; returns the exit code.

    Raises:
        UserError: for everything a user can mend.
    """
    torch.set_num_threads(job.execution.threads)
    settings = job.recipe.settings
    if settings.tf32 and job.device == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
    rank = int(os.environ.get("RANK", "0"))
    if rank == 0:
        with exclusive_lock(job.run / "writer.lock", f"the run {job.run}", WAIT_FOR_WRITER):
            return _Training(job).run()
    return _Training(job).run()


def build_task(job: Job) -> AlignmentTask:
    """The model of a recipe, with what its stage trains unfrozen."""
    recipe = job.recipe
    dtype = DTYPES[recipe.settings.precision]
    model = build_model(job.tower, job.language_model, recipe.vision_tower, dtype, recipe.settings.seed)
    set_dropout(model, recipe.settings.dropout)
    if job.initial is not None:
        projector(model).load_state_dict(load_file(job.initial / PROJECTOR_FILE))
    model.requires_grad_(False)
    projector(model).requires_grad_(True)
    if recipe.stage == "finetune":
        model.model.language_model.requires_grad_(True)
        model.lm_head.requires_grad_(True)
    if job.execution.engine == "ddp":
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    if job.execution.activation_checkpointing:
        model.model.language_model.gradient_checkpointing_enable({"use_reentrant": False})
    return AlignmentTask(model, recipe.vdep)


def build_plan(job: Job, data: PreparedData) -> BatchPlan:
    settings, vdep = job.recipe.settings, job.recipe.vdep
    return BatchPlan(
        data.lengths,
        data.has_image,
        global_batch=settings.global_batch,
        epochs=settings.epochs,
        seed=settings.seed,
        grouping=settings.grouping,
        hybrid=Hybrid(vdep.ratio, vdep.schedule) if vdep else None,
    )


def step_seed(seed: int, step: int, rank: int) -> int:
    """The seed of a step's dropout on one rank."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{step}/{rank}".encode()).digest()[:8], "big") >> 1


class _Training:
    """The state of one attempt."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.recipe = job.recipe
        self.settings = job.recipe.settings
        self.data = PreparedData(job.data, verify=int(os.environ.get("RANK", "0")) == 0)
        self.plan = build_plan(job, self.data)
        self.engine = Engine(
            build_task(job),
            self.settings,
            job.execution.engine,
            job.deepspeed,
            job.execution.micro_batch,
            cpu=job.device == "cpu",
        )
        self.vdep = self.recipe.vdep
        self.stop = False

    # -- the course of an attempt

    def run(self) -> int:
        try:
            signal.signal(signal.SIGTERM, self._on_sigterm)
            first_step = self._resume()
            finished = self._train(first_step)
            if finished:
                self._export()
            return 0 if finished else RESUME_EXIT_CODE
        finally:
            self.engine.close()

    def _on_sigterm(self, *_: Any) -> None:
        self.stop = True

    def _resume(self) -> int:
        found: list[Any] = [None]
        if self.engine.rank == 0:
            found = [newest_checkpoint(self.job.checkpoints, self.job.identity)]
        if self.engine.ranks > 1:
            torch.distributed.broadcast_object_list(found)
        if found[0] is None:
            return 0
        folder, manifest = found[0]
        load_checkpoint(folder, manifest, self.engine)
        self._say("resumed after step %d from %s", manifest["step"], folder.name)
        return int(manifest["step"])

    def _train(self, first_step: int) -> bool:
        job, plan, engine = self.job, self.plan, self.engine
        transform = ImageTransform(load_processor(job.tower), self.settings.image)
        source = MicroBatches(self.data, plan, transform, engine.rank, engine.ranks, job.execution.micro_batch)
        stream = micro_batches(source, first_step, job.execution.workers, pin=job.device == "cuda")
        self._say(
            "%s: %d samples, %d steps of %d, on %d x %s",
            self.recipe.stage, plan.samples, plan.steps, plan.global_batch, engine.ranks, engine.device.type,
        )  # fmt: skip
        logs = _Logs(job, first_step, plan.steps) if engine.rank == 0 else None
        engine.task.train()
        engine.task.model.model.vision_tower.eval()
        for step in range(first_step, plan.steps):
            row, stop = self._step(step, source.rounds(step), stream, logs)
            saves = (step + 1) % job.execution.save_every == 0
            if logs:
                logs.add(row)
            if (saves or stop) and step + 1 < plan.steps:
                if logs:
                    logs.sync()
                save_checkpoint(job.checkpoints, engine, step + 1, job.identity, job.execution.keep)
            if stop and step + 1 < plan.steps:
                self._say("asked to stop: saved after step %d; start again to go on", step + 1)
                if engine.rank == 0:
                    write_json(job.stopped, {"step": step + 1})
                return False
        if logs:
            logs.close()
        return True

    def _step(self, step: int, rounds: int, stream: Any, logs: _Logs | None) -> tuple[dict[str, Any], bool]:
        batch = self.plan.batch(step)
        counts = count(batch, self.data, self.vdep.position if self.vdep else "same")
        scales = self._scales(counts)
        waited = time.monotonic()
        received = [self._receive(step, stream) for _ in range(rounds)]
        if logs:
            logs.throughput.waited += time.monotonic() - waited
            logs.throughput.add(len(batch), int(self.data.lengths[batch.samples].sum()))
        ratio = self._probe(step, received, scales)
        torch.manual_seed(step_seed(self.settings.seed, step, self.engine.rank))
        rate = learning_rate(step, self.plan.steps, self.settings)
        self.engine.set_learning_rate(rate)
        reports = [self.engine.micro_step(micro, scales if used else Scales(0.0, 0.0), last) for micro, used, last in received]
        norm = self.engine.apply()
        totals = self._totals(reports, [used for _, used, _ in received])
        row = self._row(step, batch, counts, totals, norm, rate) | ({"gradient_ratio": ratio} if ratio is not None else {})
        return row, bool(totals[-1] > 0)

    def _receive(self, step: int, stream: Any) -> tuple[Batch, bool, bool]:
        """(batch on the device, whether it counts, whether it is the step's last)."""
        got, last, batch = next(stream)
        assert got == step, f"the loader is at step {got}, the loop at {step}"
        if batch is not None:
            return batch.to(self.engine.device), True, last
        # a rank without samples goes through the motions, so that the others' collectives find it
        return _blank_batch(self.engine.device), False, last

    def _scales(self, counts: Counts) -> Scales:
        ranks = self.engine.ranks
        alpha = self.vdep.alpha if self.vdep else 0.0
        return Scales(
            text=ranks / counts.text_tokens if counts.text_tokens else 0.0,
            image=alpha * ranks / counts.image_positions if counts.image_positions else 0.0,
        )

    def _totals(self, reports: list[Report], used: list[bool]) -> list[float]:
        """[text, image, norm, variance, cosine, stop], summed over micro-batches and ranks."""
        mine = torch.zeros(6, dtype=torch.float64)
        for report, counts in zip(reports, used, strict=True):
            if counts:
                mine[:5] += torch.stack([value.double().cpu() for value in report])
        mine[5] = float(self.stop)
        dtype = torch.float64 if self.engine.device.type != "mps" else torch.float32
        return self.engine.sum_over_ranks(mine.to(self.engine.device, dtype)).tolist()

    def _row(
        self, step: int, batch: GlobalBatch, counts: Counts, totals: list[float], norm: float, rate: float
    ) -> dict[str, Any]:
        text, image, projector_norm, variance, cosine, _ = totals
        row: dict[str, Any] = {
            "step": step,
            "text_loss": text / counts.text_tokens if counts.text_tokens else None,
            "image_loss": image / counts.image_positions if counts.image_positions else None,
            "gradient_norm": norm,
            "learning_rate": rate,
            "samples": hashlib.sha256(batch.samples.tobytes()).hexdigest()[:16],
        }
        if counts.images:
            row["projector_norm"] = projector_norm / counts.images
            row["projector_variance"] = variance / counts.images
            row["projector_cosine"] = cosine / counts.images
        finite = [v for k, v in row.items() if isinstance(v, float) and not _is_finite(v)]
        if finite:
            names = ", ".join(self.data[int(i)].id for i in batch.samples[:8])
            raise TrainingError(
                f"step {step + 1}: the loss or its gradient is not finite (text {row['text_loss']}, image {row['image_loss']}, "
                f"gradient {norm}). Samples of this step: {names}, ... The last checkpoint is kept in {self.job.checkpoints}."
            )
        return row

    def _probe(self, step: int, received: list[tuple[Batch, bool, bool]], scales: Scales) -> float | None:
        """||grad of alpha L_i|| / ||grad of L_t|| on the projector, every ``probe_every`` steps of a VDEP stage 1."""
        every = self.job.execution.probe_every
        if self.vdep is None or every == 0 or step % every or self.recipe.stage != "pretrain" or self.engine.uses_deepspeed:
            return None
        parameters = list(projector(self.engine.task.model).parameters())
        sums: dict[str, list[Tensor]] = {k: [torch.zeros_like(p) for p in parameters] for k in ("text", "image")}
        torch.manual_seed(step_seed(self.settings.seed, step, self.engine.rank))
        for batch, used, _ in received:
            if not used:
                continue
            with self.engine.accelerator.autocast():
                losses, _ = self.engine.task.losses(batch)
            for name, scale in (("text", scales.text), ("image", scales.image)):
                grads = torch.autograd.grad(losses[name] * scale, parameters, retain_graph=name == "text", allow_unused=True)
                for total, grad in zip(sums[name], grads, strict=True):
                    if grad is not None:
                        total += grad
        norms = {}
        for name, totals in sums.items():
            flat = self.engine.sum_over_ranks(torch.cat([t.flatten() for t in totals])) / self.engine.ranks
            norms[name] = float(flat.norm())
        return norms["image"] / norms["text"] if norms["text"] else None

    # -- the end

    def _export(self) -> None:
        """Write what the stage yields into ``final``: the projector after stage 1, a Hugging Face checkpoint after SFT."""
        state = {name.removeprefix("model."): self.engine.master(name).to("cpu") for name in self.engine.names}
        if self.engine.rank == 0:
            aside = self.job.run / ".final.tmp"
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            if self.recipe.stage == "pretrain":
                prefix = "model.multi_modal_projector."
                save_file({k.removeprefix(prefix): v.contiguous() for k, v in state.items()}, aside / PROJECTOR_FILE)
            else:
                self._export_model(state, aside)
            write_final_manifest(aside, self.job, self.plan.steps)
            shutil.rmtree(self.job.final, ignore_errors=True)
            aside.rename(self.job.final)
        self.engine.barrier()

    def _export_model(self, state: dict[str, Tensor], folder: Path) -> None:
        dtype = DTYPES[self.settings.precision]
        model = build_model(self.job.tower, self.job.language_model, self.recipe.vision_tower, dtype, 0)
        missing, unexpected = model.load_state_dict({k: v.to(dtype) for k, v in state.items()}, strict=False)
        if unexpected:
            raise TrainingError(f"trained parameters that the model does not have: {unexpected[:5]}")
        del missing  # the frozen tower
        export_checkpoint(model, self.job.tower, self.job.language_model, self.settings.image, folder)

    def _say(self, message: str, *values: Any) -> None:
        if self.engine.rank == 0:
            log.info(message, *values)


class _Logs:
    """Rank 0's files."""

    def __init__(self, job: Job, first_step: int, steps: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.every = job.execution.log_every
        self.steps = steps
        self.losses = StepLog(job.run / "losses.jsonl", first_step)
        self.metrics = StepLog(job.run / "metrics.jsonl", first_step)
        self.board = SummaryWriter(str(job.run / "tensorboard"), purge_step=first_step)
        self.throughput = Throughput(first_step, steps)

    def add(self, row: dict[str, Any]) -> None:
        self.losses.write({k: v for k, v in row.items() if k != "gradient_ratio"})
        if row["step"] % self.every == 0 or row["step"] + 1 == self.steps or "gradient_ratio" in row:
            row = row | self.throughput.look(row["step"])
            self.metrics.write(row)
            for key, value in row.items():
                if isinstance(value, int | float) and key != "step":
                    self.board.add_scalar(key, value, row["step"])
            log.info("%s", progress_line(row, self.steps))

    def sync(self) -> None:
        self.losses.sync()
        self.metrics.sync()

    def close(self) -> None:
        self.losses.close()
        self.metrics.close()
        self.board.close()


def _is_finite(value: float) -> bool:
    return value == value and abs(value) != float("inf")


def _blank_batch(device: torch.device) -> Batch:
    blank = torch.zeros(1, 2, dtype=torch.long, device=device)
    mask = torch.zeros(1, 2, dtype=torch.bool, device=device)
    return Batch(blank, torch.full_like(blank, -100), mask, mask, None)


def versions() -> dict[str, str]:
    import accelerate
    import deepspeed
    import transformers

    return {
        "torch": torch.__version__.partition("+")[0],
        "transformers": transformers.__version__,
        "accelerate": accelerate.__version__,
        "deepspeed": deepspeed.__version__.partition("+")[0],
    }


def write_final_manifest(folder: Path, job: Job, steps: int) -> None:
    """``final.json``: what these weights are. No dates, so that the same weights have the same manifest."""
    names = sorted(p.name for p in folder.iterdir())
    write_json(
        folder / "final.json",
        {
            **job.identity,
            "stage": job.recipe.stage,
            "initial_recipe": job.recipe.initial,
            "steps": steps,
            "versions": versions(),
            "files": {name: sha256(folder / name) for name in names},
            "digest": folder_digest(folder, names),
        },
    )
