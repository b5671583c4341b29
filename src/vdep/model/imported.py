"""A checkpoint that others trained, in the place of an SFT of ours: evaluations and figures take it alike."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..artifacts import AssetManifest, FinishedStage
from ..errors import CheckpointError
from ..files import exclusive_lock, read_json, sha256
from ..study.recipe import ImportRecipe
from .original import import_original


def import_checkpoint(recipe: ImportRecipe, tower: Path, checkpoint: Path, done: Path) -> None:
    """Convert the weights, and write ``done.json`` last, as a training does.

    Args:
        tower: manifest of the vision tower.
        checkpoint: manifest of a whole checkpoint in the layout of the original LLaVA.

    Raises:
        AssetError: where either is not what was downloaded.
        CheckpointError: where it is not one, or sees images in another way than the model it is to be a variant of.
    """
    opened_tower, opened = (AssetManifest.open(path).folder for path in (tower, checkpoint))
    run = done.parent / recipe.key
    with exclusive_lock(run / "writer.lock", f"the run {run}"):
        final, aside = run / "final", run / ".final.tmp"
        shutil.rmtree(aside, ignore_errors=True)
        import_original(opened, opened_tower, None, recipe.image, aside)
        config, vision = read_json(aside / "config.json"), recipe.vision_tower
        seen = {
            "image_tokens": (config["image_seq_length"], vision.image_tokens),
            "layer": (config["vision_feature_layer"], vision.layer),
            "feature_select": (config["vision_feature_select_strategy"], vision.feature_select),
        }
        for name, (found, configured) in seen.items():
            if found != configured:
                raise CheckpointError(f"{opened} has {name} {found}, the model that it is a variant of {configured}")
        inputs = {"input_tower": sha256(tower), "input_checkpoint": sha256(checkpoint)}
        FinishedStage.seal(aside, recipe=recipe.digest, stage="imported", initial_recipe=None, steps=0, **inputs)
        shutil.rmtree(final, ignore_errors=True)
        aside.rename(final)
        FinishedStage.publish(final, done)
