"""The warm process of the demo: its jobs are what cold ones are, and nothing outlives its caller."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import world

pytestmark = pytest.mark.slow

CAPTIONS = json.dumps({"kind": "made", "maker": "vdep_demo.world.data:make_captions", "arguments": {"scenes": 4, "seed": 1}})


@pytest.fixture
def driver() -> Iterator[subprocess.Popen[str]]:
    """A driver whose first job has left a warm process behind."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, text=True) as process:
        assert vdep("fetch", "--help", driver=process, folder=Path.cwd()).returncode == 0
        world.wait_for((folder_of(process) / "socket").exists)
        yield process
        process.kill()
    world.wait_for(lambda: not folder_of(process).exists())


def folder_of(driver: subprocess.Popen[str]) -> Path:
    (folder,) = [*Path(tempfile.gettempdir()).glob(f"vdep-warm-*-{driver.pid}-*")] or [Path("gone")]
    return folder


def command(*arguments: str, driver: subprocess.Popen[str] | None) -> dict[str, Any]:
    environment = os.environ | ({"VDEP_DRIVER": str(driver.pid)} if driver else {})
    return {"args": [sys.executable, "-m", "vdep_demo.warm", *arguments], "env": environment}


def vdep(*arguments: str, driver: subprocess.Popen[str] | None, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(**command(*arguments, driver=driver), cwd=folder, capture_output=True, text=True, check=False)


def test_a_warm_job_does_what_a_cold_one_does(driver: subprocess.Popen[str], tmp_path: Path) -> None:
    made = []
    for name, by in (("warm", driver), ("cold", None)):
        # relative: the job works in its caller's folder
        (tmp_path / name).mkdir()
        done = vdep(
            "fetch", "--name", "captions", "--asset", CAPTIONS, "--manifest", "out/manifest.json",
            driver=by, folder=tmp_path / name,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        made.append({path.name: path.read_bytes() for path in (tmp_path / name / "out").iterdir() if path.is_file()})
    assert made[0] == made[1]
    assert "captions.json" in made[0]


def test_errors_and_their_status_come_back(driver: subprocess.Popen[str], tmp_path: Path) -> None:
    missing = json.dumps({"kind": "shipped", "path": "nowhere", "revision": "0" * 64})
    calls = (["fetch", "--name", "x", "--asset", missing, "--manifest", "m.json"], ["fetch", "--name", "x"])
    for arguments in calls:
        warm, cold = (vdep(*arguments, driver=by, folder=tmp_path) for by in (driver, None))
        assert warm.returncode == cold.returncode != 0
        assert warm.stderr == cold.stderr


def test_without_a_driver_a_job_runs_cold(tmp_path: Path) -> None:
    assert vdep("fetch", "--help", driver=None, folder=tmp_path).returncode == 0


def test_a_job_ends_with_its_caller_and_the_warm_process_with_the_driver(driver: subprocess.Popen[str], tmp_path: Path) -> None:
    folder = folder_of(driver)
    (warm,) = (p for p in psutil.process_iter(["cmdline"]) if str(folder) in (p.info["cmdline"] or ()))
    many = json.dumps(
        {"kind": "made", "maker": "vdep_demo.world.data:make_captions", "arguments": {"scenes": 200_000, "seed": 1}}
    )
    caller = subprocess.Popen(
        **command("fetch", "--name", "c", "--asset", many, "--manifest", "m.json", driver=driver), cwd=tmp_path
    )
    world.wait_for(warm.children)
    (job,) = warm.children()
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    world.wait_for(lambda: not job.is_running() or job.status() == psutil.STATUS_ZOMBIE)
    driver.kill()
    driver.wait()
    world.wait_for(lambda: not warm.is_running() or warm.status() == psutil.STATUS_ZOMBIE)
    world.wait_for(lambda: not folder.exists())
