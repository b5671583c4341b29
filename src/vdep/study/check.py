"""Whether a configuration can be: everything that it names is there, and nothing contradicts. Before anything is planned."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..errors import ConfigError
from .evaluation import SCORER_PARTS, SUBMISSION
from .evidence import missing_evidence
from .messages import describe_validation_error, missing
from .settings import STAGES, MadeAsset
from .study import Study


def load_study(config: Mapping[str, Any]) -> Study:
    """Validate a merged configuration, with every reference, and every variant in every model, used or not.

    Raises:
        ConfigError: naming the key and the reason.
    """
    try:
        study = Study.model_validate(dict(config))
    except ValidationError as error:
        raise ConfigError(describe_validation_error(error)) from error
    if problems := list(missing_references(study)):
        raise ConfigError("; ".join(problems))
    used = {(run.model, run.variant) for run in study.all_runs}
    for variant, entry in study.resolved_variants.items():
        if entry.model and not entry.imported:
            raise ConfigError(f"variants.{variant}.model: is for imported checkpoints; tables say which models are trained")
        if entry.imported and not entry.model:
            known = ", ".join(sorted(study.models))
            raise ConfigError(f"variants.{variant}.model: say which model {entry.imported} is (known: {known})")
        each = {model: list(study.problems(model, variant)) for model in study.models}
        # what nobody asks for may fit another model only
        refused = [p for model, problems in each.items() if (model, variant) in used for p in problems]
        refused = refused or (next(iter(each.values()), []) if all(each.values()) else [])
        if refused:
            raise ConfigError("; ".join(dict.fromkeys(refused)))
    for name, figure in study.loss_figures.items():
        if drawn := [variant for variant in figure.variants if study.imported(variant)]:
            raise ConfigError(f"loss_figures.{name}: {drawn[0]} is imported, and has no losses to draw")
    for name, claim in study.claims.items():
        if imported := [variant for variant in study.arms_of(claim).variants if study.imported(variant)]:
            raise ConfigError(f"verdicts.claims.{name}: {imported[0]} is imported, and has no seeds to be compared over")
    return study


def circles(kind: str, below: Mapping[str, Collection[str]]) -> Iterator[str]:
    """Names that belong to themselves, by whatever way; the first of each circle."""
    done: set[str] = set()

    def walk(chain: tuple[str, ...]) -> Iterator[str]:
        for name in below.get(chain[-1], ()):
            if name in chain:
                yield f"{kind}.{name}: belongs to itself ({' -> '.join([*chain[chain.index(name) :], name])})"
            elif name not in done:
                yield from walk((*chain, name))
        done.add(chain[-1])

    for name in below:
        if name not in done:
            yield from walk((name,))


def repeated(names: Sequence[str | int], where: str) -> Iterator[str]:
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"{where}: {name} is there twice, and would be one"


def missing_references(study: Study) -> Iterator[str]:
    """What one part of the configuration says of another that is not there."""
    models, variants = {*study.models, *study.roles}, study.variants
    for key, model in study.models.items():
        yield from missing(model.vision_tower.weights, "asset", study.assets, f"models.{key}.vision_tower.weights")
        yield from missing(model.language_model, "asset", study.assets, f"models.{key}.language_model")
    for key, name in study.roles.items():
        yield from missing(name, "model", study.models, f"roles.{key}")
        if key in study.models:
            yield f"roles.{key}: there is a model of that name"
    for key, dataset in study.datasets.items():
        yield from missing(dataset.conversations, "asset", study.assets, f"datasets.{key}.conversations")
        yield from repeated([image.prefix for image in dataset.images], f"datasets.{key}.images: prefix")
        for archive in dataset.images:
            yield from missing(archive.asset, "asset", study.assets, f"datasets.{key}.images")
    for stage, name in study.validation.items():
        yield from missing(name, "dataset", study.datasets, f"validation.{stage}")
    for key, variant in variants.items():
        if variant.extends:
            yield from missing(variant.extends, "variant", variants, f"variants.{key}.extends")
        if variant.imported:
            yield from missing(variant.imported, "asset", study.assets, f"variants.{key}.imported")
        if variant.model:
            yield from missing(variant.model, "model", models, f"variants.{key}.model")
    for key, benchmark in study.benchmarks.items():
        yield from missing(benchmark.asset, "asset", study.assets, f"benchmarks.{key}.asset")
        yield from missing(benchmark.scorer, "scorer", {*SCORER_PARTS, SUBMISSION}, f"benchmarks.{key}.scorer")
        if key.endswith((".answers", ".graded")):
            yield f"benchmarks.{key}: what ends in .answers or .graded is a file of another benchmark; give it another name"
    for key, column in study.columns.items():
        if column.benchmark:
            yield from missing(column.benchmark, "benchmark", study.benchmarks, f"columns.{key}.benchmark")
        if scored := study.benchmarks.get(column.benchmark or ""):
            if scored.scorer == SUBMISSION:
                yield f"columns.{key}.benchmark: {column.benchmark} writes a submission and has no score"
            elif scored.scorer in SCORER_PARTS:
                yield from missing(
                    column.part, f"part of {column.benchmark}", SCORER_PARTS[scored.scorer], f"columns.{key}.part"
                )
        for name in (*column.mean_of, *column.sum_of):
            yield from missing(name, "column", study.columns, f"columns.{key}")
        yield from repeated((*column.mean_of, *column.sum_of), f"columns.{key}")
    for key, protocol in study.protocols.items():
        for name in protocol.columns:
            yield from missing(name, "column", study.columns, f"protocols.{key}.columns")
        for name in protocol.models:
            yield from missing(name, "model", study.models, f"protocols.{key}.models")
    for kind, drawn in (("tables", study.tables), ("loss_figures", study.loss_figures)):
        for key, arms in drawn.items():
            for field in ("models", "variants", "columns"):
                if not getattr(arms, field, True):
                    yield f"{kind}.{key}.{field}: is empty; to take it away, say {key}: null"
            for name in arms.models:
                yield from missing(name, "model", models, f"{kind}.{key}.models")
            for name in arms.variants:
                yield from missing(name, "variant", variants, f"{kind}.{key}.variants")
            # a role and its model are one
            yield from repeated([study.model(name) for name in arms.models], f"{kind}.{key}.models")
            yield from repeated(arms.variants, f"{kind}.{key}.variants")
    for key, table in study.tables.items():
        for name in table.columns:
            yield from missing(name, "column", study.columns, f"tables.{key}.columns")
        yield from repeated(table.columns, f"tables.{key}.columns")
    for key, figure in study.figures.items():
        for name in dict.fromkeys(figure.assets):
            yield from missing(name, "asset", study.assets, f"figures.{key}")
        yield from missing(figure.model, "model", models, f"figures.{key}.model")
        for name in figure.variants:
            yield from missing(name, "variant", variants, f"figures.{key}")
        if figure.left == figure.right:
            yield f"figures.{key}: left and right are both {figure.left}; a figure compares two variants"
        if key in study.loss_figures:
            yield f"loss_figures.{key}: there is another figure of that name"
    for key, target in study.targets.items():
        if not (target.targets or target.tables or target.figures or target.verdicts):
            yield f"targets.{key}: builds nothing; name targets, tables, figures or verdicts, or take it away with {key}: null"
        for name in target.targets:
            yield from missing(name, "target", study.targets, f"targets.{key}.targets")
        for name in target.tables:
            yield from missing(name, "table", study.tables, f"targets.{key}.tables")
        for name in target.figures:
            yield from missing(name, "figure", {*study.figures, *study.loss_figures}, f"targets.{key}.figures")
    yield from missing_evidence(study)
    for stage in STAGES:
        how = getattr(study.execution, stage)
        if study.execution.device == "cuda" and how.processes > how.gpus:
            yield f"execution.{stage}: {how.processes} processes need as many GPUs (given: gpus: {how.gpus})"
    if study.execution.device == "cuda" and study.execution.evaluate.gpus == 0:
        yield "execution.evaluate: device: cuda needs a GPU (given: gpus: 0)"
    if study.results == study.resources:
        yield f"resources: {study.resources} is the folder of results; each should have its own"
    yield from circles("columns", {key: (*column.mean_of, *column.sum_of) for key, column in study.columns.items()})
    yield from circles("targets", {key: target.targets for key, target in study.targets.items()})
    yield from repeated(study.seeds, "seeds")
    if study.only_model is not None:
        yield from missing(study.only_model, "model", study.models, "only_model")


def _importable(entry_point: str) -> bool:
    """Whether there is a module of that name; it is not imported."""
    module, _, function = entry_point.partition(":")
    try:
        return bool(function) and find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def missing_files(study: Study, checkout: Path) -> Iterator[str]:
    """What the configuration says of files of this checkout, and of lmms-eval's, that are not there."""
    engines = {"ddp", *(path.stem for path in (checkout / "config" / "deepspeed").glob("*.json"))}
    for stage in STAGES:
        yield from missing(getattr(study.execution, stage).engine, "engine", engines, f"execution.{stage}.engine")
    with open(checkout / "config" / "published.csv", newline="") as file:
        published = {row["table"] for row in csv.DictReader(file)}
    for key, table in study.tables.items():
        for name in (*table.published, *(table.calibration.references if table.calibration else ())):
            yield from missing(name, "published table", published, f"tables.{key}")
    if study.judge is not None and study.judge.kind == "function" and not _importable(study.judge.model):
        yield f"judge.model: {study.judge.model!r} cannot be found; it should be package.module:function"
    for key, asset in study.assets.items():
        if isinstance(asset, MadeAsset) and not _importable(asset.maker):
            yield f"assets.{key}.maker: {asset.maker!r} cannot be found; it should be package.module:function"
    library = find_spec("lmms_eval")
    for folder in (library.submodule_search_locations or []) if library else []:
        tasks = Path(folder) / "tasks"
        for key, benchmark in study.benchmarks.items():
            if Path(benchmark.task).is_absolute():
                yield f"benchmarks.{key}.task: should be relative to {tasks} (given: {benchmark.task})"
            elif not (tasks / benchmark.task).is_file():
                known = [str(path.relative_to(tasks)) for path in (tasks / benchmark.task).parent.glob("*.yaml")]
                yield from missing(benchmark.task, "task file of lmms-eval", known, f"benchmarks.{key}.task")
