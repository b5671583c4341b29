"""Which files may be asked for, and what is said of others: Snakemake would only say that no rule makes them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches

from ..errors import ConfigError
from .messages import missing
from .plan import ENDINGS, Plan
from .settings import STAGES

OF_RUNS = ("runs", "evaluations", "submissions", "attention")
"""Folders of results in which a run has a folder."""


def mistyped(results: str, made: Iterable[str]) -> str:
    """A regular expression of what somebody may ask for by mistake: a word, or a file of results that no rule makes.

    ``made`` are the regular expressions of the files that rules make.
    """
    # one expression may name each group once
    rules = "|".join(re.sub(r"\(\?P=\w+\)", "[^/]+", re.sub(r"\(\?P<\w+>", "(?:", pattern)) for pattern in made)
    folders = "|".join((*ENDINGS, *OF_RUNS))
    return rf"(?!(?:{rules})$)(?:[^/.]+|(?:{re.escape(results)}/)?(?:{folders})/.*|(?:.*/)?(?:tables|figures)/[^/]+)"


def unknown(plan: Plan, name: str, rules: Iterable[str]) -> ConfigError:
    """What is wrong with a target that no rule makes, and what there is instead."""
    parts, known = name.removeprefix(f"{plan.results}/").split("/"), [*rules, *files(plan)]
    near = [] if name in known or parts[0] in OF_RUNS else get_close_matches(name, known, 3, 0.5)
    # a name that is missing is answered with all that there are
    why = "; ".join(reasons(plan, parts)) or (
        f"Targets are {', '.join(sorted(plan.study.targets))}; of files, {plan.results}/tables/NAME.csv with NAME of "
        f"{', '.join(sorted(plan.study.tables))}"
    )
    return ConfigError(f"there is no target {name!r}. " + (f"Near it: {', '.join(near)}. " if near else "") + why)


def files(plan: Plan) -> list[str]:
    """Of all tables and figures."""
    study = plan.study
    names = {"tables": list(study.tables), "figures": [*study.figures, *study.loss_figures]}
    return [
        f"{plan.results}/{kind}/{n}.{ending}" for kind, endings in ENDINGS.items() for n in names[kind] for ending in endings
    ]


def reasons(plan: Plan, parts: list[str]) -> Iterator[str]:
    """What is wrong with a file of results, part by part; only the first of several."""
    study, (kind, *rest) = plan.study, parts
    if kind in ENDINGS and len(rest) == 1:
        known = study.tables if kind == "tables" else {**study.figures, **study.loss_figures}
        name, _, _ = rest[0].partition(".")
        whole = next((each for each in sorted(known, key=len, reverse=True) if rest[0].startswith(f"{each}.")), name)
        yield from left_out(plan, whole) if whole in known else missing(whole, kind.removesuffix("s"), known, plan.results)
        if whole in known and rest[0].removeprefix(f"{whole}.") not in ENDINGS[kind]:
            yield f"the files of {whole} end in {', '.join('.' + ending for ending in ENDINGS[kind])}"
    elif kind in OF_RUNS:
        if kind == "attention":
            rest = [*rest[1:3], *(part.removesuffix(".npz") for part in rest[3:])]
        yield from list(of_a_run(plan, kind, (*rest, "", "", "")))[:1]


def of_a_run(plan: Plan, kind: str, parts: tuple[str, ...]) -> Iterator[str]:
    study, (model, variant, seed, *file) = plan.study, parts
    if model in study.roles:
        yield f"{model} is a role, and its files are named after the model: {study.roles[model]}"
    yield from missing(model, "model", study.models, kind)
    if study.only_model not in (None, model):
        yield f"only_model: {study.only_model} leaves {model} out"
    yield from missing(variant, "variant", study.variants, f"{kind}/{model}")
    if variant in study.variants:
        seeds = study.seeds_of(variant)
        if seed not in seeds:
            where = "is imported, not trained" if study.imported(variant) else f"has the seeds of `seeds: {list(study.seeds)}`"
            yield f"{variant} {where}, and its folders are {', '.join(seeds)}"
    if study.only_stage is not None and (kind != "runs" or file[0] != study.only_stage):
        yield f"only_stage: {study.only_stage} stops before it"
    if kind == "runs":
        yield f"a run has the files {' and '.join(f'{stage}/done.json' for stage in STAGES)}"
    if kind in ("evaluations", "submissions"):
        sent = set(study.submission_benchmarks)
        known = sent if kind == "submissions" else set(study.benchmarks) - sent
        yield from missing(file[0].removesuffix(".json"), "benchmark", known, kind)


def left_out(plan: Plan, name: str) -> Iterator[str]:
    """Why a table, a figure or a target that the configuration has is not made."""
    study = plan.study
    if study.only_stage is not None:
        yield f"only_stage: {study.only_stage} stops before tables and figures"
    elif study.only_model is not None and name not in plan.shown:
        yield f"only_model: {study.only_model} leaves nothing of {name}"


def nothing(plan: Plan, name: str) -> str:
    """Why a target is empty."""
    study = plan.study
    if name == "submissions" and study.only_stage is None:
        return "submissions: no run of the target all, or no benchmark with `scorer: submission`"
    if name not in {*study.targets, "submissions"}:
        return f"there is no target {name!r} in this configuration (known: {', '.join(sorted(study.targets)) or 'none'})"
    switches = [f"{key}: {value}" for key in ("only_model", "only_stage") if (value := getattr(study, key)) is not None]
    return f"{' and '.join(switches)} leaves nothing of the target {name}"
