"""Build DeepSpeed's small CPU extension once, at set-up: ``python -m vdep.train.extension``.

DeepSpeed's communication on a CPU compiles it on first use, which takes a minute; afterwards it lies in
``TORCH_EXTENSIONS_DIR``. A machine with a GPU does not need it.
"""

from __future__ import annotations

import os

import torch


def build() -> None:
    if torch.cuda.is_available():
        return
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    from deepspeed.accelerator import get_accelerator

    get_accelerator().create_op_builder("ShareMemCommBuilder").load(verbose=False)


if __name__ == "__main__":
    build()
