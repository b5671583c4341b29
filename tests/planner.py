"""Dry runs of Snakemake without its imports, which take most of the time of a small plan.

``python tests/planner.py`` imports once what a plan imports, and forks a process for every plan that it is asked for: each line
of its input is a JSON object with ``arguments``, ``folder``, ``environment`` and ``output`` (stdout and stderr go to two files
of that name); it answers with the exit status. What a plan does to its process is gone with it, so that no plan sees another.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def plan(request: dict[str, Any]) -> None:
    """Be ``snakemake`` with these arguments, and end."""
    code: Any = 1
    try:
        for descriptor, name in ((1, "stdout"), (2, "stderr")):
            with open(f"{request['output']}.{name}", "wb") as file:
                os.dup2(file.fileno(), descriptor)
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["environment"])
        sys.argv = ["snakemake", *request["arguments"]]
        from snakemake.cli import main

        main(request["arguments"])
        code = 0
    except SystemExit as end:
        code = end.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))


def serve() -> None:
    import snakemake.api
    import snakemake.cli
    import snakemake.executors.local
    import snakemake.workflow  # noqa: F401

    import vdep.evaluation.grades
    import vdep.run.driver
    import vdep.study.plan  # noqa: F401

    for line in sys.stdin:
        child = os.fork()
        if not child:
            plan(json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


class Planner:
    """The server, started with the first plan that is asked for, and gone with this process."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def ask(self, arguments: list[str], folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        """What ``snakemake`` with these arguments ends with and prints, run in ``folder``."""
        if self.process is None:
            # -P: as for the command itself, the folder of the tests is not on the path
            command = [sys.executable, "-P", str(Path(__file__))]
            self.process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            atexit.register(self.close)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with tempfile.TemporaryDirectory() as temporary:
            output = Path(temporary) / "plan"
            request = {"arguments": arguments, "folder": str(folder), "environment": environment, "output": str(output)}
            print(json.dumps(request), file=self.process.stdin, flush=True)
            code = int(self.process.stdout.readline())
            printed = (output.with_suffix(f".{name}").read_text() for name in ("stdout", "stderr"))
            return subprocess.CompletedProcess(["snakemake", *arguments], code, *printed)

    def close(self) -> None:
        if self.process is not None:
            self.process.communicate()


PLANNER = Planner()

if __name__ == "__main__":
    serve()
