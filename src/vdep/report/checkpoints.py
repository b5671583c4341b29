"""From what a person calls a checkpoint to its weights, the recipes behind them, and its scores.

``MODEL/VARIANT/SEED`` (or ``MODEL/VARIANT``: all its seeds), a ``done.json``, or a folder: of a run, of one of its stages, or
of weights. No weights are read here: ``FinishedStage.open`` does that where they are used.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..artifacts import FINAL, FinishedStage, Scores
from ..errors import CheckpointError, UserError
from ..study.recipe import canonical_json

DONE = "done.json"
STAGE_1, SFT = "pretrain", "finetune"


@dataclass(frozen=True)
class Checkpoint:
    """A finished stage. ``model``, ``variant`` and ``seed`` are empty where its place does not tell them."""

    name: str
    done: Path
    stage: FinishedStage
    model: str = ""
    variant: str = ""
    seed: str = ""
    evaluations: Path | None = None
    """The folder of its scores."""
    recipes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Stage -> its recipe as it was written, whichever version wrote it; a stage is missing where nothing tells it."""

    @property
    def settings(self) -> dict[str, Any]:
        """Of the stage that made the weights.

        Raises:
            CheckpointError: where they are not known, as of a checkpoint that others trained.
        """
        if self.stage.stage in self.recipes:
            return dict(self.recipes[self.stage.stage]["settings"])
        raise CheckpointError(
            f"{self.done}: nothing beside it tells how these weights were trained (job.json); say with --template and "
            "--image-fit how they are asked"
        )

    def results_of(self, otherwise: Path) -> Path:
        """The folder of results that it lies in."""
        return self.evaluations.parents[3] if self.evaluations else otherwise

    def scores(self) -> tuple[dict[str, Path], list[str]]:
        """The scores of these weights by benchmark, and why others beside them are not used."""
        found: dict[str, Path] = {}
        left_out = []
        for path in sorted(self.evaluations.glob("*.json")) if self.evaluations else ():
            if path.name.startswith(".") or path.name.endswith((".answers.json", ".graded.json")):
                continue
            try:
                scores = Scores.read(path)
            except UserError as error:
                left_out.append(str(error))
                continue
            if scores.checkpoint.weights == self.stage.digest:
                found[scores.benchmark] = path
            else:
                left_out.append(f"{path} is of other weights than {self.name} has now: evaluate again")
        return found, left_out


def find(text: str, results: Path) -> list[Checkpoint]:
    """The checkpoints that ``text`` names, one a seed; ``results``: the folder in which names are looked up.

    Raises:
        CheckpointError: where there is none, naming those that are there.
    """
    place = Path(text)
    if place.is_file():
        return [read(place)]
    if not place.exists():
        place = results / "runs" / text
    for candidates in (
        [place / SFT / DONE],
        [place / DONE],
        [place / FINAL],
        [place / "final" / FINAL],
        sorted(place.glob(f"*/{SFT}/{DONE}")),
        [place / STAGE_1 / DONE],
    ):
        if found := [path for path in candidates if path.is_file()]:
            return [read(path) for path in found]
    known = sorted("/".join(path.parts[-5:-2]) for path in (results / "runs").glob(f"*/*/*/{SFT}/{DONE}"))
    raise CheckpointError(
        f"there is no finished checkpoint {text}: it should be MODEL/VARIANT, MODEL/VARIANT/SEED, a done.json, or the folder "
        f"of a run or of weights; finished in {results}: {', '.join(known) or 'nothing'}"
    )


def find_one(text: str, results: Path) -> Checkpoint:
    """As ``find``, where one is wanted.

    Raises:
        CheckpointError: also where there are several seeds.
    """
    found = find(text, results)
    if len(found) > 1:
        raise CheckpointError(f"{text} has {len(found)} seeds: name one of {', '.join(each.name for each in found)}")
    return found[0]


def read(path: Path) -> Checkpoint:
    """The checkpoint of a ``done.json`` or ``final.json``.

    Raises:
        CheckpointError: where the document is none, or is not of the weights that it names.
    """
    path = path.absolute()
    if path.name == FINAL:
        # weights lie in STAGE/DIGEST/final, beside whose folder the stage says that it is done
        above = path.parents[2] / DONE
        path = above if above.is_file() and FinishedStage.read(above).weights == path.parent.resolve() else path
    stage = FinishedStage.read(path)
    stage.check_final()
    recipes: dict[str, dict[str, Any]] = {}
    if (own := _recipe(stage.weights.parent, stage.recipe)) is not None:
        recipes[stage.stage] = own
    in_place = path.name == DONE and len(path.parents) > 5 and path.parents[4].name == "runs"
    if stage.initial_recipe is not None:
        before = path.parents[1] / STAGE_1 / stage.initial_recipe[:16]
        if (initial := _recipe(before, stage.initial_recipe)) is not None:
            recipes[STAGE_1] = initial
    if not in_place:
        return Checkpoint(str(path.parent), path, stage, recipes=recipes)
    model, variant, seed = (path.parents[i].name for i in (3, 2, 1))
    # scores are of what the last stage left
    scored = path.parents[5] / "evaluations" / model / variant / seed if stage.stage != STAGE_1 else None
    return Checkpoint(f"{model}/{variant}/{seed}", path, stage, model, variant, seed, scored, recipes)


def _recipe(run: Path, digest: str) -> dict[str, Any] | None:
    """What ``job.json`` in a run's folder says was trained; None where there is none."""
    path = run / "job.json"
    if not path.is_file():
        return None
    try:
        recipe = json.loads(path.read_text())["recipe"]
        same = hashlib.sha256(canonical_json(recipe).encode()).hexdigest() == digest
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): it should be what the training wrote there") from None
    # a recipe of another version may be written in other words: it is shown as it is only where it is what was trained
    return dict(recipe) if same else None
