"""Comparisons, verdicts, power and audit, from the files that their own rules write. What is missing is said."""

from __future__ import annotations

from pathlib import Path

from .cells import sheet
from .content import Claim, Difference, Sheet
from .request import Request

MISSING = {
    "verdicts": "No verdicts have been built for these results: they need a comparison of two arms over several seeds.",
    "comparison": "No comparison has been built for these results, so nothing here says by a rule whether one arm is better. "
    "Scores, their intervals and the counts of gained and lost questions are below.",
    "tables": "No table is finished.",
    "power": "No power calculation has been made: snakemake power says which effects these numbers of questions and seeds "
    "can show.",
    "audit": "The printed numbers have not been audited: snakemake audit does it within seconds.",
    "curves": "No training has left a log.",
    "attention": "No attention has been measured.",
    "answers": "No checkpoint has been evaluated.",
}


def claims(request: Request) -> tuple[Claim, ...]:
    return ()


def differences(request: Request) -> tuple[Difference, ...]:
    return ()


def sheets(request: Request, name: str, title: str) -> tuple[Sheet, ...]:
    file = request.sheets.get(f"{name}.csv")
    return (sheet(Path(file), title),) if file else ()
