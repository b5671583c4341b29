"""What can be configured, and what determines a result.

This is everything that Snakemake parses of the package: types for the whole configuration (``Study``), the *recipe* of a
training or an evaluation, and its digest. It imports no torch.

A recipe holds everything that determines weights or scores, and nothing else: no number of GPUs, no micro-batch, no path.
Its digest is the SHA-256 of its canonical JSON. Rules pass that JSON as one string parameter, because Snakemake compares a
rule's parameters as a set of values without their names.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .errors import ConfigError

METHOD_VERSION = 1
"""Raised by hand when training computes something else on purpose; tests/test_golden.py fails when it does without."""

EVALUATION_VERSION = 1
"""The same for scores."""

STAGES = ("pretrain", "finetune")
Stage = Literal["pretrain", "finetune"]
NAME = r"^[a-z0-9][a-z0-9._-]*$"
Name = Annotated[str, Field(pattern=NAME)]


class Settings(BaseModel):
    """Unknown keys are errors, and nothing changes after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# ---------------------------------------------------------------------------------------------------------------- assets


class HubAsset(Settings):
    """Files of a Hugging Face repository. ``revision`` is a commit; null until a first download records it."""

    kind: Literal["hub"]
    repo: str
    type: Literal["model", "dataset"] = "model"
    revision: str | None = None
    files: tuple[str, ...] = ()


class UrlAsset(Settings):
    """One file over HTTP. ``sha256`` and ``size`` are null until a first download records them."""

    kind: Literal["url"]
    url: Annotated[str, Field(pattern=r"^https?://")]
    sha256: str | None = None
    size: int | None = None


class ShippedAsset(Settings):
    """A folder that comes with this repository. ``revision`` is the digest of its content, and is checked."""

    kind: Literal["shipped"]
    path: str
    revision: str


class MadeAsset(Settings):
    """Made on the spot by ``python -m vdep make`` (the demo world): what it is, and from which numbers."""

    kind: Literal["made"]
    maker: str
    arguments: dict[str, int | float | str] = {}


Asset = Annotated[HubAsset | UrlAsset | ShippedAsset | MadeAsset, Field(discriminator="kind")]


def asset_identity(asset: Asset) -> dict[str, Any]:
    """What a recipe says of an asset: where it comes from and at which revision, not its hash or its size."""
    return asset.model_dump(mode="json", exclude={"sha256", "size"})


# ----------------------------------------------------------------------------------------------- models, data, training


class VisionTower(Settings):
    """``feature_select`` in the words of transformers: ``default`` drops the first token, ``full`` keeps all.

    CLIP has a class token, so ``default`` leaves the patches. SigLIP has none: ``full`` is right, and ``default`` is the
    728-token behaviour of the TinyLLaVA Factory. ``image_tokens`` is the number of image tokens that results; building
    the model checks it.
    """

    weights: Name
    image_tokens: Annotated[int, Field(ge=1)]
    layer: int = -2
    feature_select: Literal["default", "full"] = "default"


class VdepSettings(Settings):
    """The objective and the schedule of stage 1 (paper, sections 3.2 and 3.3). What the paper leaves open has a field."""

    alpha: Annotated[float, Field(ge=0, le=1)] = 0.001
    ratio: Annotated[float, Field(gt=0, le=1)] = 1.0
    loss: Literal["l2", "sigmoid_l2", "inverse_l2"] = "l2"
    schedule: Literal["interleaved", "fused"] = "interleaved"
    position: Literal["same", "next"] = "same"
    detach_target: bool = True
    reduction: Literal["mean", "sum_dims"] = "mean"
    normalize: Literal["none", "layer_norm"] = "none"
    inverse_floor: Annotated[float, Field(gt=0)] = 1e-6


class StageSettings(Settings):
    """One stage of training. Defaults in ``stages``; a model and a variant may set any field of their own."""

    data: Name
    template: Literal["plain", "vicuna_v1", "phi"]
    image: Literal["crop", "pad", "warp"]
    epochs: Annotated[int, Field(ge=1)] = 1
    global_batch: Annotated[int, Field(ge=1)]
    learning_rate: Annotated[float, Field(gt=0)]
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.03
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    gradient_clipping: Annotated[float, Field(ge=0)] = 0.0
    max_length: Annotated[int, Field(ge=8)] = 2048
    grouping: Literal["none", "modality_length"] = "none"
    precision: Literal["bf16", "float32"] = "bf16"
    tf32: bool = True
    dropout: Literal["model"] | Annotated[float, Field(ge=0, lt=1)] = "model"
    seed: int = 42


StageOverride = dict[str, Any]


class Model(Settings):
    vision_tower: VisionTower
    language_model: Name
    pretrain: StageOverride = {}
    finetune: StageOverride = {}


class Variant(Settings):
    """One way to train. ``extends`` names another variant, whose settings this one changes."""

    extends: Name | None = None
    vdep: VdepSettings | None = None
    pretrain: StageOverride = {}
    finetune: StageOverride = {}


