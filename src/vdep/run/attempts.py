"""On what a training ran, and for how long: ``attempts.jsonl`` in its folder, a line for each attempt that ended.

It is for people. No weight depends on it, and no name of a machine is in it. An attempt whose launcher was killed has no line.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections import Counter
from pathlib import Path

from ..files import append_line
from ..study.settings import Frozen

NAME = "attempts.jsonl"


class Attempt(Frozen):
    hardware: str
    """``8 x NVIDIA A100-SXM4-80GB, driver 550.54.15``, or the processor."""
    processes: int
    seconds: float
    exit_code: int


def record(run: Path, attempt: Attempt) -> None:
    append_line(run / NAME, attempt.model_dump_json())


def read(run: Path) -> list[Attempt]:
    """Those of a run's folder; none where it was trained before there was such a file."""
    path = run / NAME
    if not path.is_file():
        return []
    return [Attempt.model_validate(json.loads(line)) for line in path.read_text().splitlines() if line.strip()]


def hardware(device: str, processes: int) -> str:
    """What the ranks of this machine run on, in words."""
    if device != "cuda":
        return _processor()
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    if visible := os.environ.get("CUDA_VISIBLE_DEVICES"):
        command += ["--id", visible]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return f"{processes} x GPU"
    return described_gpus(listed.splitlines()[:processes])


def described_gpus(lines: list[str]) -> str:
    """Of ``name, driver`` of each."""
    pairs = [tuple(part.strip() for part in line.rsplit(",", 1)) for line in lines if "," in line]
    names = Counter(name for name, _ in pairs)
    drivers = ", ".join(dict.fromkeys(driver for _, driver in pairs))
    return ", ".join(f"{count} x {name}" for name, count in names.items()) + (f", driver {drivers}" if drivers else "")


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.machine()
