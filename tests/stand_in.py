"""Answers a benchmark, and prints the most anonymous memory that the process had, in MB.

A process of its own for each measurement, because it keeps memory that it needed once; the data is made elsewhere.
"""

from __future__ import annotations

import re
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))


def anonymous() -> float:
    """Memory of this process that no file backs: pictures of the memory-mapped cache do not count, decoded ones do."""
    (kilobytes,) = re.findall(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(kilobytes) / 1024


def main(done: Path, name: str, asset: Path, out: Path) -> None:
    import answering

    from vdep.evaluation.run import evaluate

    peak, ended = 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.02):
            peak = max(peak, anonymous())

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        evaluate(answering.job(done, asset, name, out, threads=4))
    finally:
        ended.set()
        watching.join()
    print(f"PEAK {peak}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
