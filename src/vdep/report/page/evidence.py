"""Comparisons, verdicts, power and audit, from the files that their own rules write. What is missing is said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path

from ..evidence import Comparison, Definition
from ..evidence import Difference as Compared
from .cells import sheet
from .content import Claim, Difference, Evidence, Outcome, Sheet
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


def concluded(request: Request) -> Comparison | None:
    """Raises: ReportError, naming the file."""
    file = request.sheets.get("comparison.json")
    return Comparison.read(Path(file)) if file else None


def evidence(found: Comparison | None) -> Evidence | None:
    if found is None:
        return None
    rules = found.definition.rules
    return Evidence(
        rules=found.definition.rules_sha256 or "",
        level=found.definition.level,
        margin=rules.margin if rules else None,
        minimum_seeds=rules.minimum_seeds if rules else None,
        missing=found.missing,
    )


def claims(found: Comparison | None) -> tuple[Claim, ...]:
    return tuple(_claims(found)) if found else ()


def _claims(found: Comparison) -> Iterator[Claim]:
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


def differences(found: Comparison | None) -> tuple[Difference, ...]:
    return tuple(_difference(d, found.definition) for d in found.differences) if found else ()


def _difference(d: Compared, definition: Definition) -> Difference:
    return Difference(
        model=d.model,
        left=d.reference,
        right=d.treatment,
        label=d.label,
        pooled=d.pooled,
        scale=d.scale,
        questions=d.questions,
        seeds=d.n,
        left_mean=d.reference_mean,
        right_mean=d.treatment_mean,
        difference=d.difference,
        low=d.low,
        high=d.high,
        p=d.p,
        p_adjusted=d.p_adjusted,
        gained=d.gained,
        lost=d.lost,
        published=f"{d.published.change:+.2f}" if d.published else "",
        outcome=_outcome(d, definition),
    )


def _outcome(d: Compared, definition: Definition) -> Outcome:
    """Of one difference, by its p over seeds: adjusted over the benchmarks, or its own where it is a pooled endpoint.

    No more is said of fewer seeds, or of some of the configured ones, than the rules say of a claim.
    """
    p = d.p if d.p_adjusted is None else d.p_adjusted
    fewest = definition.rules.minimum_seeds if definition.rules else 2
    if p is None or d.n < fewest or definition.absent_seeds(s.seed for s in d.by_seed):
        return "no verdict"
    if p >= definition.level:
        return "undecided"
    return "better" if d.difference > 0 else "worse"


def sheets(request: Request, titles: Mapping[str, str]) -> tuple[Sheet, ...]:
    """Those that there are, of file -> title."""
    found = [(request.sheets.get(f"{name}.csv"), title) for name, title in titles.items()]
    read = [sheet(Path(file), title) for file, title in found if file]
    return tuple(shown for shown in read if shown.rows)
