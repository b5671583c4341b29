"""``python -m vdep_demo.warm``: ``python -m vdep``, forked from a process that has imported the libraries.

The demo's jobs take a second or two, and the imports of torch, transformers and lmms-eval before them another five. Each job is
still a process of its own, with its own environment, working folder and output, and ends when its caller is killed. The first
job that a driver starts leaves a warm process behind for the others, and runs cold itself, as every job does that does not
reach it. The warm process ends with the driver.

POSIX, one machine: the socket lies in a private temporary folder, which is named after the driver.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import Any, NoReturn

# not vdep.run.driver: a caller imports nothing that takes time
DRIVER = "VDEP_DRIVER"
COMMANDS = ("fetch", "prepare", "evaluate", "answer", "attention")
"""Trainings are launched cold: torchrun starts processes of its own."""
_FAMILIES = ("clip", "siglip", "llama", "phi", "llava")
_READY = b"r"


def start_time(process: int) -> str | None:
    """Of a running process, in ticks since the machine started: with its number, no other process has the same."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def folder_of_the_driver() -> Path | None:
    """Where the warm process of this job's driver listens, or is to listen; None without a driver."""
    driver = os.environ.get(DRIVER, "")
    if not driver.isdigit() or (started := start_time(int(driver))) is None:
        return None
    return Path(tempfile.gettempdir()) / f"vdep-warm-{os.getuid()}-{driver}-{started}"


def start(folder: Path) -> None:
    """Leave a warm process behind, unless another job has done so."""
    try:
        folder.mkdir(mode=0o700)
    except OSError:
        return
    command = [sys.executable, "-m", "vdep_demo.warm", "--serve", str(folder), os.environ[DRIVER]]
    # not in the caller's place: its output is the job's log, which would wait for it to end
    subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def call(arguments: list[str]) -> int | None:
    """Have the warm process run ``vdep`` with these arguments; its exit status, or None where there is no warm process."""
    folder = folder_of_the_driver()
    if folder is None or not arguments or arguments[0] not in COMMANDS:
        return None
    start(folder)
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            if folder.stat().st_uid != os.getuid():
                return None
            connection.connect(str(folder / "socket"))
            ready = connection.recv(1)
        except OSError:
            return None
        if ready != _READY:
            return None
        body = json.dumps({"arguments": arguments, "folder": str(Path.cwd()), "environment": dict(os.environ)}).encode()
        socket.send_fds(connection, [len(body).to_bytes(4, "big")], [0, 1, 2])
        connection.sendall(body)
        status = connection.recv(1)
        # closed without a status: the process was killed
        return status[0] if status else 1


def serve(folder: Path, driver: int) -> None:
    """Import, then fork for each call, until the driver is gone."""
    started = start_time(driver)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            # calls wait from now on, instead of importing for themselves
            listener.bind(str(folder / "socket"))
            listener.listen(64)
            _import(folder)
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            while started is not None and start_time(driver) == started:
                if not select.select([listener], [], [], 1.0)[0]:
                    continue
                connection, _ = listener.accept()
                with connection:
                    if os.fork() == 0:
                        listener.close()
                        _run(connection)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _import(folder: Path) -> None:
    from vdep.evaluation.run import import_libraries
    from vdep.evaluation.tasks import offline_environment

    # each evaluation names the cache that it uses
    offline_environment(folder)
    import_libraries()
    for family in _FAMILIES:
        importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    for name in ("sklearn.datasets", "vdep_demo.world.benchmarks", "vdep_demo.judge"):
        importlib.import_module(name)


def _run(connection: socket.socket) -> NoReturn:
    """In the child: take the caller's place as far as that goes, run, report the status."""
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        connection.sendall(_READY)
        arguments = _take_place(connection)
        threading.Thread(target=_end_with_caller, args=(connection,), daemon=True).start()
        from vdep.__main__ import run

        status = run(arguments)
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        with contextlib.suppress(OSError):
            connection.sendall(bytes([status]))
        os._exit(status)


def _take_place(connection: socket.socket) -> list[str]:
    """Take over the caller's standard streams, folder and environment; returns its arguments."""
    head, streams, _, _ = socket.recv_fds(connection, 4, 3)
    length, body = int.from_bytes(head, "big"), b""
    while len(body) < length:
        piece = connection.recv(length - len(body))
        if not piece:
            raise ConnectionError("the caller went away")
        body += piece
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    called: dict[str, Any] = json.loads(body)
    os.chdir(called["folder"])
    os.environ.clear()
    os.environ.update(called["environment"])
    return list(called["arguments"])


def _end_with_caller(connection: socket.socket) -> NoReturn:
    """A caller that was killed takes its process along: nobody else would stop it."""
    with contextlib.suppress(OSError):
        connection.recv(1)
    os.killpg(0, signal.SIGKILL)
    raise AssertionError


def main() -> int:
    if sys.argv[1:2] == ["--serve"]:
        serve(Path(sys.argv[2]), int(sys.argv[3]))
        return 0
    status = call(sys.argv[1:])
    if status is None:
        runpy.run_module("vdep", run_name="__main__", alter_sys=True)
    return int(status or 0)


if __name__ == "__main__":
    sys.exit(main())
