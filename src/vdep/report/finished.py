"""Which evaluations are there, and are of the configuration at hand: what comparisons, power and pages are made of.

They use what is finished and never start a training: their scores are no inputs of a rule, which Snakemake would make anew
where a recipe has changed since. What was evaluated by another configuration is left out, and named.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from ..artifacts import Scores
from ..errors import UserError
from ..files import sha256
from ..study.plan import Plan
from ..study.settings import Frozen
from ..study.study import IMPORTED, Run


class Finished(Frozen):
    """``scores``: (model, variant, seed, benchmark), file and SHA-256. ``left_out``: why others are not used, a line each."""

    scores: tuple[tuple[tuple[str, str, str, str], str, str], ...] = ()
    left_out: tuple[str, ...] = ()


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
    study = plan.study
    if scores.digest != study.evaluation_recipe(run.model, run.variant, benchmark).digest:
        return "was evaluated by another recipe than the configuration's, and is left out"
    if run.seed == IMPORTED:
        same = scores.checkpoint.recipe == study.import_recipe(run.model, run.variant).digest
    else:
        same = scores.checkpoint.recipe == study.recipe(run.model, run.variant, "finetune", run.seed).digest
    return None if same else "was trained by another recipe than the configuration's, and is left out"
