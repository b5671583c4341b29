"""What steps of the pipeline hand to each other."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from .files import folder_digest, sha256, write_json


def versions() -> dict[str, str]:
    """Of what computed the weights, without the build's suffix."""
    return {name: version(name).partition("+")[0] for name in ("torch", "transformers", "accelerate", "deepspeed")}


def write_manifest(folder: Path, **fields: object) -> None:
    """``final.json``. No dates and no paths, so that the same weights have the same manifest."""
    names = sorted(path.name for path in folder.iterdir())
    files = {name: sha256(folder / name) for name in names}
    own = {"versions": versions(), "files": files, "digest": folder_digest(folder, names)}
    write_json(folder / "final.json", {**fields, **own})
