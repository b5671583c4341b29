"""The Snakemake process that drives a checkout: one at a time, known to the trainers, and told early when it cannot succeed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from ..errors import UserError
from ..files import exclusive_lock

DRIVER_VARIABLE = "VDEP_DRIVER"
_held = ExitStack()


class NotReady(UserError):
    """The workflow cannot start as it was called."""


def prepare_environment(checkout: Path, command: str) -> None:
    """What jobs inherit: this environment's tools, this checkout's package, and which process they work for.

    Trainers save and stop when that process is gone.

    Args:
        command: what rules call as ``$VDEP``.
    """
    os.environ["VDEP"] = command
    # also where snakemake was called by its path and its environment is not activated
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    os.environ["PYTHONPATH"] = f"{checkout / 'src'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}".rstrip(os.pathsep)
    os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(checkout / ".torch_extensions"))
    os.environ[DRIVER_VARIABLE] = str(os.getpid())


def lock(folder: Path) -> None:
    """Hold the checkout until this process ends, however it ends.

    Snakemake's own lock files stay behind when it is killed; this one does not.

    Raises:
        RunLockedError: naming the process that drives the checkout already.
    """
    _held.enter_context(exclusive_lock(folder / "driver.lock", "this checkout"))


def has_gpu() -> bool:
    """Whether the driver of an NVIDIA GPU answers on this machine."""
    if shutil.which("nvidia-smi") is None:
        return False
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return listed.returncode == 0 and "GPU" in listed.stdout


def require_gpu(rules: list[str]) -> None:
    """Fail before any work where jobs need a GPU and would run on a machine without one.

    Raises:
        NotReady: saying what is missing, and what works instead.
    """
    if not has_gpu():
        raise NotReady(
            f"The rules {', '.join(rules)} need a GPU and this machine has none (nvidia-smi finds none). Nothing was started. "
            "`make demo` runs the whole pipeline in miniature on a CPU; `snakemake --profile slurm ...` submits to a cluster; "
            "downloads, data preparation and tables of finished runs work here."
        )
