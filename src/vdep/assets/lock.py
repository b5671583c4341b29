"""Record what was downloaded, so that the next download has to be the same: ``make lock``.

A run never writes the lock: it would change recipes while they are being trained.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import Any

import yaml

from ..artifacts import MANIFEST, AssetManifest
from ..errors import AssetError
from ..files import write_atomically
from ..study.settings import Asset, UrlAsset

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


def check_downloads(assets: Mapping[str, Asset], manifest_of: Callable[[str], str], being_fetched: Container[str]) -> None:
    """Whether finished downloads are what the configuration says by now.

    Raises:
        AssetError: naming the first that is another file.
    """
    for name, asset in assets.items():
        manifest = manifest_of(name)
        if not isinstance(asset, UrlAsset) or asset.sha256 is None or manifest in being_fetched or not Path(manifest).is_file():
            continue
        fetched = AssetManifest.read(Path(manifest)).files[0].sha256
        if fetched != asset.sha256:
            raise AssetError(
                f"assets.{name}.sha256 is {asset.sha256}, and {Path(manifest).parent} holds a file with {fetched}: delete that "
                "folder to fetch it again, or mend the hash"
            )
