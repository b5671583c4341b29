"""One of two real ranks under DDP, in float64: ``torchrun --nproc-per-node 2 tests/two_ranks.py own ...``. Rank 0 prints, for
each target, how far the gradient of a global batch is from that of a single process."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
import world
from test_gradients import Bench, close
from torch.nn.parallel import DistributedDataParallel

from vdep.data.loader import MicroBatches
from vdep.data.plan import Hybrid
from vdep.model.llava import projector
from vdep.study.settings import VdepSettings


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        assets = Path(scratch, "assets")
        assets.mkdir()
        # before there is a process group: with one, transformers saves on the first rank only
        world.make_assets(assets)
        dist.init_process_group("gloo")
        rank, ranks = dist.get_rank(), dist.get_world_size()
        for target in sys.argv[1:]:
            vdep = VdepSettings(alpha=0.5, ratio=0.8, target=target)  # type: ignore[arg-type]
            bench = Bench("phi", vdep, assets, Path(scratch, f"prepared-{rank}"), torch.float64)
            plan = bench.plan(Hybrid(0.8, "interleaved"))
            # the last step of an epoch: a partial batch, which leaves one rank with less than the other
            last = plan.batch(plan.steps - 1)
            plan.batch = lambda step, last=last: last  # type: ignore[method-assign, misc]
            whole = bench.gradient(last).clone()
            bench.task.zero_grad()
            spread = DistributedDataParallel(bench.task)
            _, _, micro = MicroBatches(bench.data, plan, bench.transform, rank, ranks, 100, False, vdep)[0, 0]
            (spread(micro)[0] * ranks).backward()
            gradient = torch.cat([p.grad.flatten() for p in projector(bench.task.model).parameters() if p.grad is not None])
            if rank == 0:
                sys.stdout.write(f"difference {close(gradient, whole)}\n")
    dist.destroy_process_group()
    sys.stdout.flush()
    os._exit(0)  # before the model is freed: ``vdep.train.engine.Engine.close`` says why


if __name__ == "__main__":
    main()