class ImageArchive(Settings):
    """Images whose path in the conversations starts with ``prefix`` lie in ``asset`` under ``folder`` plus the rest."""

    asset: Name
    prefix: str = ""
    folder: str = ""


class Dataset(Settings):
    """Conversations as LLaVA JSON and the archives of their images; ``on_defect`` says what a defective sample does."""

    conversations: Name
    file: str | None = None
    images: tuple[ImageArchive, ...] = ()
    on_defect: Literal["stop", "drop"] = "stop"


# ------------------------------------------------------------------------------------------------ benchmarks and tables


class Judge(Settings):
    """Who grades free-form answers: an OpenAI-compatible server, or ``exact_match``, a local one started for the run."""

    kind: Literal["openai", "exact_match"]
    model: str
    url_variable: str = "VDEP_JUDGE_URL"
    key_variable: str = "VDEP_JUDGE_KEY"


class Benchmark(Settings):
    """One benchmark as lmms-eval runs it, on data of ours.

    ``task`` is a task file of lmms-eval, relative to its ``tasks`` folder. ``files`` gives the Parquet files of the asset per
    split. ``scorer`` names how one sample is scored and the samples aggregated (``vdep.evaluation.scores``).
    """

    asset: Name
    task: str
    files: dict[str, str]
    scorer: str
    samples: int | None = None
    max_new_tokens: int | None = None
    judge: Judge | None = None
    blind: bool = False


class Column(Settings):
    """A column of a table: a part of one benchmark, or the mean or the sum of other columns."""

    label: str
    benchmark: Name | None = None
    part: str = "score"
    mean_of: tuple[Name, ...] = ()
    sum_of: tuple[Name, ...] = ()

    @model_validator(mode="after")
    def _one_source(self) -> Column:
        if sum(bool(source) for source in (self.benchmark, self.mean_of, self.sum_of)) != 1:
            raise ValueError("give exactly one of benchmark, mean_of, sum_of")
        return self


class Table(Settings):
    """Rows are checkpoints (``model/variant``), or lists of them; ``published`` names tables of config/published.csv."""

    title: str
    rows: tuple[str, ...]
    columns: tuple[Name, ...]
    published: tuple[str, ...] = ()


class AttentionFigure(Settings):
    """Figure 1 of the paper: two checkpoints side by side on the same images."""

    left: str
    right: str
    asset: Name
    file: str
    samples: Annotated[int, Field(ge=1)] = 4
    curve_samples: Annotated[int, Field(ge=1)] = 64
    question: str = "Describe this photo in detail."


class StageExecution(Settings):
    """How a stage is run, which does not change what it computes. Not part of a recipe."""

    gpus: Annotated[int, Field(ge=0)]
    processes: Annotated[int, Field(ge=1)]
    micro_batch: Annotated[int, Field(ge=1)]
    engine: str = "ddp"
    threads: Annotated[int, Field(ge=1)] = 1
    workers: Annotated[int, Field(ge=0)] = 0
    save_every: Annotated[int, Field(ge=1)] = 200
    keep: Annotated[int, Field(ge=1)] = 2
    log_every: Annotated[int, Field(ge=1)] = 10
    probe_every: Annotated[int, Field(ge=0)] = 100
    activation_checkpointing: bool = False
    runtime: str = "8h"
    memory: str = "64GB"


class EvaluationExecution(Settings):
    gpus: Annotated[int, Field(ge=0)] = 1
    threads: Annotated[int, Field(ge=1)] = 1
    batch_size: Annotated[int, Field(ge=1)] = 16
    runtime: str = "8h"
    memory: str = "64GB"


class Execution(Settings):
    device: Literal["cuda", "cpu"]
    pretrain: StageExecution
    finetune: StageExecution
    evaluate: EvaluationExecution
    prepare_workers: Annotated[int, Field(ge=1)] = 1


class EvaluationSettings(Settings):
    """What scores depend on besides the checkpoint and the benchmark."""

    seed: int = 1234
    precision: Literal["bf16", "float32"] = "bf16"


