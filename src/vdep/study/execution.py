"""How everything is run. None of it is part of a recipe: it changes no result."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .settings import Frozen

_UNITS = "ms|s|sec|secs|seconds?|m|mins?|minutes?|h|hours?|d|days?|w|weeks?"
Runtime = Annotated[str, Field(pattern=rf"^(\d+(\.\d+)? ?({_UNITS}) ?)+$", examples=["8h"])]
Memory = Annotated[str, Field(pattern=r"^\d+(\.\d+)? ?[KMGT]i?B$", examples=["64GB"])]
"""In words that Snakemake understands; a job of a week later it would be too late to say that it does not."""

Kernels = Literal["none", "compile", "liger"]


class StageExecution(Frozen):
    """How a stage is run, which does not change what it computes. Not part of a recipe."""

    gpus: Annotated[int, Field(ge=0)]
    processes: Annotated[int, Field(ge=1)]
    micro_batch: Annotated[int, Field(ge=1)] = 16
    """Samples per rank and pass, where they are not packed."""
    engine: str = "ddp"
    threads: Annotated[int, Field(ge=1)] = 1
    workers: Annotated[int, Field(ge=0)] = 0
    save_every: Annotated[int, Field(ge=1)] = 200
    keep: Annotated[int, Field(ge=1)] = 2
    log_every: Annotated[int, Field(ge=1)] = 10
    probe_every: Annotated[int, Field(ge=0)] = 100
    validation_samples: Annotated[int, Field(ge=1)] = 1024
    """How many samples of a validation set, its first, are looked at whenever a checkpoint is saved."""
    activation_checkpointing: bool = False
    packing: bool = False
    """Whether the samples of a micro-batch follow each other in one row, without padding, instead of one row each."""
    micro_batch_tokens: Annotated[int, Field(ge=1)] = 8192
    """Tokens per rank and pass at most, where samples are packed; or as many as the longest sample has."""
    kernels: Kernels = "none"
    """Fused kernels for the language model's layers: torch.compile, or Liger's (``vdep.model.kernels``)."""
    stall_limit: Annotated[float, Field(ge=0)] = 1800.0
    """Seconds that a rank may take over a step (eight times that over a checkpoint) until the launcher ends all; 0: never."""
    grace: Annotated[float, Field(gt=0)] = 600.0
    """Seconds to save in for ranks that are asked to stop. Under SLURM they are asked so long before the job's time limit."""
    gradient_jump: Annotated[float, Field(ge=0)] = 100.0
    """Training stops where the gradient's norm is as many times the median of the steps before; 0: never."""
    wandb: str | None = None
    """Project of Weights & Biases to report to as well; its package is not part of the pinned set."""
    runtime: Runtime = "8h"
    memory: Memory = "64GB"


class EvaluationExecution(Frozen):
    gpus: Annotated[int, Field(ge=0)] = 1
    threads: Annotated[int, Field(ge=1)] = 1
    batch_size: Annotated[int, Field(ge=1)] = 16
    runtime: Runtime = "8h"
    memory: Memory = "64GB"


class JudgeExecution(Frozen):
    """How a judge's server is asked. These limits end a judge that gives no grade, within fifty requests and two minutes."""

    where: Literal["driver", "job"] = "driver"
    """The machine that runs Snakemake, because compute nodes often have no internet; or a job like any other, without a GPU."""
    parallel: Annotated[int, Field(ge=1, le=16)] = 8
    """Requests at a time; one at a time as long as a request fails."""
    attempts: Annotated[int, Field(ge=1, le=5)] = 4
    """Requests for one answer, until it counts as one that cannot be graded. The third of these in a row ends the grading."""
    timeout: Annotated[float, Field(gt=0)] = 45.0
    """Seconds until a request counts as failed."""
    patience: Annotated[float, Field(gt=0)] = 90.0
    """Seconds without any grade until the grading ends, whatever the reason; one that asks to wait longer ends it at once."""
    backoff: Annotated[float, Field(gt=0)] = 1.0
    """Seconds to wait after a failure; doubled with each one that follows."""
    runtime: Runtime = "2h"


class Execution(Frozen):
    device: Literal["cuda", "cpu"]
    pretrain: StageExecution
    finetune: StageExecution
    evaluate: EvaluationExecution
    judge: JudgeExecution = JudgeExecution()
    prepare_workers: Annotated[int, Field(ge=1)] = 1
    command: Annotated[str, Field(min_length=1)] = "python -m vdep"
    """What jobs call; a wrapper may stand before it, such as a container's."""
