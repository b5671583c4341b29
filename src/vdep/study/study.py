"""The whole configuration, after all files have been merged: what the plan consists of, and the recipe of each of its parts.

With ``settings`` and ``recipe`` this is all that Snakemake parses of the package.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from pydantic import Field, ValidationError, model_validator

from ..errors import ConfigError
from .recipe import EvaluationRecipe, ImportRecipe, PreparationRecipe, TrainingRecipe
from .settings import (
    STAGES,
    SUBMISSION,
    Asset,
    AttentionFigure,
    Benchmark,
    ChosenJudge,
    Column,
    Dataset,
    EvaluationSettings,
    Execution,
    Model,
    Name,
    Protocol,
    Settings,
    Stage,
    StageOverride,
    StageSettings,
    Table,
    Variant,
    VdepSettings,
    asset_identity,
    contradictions,
)


class Study(Settings):
    """The whole configuration, after all files have been merged. See config/config.yaml."""

    results: str
    resources: str
    assets: dict[Name, Asset]
    stages: dict[Stage, StageOverride]
    models: dict[Name, Model]
    datasets: dict[Name, Dataset]
    variants: dict[Name, Variant]
    benchmarks: dict[Name, Benchmark]
    judge: ChosenJudge = None
    """Grades free-form answers. Without one the columns of judged benchmarks are left out, and the tables say so."""
    columns: dict[Name, Column]
    protocols: dict[Name, Protocol] = Field(default_factory=dict)
    """Published numbers that other protocols made, and how the tables mark them."""
    checkpoints: tuple[str, ...]
    controls: tuple[str, ...] = ()
    control_table: Name | None = None
    tables: dict[Name, Table]
    main_tables: tuple[Name, ...]
    figures: dict[Name, AttentionFigure] = Field(default_factory=dict)
    loss_figures: dict[Name, tuple[str, ...]] = Field(default_factory=dict)
    """Checkpoints whose losses are drawn together."""
    evaluation: EvaluationSettings = EvaluationSettings()
    execution: Execution

    @model_validator(mode="after")
    def _references_exist(self) -> Study:
        problems = list(self._missing_references())
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _missing_references(self) -> Iterator[str]:
        def missing(name: str, kind: str, known: Mapping[str, Any], where: str) -> Iterator[str]:
            if name not in known:
                yield f"{where}: there is no {kind} named {name!r} (known: {', '.join(sorted(known)) or 'none'})"

        for key, model in self.models.items():
            yield from missing(model.vision_tower.weights, "asset", self.assets, f"models.{key}.vision_tower.weights")
            yield from missing(model.language_model, "asset", self.assets, f"models.{key}.language_model")
        for key, dataset in self.datasets.items():
            yield from missing(dataset.conversations, "asset", self.assets, f"datasets.{key}.conversations")
            for archive in dataset.images:
                yield from missing(archive.asset, "asset", self.assets, f"datasets.{key}.images")
        for key, benchmark in self.benchmarks.items():
            yield from missing(benchmark.asset, "asset", self.assets, f"benchmarks.{key}.asset")
        for key, column in self.columns.items():
            if column.benchmark:
                yield from missing(column.benchmark, "benchmark", self.benchmarks, f"columns.{key}.benchmark")
                if column.benchmark in self.submission_benchmarks:
                    yield f"columns.{key}.benchmark: {column.benchmark} writes a submission and has no score"
            for part in (*column.mean_of, *column.sum_of):
                yield from missing(part, "column", self.columns, f"columns.{key}")
        for key, protocol in self.protocols.items():
            for column_name in protocol.columns:
                yield from missing(column_name, "column", self.columns, f"protocols.{key}.columns")
            for model_name in protocol.models:
                yield from missing(model_name, "model", self.models, f"protocols.{key}.models")
        for key, variant in self.variants.items():
            if variant.extends:
                yield from missing(variant.extends, "variant", self.variants, f"variants.{key}.extends")
            if variant.imported:
                yield from missing(variant.imported, "asset", self.assets, f"variants.{key}.imported")
        for key, table in self.tables.items():
            for column_name in table.columns:
                yield from missing(column_name, "column", self.columns, f"tables.{key}.columns")
            for row in table.rows:
                yield from self._missing_checkpoint(row, f"tables.{key}.rows")
        for name in self.main_tables:
            yield from missing(name, "table", self.tables, "main_tables")
        for key, figure in self.figures.items():
            yield from missing(figure.asset, "asset", self.assets, f"figures.{key}.asset")
            for checkpoint in (figure.left, figure.right):
                yield from self._missing_checkpoint(checkpoint, f"figures.{key}")
        for key, drawn in self.loss_figures.items():
            if key in self.figures:
                yield f"loss_figures.{key}: there is another figure of that name"
            for checkpoint in drawn:
                yield from self._missing_checkpoint(checkpoint, f"loss_figures.{key}")
        for where, checkpoints in (("checkpoints", self.checkpoints), ("controls", self.controls)):
            for checkpoint in checkpoints:
                yield from self._missing_checkpoint(checkpoint, where)
        if self.control_table is not None:
            yield from missing(self.control_table, "table", self.tables, "control_table")

    def _missing_checkpoint(self, checkpoint: str, where: str) -> Iterator[str]:
        model, _, variant = checkpoint.partition("/")
        if model not in self.models:
            yield f"{where}: there is no model named {model!r} (known: {', '.join(sorted(self.models))})"
        if variant not in self.variants:
            yield f"{where}: there is no variant named {variant!r} (known: {', '.join(sorted(self.variants))})"

    # -- resolution

    @cached_property
    def _resolved_variants(self) -> dict[str, Variant]:
        return {name: self._resolve_variant(name) for name in self.variants}

    def _resolve_variant(self, name: str) -> Variant:
        chain: list[str] = []
        current: str | None = name
        while current is not None:
            if current in chain:
                raise ConfigError(f"variants.{name}: extends itself ({' -> '.join([*chain, current])})")
            chain.append(current)
            current = self.variants[current].extends
        merged: dict[str, Any] = {}
        for link in reversed(chain):
            own = self.variants[link].model_dump(mode="json", exclude_unset=True, exclude={"extends"})
            merged = deep_merge(merged, own)
        return Variant.model_validate(merged)

    def imported(self, variant: str) -> str | None:
        """The asset with the checkpoint of a variant that others have trained."""
        return self._resolved_variants[variant].imported

    @cached_property
    def trained(self) -> tuple[tuple[str, str], ...]:
        """(model, variant) of every checkpoint and control that is trained here, each once."""
        names = dict.fromkeys((*self.checkpoints, *self.controls))
        return tuple(key for key in map(split_checkpoint, names) if not self.imported(key[1]))

    def stage(self, model: str, variant: str, stage: Stage) -> StageSettings:
        """The settings of one stage: the study's defaults, then the model's, then the variant's."""
        merged = deep_merge(
            deep_merge(self.stages[stage], getattr(self.models[model], stage)),
            getattr(self._resolved_variants[variant], stage),
        )
        try:
            return StageSettings.model_validate(merged)
        except ValidationError as error:
            raise ConfigError(f"{stage} of {model}/{variant}: {describe_validation_error(error)}") from error

    def pretrain_recipe(self, model: str, variant: str) -> TrainingRecipe:
        return self._recipe(model, variant, "pretrain", self._resolved_variants[variant].vdep, None)

    def finetune_recipe(self, model: str, variant: str) -> TrainingRecipe:
        return self._recipe(model, variant, "finetune", None, self.pretrain_recipe(model, variant).digest)

    def recipe(self, model: str, variant: str, stage: Stage) -> TrainingRecipe:
        return (self.pretrain_recipe if stage == "pretrain" else self.finetune_recipe)(model, variant)

    def _recipe(self, model: str, variant: str, stage: Stage, vdep: VdepSettings | None, initial: str | None) -> TrainingRecipe:
        settings = self.stage(model, variant, stage)
        if problems := list(contradictions(vdep, settings)) if vdep else []:
            raise ConfigError(f"{stage} of {model}/{variant}: {'; '.join(problems)}")
        entry = self.models[model]
        return TrainingRecipe(
            stage=stage,
            vision_tower=entry.vision_tower,
            tower_source=asset_identity(self.assets[entry.vision_tower.weights]),
            language_model=entry.language_model,
            language_source=asset_identity(self.assets[entry.language_model]),
            projector_init=entry.projector_init,
            data=self.preparation_recipe(model, variant, stage),
            settings=settings,
            vdep=vdep,
            initial=initial,
        )

    def preparation_recipe(self, model: str, variant: str, stage: Stage) -> PreparationRecipe:
        settings = self.stage(model, variant, stage)
        if settings.data not in self.datasets:
            raise ConfigError(
                f"{stage} of {model}/{variant}: there is no dataset named {settings.data!r} "
                f"(known: {', '.join(sorted(self.datasets))})"
            )
        dataset = self.datasets[settings.data]
        language_model = self.models[model].language_model
        sources = {dataset.conversations, *(archive.asset for archive in dataset.images)}
        return PreparationRecipe(
            name=settings.data,
            dataset=dataset,
            sources={name: asset_identity(self.assets[name]) for name in sorted(sources)},
            tokenizer=language_model,
            tokenizer_source=asset_identity(self.assets[language_model]),
            template=settings.template,
            image_tokens=self.models[model].vision_tower.image_tokens,
            max_length=settings.max_length,
        )

    def import_recipe(self, model: str, variant: str) -> ImportRecipe:
        name = self.imported(variant)
        assert name is not None
        tower = self.models[model].vision_tower
        return ImportRecipe(
            vision_tower=tower,
            tower_source=asset_identity(self.assets[tower.weights]),
            checkpoint=name,
            checkpoint_source=asset_identity(self.assets[name]),
            image=self.stage(model, variant, "finetune").image,
        )

    def evaluation_recipe(self, model: str, variant: str, benchmark: str) -> EvaluationRecipe:
        entry = self.benchmarks[benchmark]
        if entry.judged and self.judge is None:
            raise ConfigError(f"{benchmark} is graded by a judge, and none is configured: give `judge` in the configuration")
        settings = self.stage(model, variant, "finetune")
        return EvaluationRecipe(
            benchmark=benchmark,
            settings=entry,
            source=asset_identity(self.assets[entry.asset]),
            template=settings.template,
            image=settings.image,
            evaluation=self.evaluation,
            judge=self.judge if entry.judged else None,
        )

    # -- what is needed for what

    @property
    def ablation_tables(self) -> list[str]:
        """Beside the main ones, the tables of nothing but the study's checkpoints; any other is a target of its own."""
        own = set(self.checkpoints)
        return [n for n, table in self.tables.items() if n not in self.main_tables and table.rows and own >= set(table.rows)]

    @property
    def submission_benchmarks(self) -> list[str]:
        """Those that yield a file for a server instead of a score."""
        return [name for name, benchmark in self.benchmarks.items() if benchmark.scorer == SUBMISSION]

    def table_protocols(self, table: str) -> dict[str, Protocol]:
        """The protocols that a table may have to mark a cell with."""
        columns = set(self.tables[table].columns)
        return {name: protocol for name, protocol in self.protocols.items() if columns & set(protocol.columns)}

    def column_benchmarks(self, column: str) -> list[str]:
        """The benchmarks that a column is computed from, in a fixed order."""
        entry = self.columns[column]
        if entry.benchmark:
            return [entry.benchmark]
        return [b for part in (*entry.mean_of, *entry.sum_of) for b in self.column_benchmarks(part)]

    def left_out(self, column: str) -> bool:
        """Whether a column needs a judge and there is none."""
        return self.judge is None and any(self.benchmarks[name].judged for name in self.column_benchmarks(column))

    def graded_by_a_server(self, benchmark: str) -> bool:
        """Whether a benchmark is answered, graded and scored in three steps: a GPU does not wait for a server's grades."""
        return self.benchmarks[benchmark].judged and self.judge is not None and self.judge.kind == "openai"

    def table_evaluations(self, table: str) -> list[tuple[str, str, str]]:
        """(model, variant, benchmark) of every score that a table needs, each once, in the order of the table."""
        entry = self.tables[table]
        found = (
            (*split_checkpoint(row), benchmark)
            for row in entry.rows
            for column in entry.columns
            if not self.left_out(column)
            for benchmark in self.column_benchmarks(column)
        )
        return list(dict.fromkeys(found))

    def needed_assets(self) -> list[str]:
        """Every asset that any checkpoint, table or figure of this study needs, in a fixed order."""
        found: list[str] = []
        for model, variant in self.trained:
            entry = self.models[model]
            found += [entry.vision_tower.weights, entry.language_model]
            for stage in STAGES:
                found += self.preparation_recipe(model, variant, stage).sources
        for table in self.tables:
            found += [self.benchmarks[benchmark].asset for _, _, benchmark in self.table_evaluations(table)]
        found += [figure.asset for figure in self.figures.values()]
        return list(dict.fromkeys(found))

    def control_evaluations(self) -> list[tuple[str, str, str]]:
        """Those of the control table that are of controls; the other rows are in other tables already."""
        if self.control_table is None:
            return []
        return [key for key in self.table_evaluations(self.control_table) if f"{key[0]}/{key[1]}" in self.controls]


