"""From a recipe to the objects that are trained: the model with its stage's parameters unfrozen, and the batch plan."""

from __future__ import annotations

from safetensors.torch import load_file

from ..data.plan import BatchPlan, Hybrid
from ..data.prepared import PreparedData
from ..errors import ConfigError
from ..model import packed
from ..model.kernels import use_kernels
from ..model.llava import DTYPES, build_model, drop_unused_layers, projector, set_dropout
from ..model.task import AlignmentTask
from ..run.job import Job
from ..study.settings import GradientRatio
from .engine import partitions_weights

PROJECTOR_FILE = "projector.safetensors"
AUTO_IMAGE_FILE = "auto_image.safetensors"
"""The trained embedding of ``<auto_image>``, where that is a token; nothing after stage 1 reads it."""


def build_task(job: Job) -> AlignmentTask:
    """Stage 1 trains the projector alone; SFT the language model with it. The vision tower is always frozen."""
    recipe = job.recipe
    model = build_model(
        job.tower,
        job.language_model,
        recipe.vision_tower,
        DTYPES[recipe.settings.precision],
        recipe.settings.seed,
        recipe.projector_init,
    )
    set_dropout(model, recipe.settings.dropout)
    if job.initial is not None:
        projector(model).load_state_dict(load_file(job.initial / PROJECTOR_FILE))
    drop_unused_layers(model)
    model.requires_grad_(False)
    projector(model).requires_grad_(True)
    if recipe.stage == "finetune":
        model.model.language_model.requires_grad_(True)
        model.lm_head.requires_grad_(True)
    task = AlignmentTask(model, recipe.vdep, recipe.settings.seed)
    if job.execution.engine == "ddp":
        # DDP keeps no master copy: what is trained is float32, and autocast computes in bf16
        for parameter in task.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    if job.execution.activation_checkpointing:
        model.model.language_model.gradient_checkpointing_enable({"use_reentrant": False})
    if job.execution.packing:
        model.model.language_model.set_attn_implementation(packed.NAME)
    partitioned = partitions_weights(job.execution.engine, job.deepspeed, recipe.settings)
    if partitioned and recipe.vdep is not None and isinstance(recipe.vdep.alpha, GradientRatio):
        raise ConfigError(
            f"vdep.alpha: gradient_ratio measures gradients on the whole projector, and under {job.execution.engine} a rank "
            "has a part of it. Take ddp or zero2 (execution.pretrain.engine)"
        )
    if job.execution.kernels == "compile" and partitioned:
        raise ConfigError(
            f"kernels: compile is not for {job.execution.engine}, which gathers the weights of each module when it is called: "
            "nothing between two of them can be fused. Take zero2 or ddp, or kernels: liger"
        )
    use_kernels(model.model.language_model, job.execution.kernels)
    return task


def build_plan(job: Job, data: PreparedData) -> BatchPlan:
    settings, vdep = job.recipe.settings, job.recipe.vdep
    return BatchPlan(
        data.lengths,
        data.has_image,
        global_batch=settings.global_batch,
        epochs=settings.epochs,
        seed=settings.seed,
        grouping=settings.grouping,
        hybrid=Hybrid(vdep.ratio, vdep.schedule, vdep.mixing) if vdep else None,
        group_size=settings.group_size,
    )
