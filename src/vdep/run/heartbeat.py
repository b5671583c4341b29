"""Signs of life: every rank says how far it is, and the launcher notices when one no longer does.

Ranks wait for each other in collectives, so that one that hangs stops them all without any of them failing.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

PREFIX = "rank-"
STARTING = 600.0
"""Seconds that a rank has at least until it is heard for the first time: it imports and loads the model."""
SLOWER = 8
"""How many times the limit whatever is no step may take: reading and writing checkpoints is as slow as the disk is."""
EVERY = 1.0
"""Seconds between two looks."""


class Heartbeat:
    """One rank's file, rewritten as it goes on."""

    def __init__(self, folder: Path, rank: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = open(folder / f"{PREFIX}{rank}", "w")
        self._count = 0

    def beat(self, doing: str) -> None:
        """``doing`` is what comes next, such as "step 17"."""
        self._count += 1
        self._file.seek(0)
        self._file.write(f"{self._count} {doing}\n")
        self._file.truncate()
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class Watchdog:
    """Looks at the heartbeats in a folder. It compares what they say and not when, so that no clock matters but its own.

    Args:
        limit: seconds within a step without a new heartbeat after which a rank counts as hanging; 0: never.
    """

    def __init__(self, folder: Path, limit: float, ranks: int) -> None:
        self.folder = folder
        self.limit = limit
        self._looked = time.monotonic()
        self._seen = {f"{PREFIX}{rank}": ("0 starting", time.monotonic()) for rank in range(ranks)}
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(f"{PREFIX}*"):
            old.unlink()

    def hanging(self) -> list[str]:
        """The ranks that hang, each with what it last said, those that stopped first in front."""
        now = time.monotonic()
        if now - self._looked < min(EVERY, self.limit):
            return []
        if now - self._looked > 10 * EVERY:
            # this process stood still itself, as a suspended job does: nobody could be heard meanwhile
            pause = now - self._looked
            self._seen = {name: (message, since + pause) for name, (message, since) in self._seen.items()}
        self._looked = now
        for path in self.folder.glob(f"{PREFIX}*"):
            message = path.read_text().strip()
            if message and path.name in self._seen and self._seen[path.name][0] != message:
                self._seen[path.name] = (message, now)
        late = [
            (count(message), name, message)
            for name, (message, since) in self._seen.items()
            if now - since > self._patience(message)
        ]
        return [f"{name} (last: {message.partition(' ')[2]})" for _, name, message in sorted(late)]

    def _patience(self, message: str) -> float:
        if not self.limit:
            return math.inf
        if not count(message):
            return max(SLOWER * self.limit, STARTING)
        return self.limit if message.partition(" ")[2].startswith("step ") else SLOWER * self.limit


def count(message: str) -> int:
    """How often a rank has been heard."""
    number = message.partition(" ")[0]
    return int(number) if number.isdigit() else 0
