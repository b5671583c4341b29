"""On what a training ran, and for how long."""

from __future__ import annotations

from pathlib import Path

import pytest

from vdep.run import attempts
from vdep.run.attempts import Attempt


def test_attempts_add_up_in_their_file(tmp_path: Path) -> None:
    assert attempts.read(tmp_path) == []
    made = [
        Attempt(hardware="a processor", processes=2, seconds=seconds, exit_code=code) for seconds, code in ((1.5, 75), (2, 0))
    ]
    for attempt in made:
        attempts.record(tmp_path, attempt)
    assert attempts.read(tmp_path) == made


def test_gpus_are_counted_by_name() -> None:
    lines = ["NVIDIA A100-SXM4-80GB, 550.54.15"] * 8
    assert attempts.described_gpus(lines) == "8 x NVIDIA A100-SXM4-80GB, driver 550.54.15"
    assert attempts.described_gpus([*lines[:1], "NVIDIA H100 PCIe, 550.54.15"]) == (
        "1 x NVIDIA A100-SXM4-80GB, 1 x NVIDIA H100 PCIe, driver 550.54.15"
    )


def test_only_the_gpus_of_the_job_are_asked_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "nvidia-smi"
    fake.write_text('#!/bin/sh\necho "$@" > "$(dirname "$0")/asked"\necho "NVIDIA L40S, 1.2"\necho "NVIDIA L40S, 1.2"\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert attempts.hardware("cuda", 2) == "2 x NVIDIA L40S, driver 1.2"
    assert (tmp_path / "asked").read_text().endswith("--id 2,3\n")
    fake.write_text("#!/bin/sh\nexit 9\n")
    assert attempts.hardware("cuda", 2) == "2 x GPU"
    assert attempts.hardware("cpu", 2)
