"""What an asset is made of: ``manifest.json`` in its folder, written last.

Rules exchange manifests; archives and weights are never inputs or outputs of a rule. Hashes live here and are checked here:
they are no part of a recipe.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import AssetError
from ..files import read_json, sha256, write_json

MANIFEST = "manifest.json"


def write_manifest(folder: Path, name: str, source: dict[str, Any], revision: str | None) -> dict[str, Any]:
    """Hash every file of a folder and write its manifest."""
    files: list[dict[str, Any]] = [
        {"path": str(path.relative_to(folder)), "size": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST and not path.name.startswith(".") and ".cache" not in path.parts
    ]
    if not files:
        raise AssetError(f"{name}: nothing was downloaded into {folder}")
    manifest = {
        "asset": name,
        "source": source,
        "revision": revision,
        "files": files,
        "size": sum(file["size"] for file in files),
    }
    write_json(folder / MANIFEST, manifest)
    return manifest


def verify(folder: Path) -> dict[str, Any]:
    """The manifest of an asset all of whose files are there and unchanged.

    Raises:
        AssetError: naming the first file that is not.
    """
    manifest = read_json(folder / MANIFEST)
    for file in manifest["files"]:
        path = folder / file["path"]
        if not path.is_file() or path.stat().st_size != file["size"] or sha256(path) != file["sha256"]:
            raise AssetError(f"{path} is missing or not what was downloaded. Delete {folder} and fetch it again.")
    return manifest


def only_file(folder: Path, ending: str) -> Path:
    """The one file of an asset with this ending.

    Raises:
        AssetError: where there is none, or more than one.
    """
    found = [file["path"] for file in read_json(folder / MANIFEST)["files"] if file["path"].endswith(ending)]
    if len(found) != 1:
        raise AssetError(f"{folder} holds {len(found)} files that end in {ending}, where one is wanted; name it in the dataset")
    return folder / found[0]
