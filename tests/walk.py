"""Which functions of the library a tiny training calls, from its configuration to its weights, and a tiny evaluation, from its
checkpoint to a table, in the order of their first calls: ``python tests/walk.py training`` (or ``evaluation``) prints them as a
line of JSON, as ``train/loop.py: train``.

Everything runs in this process: in the place of torchrun stands a call of what it would start, and in that of Snakemake what
its rules would run.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import torch
import world

import vdep
from vdep import __main__ as command_line
from vdep.files import write_atomically
from vdep.run import launch
from vdep.run.job import Job
from vdep.study.plan import Plan
from vdep.train import worker

LIBRARY = f"{Path(vdep.__file__).parent}{os.sep}"
called: dict[str, None] = {}


@contextmanager
def noted() -> Iterator[None]:
    """Whatever the library calls meanwhile is in ``called``."""
    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(None)


def note(frame: FrameType, event: str, argument: Any) -> None:
    code = frame.f_code
    if event == "call" and code.co_filename.startswith(LIBRARY):
        called.setdefault(f"{code.co_filename.removeprefix(LIBRARY)}: {code.co_qualname}")


def attempt(job: Job) -> int:
    """As ``launch._attempt``, without torchrun."""
    path = job.run / "job.json"
    write_atomically(path, job.model_dump_json())
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    os.environ["MASTER_PORT"] = str(20000 + os.getpid() % 20000)
    sys.argv = ["worker", str(path)]
    return worker.main()


def training(scratch: Path) -> None:
    launch._attempt = attempt
    assets, out = scratch / "assets", scratch / "run"
    assets.mkdir()
    world.make_assets(assets, captions=8, conversations=1)
    config = world.study_config(vdep={"alpha": 0.5}, global_batch=16)
    with noted():
        study = world.load_study(config)
        run = world.run_folder(study, out, "pretrain")
        prepared = world.prepare(study, assets, scratch / "prepared", "pretrain")
        code = command_line.run(world.train_command(study, assets, prepared, out, "pretrain"))
    assert code == 0
    assert (run / "final").is_dir()


def evaluation(scratch: Path) -> None:
    """As the rules ``evaluate`` and ``table``: two untrained checkpoints answer eight questions."""
    import answering

    assets, data = scratch / "assets", answering.make(scratch / "vizwiz", "vizwiz", 8)
    assets.mkdir()
    world.make_models(assets)
    world.write_manifest(data)
    config = world.study_config() | {
        "results": str(scratch / "results"),
        "variants": {"baseline": {}, "vdep": {"vdep": {}}},
        "evaluation": {"precision": "float32"},
        "benchmarks": {
            "vizwiz": answering.benchmark("vizwiz", asset="vizwiz", blind=True, max_new_tokens=6).model_dump(mode="json")
        },
        "columns": {"vizwiz": {"label": "VizWiz", "benchmark": "vizwiz"}},
        "tables": {"tiny": {"title": "Tiny", "models": ["tiny"], "variants": ["baseline", "vdep"], "columns": ["vizwiz"]}},
    }
    config["assets"]["vizwiz"] = {"kind": "made", "maker": "world:vizwiz"}
    execution = {"threads": 1, "batch_size": 8, "device": "cpu", "cache": str(scratch / "cache")}
    tables = scratch / "results" / "tables"
    with noted():
        plan = Plan(world.load_study(config))
    for run, _ in plan.evaluations["tiny"]:
        recipe, _ = plan.study.scored_recipes(run, "vizwiz")
        answering.export(assets, Path(plan.done(run, "finetune")).parent, recipe=recipe)
    with noted():
        for run, benchmark in plan.evaluations["tiny"]:
            evaluation = plan.study.evaluation_recipe(run.model, run.variant, benchmark)
            command = [
                "evaluate", "--recipe", evaluation.canonical, "--execution", json.dumps(execution),
                "--checkpoint", plan.done(run, "finetune"), "--data", str(data / "manifest.json"),
                "--scores", plan.scores(run, benchmark),
            ]  # fmt: skip
            assert command_line.run(command) == 0
        told = SimpleNamespace(
            params=SimpleNamespace(definition=plan.table_definition("tiny")),
            input=Inputs(plan.scores(*each) for each in plan.evaluations["tiny"]),
            output=SimpleNamespace(
                csv=tables / "tiny.csv",
                markdown=tables / "tiny.md",
                latex=tables / "tiny.tex",
                provenance=tables / "tiny.provenance.json",
            ),
            wildcards=SimpleNamespace(table="tiny"),
        )
        runpy.run_path(str(world.ROOT / "workflow_scripts" / "table.py"), {"snakemake": told})
    assert "tiny,vdep,reproduced" in (tables / "tiny.csv").read_text()


class Inputs(list[str]):
    """A rule's, as Snakemake hands them to a script."""

    published = str(world.ROOT / "config" / "published.csv")
    expectations = str(world.ROOT / "config" / "audit.yaml")


def main() -> None:
    torch.set_num_threads(1)
    walk = {"training": training, "evaluation": evaluation}[sys.argv[1]]
    with tempfile.TemporaryDirectory() as scratch:
        walk(Path(scratch))
    sys.stdout.write(json.dumps(list(called)) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