# ----------------------------------------------------------------------------------------------------------- the study


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
    columns: dict[Name, Column]
    checkpoints: tuple[str, ...]
    controls: tuple[str, ...] = ()
    control_columns: tuple[Name, ...] = ()
    tables: dict[Name, Table]
    main_tables: tuple[Name, ...]
    figures: dict[Name, AttentionFigure] = {}
    skills: bool = False
    """Report by skill, for benchmarks that say which skill a question asks for (the demo's)."""
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
            for part in (*column.mean_of, *column.sum_of):
                yield from missing(part, "column", self.columns, f"columns.{key}")
        for key, variant in self.variants.items():
            if variant.extends:
                yield from missing(variant.extends, "variant", self.variants, f"variants.{key}.extends")
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
        for where, checkpoints in (("checkpoints", self.checkpoints), ("controls", self.controls)):
            for checkpoint in checkpoints:
                yield from self._missing_checkpoint(checkpoint, where)
        for column_name in self.control_columns:
            yield from missing(column_name, "column", self.columns, "control_columns")

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
        entry = self.models[model]
        return TrainingRecipe(
            stage=stage,
            vision_tower=entry.vision_tower,
            tower_source=asset_identity(self.assets[entry.vision_tower.weights]),
            language_model=entry.language_model,
            language_source=asset_identity(self.assets[entry.language_model]),
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

    def evaluation_recipe(self, model: str, variant: str, benchmark: str) -> EvaluationRecipe:
        entry = self.benchmarks[benchmark]
        settings = self.stage(model, variant, "finetune")
        return EvaluationRecipe(
            benchmark=benchmark,
            settings=entry,
            source=asset_identity(self.assets[entry.asset]),
            template=settings.template,
            image=settings.image,
            evaluation=self.evaluation,
        )

    # -- what is needed for what

    def column_benchmarks(self, column: str) -> list[str]:
        """The benchmarks that a column is computed from, in a fixed order."""
        entry = self.columns[column]
        if entry.benchmark:
            return [entry.benchmark]
        return [b for part in (*entry.mean_of, *entry.sum_of) for b in self.column_benchmarks(part)]

    def table_evaluations(self, table: str) -> list[tuple[str, str, str]]:
        """(model, variant, benchmark) of every score that a table needs, each once, in the order of the table."""
        entry = self.tables[table]
        found = (
            (*split_checkpoint(row), benchmark)
            for row in entry.rows
            for column in entry.columns
            for benchmark in self.column_benchmarks(column)
        )
        return list(dict.fromkeys(found))

    def needed_assets(self) -> list[str]:
        """Every asset that any checkpoint, table or figure of this study needs, in a fixed order."""
        found: list[str] = []
        for checkpoint in (*self.checkpoints, *self.controls):
            model, variant = split_checkpoint(checkpoint)
            entry = self.models[model]
            found += [entry.vision_tower.weights, entry.language_model]
            for stage in STAGES:
                found += self.preparation_recipe(model, variant, stage).sources  # type: ignore[arg-type]
        for table in self.tables:
            found += [self.benchmarks[benchmark].asset for _, _, benchmark in self.table_evaluations(table)]
        found += [figure.asset for figure in self.figures.values()]
        return list(dict.fromkeys(found))

    def control_evaluations(self) -> list[tuple[str, str, str]]:
        found = (
            (*split_checkpoint(row), benchmark)
            for row in self.controls
            for column in self.control_columns
            for benchmark in self.column_benchmarks(column)
        )
        return list(dict.fromkeys(found))


# ------------------------------------------------------------------------------------------------------------- recipes


class Recipe(Settings):
    """A digest over everything that determines a result."""

    @cached_property
    def canonical(self) -> str:
        return canonical_json(self.model_dump(mode="json"))

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.canonical.encode()).hexdigest()

    @property
    def key(self) -> str:
        """The part of the digest that names folders: 64 bits, and the whole digest is checked inside."""
        return self.digest[:16]


class PreparationRecipe(Recipe):
    """What determines the token ids, the labels and the order of a prepared dataset."""

    method_version: int = METHOD_VERSION
    name: str
    dataset: Dataset
    sources: dict[str, dict[str, Any]]
    tokenizer: str
    tokenizer_source: dict[str, Any]
    template: str
    image_tokens: int
    max_length: int


class TrainingRecipe(Recipe):
    """What determines the weights of one stage. ``initial`` is the digest of the stage before, for SFT."""

    method_version: int = METHOD_VERSION
    stage: Stage
    vision_tower: VisionTower
    tower_source: dict[str, Any]
    language_model: str
    language_source: dict[str, Any]
    data: PreparationRecipe
    settings: StageSettings
    vdep: VdepSettings | None
    initial: str | None
    image_backend: Literal["pil"] = "pil"


class EvaluationRecipe(Recipe):
    """What determines a score besides the checkpoint."""

    evaluation_version: int = EVALUATION_VERSION
    benchmark: str
    settings: Benchmark
    source: dict[str, Any]
    template: str
    image: str
    evaluation: EvaluationSettings
    lmms_eval: str = "0.7.3"
    image_backend: Literal["pil"] = "pil"


# ------------------------------------------------------------------------------------------------------------- helpers


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no spaces and shortest round-trip numbers. 1.0 and 1 stay different; NaN is refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


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
    for checkpoint in (*study.checkpoints, *study.controls):
        model, variant = split_checkpoint(checkpoint)
        for stage in STAGES:
            recipe = study.recipe(model, variant, stage)  # type: ignore[arg-type]
            if not math.isfinite(recipe.settings.learning_rate):
                raise ConfigError(f"{stage} of {checkpoint}: the learning rate is not finite")
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
