"""The warm process of the demo: its jobs are what cold ones are, and nothing outlives its caller."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import world

pytestmark = pytest.mark.slow

DRIVER = """
import os, pathlib, sys
from vdep.workflow import warm
warm.start(pathlib.Path(sys.argv[1]))
print(os.environ[warm.ADDRESS], flush=True)
sys.stdin.read()
"""
CAPTIONS = json.dumps({"kind": "made", "maker": "captions", "arguments": {"scenes": 4, "seed": 1}})


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-c", DRIVER, str(tmp_path / "cache")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
        process.kill()


def vdep(*arguments: str, warm: str | None, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | ({"VDEP_WARM": warm} if warm else {})
    command = [sys.executable, "-m", "vdep", *arguments]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)


def test_a_warm_job_does_what_a_cold_one_does(driver: tuple[subprocess.Popen[str], str], tmp_path: Path) -> None:
    made = []
    for name, address in (("warm", driver[1]), ("cold", None)):
        # relative: the job works in its caller's folder
        (tmp_path / name).mkdir()
        done = vdep(
            "fetch", "--name", "captions", "--asset", CAPTIONS, "--manifest", "out/manifest.json",
            warm=address, folder=tmp_path / name,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        made.append({path.name: path.read_bytes() for path in (tmp_path / name / "out").iterdir() if path.is_file()})
    assert made[0] == made[1]
    assert "captions.json" in made[0]


def test_errors_and_their_status_come_back(driver: tuple[subprocess.Popen[str], str], tmp_path: Path) -> None:
    missing = json.dumps({"kind": "shipped", "path": "nowhere", "revision": "0" * 64})
    calls = (["fetch", "--name", "x", "--asset", missing, "--manifest", "m.json"], ["fetch", "--name", "x"])
    for arguments in calls:
        warm, cold = (vdep(*arguments, warm=address, folder=tmp_path) for address in (driver[1], None))
        assert warm.returncode == cold.returncode != 0
        assert warm.stderr == cold.stderr


def test_without_a_warm_process_a_job_runs_cold(tmp_path: Path) -> None:
    assert vdep("fetch", "--help", warm=str(tmp_path / "nobody"), folder=tmp_path).returncode == 0


def test_a_job_ends_with_its_caller_and_the_warm_process_with_the_driver(
    driver: tuple[subprocess.Popen[str], str], tmp_path: Path
) -> None:
    process, address = driver
    assert vdep("fetch", "--help", warm=address, folder=tmp_path).returncode == 0
    (warm,) = psutil.Process(process.pid).children()
    many = json.dumps({"kind": "made", "maker": "captions", "arguments": {"scenes": 200_000, "seed": 1}})
    caller = subprocess.Popen(
        [sys.executable, "-m", "vdep", "fetch", "--name", "c", "--asset", many, "--manifest", "m.json"],
        env=os.environ | {"VDEP_WARM": address},
        cwd=tmp_path,
    )
    world.wait_for(warm.children)
    (job,) = warm.children()
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    world.wait_for(lambda: not job.is_running() or job.status() == psutil.STATUS_ZOMBIE)
    process.kill()
    world.wait_for(lambda: not warm.is_running() or warm.status() == psutil.STATUS_ZOMBIE)
    world.wait_for(lambda: not Path(address).exists())
