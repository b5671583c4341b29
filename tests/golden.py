"""What the tiny trainings of tests/test_golden.py come to, by the loop that trains (``vdep.train.loop.train``).

``python tests/golden.py`` prints the numbers as JSON; with ``--write`` they become tests/golden.json, after METHOD_VERSION was
raised. With ``--changed`` some of the trainings are run with something changed on purpose, which the numbers have to show.

One process pays the imports and forks every training, each as one rank, as torchrun would start it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import world
from safetensors.torch import load_file

from vdep.run.job import Job
from vdep.study.recipe import METHOD_VERSION
from vdep.study.settings import Stage
from vdep.train import build, engine, loop

GOLDEN = Path(__file__).parent / "golden.json"


@dataclass(frozen=True)
class Case:
    stage: Stage
    engine: str
    vdep: dict[str, Any] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    execution: dict[str, Any] = field(default_factory=dict)


# what plain Adam would hide: decay of some parameters and not of others, and clipping that bites
HARD = {"weight_decay": 0.1, "gradient_clipping": 0.05}
CASES = {
    "baseline": Case("pretrain", "ddp"),
    "interleaved": Case("pretrain", "ddp", {"alpha": 0.5, "ratio": 0.8}),
    "fused": Case("pretrain", "ddp", {"alpha": 0.5, "ratio": 0.8, "schedule": "fused"}),
    "next": Case("pretrain", "ddp", {"alpha": 0.5, "position": "next", "loss": "sigmoid_l2"}),
    "whole steps": Case(
        "pretrain", "ddp", {"alpha": 2.0, "distance": "root", "positions": "sum", "mixing": "steps", "auto_image": "token"}
    ),
    "means of groups": Case(
        "pretrain", "ddp", {"alpha": 0.5, "loss": "sigmoid_l2", "form": "group"}, {"normalization": {"micro_batch": 4}}
    ),
    "stage 1, clipped and decayed": Case("pretrain", "ddp", {"alpha": 0.5}, HARD),
    "SFT, DDP": Case("finetune", "ddp", None, HARD, {"micro_batch": 4}),
    "SFT, ZeRO-2": Case("finetune", "zero2", None, HARD, {"packing": True, "micro_batch_tokens": 150}),
    "SFT, ZeRO-3": Case("finetune", "zero3", None, HARD, {"micro_batch": 4, "activation_checkpointing": True}),
}


def other_betas() -> None:
    plain = torch.optim.AdamW

    class Changed(plain):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, betas: tuple[float, float], **kwargs: Any) -> None:
            super().__init__(*args, betas=(betas[0], 0.99), **kwargs)

    torch.optim.AdamW = Changed  # type: ignore[misc]


def no_dropout() -> None:
    plain = build.set_dropout
    build.set_dropout = lambda model, dropout: plain(model, 0.0)


def decay_of_everything() -> None:
    engine._decay_groups = lambda names, decay: [{"params": list(names.values()), "weight_decay": decay}]


def no_clipping() -> None:
    plain = engine.Engine.__init__

    def init(self: Any, task: Any, settings: Any, *args: Any, **kwargs: Any) -> None:
        plain(self, task, settings.model_copy(update={"gradient_clipping": 0.0}), *args, **kwargs)

    engine.Engine.__init__ = init  # type: ignore[method-assign]


CHANGES: dict[str, Callable[[], None]] = {
    "betas": other_betas,
    "dropout": no_dropout,
    "decay groups": decay_of_everything,
    "clipping": no_clipping,
}


def forked(work: Callable[[], None], log: Path) -> None:
    """Run ``work`` in a child of its own, whose output goes into ``log``."""
    child = os.fork()
    if not child:
        code = 1
        try:
            with open(log, "w") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
                work()
                code = 0
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if status:
        sys.exit(f"a training failed: {log.read_text()[-3000:]}")


def job_of(family: str, case: Case, assets: Path, prepared: Path, run: Path) -> Job:
    study = world.make_study(family, case.vdep, **case.settings)
    recipe = study.recipe("tiny", "run", case.stage)
    initial = None
    if case.stage == "finetune":
        initial = assets.parent / f"projector-{family}" / "final"
        if not initial.is_dir():
            world.untrained_projector(study, assets, initial.parent)
    execution = getattr(study.execution, case.stage).model_copy(update={"engine": case.engine, **case.execution})
    return Job(
        recipe=recipe, execution=execution, device="cpu", tower=assets / world.FAMILIES[family][0],
        language_model=assets / family, data=world.prepare(study, assets, prepared, case.stage), initial=initial,
        deepspeed=world.engines(), run=run, inputs={},
    )  # fmt: skip


def numbers(job: Job) -> dict[str, list[float]]:
    """Every step's losses and gradient norm, and at the end the length of each trained tensor (of the projector in stage 1)."""
    rows = [json.loads(line) for line in (job.run / "losses.jsonl").read_text().splitlines()]
    found = {key: [row[key] for row in rows] for key in ("text_loss", "image_loss", "gradient_norm")}
    found["weights"] = [
        float(tensor.double().norm())
        for path in sorted(job.final.glob("*.safetensors"))
        for name, tensor in sorted(load_file(path).items())
        if "vision_tower" not in name
    ]
    return found


def collect(trainings: list[tuple[str, str | None]], scratch: Path) -> list[dict[str, list[float]]]:
    """The numbers of each (family/case, what is changed in it)."""
    torch.set_num_threads(1)
    importlib.import_module("deepspeed")  # training imports it when it needs it; here it is paid once, before the forks
    assets, found = scratch / "assets", []
    assets.mkdir()
    world.make_assets(assets)
    # DeepSpeed wants a port, though nobody else comes to it
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    os.environ["MASTER_PORT"] = str(20000 + os.getpid() % 20000)
    for number, (name, change) in enumerate(trainings):
        family, _, case = name.partition("/")
        run = scratch / str(number)
        run.mkdir()
        job = job_of(family, CASES[case], assets, scratch / "prepared", run)

        def work(job: Job = job, change: str | None = change) -> None:
            if change:
                CHANGES[change]()
            assert loop.train(job) == 0

        forked(work, run / "log")
        found.append(numbers(job))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--changed", action="store_true")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    trainings: list[tuple[str, str | None]] = [(f"{family}/{case}", None) for family in world.FAMILIES for case in CASES]
    if arguments.changed:
        trainings = [(f"phi/{case}", change) for change in CHANGES for case in CASES if CASES[case].settings == HARD]
    with tempfile.TemporaryDirectory() as scratch:
        results = collect(trainings, Path(scratch))
    found = {" with other ".join(filter(None, key)): numbers for key, numbers in zip(trainings, results, strict=True)}
    if arguments.write:
        GOLDEN.write_text(json.dumps({"method_version": METHOD_VERSION, "numbers": found}, indent=1) + "\n")
    else:
        sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
