"""A process that has imported the libraries and forks itself for each short job of the miniature pipeline.

The demo's jobs take a second or two, and the imports of torch, transformers and lmms-eval before them another five. With
``execution.warm`` the driver starts one process beside itself; ``python -m vdep`` asks it to run the call. Each job is still
a process of its own, with its own environment, working folder and output, and ends when its caller is killed; a caller that
does not reach the warm process does its own imports.

POSIX, one machine: the socket lies in a private temporary folder, and the warm process ends with the driver.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
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

ADDRESS = "VDEP_WARM"
COMMANDS = ("fetch", "prepare", "evaluate", "answer", "attention")
"""Trainings are launched cold: torchrun starts processes of its own."""
_FAMILIES = ("clip", "siglip", "llama", "phi", "llava")
_READY = b"r"
_started: list[subprocess.Popen[bytes]] = []


def start(cache: Path) -> None:
    """Start a warm process that lives as long as this one, and tell jobs where it is.

    Args:
        cache: the datasets' cache of the evaluations; the libraries read it from the environment when they are imported.
    """
    folder = Path(tempfile.mkdtemp(prefix="vdep-"))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "warm"))
        listener.listen(64)
        command = [sys.executable, "-m", "vdep.workflow.warm", str(listener.fileno()), str(folder), str(cache)]
        # its standard input ends when this process does, however it ends
        process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(listener.fileno(),), start_new_session=True)
    _started.append(process)
    os.environ[ADDRESS] = str(folder / "warm")


def call(arguments: list[str]) -> int | None:
    """Have the warm process run ``vdep`` with these arguments; its exit status, or None where there is no warm process."""
    address = os.environ.get(ADDRESS)
    if not address or not arguments or arguments[0] not in COMMANDS:
        return None
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(address)
            ready = connection.recv(1)
        except OSError:
            return None
        if ready != _READY:
            return None
        environment = {key: value for key, value in os.environ.items() if key != ADDRESS}
        body = json.dumps({"arguments": arguments, "folder": str(Path.cwd()), "environment": environment}).encode()
        socket.send_fds(connection, [len(body).to_bytes(4, "big")], [0, 1, 2])
        connection.sendall(body)
        status = connection.recv(1)
        # closed without a status: the process was killed
        return status[0] if status else 1


def serve(listener: socket.socket, cache: Path) -> None:
    """Import, then fork for each call, until standard input ends."""
    from ..evaluation.run import import_libraries
    from ..evaluation.tasks import offline_environment

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    offline_environment(cache)
    import_libraries()
    for family in _FAMILIES:
        importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    importlib.import_module("sklearn.datasets")
    while True:
        readable, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in readable:
            return
        connection, _ = listener.accept()
        with connection:
            if os.fork() == 0:
                listener.close()
                _run(connection)


def _run(connection: socket.socket) -> NoReturn:
    """In the child: take the caller's place as far as that goes, run, report the status."""
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        connection.sendall(_READY)
        arguments = _take_place(connection)
        threading.Thread(target=_end_with_caller, args=(connection,), daemon=True).start()
        from ..__main__ import run

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


def main() -> None:
    descriptor, folder, cache = sys.argv[1:]
    try:
        with socket.socket(fileno=int(descriptor)) as listener:
            serve(listener, Path(cache))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
