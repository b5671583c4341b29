"""What a stage yields: the projector after stage 1, a whole Hugging Face checkpoint after SFT, and a manifest of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..artifacts import FinishedStage
from ..errors import TrainingError
from ..model.export import export_checkpoint
from ..model.llava import DTYPES, build_model
from ..run.job import Job
from .build import AUTO_IMAGE_FILE, PROJECTOR_FILE
from .engine import Engine

_PROJECTOR = "model.multi_modal_projector."
AUTO_IMAGE = "auto_image"


def write_final(job: Job, engine: Engine, steps: int) -> None:
    """Fill ``job.final``, aside first. All ranks together: under ZeRO each holds a part of the weights."""
    aside = _write_aside(job, engine, steps)
    if engine.rank == 0:
        shutil.rmtree(job.final, ignore_errors=True)
        aside.rename(job.final)
    engine.barrier()


def rehearse_final(job: Job, engine: Engine) -> None:
    """Write everything once before the first step, and throw it away: what cannot be saved shall not fail after a day."""
    aside = _write_aside(job, engine, 0)
    if engine.rank == 0:
        shutil.rmtree(aside)
    engine.barrier()


def _write_aside(job: Job, engine: Engine, steps: int) -> Path:
    aside = job.run / ".final.tmp"
    # SFT is exported in the precision that it was computed in; full float32 weights on every rank would fill the machine
    dtype = torch.float32 if job.recipe.stage == "pretrain" else DTYPES[job.recipe.settings.precision]
    state = {}
    for name in engine.names:
        weight = engine.master(name)
        if engine.rank == 0:
            state[name.removeprefix("model.")] = weight.to("cpu", dtype)
    if engine.rank == 0:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        if job.recipe.stage == "pretrain":
            if AUTO_IMAGE in state:
                save_file({AUTO_IMAGE: state.pop(AUTO_IMAGE)}, aside / AUTO_IMAGE_FILE)
            save_file(
                {name.removeprefix(_PROJECTOR): value.contiguous() for name, value in state.items()}, aside / PROJECTOR_FILE
            )
        else:
            _export(job, state, aside)
        FinishedStage.seal(aside, **job.identity, stage=job.recipe.stage, initial_recipe=job.recipe.initial, steps=steps)
    return aside


def _export(job: Job, state: dict[str, Tensor], folder: Path) -> None:
    """The trained weights in a freshly built model: whatever the engine did to its own copy stays out of the files."""
    dtype = DTYPES[job.recipe.settings.precision]
    model = build_model(job.tower, job.language_model, job.recipe.vision_tower, dtype, 0)
    _, unexpected = model.load_state_dict({name: value.to(dtype) for name, value in state.items()}, strict=False)
    if unexpected:
        raise TrainingError(f"trained parameters that the model does not have: {', '.join(unexpected[:5])}")
    export_checkpoint(model, job.tower, job.language_model, job.recipe.settings.image, folder)
