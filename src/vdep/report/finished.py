"""Which evaluations are there, and are of the configuration at hand: what comparisons, power and pages are made of.

They use what is finished and never start a training: their scores are no inputs of a rule, which Snakemake would make anew
where a recipe has changed since. What was evaluated by another configuration is left out, and named.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from pydantic import TypeAdapter

from ..artifacts import Scores
from ..errors import UserError
from ..files import sha256
from ..study.plan import Plan
from ..study.settings import Frozen
from ..study.study import Run
from .results import Key, Results


class Finished(Frozen):
    """``scores``: (model, variant, seed, benchmark), file and SHA-256. ``left_out``: why others are not used, a line each."""

    scores: tuple[tuple[tuple[str, str, str, str], str, str], ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def files(self) -> dict[Key, Path]:
        return {key: Path(path) for key, path, _ in self.scores}


def made(asked: str, files: Iterable[str]) -> dict[Key, Path]:
    """Scores that were made just before, each compared with the recipes that the configuration has for it.

    Args:
        asked: (key, (the checkpoint's recipe, the evaluation's)) of each file, as JSON.

    Raises:
        ReportError: where the configuration was edited in between.
    """
    wanted = TypeAdapter(list[tuple[Key, tuple[str, str]]]).validate_json(asked)
    recipes = dict(wanted)
    results = Results(dict(zip(recipes, map(Path, files), strict=True)), recipes)
    for key in recipes:
        results.scores(key)
    return dict(results.files)


def finished(plan: Plan, wanted: Sequence[tuple[Run, str]], but: Collection[str] = ()) -> Finished:
    """Those of the wanted (run, benchmark) that are there; ``but``: files that are asked for anyway, and are made first."""
    scores = []
    stale: dict[str, list[str]] = {}
    for run, benchmark in wanted:
        path = plan.scores(run, benchmark)
        if path in but or not Path(path).is_file():
            continue
        try:
            document = Scores.read(Path(path))
        except UserError as error:
            stale.setdefault(str(error), []).append(path)
            continue
        reason = _another(plan, run, benchmark, document)
        if reason is None:
            scores.append(((*run, benchmark), path, sha256(Path(path))))
        else:
            stale.setdefault(f"{'/'.join(run)} {reason}", []).append(benchmark)
    return Finished(scores=tuple(scores), left_out=tuple(f"{why} ({', '.join(which)})" for why, which in stale.items()))


def _another(plan: Plan, run: Run, benchmark: str, scores: Scores) -> str | None:
    trained, evaluated = plan.study.scored_recipes(run, benchmark)
    if scores.checkpoint.recipe != trained:
        return "was trained by another recipe than the configuration's, and is left out"
    return None if scores.digest == evaluated else "was evaluated by another recipe than the configuration's, and is left out"
