"""Comparisons, verdicts, power and audit, from the files that their own rules write. What is missing is said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ...errors import ReportError
from .cells import sheet
from .content import Claim, Difference, Evidence, Outcome, Sheet, Verdict
from .request import Request

POWER = {"power": "What can be detected", "power_published": "The paper's differences, and what detects them"}
AUDIT = {"audit": "The printed numbers, audited"}
MISSING = {
    "claims": "No verdicts have been built for these results: they need a comparison of two arms over several seeds.",
    "differences": "No comparison has been built for these results (snakemake comparison), so nothing here says by a rule "
    "whether one arm is better. Scores, their intervals and the counts of gained and lost questions are below.",
    "tables": "No table is finished.",
    "power": "No power calculation has been made: snakemake power says which effects these numbers of questions and seeds "
    "can show.",
    "audit": "The printed numbers have not been audited: snakemake audit does it within seconds.",
    "curves": "No training has left a log.",
    "attention": "No attention has been measured.",
    "answers": "No checkpoint has been evaluated.",
}


class _Read(BaseModel):
    """The part of ``comparison.json`` that the page shows; what else is there is for others."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class _Seed(_Read):
    treatment: float
    reference: float


class _Published(_Read):
    change: float


class _Difference(_Read):
    model: str
    treatment: str
    reference: str
    label: str
    pooled: bool
    maximum: float
    by_seed: tuple[_Seed, ...]
    difference: float
    low: float
    high: float
    p: float | None
    p_adjusted: float | None
    questions: int
    gained: float
    lost: float
    published: _Published | None


class _Part(_Read):
    difference: float
    low: float
    high: float
    margin: float


class _Judged(_Read):
    claim: str
    says: str
    source: str
    model: str
    endpoint_label: str
    deciding: bool
    verdict: Verdict | None
    why: str
    n: int
    parts: tuple[_Part, ...]


class Concluded(_Read):
    """``results/tables/comparison.json``."""

    definition: dict[str, Any]
    differences: tuple[_Difference, ...]
    verdicts: tuple[_Judged, ...]
    missing: tuple[str, ...]

    @property
    def rules(self) -> dict[str, Any]:
        return self.definition.get("rules") or {}

    @property
    def level(self) -> float:
        return self.rules.get("level", 0.05)


def concluded(request: Request) -> Concluded | None:
    """Raises: ReportError, naming the file."""
    file = request.sheets.get("comparison.json")
    if file is None:
        return None
    try:
        return Concluded.model_validate_json(Path(file).read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ReportError(f"{file} is no comparison ({where}: {first['msg']}): delete it and build it again") from None


def evidence(found: Concluded | None) -> Evidence | None:
    if found is None:
        return None
    return Evidence(
        rules=found.definition.get("rules_sha256") or "",
        level=found.level,
        margin=found.rules.get("margin"),
        minimum_seeds=found.rules.get("minimum_seeds"),
        missing=found.missing,
    )


def claims(found: Concluded | None) -> tuple[Claim, ...]:
    return tuple(_claims(found)) if found else ()


def _claims(found: Concluded) -> Iterator[Claim]:
    """One for each claim and model, by the version of the endpoint that decides."""
    for _, versions in groupby(found.verdicts, lambda judged: (judged.claim, judged.model)):
        judged = list(versions)
        main = next((j for j in judged if j.deciding), judged[0])
        part = main.parts[0] if len(main.parts) == 1 else None
        yield Claim(
            claim=main.says,
            source=main.source,
            model=main.model,
            verdict=main.verdict or "not evaluated",
            reason=main.why,
            on=main.endpoint_label,
            seeds=main.n,
            estimate=part.difference if part else None,
            low=part.low if part else None,
            high=part.high if part else None,
            margin=part.margin if part else None,
            others={j.endpoint_label: f"{j.verdict or 'not evaluated'}: {j.why}" for j in judged if j is not main},
        )


def differences(found: Concluded | None) -> tuple[Difference, ...]:
    return tuple(_difference(d, found.level) for d in found.differences) if found else ()


def _difference(d: _Difference, level: float) -> Difference:
    n = len(d.by_seed)
    return Difference(
        model=d.model,
        left=d.reference,
        right=d.treatment,
        label=d.label,
        pooled=d.pooled,
        scale=100 / d.maximum,
        questions=d.questions,
        seeds=n,
        left_mean=sum(seed.reference for seed in d.by_seed) / n,
        right_mean=sum(seed.treatment for seed in d.by_seed) / n,
        difference=d.difference,
        low=d.low,
        high=d.high,
        p=d.p,
        p_adjusted=d.p_adjusted,
        gained=d.gained,
        lost=d.lost,
        published=f"{d.published.change:+.2f}" if d.published else "",
        outcome=_outcome(d, level),
    )


def _outcome(d: _Difference, level: float) -> Outcome:
    """Of one difference, by its p over seeds: adjusted over the benchmarks, or its own where it is a pooled endpoint."""
    p = d.p if d.p_adjusted is None else d.p_adjusted
    if p is None or len(d.by_seed) < 2:
        return "no verdict"
    if p >= level:
        return "undecided"
    return "better" if d.difference > 0 else "worse"


def sheets(request: Request, titles: Mapping[str, str]) -> tuple[Sheet, ...]:
    """Those that there are, of file -> title."""
    found = [(request.sheets.get(f"{name}.csv"), title) for name, title in titles.items()]
    read = [sheet(Path(file), title) for file, title in found if file]
    return tuple(shown for shown in read if shown.rows)
