"""Record what was downloaded, so that the next download has to be the same: ``make lock``.

A run never writes the lock: it would change recipes while they are being trained.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import yaml

from ..artifacts import MANIFEST, AssetManifest
from ..files import write_atomically

log = logging.getLogger(__name__)

HEAD = """# Revisions, hashes and sizes of finished downloads, by `make lock`; they fill in what assets.yaml leaves null.
# Recording a revision changes the recipes that depend on it: lock before training, not between two trainings.
"""


def write_lock(resources: Path, lock: Path) -> dict[str, Any]:
    """Merge every finished download's manifest into the lock file; entries for other assets stay as they are."""
    recorded: dict[str, Any] = {}
    if lock.is_file():
        recorded = (yaml.safe_load(lock.read_text()) or {}).get("assets") or {}
    for path in sorted(resources.glob(f"assets/*/{MANIFEST}")):
        manifest = AssetManifest.read(path)
        kind = manifest.source["kind"]
        if kind in ("hub", "local"):
            recorded[manifest.asset] = {"revision": manifest.revision}
        elif kind == "url":
            recorded[manifest.asset] = {"sha256": manifest.files[0].sha256, "size": manifest.files[0].size}
    content = yaml.safe_dump({"assets": recorded}, sort_keys=True) if recorded else "assets: {}\n"
    write_atomically(lock, HEAD + content)
    log.info("%s: %d assets", lock, len(recorded))
    return recorded
