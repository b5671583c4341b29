"""SHA-256 of files, remembered.

Gigabytes are hashed once, not by each of a hundred evaluations: a hash is kept beside its artefact (``.verified.json``) under
the file's device, inode, size, mtime and ctime. No program can set back a ctime.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .files import sha256, write_json

log = logging.getLogger(__name__)

REMEMBERED = ".verified.json"
SETTLED = 2_000_000_000
"""Nanoseconds. The next write to a file that changed longer ago than this gets another ctime, on every file system."""


class Hashes:
    """SHA-256 of files, and those that were computed before (``path``): a folder that cannot be written has no memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._new: dict[str, str] = {}
        try:
            known = json.loads(path.read_bytes())
        except (OSError, ValueError):
            known = {}
        self._known: dict[str, Any] = known if isinstance(known, dict) else {}

    def compute(self, path: Path) -> str:
        """From the bytes, whatever is remembered."""
        before, started = path.stat(), time.time_ns()
        if before.st_size > 1 << 30:
            log.info("hashing %s (%.1f GB)", path, before.st_size / 1e9)
        digest = sha256(path)
        identity = _identity(before)
        # of a file that is still being written, or was in the very tick of the clock, the next state could look the same
        if started - before.st_ctime_ns > SETTLED and _identity(path.stat()) == identity:
            self._new[identity] = digest
        return digest

    def match(self, path: Path, expected: str) -> bool:
        """Whether a file has this hash. Only its bytes can say that it has not."""
        return self._known.get(_identity(path.stat())) == expected or self.compute(path) == expected

    def save(self) -> None:
        if self._new:
            with suppress(OSError):
                write_json(self.path, self._known | self._new)


def _identity(status: os.stat_result) -> str:
    return f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"


@contextmanager
def hashes_of(path: Path) -> Iterator[Hashes]:
    """The hashes that are remembered in a file; new ones are added to it at the end."""
    hashes = Hashes(path)
    try:
        yield hashes
    finally:
        hashes.save()
