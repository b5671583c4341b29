"""Files that are whole or not there: atomic writes, hashes, and locks."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import RunLockedError


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write beside the target, sync, rename: a reader sees the old file or the new one, never a part."""
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(aside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    write_atomically(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def append_line(path: Path, line: str) -> None:
    """In one write, so that no reader sees a part of it."""
    with open(path, "ab") as file:
        file.write(f"{line}\n".encode())


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(files: Mapping[str, str]) -> str:
    """One digest over the names of files and their SHA-256."""
    whole = hashlib.sha256()
    for name in sorted(files):
        whole.update(f"{name}\0{files[name]}\n".encode())
    return whole.hexdigest()


def folder_digest(folder: Path) -> str:
    """One digest over the names and the content of a folder's files."""
    return digest_of({str(path.relative_to(folder)): sha256(path) for path in folder.rglob("*") if path.is_file()})


@contextmanager
def exclusive_lock(path: Path, what: str, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold ``path`` as a lock that ends with the process, however it ends.

    Waits up to ``wait_seconds`` for a holder to leave, as a trainer does that saves because its driver died.

    Raises:
        RunLockedError: naming the process that holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+") as file:
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() >= deadline:
                    file.seek(0)
                    holder = file.read().strip() or "an unknown process"
                    raise RunLockedError(
                        f"{what} is being written by {holder} (lock: {path}). Wait for it to end, or stop it, and try again."
                    ) from None
                time.sleep(0.2)
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}")
        file.flush()
        yield
