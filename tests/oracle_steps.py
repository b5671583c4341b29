"""Train what the originals trained, with the loop that trains: ``python tests/oracle_steps.py folder``.

One process pays the imports and forks every training. Leaves ``folder/<case>`` as run folders.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import world
from battery import attempt
from originals import material
from safetensors.numpy import save_file

from vdep.run.job import Job
from vdep.study.settings import Stage
from vdep.train.build import PROJECTOR_FILE


@dataclass(frozen=True)
class Case:
    """A training, and the micro-batch of the original whose twenty steps it has to take: the whole batch, or a part of it."""

    stage: Stage
    engine: str
    original_micro_batch: int
    execution: dict[str, Any]

    @property
    def normalization(self) -> Any:
        return "global" if self.original_micro_batch == material.GLOBAL_BATCH else {"micro_batch": self.original_micro_batch}

    @property
    def fixture(self) -> Path:
        return material.FIXTURES / f"llava_{self.stage}_{self.original_micro_batch}.safetensors"


# in micro-batches of ours that are none of the original's
CASES = {
    "stage 1": Case("pretrain", "ddp", 8, {"micro_batch": 3}),
    "stage 1, micro-batch means": Case("pretrain", "ddp", 2, {"micro_batch": 3}),
    "SFT": Case("finetune", "ddp", 8, {"micro_batch": 8}),
    "SFT, micro-batch means": Case("finetune", "ddp", 2, {"micro_batch": 3}),
    "SFT, micro-batch means, ZeRO-2, packed": Case("finetune", "zero2", 2, {"micro_batch": 3, "packing": True}),
}


def make_assets(folder: Path) -> None:
    material.write_models(folder, "clip", "llama")
    for name, stage in (("captions", "pretrain"), ("conversations", "finetune")):
        (folder / name).mkdir()
        (folder / name / "data.json").write_text(json.dumps(material.training_data(stage)))
        with zipfile.ZipFile(folder / name / "images.zip", "w") as archive:
            for picture, content in material.pictures().items():
                archive.writestr(picture, content)
    for asset in folder.iterdir():
        world.write_manifest(asset)


def job_of(case: Case, assets: Path, scratch: Path, run: Path) -> Job:
    study = world.make_study(
        "llama", None, global_batch=material.GLOBAL_BATCH, learning_rate=material.LEARNING_RATE, grouping="none",
        max_length=2048, seed=material.SEED, normalization=case.normalization,
    )  # fmt: skip
    initial = scratch / "initial"
    if not initial.is_dir():
        # both stages start with the original's projector
        initial.mkdir()
        names = {"0": "linear_1", "2": "linear_2"}
        own = {names[name[0]] + name[1:]: value for name, value in material.weights("projector").items()}
        save_file(own, initial / PROJECTOR_FILE)
    execution = getattr(study.execution, case.stage).model_copy(
        update={"engine": case.engine, "save_every": 1000, **case.execution}
    )
    return Job(
        recipe=study.recipe("tiny", "run", case.stage), execution=execution, device="cpu", tower=assets / "clip",
        language_model=assets / "llama", data=world.prepare(study, assets, scratch / "prepared", case.stage),
        initial=initial, deepspeed=world.engines(), run=run, inputs={},
    )  # fmt: skip


def main() -> None:
    scratch = Path(sys.argv[1])
    torch.set_num_threads(1)
    importlib.import_module("deepspeed")  # training imports it when it needs it; here it is paid once, before the forks
    assets = scratch / "assets"
    assets.mkdir()
    make_assets(assets)
    # DeepSpeed wants a port, though nobody else comes to it
    port = 20000 + os.getpid() % 20000
    for name, case in CASES.items():
        run = scratch / name
        run.mkdir()
        _, status = os.waitpid(attempt(job_of(case, assets, scratch, run), port), 0)
        if status:
            sys.exit(f"{name} failed: {(run / 'attempts.log').read_text()[-3000:]}")


if __name__ == "__main__":
    main()
