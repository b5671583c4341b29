"""Evaluations forked from a warm process against evaluations that import for themselves, and the ratio of their times.

``python benchmarks/warm_evaluation.py``, in a checkout in which ``make demo`` has run; its results are not touched. Each
benchmark is evaluated warm and then cold, one process at a time; the warm process' own imports are not counted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from common import Claim, report, say

from vdep_demo import warm

ROOT = Path(__file__).resolve().parents[1]
CHECKPOINT = ROOT / "results" / "demo" / "runs" / "demo-llava" / "baseline" / "seed-42" / "finetune" / "done.json"
BENCHMARKS = ("pope", "gqa", "mme", "ocrbench", "mmbench_en", "seedbench_img")


def command(module: str, benchmark: str, scores: Path) -> list[str]:
    demo = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text())
    recipe = json.loads((ROOT / f"results/demo/evaluations/demo-llava/baseline/seed-42/{benchmark}.json").read_text())["recipe"]
    execution = {"threads": 1, "batch_size": 64, "device": "cpu", "cache": str(ROOT / "resources/demo/cache/datasets")}
    (manifest,) = (ROOT / "resources" / "demo").rglob(f"{demo['benchmarks'][benchmark]['asset']}/manifest.json")
    return [
        *(sys.executable, "-m", module, "evaluate", "--recipe", json.dumps(recipe), "--execution", json.dumps(execution)),
        *("--checkpoint", str(CHECKPOINT), "--data", str(manifest), "--scores", str(scores)),
    ]  # fmt: skip


def seconds(module: str, benchmark: str, scores: Path) -> float:
    started = time.monotonic()
    subprocess.run(command(module, benchmark, scores), check=True, capture_output=True)
    return time.monotonic() - started


def main() -> None:
    if not CHECKPOINT.is_file():
        say("make demo has not run here: nothing measured")
        return
    os.environ[warm.DRIVER] = str(os.getpid())
    total = {"warm": 0.0, "cold": 0.0}
    with tempfile.TemporaryDirectory() as scratch:
        # the first leaves the warm process behind, the second waits for its imports
        for name in ("starting", "first"):
            seconds("vdep_demo.warm", "pope", Path(scratch, name, "pope.json"))
            time.sleep(1)
        for benchmark in BENCHMARKS:
            for name, module in (("warm", "vdep_demo.warm"), ("cold", "vdep")):
                took = seconds(module, benchmark, Path(scratch, name, f"{benchmark}.json"))
                total[name] += took
                print(f"{benchmark:14} {name}  {took:5.1f} s", flush=True)
            same = len({Path(scratch, name, f"{benchmark}.json").read_bytes() for name in total}) == 1
            assert same, f"{benchmark}: warm and cold scores differ"
    report([Claim("six evaluations, cold over warm", total["cold"] / total["warm"], 2.0)], seconds=total)


if __name__ == "__main__":
    main()