def deep_merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings are merged, everything else is replaced; neither argument is changed. Snakemake merges configs alike."""
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        merged[key] = deep_merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def split_checkpoint(name: str) -> tuple[str, str]:
    """``model/variant`` -> (model, variant)."""
    model, separator, variant = name.partition("/")
    if not separator or not model or not variant:
        raise ConfigError(f"a checkpoint is written as model/variant, not {name!r}")
    return model, variant


def describe_validation_error(error: ValidationError) -> str:
    """One line per problem: the key as one would write it, what is wrong, and the value that was given."""
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"]) or "configuration"
        given = problem.get("input")
        shown = "" if isinstance(given, Mapping | list) else f" (given: {given!r})"
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "there is no such key"
        lines.append(f"{key}: {message}{shown}")
    return "; ".join(lines)


def load_study(config: Mapping[str, Any]) -> Study:
    """Validate a merged configuration, with every reference and every resolved stage.

    Raises:
        ConfigError: naming the key and the reason.
    """
    try:
        study = Study.model_validate(dict(config))
    except ValidationError as error:
        raise ConfigError(f"configuration: {describe_validation_error(error)}") from error
    for model, variant in study.trained:
        for stage in STAGES:
            study.recipe(model, variant, stage)
    for key, drawn in study.loss_figures.items():
        for checkpoint in drawn:
            if study.imported(split_checkpoint(checkpoint)[1]):
                raise ConfigError(f"loss_figures.{key}: {checkpoint} is imported, and has no losses to draw")
    return study


def apply_lock(config: Mapping[str, Any], lock: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in what the configuration leaves null (revisions, hashes, sizes) from ``config/lock.yaml``."""
    assets = dict(config.get("assets", {}))
    for name, recorded in (lock.get("assets") or {}).items():
        if name in assets:
            asset = dict(assets[name])
            for key, value in recorded.items():
                if asset.get(key) is None:
                    asset[key] = value
            assets[name] = asset
    return {**config, "assets": assets}
