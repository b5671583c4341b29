"""Which functions of the library a tiny training calls, from its configuration to its weights, in the order of their first
calls: ``python tests/walk.py`` prints them as a line of JSON, as ``train/loop.py: train``.

Everything runs in this process: in the place of torchrun stands a call of what it would start.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import world

import vdep
from vdep import __main__ as command_line
from vdep.files import write_atomically
from vdep.run import launch
from vdep.run.job import Job
from vdep.train import worker

LIBRARY = f"{Path(vdep.__file__).parent}{os.sep}"
called: dict[str, None] = {}


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


def main() -> None:
    torch.set_num_threads(1)
    launch._attempt = attempt
    with tempfile.TemporaryDirectory() as scratch:
        assets, out = Path(scratch, "assets"), Path(scratch, "run")
        assets.mkdir()
        world.make_assets(assets, captions=8, conversations=1)
        config = world.study_config(vdep={"alpha": 0.5}, global_batch=16)
        sys.setprofile(note)
        study = world.load_study(config)
        run = world.run_folder(study, out, "pretrain")
        prepared = world.prepare(study, assets, Path(scratch, "prepared"), "pretrain")
        code = command_line.run(world.train_command(study, assets, prepared, out, "pretrain"))
        sys.setprofile(None)
        assert code == 0
        assert (run / "final").is_dir()
    sys.stdout.write(json.dumps(list(called)) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
