"""What a comparison is made of: pairs of arms, and the evaluations that claims need."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from .messages import missing
from .recipe import canonical_json
from .study import Run, Study

TABLES = ("comparison", "verdicts", "power", "power_published", "results")
"""Files among the tables that are no table of the configuration."""


class Arms(NamedTuple):
    """A model in two variants."""

    model: str
    treatment: str
    reference: str


def compared(study: Study) -> list[Arms]:
    """Every pair of the configuration, in a fixed order: each variant with the reference, named pairs, those of claims.

    A checkpoint that others trained has no seed to be paired by, and is left out.
    """
    if study.comparison is None:
        return []
    trained: dict[str, list[str]] = {}
    for run in study.all_runs:
        if not study.imported(run.variant) and run.variant not in trained.setdefault(run.model, []):
            trained[run.model].append(run.variant)
    reference = study.comparison.reference
    pairs = [
        Arms(model, variant, reference)
        for model, variants in trained.items()
        if reference in variants
        for variant in variants
        if variant != reference
    ]
    for pair in study.comparison.pairs.values():
        models = [study.model(name) for name in pair.models] or [m for m, v in trained.items() if {*pair.variants} <= {*v}]
        pairs += [Arms(model, *pair.variants) for model in models]
    for claim in study.claims.values():
        pairs += [Arms(study.model(name), *pair.variants) for name in claim.models for pair in claim.pairs]
    return [pair for pair in dict.fromkeys(pairs) if study.only_model in (None, pair.model)]


def wanted_columns(study: Study) -> list[str]:
    """Those that are compared, and those that endpoints are made of."""
    return [name for name in _all_columns(study) if not study.left_out(name)]


def _all_columns(study: Study) -> list[str]:
    """With those that nobody can measure for want of a judge."""
    assert study.comparison is not None
    endpoints = study.verdicts.endpoints.values() if study.verdicts else ()
    columns = [*study.comparison.columns, *(name for endpoint in endpoints for name in endpoint.columns)]
    return list(dict.fromkeys(columns))


def comparable(study: Study) -> list[tuple[Run, str]]:
    """(run, benchmark) of every score that the comparison would use, if it is there."""
    benchmarks = dict.fromkeys(b for column in wanted_columns(study) for b in study.column_benchmarks(column))
    arms = dict.fromkeys((pair.model, variant) for pair in compared(study) for variant in pair[1:])
    runs = [Run(model, variant, seed) for model, variant in arms for seed in study.seeds_of(variant)]
    return [(run, benchmark) for run in runs for benchmark in benchmarks]


def needed(study: Study, claims: Iterable[str]) -> list[tuple[Run, str]]:
    """(run, benchmark) of every score that some claims are judged by: every arm on the whole list."""
    scores = []
    for claim in (study.claims[name] for name in claims):
        assert study.verdicts is not None
        columns = [c for name in claim.endpoints for c in study.verdicts.endpoints[name].columns if not study.left_out(c)]
        benchmarks = dict.fromkeys(b for column in columns for b in study.column_benchmarks(column))
        scores += [(run, benchmark) for run in study.runs(study.arms_of(claim)) for benchmark in benchmarks]
    return list(dict.fromkeys(scores))


def comparison_definition(study: Study) -> dict[str, Any]:
    """All that a comparison follows from besides the scores and the published numbers (``report.comparison.Definition``)."""
    assert study.comparison is not None
    columns = wanted_columns(study)
    parts = sorted({part for column in columns for part in study.column_parts(column)})
    rules = study.verdicts
    return {
        "pairs": compared(study),
        "family": [name for name in study.comparison.columns if name in columns],
        "columns": {name: study.columns[name].model_dump(mode="json") for name in parts},
        "questions": {b: study.benchmarks[b].samples for c in columns for b in study.column_benchmarks(c)},
        "left_out": {name: study.columns[name].label for name in _all_columns(study) if study.left_out(name)},
        "roles": dict(study.roles),
        "only_model": study.only_model,
        "rules": rules and rules.model_dump(mode="json"),
        "rules_sha256": rules and rules_digest(rules),
        "seeds": [f"seed-{seed}" for seed in study.seeds],
        "note": study.note,
    }


def rules_digest(rules: Any) -> str:
    """SHA-256 of the rules as they were applied: config/verdicts.yaml with what an overlay changed, as canonical JSON."""
    return hashlib.sha256(canonical_json(rules.model_dump(mode="json")).encode()).hexdigest()


def missing_evidence(study: Study) -> Iterator[str]:
    """What the comparison and the verdicts say of other parts of the configuration that are not there."""
    models = {*study.models, *study.roles}
    for name in set(study.tables) & set(TABLES):
        yield f"tables.{name}: {name}.csv is made of the comparison; give the table another name"
    if study.comparison is not None:
        yield from missing(study.comparison.reference, "variant", study.variants, "comparison.reference")
        for name in study.comparison.columns:
            yield from missing(name, "column", study.columns, "comparison.columns")
        for key, named in study.comparison.pairs.items():
            for name in named.models:
                yield from missing(name, "model", models, f"comparison.pairs.{key}.models")
            for name in named.variants:
                yield from missing(name, "variant", study.variants, f"comparison.pairs.{key}")
    for key, target in study.targets.items():
        for name in target.verdicts:
            yield from missing(name, "claim", study.claims, f"targets.{key}.verdicts")
    if (rules := study.verdicts) is None:
        return
    for key, endpoint in rules.endpoints.items():
        for name in endpoint.columns:
            yield from missing(name, "column", study.columns, f"verdicts.endpoints.{key}.columns")
    for key, claim in rules.claims.items():
        for name in claim.endpoints:
            yield from missing(name, "endpoint", rules.endpoints, f"verdicts.claims.{key}.endpoints")
        for name in claim.models:
            yield from missing(name, "model", models, f"verdicts.claims.{key}.models")
        for pair in claim.pairs:
            for name in pair.variants:
                yield from missing(name, "variant", study.variants, f"verdicts.claims.{key}.pairs")
    for name in rules.assumed.questions:
        yield from missing(name, "column", study.columns, "verdicts.assumed.questions")
