"""One rank of a training: ``python -m vdep.train.worker job.json``, started by torchrun (see ``launch``)."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import traceback
from pathlib import Path


def die_with_parent() -> None:
    """Ask the kernel for SIGTERM when the launcher dies: a trainer without a launcher must not go on writing."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGTERM)


def main() -> int:
    # torchrun runs without it (see ``launch``)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    die_with_parent()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("vdep").setLevel(logging.INFO if os.environ.get("RANK", "0") == "0" else logging.WARNING)
    from ..errors import UserError
    from ..run.job import Job
    from .loop import train

    job = Job.model_validate_json(Path(sys.argv[1]).read_text())
    try:
        return train(job)
    except UserError as error:
        rank = os.environ.get("RANK", "0")
        print(f"error{'' if rank == '0' else f' on rank {rank}'}: {error}", file=sys.stderr, flush=True)
        return 1
    except Exception:
        traceback.print_exc()
        return 1


if __name__ == "__main__":
    code = main()
    # at once: an interpreter that ends in order waits for ranks that wait for this one, and frees a model (``Engine.close``)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
