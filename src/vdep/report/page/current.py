"""What of a study's files is of the configuration at hand. What another one made is left out of the page, and named there."""

from __future__ import annotations

from pathlib import Path

from ...artifacts import Scores
from ...errors import UserError
from .request import AskedScores, Request


def current(request: Request) -> tuple[Request, list[str]]:
    """The request without scores that are of other recipes than the configuration's, and a line on each that was left out."""
    left_out: list[str] = []

    def is_current(scores: AskedScores) -> bool:
        problem = _problem(scores)
        if problem:
            left_out.append(f"{scores.file}: {problem}")
        return not problem

    kept = [b.model_copy(update={"scores": tuple(filter(is_current, b.scores))}) for b in request.benchmarks]
    return request.model_copy(update={"benchmarks": tuple(b for b in kept if b.scores)}), left_out


def _problem(asked: AskedScores) -> str:
    try:
        scores = Scores.read(Path(asked.file))
    except UserError as error:
        return str(error)
    if scores.digest != asked.evaluation:
        return "evaluated by another recipe than the configuration's"
    if scores.checkpoint.recipe != asked.training:
        return "trained by another recipe than the configuration's"
    return ""
