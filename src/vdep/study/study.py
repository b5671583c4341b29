"""The whole configuration, after all files have been merged: its parts, resolved, and the recipe of each."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, Field, ValidationError

from ..errors import ConfigError
from .evaluation import SUBMISSION, Benchmark, ChosenJudge, EvaluationSettings
from .execution import Execution
from .messages import describe_validation_error
from .recipe import EvaluationRecipe, ImportRecipe, PreparationRecipe, TrainingRecipe
from .settings import (
    STAGES,
    Asset,
    Dataset,
    Frozen,
    Model,
    Name,
    Removable,
    Stage,
    StageOverride,
    StageSettings,
    Variant,
    VdepSettings,
    asset_identity,
    contradictions,
)
from .tables import Arms, AttentionFigure, Column, LossFigure, Protocol, Table, Target
from .verdicts import Claim, Comparison, Rules

IMPORTED = "imported"
"""Stands for a seed where others trained the checkpoint."""


class Run(NamedTuple):
    """One training of a model in a variant, of both stages. ``seed`` as paths have it: ``seed-42``, or ``imported``."""

    model: str
    variant: str
    seed: str


def _folder(value: str) -> str:
    if not value or set(value) & set("{}*?"):
        raise ValueError("should be a folder's path, without braces and wildcards")
    folder = os.path.normpath(Path(value).expanduser())
    if folder in (".", "/") or folder.split("/")[-1] == "..":
        raise ValueError("should be a folder of its own")
    return folder


Folder = Annotated[str, AfterValidator(_folder)]


class Study(Frozen):
    """The whole configuration, after all files have been merged. An entry that an overlay sets to null is taken away."""

    results: Folder
    """Folder of everything that is made."""
    resources: Folder
    """Folder of downloads and prepared data."""
    assets: Annotated[dict[Name, Asset], Removable]
    """Weights and data, and where they come from."""
    stages: dict[Stage, StageOverride]
    """The settings of stage 1 and SFT that all models and variants share."""
    models: Annotated[dict[Name, Model], Removable]
    """What is trained: a vision tower, a projector and a language model."""
    roles: dict[Name, Name] = Field(default_factory=dict)
    """Names for the models of tables and figures, so that another study gives the parts to models of another size."""
    datasets: Annotated[dict[Name, Dataset], Removable]
    """Conversations and their images."""
    validation: Annotated[dict[Stage, Name], Removable] = Field(default_factory=dict)
    """Datasets on which the text loss is measured during a stage, which changes nothing in it."""
    variants: Annotated[dict[Name, Variant], Removable]
    """Ways to train."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**32)], ...], Field(min_length=1)] = (42,)
    """Each run is made once for every seed, which decides its stage 1, its SFT and everything random in it."""
    benchmarks: Annotated[dict[Name, Benchmark], Removable]
    """What checkpoints are evaluated on."""
    judge: ChosenJudge = None
    """Grades free-form answers. Without one the columns of judged benchmarks are left out, and the tables say so."""
    columns: Annotated[dict[Name, Column], Removable]
    """Of tables."""
    protocols: dict[Name, Protocol] = Field(default_factory=dict)
    """Published numbers that other protocols made, and how the tables mark them."""
    tables: Annotated[dict[Name, Table], Removable]
    """Scores of checkpoints beside published numbers: ``snakemake results/tables/NAME.csv``."""
    figures: Annotated[dict[Name, AttentionFigure], Removable] = Field(default_factory=dict)
    """Attention of two checkpoints."""
    loss_figures: Annotated[dict[Name, LossFigure], Removable] = Field(default_factory=dict)
    """Losses of checkpoints."""
    targets: Annotated[dict[Name, Target], Removable] = Field(default_factory=dict)
    """What is built by which name."""
    comparison: Comparison | None = None
    """What is compared with what, question by question."""
    verdicts: Rules | None = None
    """By which rules a difference becomes a verdict."""
    only_model: Name | None = None
    """Leave every other model out: ``--config only_model=tinyllava-3b``."""
    only_stage: Stage | None = None
    """Train this stage, and stop before tables and figures: ``--config only_stage=pretrain``."""
    note: str | None = None
    """Stands under every table."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """How answers are made: what scores depend on besides the checkpoint and the benchmark."""
    execution: Execution
    """How everything is run; it changes no result."""

    # -- who is trained

    def model(self, name: str) -> str:
        """The model of a role, or of that name."""
        return self.roles.get(name, name)

    def seeds_of(self, variant: str) -> list[str]:
        return [IMPORTED] if self.imported(variant) else [f"seed-{seed}" for seed in self.seeds]

    def rows(self, arms: Arms) -> list[tuple[str, str]]:
        """(model, variant) of a table or a figure, those of models that are left out excepted."""
        return [(m, v) for m in map(self.model, arms.models) if self.only_model in (None, m) for v in arms.variants]

    def runs(self, arms: Arms) -> list[Run]:
        return [Run(model, variant, seed) for model, variant in self.rows(arms) for seed in self.seeds_of(variant)]

    def sides(self, figure: str) -> list[Run]:
        """The checkpoints of an attention figure: all seeds of the left one, then of the right one, then of each control."""
        entry = self.figures[figure]
        return self.runs(Arms(models=(entry.model,), variants=entry.variants))

    @cached_property
    def all_runs(self) -> list[Run]:
        """Of every table and every figure."""
        arms = (*self.tables.values(), *self.loss_figures.values())
        runs = [run for each in arms for run in self.runs(each)] + [run for name in self.figures for run in self.sides(name)]
        runs += [run for target in self.targets.values() for run in self.claimed_runs(target)]
        return list(dict.fromkeys(runs))

    def arms_of(self, claim: Claim) -> Arms:
        return Arms(models=claim.models, variants=tuple(dict.fromkeys(v for pair in claim.pairs for v in pair.variants)))

    def claimed_runs(self, target: Target) -> list[Run]:
        """Those that the claims of a target are about."""
        return [run for name in target.verdicts for run in self.runs(self.arms_of(self.claims[name]))]

    @property
    def claims(self) -> dict[str, Claim]:
        return self.verdicts.claims if self.verdicts else {}

    @cached_property
    def trainable(self) -> list[tuple[str, str]]:
        """(model, variant) of all that can be trained, whether a table or a figure has it or not."""
        own = [variant for variant in self.variants if not self.imported(variant)]
        return [(model, variant) for model in self.models for variant in own if not any(self.problems(model, variant))]

    # -- resolution

    @cached_property
    def resolved_variants(self) -> dict[str, Variant]:
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
            changes = self.variants[link].model_dump(mode="json", exclude_unset=True, exclude={"extends"})
            merged = deep_merge(merged, changes)
        try:
            return Variant.model_validate(merged)
        except ValidationError as error:
            raise ConfigError(f"variants.{name}: {describe_validation_error(error)}") from error

    def imported(self, variant: str) -> str | None:
        """The asset with the checkpoint of a variant that others have trained."""
        return self.resolved_variants[variant].imported

    def stage(self, model: str, variant: str, stage: Stage, seed: str | None = None) -> StageSettings:
        """The settings of one stage: the study's, then the model's, then the variant's; ``seed``: the study's first."""
        key = (model, variant, stage)
        if key not in self._stages:
            layers = (self.stages[stage], getattr(self.models[model], stage), getattr(self.resolved_variants[variant], stage))
            merged: dict[str, Any] = {}
            for layer in layers:
                merged = deep_merge(merged, layer.model_dump(mode="json", exclude_unset=True))
            try:
                self._stages[key] = StageSettings.model_validate({**merged, "seed": self.seeds[0]})
            except ValidationError as error:
                raise ConfigError(f"{stage} of {model}/{variant}: {describe_validation_error(error)}") from error
        settings = self._stages[key]
        if seed in (None, IMPORTED, f"seed-{settings.seed}"):
            return settings
        return settings.model_copy(update={"seed": int(seed.removeprefix("seed-"))})

    @cached_property
    def _stages(self) -> dict[tuple[str, str, Stage], StageSettings]:
        return {}

    def problems(self, model: str, variant: str) -> Iterator[str]:
        """What cannot be meant in a variant of a model, a line each."""
        entry = self.resolved_variants[variant]
        vdep = entry.vdep
        if entry.imported and self.model(entry.model or model) != model:
            yield f"{model}/{variant}: the checkpoint {entry.imported} is of {entry.model} alone (variants.{variant}.model)"
        for stage in STAGES:
            where = f"{stage} of {model}/{variant}"
            try:
                settings = self.stage(model, variant, stage)
            except ConfigError as error:
                yield str(error)
                continue
            if settings.data not in self.datasets:
                yield f"{where}: there is no dataset named {settings.data!r} (known: {', '.join(sorted(self.datasets))})"
            image_tokens = self.models[model].vision_tower.image_tokens
            if not entry.imported and settings.max_length <= image_tokens:
                yield f"{where}: max_length: {settings.max_length} has no room for text beside {image_tokens} image tokens"
            if vdep is not None and stage == "pretrain":
                yield from (f"{where}: {problem}" for problem in contradictions(vdep, settings))

    def recipe(self, model: str, variant: str, stage: Stage, seed: str | None = None) -> TrainingRecipe:
        """``seed``: as paths have it; the study's first."""
        first = stage == "pretrain"
        vdep: VdepSettings | None = self.resolved_variants[variant].vdep if first else None
        entry = self.models[model]
        return TrainingRecipe(
            stage=stage,
            vision_tower=entry.vision_tower,
            tower_source=asset_identity(self.assets[entry.vision_tower.weights]),
            language_model=entry.language_model,
            language_source=asset_identity(self.assets[entry.language_model]),
            projector_init=entry.projector_init,
            data=self.preparation_recipe(model, variant, stage),
            settings=self.stage(model, variant, stage, seed),
            vdep=vdep,
            initial=None if first else self.recipe(model, variant, "pretrain", seed).digest,
        )

    def preparation_recipe(self, model: str, variant: str, stage: Stage, data: str | None = None) -> PreparationRecipe:
        """Of a stage's own data, or of another dataset in the same way."""
        settings = self.stage(model, variant, stage)
        name = data or settings.data
        dataset = self.datasets[name]
        language_model = self.models[model].language_model
        sources = {dataset.conversations, *(archive.asset for archive in dataset.images)}
        return PreparationRecipe(
            name=name,
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

    def scored_recipes(self, run: Run, benchmark: str) -> tuple[str, str]:
        """The digests that a score has to be of: of the checkpoint's recipe and of the evaluation's."""
        model, variant, seed = run
        checkpoint = self.import_recipe(model, variant) if seed == IMPORTED else self.recipe(model, variant, "finetune", seed)
        return checkpoint.digest, self.evaluation_recipe(model, variant, benchmark).digest

    # -- what is measured

    @property
    def submission_benchmarks(self) -> list[str]:
        """Those that yield a file for a server instead of a score."""
        return [name for name, benchmark in self.benchmarks.items() if benchmark.scorer == SUBMISSION]

    def table_protocols(self, table: str) -> dict[str, Protocol]:
        """The protocols that a table may have to mark a cell with."""
        columns = set(self.tables[table].columns)
        return {name: protocol for name, protocol in self.protocols.items() if columns & set(protocol.columns)}

    def column_parts(self, column: str) -> list[str]:
        """A column and those that it is computed from."""
        entry = self.columns[column]
        return [column, *(part for name in (*entry.mean_of, *entry.sum_of) for part in self.column_parts(name))]

    def column_benchmarks(self, column: str) -> list[str]:
        """The benchmarks that a column is computed from, in a fixed order."""
        return [benchmark for name in self.column_parts(column) if (benchmark := self.columns[name].benchmark)]

    def left_out(self, column: str) -> bool:
        """Whether a column needs a judge and there is none."""
        return self.judge is None and any(self.benchmarks[name].judged for name in self.column_benchmarks(column))

    def graded_by_a_server(self, benchmark: str) -> bool:
        """Whether a benchmark is answered, graded and scored in three steps: a GPU does not wait for a server's grades."""
        return self.benchmarks[benchmark].judged and self.judge is not None and self.judge.kind == "openai"

    def table_evaluations(self, table: str) -> list[tuple[Run, str]]:
        """(run, benchmark) of every score that a table needs, each once, in the order of the table."""
        entry = self.tables[table]
        benchmarks = [b for column in entry.columns if not self.left_out(column) for b in self.column_benchmarks(column)]
        return list(dict.fromkeys((run, benchmark) for run in self.runs(entry) for benchmark in benchmarks))


def deep_merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings are merged, everything else is replaced; neither argument is changed. Snakemake merges configs alike."""
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        merged[key] = deep_merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def apply_lock(config: Mapping[str, Any], lock: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in what the configuration leaves null (revisions, hashes, sizes) from ``config/lock.yaml``."""
    if not isinstance(config.get("assets"), Mapping):
        return dict(config)
    assets = dict(config["assets"])
    for name, recorded in (lock.get("assets") or {}).items():
        if isinstance(assets.get(name), Mapping):
            asset = dict(assets[name])
            for key, value in recorded.items():
                if asset.get(key) is None:
                    asset[key] = value
            assets[name] = asset
    return {**config, "assets": assets}
