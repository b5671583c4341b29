"""What determines a result: the *recipe* of a preparation, a training or an evaluation, and its digest.

A recipe holds everything that determines weights or scores, and nothing else: no number of GPUs, no micro-batch, no path.
Its digest is the SHA-256 of its canonical JSON. Rules pass that JSON as one string parameter, because Snakemake compares a
rule's parameters as a set of values without their names.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import Any, Literal

from pydantic import SerializerFunctionWrapHandler, field_serializer

from .evaluation import Benchmark, EvaluationSettings, Judge
from .settings import Dataset, Frozen, ProjectorInit, Stage, StageSettings, VdepSettings, VisionTower

METHOD_VERSION = 4
"""Raised by hand when training computes something else on purpose; tests/test_golden.py fails when it does without.

4: the token that is only the space before an answer is trained, and Llama's merges are SentencePiece's (docs/log.md).
"""

LATER = ("target", "temperature")
"""Fields of ``VdepSettings`` that came after recipes of this version had been written. At its default such a field is not said:
what was trained before it keeps its digest."""

EVALUATION_VERSION = 3
"""The same for scores."""


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no spaces and shortest round-trip numbers. 1.0 and 1 stay different; NaN is refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


class Recipe(Frozen):
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
    projector_init: ProjectorInit
    data: PreparationRecipe
    settings: StageSettings
    vdep: VdepSettings | None
    initial: str | None
    image_backend: Literal["pil"] = "pil"

    @field_serializer("vdep", mode="wrap")
    def _without_what_came_later(self, vdep: VdepSettings | None, write: SerializerFunctionWrapHandler) -> Any:
        fields = VdepSettings.model_fields
        later = {name for name in LATER if vdep is not None and getattr(vdep, name) == fields[name].default}
        written = write(vdep)
        return written and {name: value for name, value in written.items() if name not in later}

    @property
    def text_samples_a_step(self) -> float:
        """Samples whose text a step trains: the rest of an interleaved batch is in VDEP mode."""
        mixed = self.vdep is not None and self.vdep.schedule == "interleaved"
        return self.settings.global_batch / (1 + (self.vdep.ratio if self.vdep and mixed else 0))


class ImportRecipe(Recipe):
    """What determines a checkpoint that others trained. ``image`` is how its images were prepared in SFT."""

    method_version: int = METHOD_VERSION
    vision_tower: VisionTower
    tower_source: dict[str, Any]
    checkpoint: str
    checkpoint_source: dict[str, Any]
    image: str


class EvaluationRecipe(Recipe):
    """What determines a score besides the checkpoint."""

    evaluation_version: int = EVALUATION_VERSION
    benchmark: str
    settings: Benchmark
    source: dict[str, Any]
    template: str
    image: str
    evaluation: EvaluationSettings
    judge: Judge | None = None
    """Who grades the answers, for a benchmark that needs it."""
    lmms_eval: str = "0.7.3"
    image_backend: Literal["pil"] = "pil"

    @property
    def of_answers(self) -> EvaluationRecipe:
        """What determines the model's answers: the judge has no part in them."""
        # not model_copy, which would copy the cached JSON too
        return EvaluationRecipe.model_validate(self.model_dump() | {"judge": None})
