"""One of two real ranks whose micro-batches differ: ``torchrun --nproc-per-node 2 tests/two_ranks_mixed.py ENGINE CHUNK``. The
first has pictures; the second text alone, and then nothing at all. The cross-entropy is computed for CHUNK tokens at a time.
Rank 0 prints the norm of the step's gradient."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import world

from vdep.data.images import ImageTransform, load_processor
from vdep.data.loader import MicroBatches
from vdep.data.plan import GlobalBatch
from vdep.data.prepared import PreparedData
from vdep.data.step import weighed_step
from vdep.run.job import Job
from vdep.train.build import build_plan, build_task
from vdep.train.engine import Engine


def main() -> None:
    torch.set_num_threads(1)
    first = os.environ["RANK"] == "0"
    with tempfile.TemporaryDirectory() as scratch:
        assets = Path(scratch, "assets")
        assets.mkdir()
        world.make_assets(assets)
        study = world.make_study()
        world.untrained_projector(study, assets, Path(scratch, "initial"))
        recipe = study.recipe("tiny", "run", "finetune")
        job = Job(
            recipe=recipe, execution=study.execution.finetune.model_copy(update={"engine": sys.argv[1]}), device="cpu",
            tower=assets / "clip", language_model=assets / "llama", initial=Path(scratch, "initial", "final"),
            run=Path(scratch),
            data=world.prepare(study, assets, Path(scratch, "prepared"), "finetune"), inputs={},
            deepspeed=world.engines(),
        )  # fmt: skip
        data = PreparedData(job.data)
        task = build_task(job)
        # many chunks where there are many supervised tokens, and one where there are none: all ranks still call the head alike
        task.model.lm_head.chunk = int(sys.argv[2])
        engine = Engine(task, recipe.settings, sys.argv[1], job.deepspeed, 4, cpu=True)
        source = MicroBatches(
            data, build_plan(job, data), ImageTransform(load_processor(job.tower), recipe.settings.image), 0, 1, 4
        )
        pictures, texts = np.flatnonzero(data.has_image), np.flatnonzero(~data.has_image)
        rows = np.concatenate([pictures[:8], texts[:4]])
        step = weighed_step(0, GlobalBatch(rows, rows >= 0, rows < 0), data, source.vdep, None)
        mine = [range(4), range(4, 8)] if first else [range(8, 12), range(0)]
        _, norm = engine.step([source.build(step, np.array(part, int)) for part in mine], recipe.settings.learning_rate)
        if first:
            sys.stdout.write(f"norm {norm}\n")
        engine.close()


if __name__ == "__main__":
    main()
