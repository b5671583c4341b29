"""All benchmarks that this machine can run, and at the end a line for each claim: ``make bench``.

Each is a script of its own that measures both sides in one run. Results go to ``benchmarks/results/`` with ``--save NAME``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SCRIPTS = ("fused_vdep", "stage1_step", "packed_sft", "evaluation", "warm_evaluation", "mfu")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=SCRIPTS, help=f"of {', '.join(SCRIPTS)}; all by default")
    parser.add_argument("--save", metavar="NAME", help="write each output to results/SCRIPT-NAME.txt")
    chosen = parser.parse_args()
    claims, failed = [], []
    for name in chosen.names:
        sys.stdout.write(f"== {name}\n")
        sys.stdout.flush()
        done = subprocess.run([sys.executable, str(HERE / f"{name}.py")], stdout=subprocess.PIPE, text=True, check=False)
        sys.stdout.write(done.stdout)
        claims += [line for line in done.stdout.splitlines() if line.startswith("claim: ")]
        if done.returncode:
            failed.append(name)
        elif chosen.save:
            (HERE / "results" / f"{name}-{chosen.save}.txt").write_text(done.stdout)
    sys.stdout.write("\n" + "".join(f"{line.removeprefix('claim: ')}\n" for line in claims))
    if failed:
        sys.stdout.write(f"failed: {', '.join(failed)}\n")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
