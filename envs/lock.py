"""Resolve requirements.in for every platform into requirements.lock, and write the conda files from it.

Needs uv (`make lock` installs the pinned one). Run from anywhere.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
TORCH = "torch==2.13.0"
PYTHON = "3.11"
# torch brings its own: which CUDA packages it needs depends on the machine
LEFT_TO_TORCH = re.compile(r"^(torch|triton|nvidia-|cuda-)")


def resolve() -> list[str]:
    """Pinned requirements with their environment markers, one a line, sorted."""
    command = ["uv", "pip", "compile", "--universal", "--python-version", PYTHON, "--no-annotate", "--no-header", "-"]
    wanted = (HERE / "requirements.in").read_text() + f"\n{TORCH}\n"
    done = subprocess.run(command, input=wanted, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    pins = [line for line in done.stdout.splitlines() if line and not line.startswith(("#", "-"))]
    own = [line for line in (HERE / "no-deps.in").read_text().splitlines() if line and not line.startswith("#")]
    return sorted({pin for pin in pins if not LEFT_TO_TORCH.match(pin)} | set(own), key=str.lower)


def main() -> None:
    pins = resolve()
    head = "# Made by `make lock` from requirements.in and no-deps.in. Install torch first, then this with --no-deps.\n"
    (HERE / "requirements.lock").write_text(head + "\n".join(pins) + "\n")
    (HERE / "vdep.yaml").write_text(
        "# Made by `make lock`, for `snakemake --sdm conda`. The packages are installed by vdep.post-deploy.sh.\n"
        "channels:\n  - conda-forge\n  - nodefaults\ndependencies:\n"
        f"  - python={PYTHON}\n  - pip\n  - gxx\n"
    )
    quoted = "\n".join(f"{pin}" for pin in pins)
    (HERE / "vdep.post-deploy.sh").write_text(
        "#!/usr/bin/env bash\n# Made by `make lock` from requirements.lock.\nset -euo pipefail\n"
        f"python -m pip install '{TORCH}'\n"
        f"python -m pip install --no-deps -r /dev/stdin <<'PINS'\n{quoted}\nPINS\n"
    )


if __name__ == "__main__":
    main()
