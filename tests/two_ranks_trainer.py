"""One of two real ranks under the Trainer of docs/own-model.md: ``torchrun --nproc-per-node 2 tests/two_ranks_trainer.py``.
Rank 0 prints how far the gradient of a global batch is from this repository's own, of a single process."""

from __future__ import annotations

import copy
import os
import sys
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
import world
from test_gradients import Bench, close
from test_own_model import ALPHA, gradient_of_a_step, load_page, rows

from vdep.data.plan import Hybrid
from vdep.model.export import export_checkpoint
from vdep.study.settings import VdepSettings


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        assets = Path(scratch, "assets")
        assets.mkdir()
        # before there is a process group: with one, transformers saves on the first rank only
        world.make_assets(assets)
        bench = Bench("llama", VdepSettings(alpha=ALPHA, schedule="fused"), assets, Path(scratch, "prepared"))
        export_checkpoint(copy.deepcopy(bench.task.model), assets / "clip", assets / "llama", "crop", Path(scratch, "stock"))
        page = load_page()
        model = page["stage_1"](str(Path(scratch, "stock")), torch.float32)
        samples = rows(bench, model.config.image_token_id)
        found = gradient_of_a_step(page["VdepTrainer"], model, samples, Path(scratch), per_device_train_batch_size=4)
        assert dist.get_world_size() == 2
        expected = bench.gradient(bench.plan(Hybrid(1.0, "fused")).batch(0))
        if dist.get_rank() == 0:
            sys.stdout.write(f"difference {close(found, expected)}\n")
    dist.destroy_process_group()
    sys.stdout.flush()
    os._exit(0)  # before the model is freed: ``vdep.train.engine.Engine.close`` says why


if __name__ == "__main__":
    main()
