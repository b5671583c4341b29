"""A task under DDP or under DeepSpeed ZeRO, on accelerate: the same few verbs for the loop. Who holds which part of the weights
and moments is in ``state``.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DeepSpeedPlugin, DistributedDataParallelKwargs
from torch import Tensor
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from ..data.collate import Batch
from ..errors import ConfigError
from ..model.task import AlignmentTask, Report
from ..study.settings import StageSettings
from . import extension

_NEVER_FREED: list[Any] = []


def deepspeed_config(name: str, folder: Path, settings: StageSettings, micro_batch: int) -> dict[str, Any]:
    """``config/deepspeed/<name>.json`` with what the recipe decides filled in.

    Gradient clipping is always explicit: DeepSpeed's default changed from 0 to 1 in 2026, and the original runs had none.
    """
    path = folder / f"{name}.json"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.json")))
        raise ConfigError(f"there is no engine {name!r} (known: ddp, {known})")
    config = json.loads(path.read_text())
    config["gradient_clipping"] = settings.gradient_clipping
    config["bf16"] = {"enabled": settings.precision == "bf16"}
    config["train_micro_batch_size_per_gpu"] = micro_batch
    config["gradient_accumulation_steps"] = 1  # the loop says itself which micro-batch is the last of a step
    return config


def partitions_weights(name: str, folder: Path, settings: StageSettings) -> bool:
    """Whether an engine has each rank hold a part of every weight, gathered when a module is called (ZeRO-3)."""
    return name != "ddp" and int(deepspeed_config(name, folder, settings, 1)["zero_optimization"]["stage"]) == 3


class Engine:
    """One rank's side of the training of a task.

    Args:
        task: its trainable parameters are those with ``requires_grad``.
        engine: ``ddp``, or the name of a file in ``deepspeed_folder``.
        timeout: how long a collective waits. Ranks wait while the first one writes the weights; who hangs finds the launcher.
    """

    def __init__(
        self,
        task: AlignmentTask,
        settings: StageSettings,
        engine: str,
        deepspeed_folder: Path,
        micro_batch: int,
        cpu: bool,
        timeout: timedelta = timedelta(hours=1),
    ) -> None:
        self.settings = settings
        self.uses_deepspeed = engine != "ddp"
        self.partitions_weights = partitions_weights(engine, deepspeed_folder, settings)
        plugin = None
        if self.uses_deepspeed:
            plugin = DeepSpeedPlugin(hf_ds_config=deepspeed_config(engine, deepspeed_folder, settings, micro_batch))
            self._init_deepspeed(cpu, timeout)
        # accelerate knows DeepSpeed only beside a GPU: with the CPU's process group made first, it goes on from there
        PartialState(cpu=cpu, timeout=timeout)
        self.accelerator = Accelerator(
            cpu=cpu and not self.uses_deepspeed,
            mixed_precision="bf16" if settings.precision == "bf16" else "no",
            deepspeed_plugin=plugin,
            kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)],
        )
        self.device: torch.device = self.accelerator.device
        self.rank: int = self.accelerator.process_index
        self.ranks: int = self.accelerator.num_processes
        expected, ranks = ("cpu" if cpu else "cuda"), int(os.environ.get("WORLD_SIZE", "1"))
        if self.device.type != expected or self.ranks != ranks:
            # accelerate would let every rank train alone on the CPU, all of them into the same folder
            raise ConfigError(
                f"this should be one of {ranks} ranks on {expected}, and torch makes it one of {self.ranks} on "
                f"{self.device.type}: a torch without CUDA, or a driver that is too old for it "
                "(python -c 'import torch; torch.zeros(1).cuda()' says more)"
            )
        self.task = task
        self.names = {name: p for name, p in task.named_parameters() if p.requires_grad}
        optimizer = torch.optim.AdamW(
            _decay_groups(self.names, settings.weight_decay),
            lr=settings.learning_rate,
            betas=settings.betas,
            eps=settings.epsilon,
            fused=self.device.type == "cuda",
        )
        self.model, self.optimizer = self.accelerator.prepare(task, optimizer)
        if self.uses_deepspeed:
            from deepspeed.utils import groups

            # its own group has the backend's timeout, which for NCCL is ten minutes
            torch.distributed.distributed_c10d._set_pg_timeout(timeout, groups._get_data_parallel_group())
            # as long as transformers knows of ZeRO-3, it builds every model partitioned; what is exported has to be whole
            unset_hf_deepspeed_config()

    @staticmethod
    def _init_deepspeed(cpu: bool, timeout: timedelta) -> None:
        # before anything asks for the world size, or zero.Init sees one rank; and without looking for MPI
        import deepspeed

        if cpu:
            extension.load()
        deepspeed.init_distributed(dist_backend="gloo" if cpu else "nccl", auto_mpi_discovery=False, timeout=timeout)

    # -- a step

    def step(self, batches: Sequence[Batch], rate: float) -> tuple[list[Report], float]:
        """One optimizer step at this learning rate: the reports of its micro-batches, and the norm of its gradient."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        reports = [self.micro_step(batch, last=number == len(batches)) for number, batch in enumerate(batches, 1)]
        return reports, self.apply()

    def micro_step(self, batch: Batch, last: bool) -> Report:
        """Forward and backward of one micro-batch; at the ``last`` one of a step, gradients are added up over ranks."""
        batch = batch.to(self.device)
        if self.uses_deepspeed:
            self.model.set_gradient_accumulation_boundary(last)
            loss, report = self.model(batch)
            # both engines average over ranks, and what a micro-batch's losses weigh is its share of the sum
            self.model.backward(loss * self.ranks)
            return report
        with contextlib.nullcontext() if last else self.accelerator.no_sync(self.model):
            loss, report = self.model(batch)
            self.accelerator.backward(loss * self.ranks)
        return report

    def apply(self) -> float:
        """The optimizer's step; returns the norm of the gradient before clipping."""
        if self.uses_deepspeed:
            self.model.step()
            norm = self.model.get_global_grad_norm()
            return float(norm) if norm is not None else float("nan")
        parameters = list(self.names.values())
        limit = self.settings.gradient_clipping
        norm = torch.nn.utils.clip_grad_norm_(parameters, limit if limit > 0 else float("inf"))
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(norm)

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        return self.accelerator.reduce(values, reduction="sum") if self.ranks > 1 else values

    def barrier(self) -> None:
        self.accelerator.wait_for_everyone()

    def gather(self, value: Any) -> list[Any]:
        """What every rank gives, on all of them. For small things."""
        if self.ranks == 1:
            return [value]
        values: list[Any] = [None] * self.ranks
        torch.distributed.all_gather_object(values, value)
        return values

    def master(self, name: str) -> Tensor:
        """The full float32 weights of a trainable parameter. All ranks must call together."""
        parameter = self.names[name]
        if not self.uses_deepspeed:
            return parameter.detach().float()
        from deepspeed.utils import safe_get_full_fp32_param

        return safe_get_full_fp32_param(parameter).detach()

    def close(self) -> None:
        """Always at the end: a process group left open aborts some interpreters on exit.

        The model stays for as long as the process. DDP's part of it holds the process group, whose destructor (torch 2.13,
        gloo) waits with Python's lock held for a thread that may be waiting for that lock.
        """
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        if self.ranks > 1:
            _NEVER_FREED.append(self.model)


def _decay_groups(names: dict[str, torch.nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """As the Hugging Face trainer groups them: no decay for biases and norms. One group where there is no decay at all."""
    if weight_decay == 0:
        return [{"params": list(names.values()), "weight_decay": 0.0}]
    matrices = [p for p in names.values() if p.ndim >= 2]
    vectors = [p for p in names.values() if p.ndim < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
