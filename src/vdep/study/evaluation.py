"""What checkpoints are evaluated on, and who grades them. It imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from .settings import Frozen, Name


class Judge(Frozen):
    """Who grades free-form answers: an OpenAI-compatible server, or a function on this machine.

    Where the server is and its key stand in the environment: ``OPENAI_BASE_URL`` and ``OPENAI_API_KEY``.
    """

    kind: Literal["openai", "function"]
    model: Annotated[str, Field(min_length=1)]
    """The server's name for the model; or ``package.module:function``, which takes a prompt and gives a grade in [0, 1]."""
    max_tokens: Annotated[int, Field(ge=1)] = 128
    """What a grade may be long; a model that thinks before it answers needs more."""


def _nobody(value: Any) -> Any:
    # the command line knows no null: snakemake --config judge=none
    return None if value in ("none", "null") else value


ChosenJudge = Annotated[Judge | None, BeforeValidator(_nobody)]


_MME = (
    *("existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR"),
    *("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning"),
)
SCORER_PARTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("mean", "letter", "judged", "mmmu", "mmt", "ocrbench"), ("score",)),
    "f1": ("score", "accuracy"),
    "circular": ("score", "question_accuracy"),
    "mme": ("score", "perception", "cognition", *_MME),
}
"""The numbers that each scorer yields (``vdep.evaluation.scores.SCORERS``, which no plan imports)."""

SUBMISSION = "submission"
"""The scorer of a split whose answers are not public: what is written is a file for the benchmark's server, and no score."""


class Benchmark(Frozen):
    """One benchmark as lmms-eval runs it, on data of ours.

    ``task`` is a task file of lmms-eval, relative to its ``tasks`` folder. ``files`` gives the Parquet files of the asset per
    split. ``scorer`` names how one sample is scored and the samples aggregated (``vdep.evaluation.scores``); ``judged`` asks
    the study's judge, and without one the benchmark is left out.
    """

    asset: Name
    task: str
    files: Annotated[dict[str, str], Field(min_length=1)]
    scorer: str
    cluster: str | None = None
    """What an interval resamples together: ``picture`` (all questions on the same picture, by its own bytes), ``question``
    (each by itself, with all its rotations in MMBench), or the field of the documents that names the picture."""
    samples: Annotated[int, Field(ge=1)] | None = None
    max_new_tokens: Annotated[int, Field(ge=1)] | None = None
    blind: bool = False

    @property
    def judged(self) -> bool:
        """Whether its answers are graded by the study's judge."""
        return self.scorer == "judged"

    @model_validator(mode="after")
    def _scored_in_clusters(self) -> Benchmark:
        if self.scorer == SUBMISSION:
            if self.cluster or self.blind:
                raise ValueError("a submission is not scored: it has no cluster and no blind pass")
        elif not self.cluster:
            raise ValueError(
                "say in `cluster` what an interval resamples together: picture, question, or the field of the documents that "
                "names the picture"
            )
        return self


class EvaluationSettings(Frozen):
    """What scores depend on besides the checkpoint and the benchmark."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1234
    precision: Literal["bf16", "float32"] = "bf16"
