"""Build DeepSpeed's small CPU extension once, at set-up (``python -m vdep.train.extension``), and load it in every rank.

DeepSpeed's communication on a CPU compiles it on first use, which takes a minute; afterwards it lies in
``TORCH_EXTENSIONS_DIR``. A machine with a GPU does not need it.

torch guards building *and loading* with a file that a killed process leaves behind, and waits for it to go away without end.
So ranks load it here, one at a time, under a lock that ends with its process: whoever holds it knows that such a file is stale.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

from ..files import exclusive_lock

NAME = "deepspeed_shm_comm"
PATIENCE = 600.0


def load() -> None:
    """Load the extension, built first where it is not there yet. DeepSpeed then finds it loaded."""
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    from deepspeed.accelerator import get_accelerator
    from torch.utils.cpp_extension import get_default_build_root

    folder = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())
    with exclusive_lock(folder / f"{NAME}.lock", "DeepSpeed's extension", PATIENCE):
        for stale in folder.glob(f"**/{NAME}/lock"):
            stale.unlink(missing_ok=True)
        get_accelerator().create_op_builder("ShareMemCommBuilder").load(verbose=False)


if __name__ == "__main__" and not torch.cuda.is_available():
    load()
