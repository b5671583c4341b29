"""Makes the demo's base weights anew, one of four at a time: ``snakemake demo_weights``.

What lies under ``shipped/`` was made by this file, Llama's two parts by two versions of it (docs/log.md). Beside each model
stands ``recipe.json``: the recipe, the quality that was measured, the versions, and the SHA-256 of every file. Remade weights
agree in quality; in bytes only on the same machine.
"""

from __future__ import annotations

import argparse
import logging
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import transformers

from vdep.files import folder_digest, sha256, write_json

from . import language_model, tower
from .language_model import LanguageModelRecipe, Phase, courses

SHIPPED = Path(__file__).with_name("shipped")
RECIPES: dict[str, tower.TowerRecipe | LanguageModelRecipe] = {
    "clip": tower.TowerRecipe("clip"),
    "siglip": tower.TowerRecipe("siglip", steps=3000),
    # what a projector writes is longer and less exact than a map: Phi reads it as it is, Llama learns to (docs/log.md)
    # whole words first: a look-up is then one step of attention. Its own tokens last
    "llama": LanguageModelRecipe(
        "llama", courses(0.02, Phase("mixed", 800), Phase("disturbed", 1200), Phase("disturbed", 600))
    ),
    "phi": LanguageModelRecipe("phi", courses(0.03, Phase("mixed", 1400))),
}


def make(name: str, folder: Path, **changes: Any) -> dict[str, float]:
    """Train one of ``RECIPES`` into ``folder``; ``changes`` replace fields of its recipe. Returns what it can do."""
    recipe = replace(RECIPES[name], **changes)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    quality = _train(recipe, folder)
    files = {str(path.relative_to(folder)): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    versions = {"torch": torch.__version__.split("+")[0], "transformers": transformers.__version__}
    write_json(folder / "recipe.json", {"recipe": asdict(recipe), "quality": quality, "versions": versions, "sha256": files})
    return quality


def _train(recipe: tower.TowerRecipe | LanguageModelRecipe, folder: Path) -> dict[str, float]:
    if isinstance(recipe, tower.TowerRecipe):
        return tower.train(recipe, folder)
    return language_model.train(recipe, folder)


def main() -> None:
    command = argparse.ArgumentParser(prog="python -m vdep_demo.base_weights.make", description="Make a base model.")
    command.add_argument("--name", required=True, choices=sorted(RECIPES))
    command.add_argument("--folder", required=True, type=Path)
    command.add_argument("--threads", type=int, default=1)
    arguments = command.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(arguments.threads)
    make(arguments.name, arguments.folder)
    logging.info("revision of %s: %s", arguments.folder, folder_digest(arguments.folder))


if __name__ == "__main__":
    main()
