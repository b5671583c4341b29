"""Kill a training at random times until it is done, as often as asked: ``python tests/battery.py job.json kills seed``.

One process pays the imports and forks every attempt, so that fifty kills take minutes. Each attempt is one rank's
``vdep.train.loop.train``, as torchrun would start it. Prints one line of JSON: for each kill, what the rank was doing; and the
folders of the runs, whose first one nothing disturbed.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from vdep.run.heartbeat import PREFIX, count
from vdep.run.job import Job
from vdep.train import loop


def attempt(job: Job, port: int) -> int:
    """Fork one attempt; returns its process id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        with open(job.run / "attempts.log", "a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            logging.basicConfig(level=logging.INFO, force=True)
            code = loop.train(job)
    finally:
        os._exit(code)


def said(job: Job) -> str:
    heartbeat = job.heartbeats / f"{PREFIX}0"
    return heartbeat.read_text().strip() if heartbeat.is_file() else ""


def beats(job: Job) -> int:
    """How often the rank has been heard."""
    return count(said(job))


def doing(job: Job) -> str:
    """What the rank last said: "step 7", "saving step 8", or nothing yet."""
    return said(job).partition(" ")[2] or "starting"


def main() -> None:
    torch.set_num_threads(1)
    importlib.import_module("deepspeed")  # training imports it when it needs it; here it is paid once, before the forks
    source, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    draw = random.Random(seed)
    template = Job.model_validate_json(source.read_text())
    # DeepSpeed wants a port, though nobody else comes to it
    port = 20000 + os.getpid() % 20000

    def job_of(number: int) -> Job:
        run = template.run / f"run-{number}"
        run.mkdir(parents=True, exist_ok=True)
        return template.model_copy(update={"run": run})

    started = time.monotonic()
    _, status = os.waitpid(attempt(job_of(0), port), 0)
    if status:
        sys.exit(f"the undisturbed run failed: {(job_of(0).run / 'attempts.log').read_text()[-3000:]}")
    duration = time.monotonic() - started
    hit: list[str] = []
    number = 1
    while True:
        job = job_of(number)
        (job.heartbeats / f"{PREFIX}0").unlink(missing_ok=True)
        child = attempt(job, port)
        finished, status = 0, 0
        # With no kills left a run is let go to its end. Every other time is counted from a random sign of life on:
        # loading takes most of the time, and what is to be interrupted is training and saving.
        after = draw.randrange(1, 40) if len(hit) % 2 else 0
        delay = draw.uniform(0.0, 0.05 if after else duration) if len(hit) < kills else 600.0
        deadline = None
        while not finished and (deadline is None or time.monotonic() < deadline):
            if deadline is None and beats(job) >= after:
                deadline = time.monotonic() + delay
            finished, status = os.waitpid(child, os.WNOHANG)
            time.sleep(0.001)
        if not finished:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            hit.append(doing(job))
            continue
        if status:
            sys.exit(f"an attempt failed by itself: {(job.run / 'attempts.log').read_text()[-3000:]}")
        if len(hit) >= kills:
            break
        number += 1
    print(json.dumps({"kills": hit, "runs": [str(job_of(i).run) for i in range(number + 1)], "seconds": duration}))


if __name__ == "__main__":
    main()
