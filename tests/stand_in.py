"""Answers benchmarks of 18, 200 and 600 large pictures; prints the most anonymous memory meanwhile, as JSON, for each.

A process of its own, because a process keeps memory that it needed once.
"""

from __future__ import annotations

import json
import re
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

COUNTS = (200, 600)


def anonymous() -> float:
    """MB of this process that no file backs: pictures of the memory-mapped cache do not count, decoded ones do."""
    (kilobytes,) = re.findall(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(kilobytes) / 1024


def main(done: Path, name: str, folder: Path) -> None:
    import answering

    from vdep.evaluation.run import evaluate

    alone = folder / "alone"
    evaluate(answering.job(done, answering.stand_in(folder / "18", name, 18), name, alone, batch_size=1))
    peaks = {}
    for count in COUNTS:
        out = folder / f"out-{count}"
        asset = answering.stand_in(folder / str(count), name, count)
        peak, ended = 0.0, threading.Event()

        def watch(ended: threading.Event = ended) -> None:
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
        peaks[count] = peak
    print("PEAKS", json.dumps(peaks))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
