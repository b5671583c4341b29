"""What can be configured: types for every part of the configuration. It imports no torch.

Unknown keys, values out of range and names of the wrong form are errors; ``study`` checks that the parts fit together.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, create_model, model_validator

Stage = Literal["pretrain", "finetune"]
STAGES: tuple[Stage, ...] = ("pretrain", "finetune")
NAME = r"^[a-z0-9][a-z0-9._-]*$"
Name = Annotated[str, Field(pattern=NAME)]
Address = Annotated[str, Field(pattern=r"^https?://")]
EntryPoint = Annotated[str, Field(pattern=r"^[\w.]+:\w+$")]
"""``package.module:function``."""


class Frozen(BaseModel):
    """Unknown keys and numbers that are not finite are errors, and nothing changes after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


# ---------------------------------------------------------------------------------------------------------------- assets


class HubAsset(Frozen):
    """Files of a Hugging Face repository. ``revision`` is a commit; null until a first download records it.

    ``mirror`` is another hub to ask, ``https://...``, which is sent no token. HF_ENDPOINT sets one for all.
    """

    kind: Literal["hub"]
    repo: str
    type: Literal["model", "dataset"] = "model"
    revision: str | None = None
    files: tuple[str, ...] = ()
    mirror: Address | None = None


class UrlAsset(Frozen):
    """One file over HTTP. ``sha256`` and ``size`` are null until a first download records them.

    ``mirror`` is another address of the same file, which is asked instead.
    """

    kind: Literal["url"]
    url: Address
    sha256: str | None = None
    size: int | None = None
    mirror: Address | None = None

    @property
    def address(self) -> str:
        """What is asked."""
        return self.mirror or self.url


class ShippedAsset(Frozen):
    """A folder that comes with this repository. ``revision`` is the digest of its content, and is checked."""

    kind: Literal["shipped"]
    path: str
    revision: str


class LocalAsset(Frozen):
    """A file or a folder that is there already, and is never copied.

    ``revision`` is its digest (of a file the SHA-256), which alone stands in recipes: it may move. Null until `make lock`.
    """

    kind: Literal["local"]
    path: str
    revision: str | None = None


class MadeAsset(Frozen):
    """Made on the spot by a function: ``maker(folder, **arguments)``."""

    kind: Literal["made"]
    maker: EntryPoint
    arguments: dict[str, int | float | str] = {}


Asset = Annotated[HubAsset | UrlAsset | ShippedAsset | LocalAsset | MadeAsset, Field(discriminator="kind")]


def asset_identity(asset: Asset) -> dict[str, Any]:
    """What a recipe says of an asset: where it comes from and at which revision, not its hash, its size or a mirror."""
    # where a local one lies says nothing of what it is
    place = {"path"} if isinstance(asset, LocalAsset) else set()
    return asset.model_dump(mode="json", exclude={"sha256", "size", "mirror", *place})


# ----------------------------------------------------------------------------------------------- models, data, training


def _a_layer(number: int) -> int:
    if number == 0:
        raise ValueError("0 is the embeddings, before any layer: count from 1, or backwards from -1")
    return number


class VisionTower(Frozen):
    """``feature_select`` in the words of transformers: ``default`` drops the first token, ``full`` keeps all.

    CLIP has a class token, so ``default`` leaves the patches. SigLIP has none: ``full`` is right, and ``default`` is the
    728-token behaviour of the TinyLLaVA Factory. ``image_tokens`` is the number of image tokens that results; building
    the model checks it.
    """

    weights: Name
    image_tokens: Annotated[int, Field(ge=1)]
    layer: Annotated[int, AfterValidator(_a_layer)] = -2
    feature_select: Literal["default", "full"] = "default"


class VdepSettings(Frozen):
    """The objective and the schedule of stage 1 (paper, sections 3.2 and 3.3). What the paper leaves open has a field, and
    docs/decisions.md says why each default is what it is."""

    alpha: Annotated[float, Field(ge=0)] = 0.001
    """Weight of the image loss (Eq. 10)."""
    ratio: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the samples that an epoch trains once more, in VDEP mode (Tables 5 and 6)."""
    loss: Literal["l2", "sigmoid_l2", "inverse_l2"] = "l2"
    """Form of the image loss (Tables 8 to 10)."""
    schedule: Literal["interleaved", "fused"] = "interleaved"
    """Both modes one after the other, as in the paper; or both losses of a sample in one pass, the same gradient."""
    position: Literal["same", "next"] = "same"
    """Which state is compared with the embedding at p: the one at p, or the one before it."""
    detach_target: bool = True
    """Whether the gradient stops at the target."""
    distance: Literal["squared", "root"] = "squared"
    """The squared distance of Eq. 6, or its root, "the L2 norm" of the paper's text."""
    reduction: Literal["mean", "sum_dims"] = "mean"
    """Squared errors averaged over dimensions, or summed."""
    positions: Literal["mean", "sum"] = "mean"
    """Averaged over positions; or summed over the positions of a sample, and then averaged over samples."""
    form: Literal["position", "group"] = "position"
    """Whether the sigmoid and the inverse are taken of each position's distance, or of a normalisation group's mean."""
    normalize: Literal["none", "layer_norm"] = "none"
    """Whether state and target are layer-normalised (without parameters) first."""
    inverse_floor: Annotated[float, Field(gt=0)] = 1e-6
    """Added to the distance in ``inverse_l2``."""
    mixing: Literal["batch", "steps"] = "batch"
    """Both modes in every global batch, or whole steps of one mode that alternate."""
    auto_image: Literal["sentinel", "token"] = "sentinel"
    """Whether ``<auto_image>`` is only a sign of the mode, or also a token before the image whose embedding is trained."""


class MicroBatchMeans(Frozen):
    """The originals' normalisation: the mean over micro-batches of ``micro_batch`` consecutive samples, each of their means."""

    micro_batch: Annotated[int, Field(ge=1)]


Beta = Annotated[float, Field(ge=0, lt=1)]


class StageSettings(Frozen):
    """One stage of training, as its recipe has it: the study's ``stages``, changed by the model, then by the variant."""

    data: Name
    """The dataset."""
    template: Literal["plain", "vicuna_v1", "phi"]
    """How turns become text: ``plain`` is caption training, the others are LLaVA's ``vicuna_v1`` and the Factory's ``phi``."""
    image: Literal["crop", "pad", "warp"]
    """How a picture is made square: resized and cropped in the centre, padded with the mean colour, or warped."""
    epochs: Annotated[int, Field(ge=1)] = 1
    """Times that every sample is trained on (once more in VDEP mode, with VDEP)."""
    global_batch: Annotated[int, Field(ge=1)]
    """Samples of an optimizer step, over all ranks and micro-batches."""
    learning_rate: Annotated[float, Field(gt=0)]
    """The highest, after warming up."""
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.03
    """Share of the steps in which the learning rate rises from 0."""
    decay: Literal["cosine", "constant"] = "cosine"
    """What the learning rate does after warming up."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Of AdamW; biases and norms have none."""
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    """Of AdamW."""
    epsilon: Annotated[float, Field(ge=0)] = 1e-8
    """Of AdamW."""
    gradient_clipping: Annotated[float, Field(ge=0)] = 0.0
    """The largest norm of the gradient; 0: whatever it is."""
    normalization: Literal["global"] | MicroBatchMeans = "global"
    """Over what the losses are averaged: the global batch, or ``{micro_batch: n}`` (docs/decisions.md)."""
    max_length: Annotated[int, Field(ge=8)] = 2048
    """Tokens of a sample, its image tokens counted; what is longer is cut."""
    grouping: Literal["none", "modality_length"] = "none"
    """Whether a global batch holds samples of one modality and of similar lengths (SFT)."""
    precision: Literal["bf16", "float32"] = "bf16"
    """Of activations, and of the exported weights of SFT; masters and moments are float32."""
    tf32: bool = True
    """Whether float32 products may use TF32 on a GPU."""
    dropout: Literal["model"] | Annotated[float, Field(ge=0, lt=1)] = "model"
    """As the language model's configuration has it, or a number instead."""
    seed: int = 42
    """Decides all that is random in a run; from the study's ``seeds``."""

    @property
    def group_size(self) -> int | None:
        """Samples of a normalisation group; None where the global batch is one."""
        return None if self.normalization == "global" else self.normalization.micro_batch


def contradictions(vdep: VdepSettings, stage: StageSettings) -> Iterator[str]:
    """What cannot be meant together, a sentence each."""
    if vdep.alpha > 1 and vdep.positions == "mean":
        yield f"vdep.alpha: should be less than or equal to 1, or positions be summed (given: {vdep.alpha})"
    if vdep.form == "group" and stage.group_size is None:
        yield "vdep.form: group needs normalization: {micro_batch: n}, which says what a group is"
    if stage.grouping != "none":
        yield f"grouping: {stage.grouping} is for SFT; with vdep, stage 1 mixes both modes and all lengths in every batch"
    if vdep.schedule == "fused":
        # one pass is both modes only where nothing but the loss differs between them, sample by sample
        inexact = {
            "vdep.mixing: steps": vdep.mixing == "steps",
            "vdep.auto_image: token": vdep.auto_image == "token",
            "vdep.form: group": vdep.form == "group",
            "normalization: {micro_batch: n}": stage.group_size is not None,
        }
        for name, chosen in inexact.items():
            if chosen:
                yield f"vdep.schedule: fused is not exact with {name}; use interleaved"


def _override() -> type[Frozen]:
    """``StageSettings`` without the seed, in which every field may be left out."""
    fields: dict[str, Any] = {}
    for name, field in StageSettings.model_fields.items():
        if name != "seed":
            annotation = StageSettings.__annotations__[name]
            fields[name] = (annotation, Field(default=None, description=field.description))
    documented = "Changes to a stage of training: any of its settings. `seeds` of the study takes the place of a seed."
    return create_model("StageOverride", __base__=Frozen, __module__=__name__, __doc__=documented, **fields)


if TYPE_CHECKING:

    class StageOverride(Frozen): ...

else:
    StageOverride = _override()


ProjectorInit = Literal["linear", "normal"]
"""How a new projector is drawn: as ``nn.Linear`` draws it (LLaVA), or from N(0, 0.02) with zero biases (TinyLLaVA Factory)."""


class Model(Frozen):
    vision_tower: VisionTower
    language_model: Name
    projector_init: ProjectorInit = "linear"
    pretrain: StageOverride = StageOverride()
    finetune: StageOverride = StageOverride()


class Variant(Frozen):
    """One way to train. ``extends`` names another variant, whose settings this one changes."""

    extends: Name | None = None
    vdep: VdepSettings | None = None
    pretrain: StageOverride = StageOverride()
    finetune: StageOverride = StageOverride()
    imported: Name | None = None
    """An asset with a whole checkpoint of the original LLaVA, which is evaluated as it is: nothing is trained."""

    @model_validator(mode="after")
    def _imported_is_not_trained(self) -> Variant:
        if self.imported and (self.vdep or self.pretrain.model_fields_set):
            raise ValueError("an imported checkpoint is not trained: it has neither vdep nor pretrain")
        return self


class ImageSource(Frozen):
    """Images whose path in the conversations starts with ``prefix`` lie in ``asset`` under ``folder`` plus the rest.

    The asset holds one ZIP archive, or the image files themselves.
    """

    asset: Name
    prefix: str = ""
    folder: str = ""


class Dataset(Frozen):
    """Conversations as LLaVA JSON and where their images are; ``on_defect`` says what a defective sample does."""

    conversations: Name
    file: str | None = None
    images: tuple[ImageSource, ...] = ()
    on_defect: Literal["stop", "drop"] = "stop"


# ------------------------------------------------------------------------------------------------ benchmarks and tables


class Judge(Frozen):
    """Who grades free-form answers: an OpenAI-compatible server, or a function on this machine.

    Where the server is and its key stand in the environment: ``OPENAI_BASE_URL`` and ``OPENAI_API_KEY``.
    """

    kind: Literal["openai", "function"]
    model: str
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
    files: dict[str, str]
    scorer: str
    cluster: str | None = None
    """What an interval resamples together: ``picture`` (all questions on the same picture, by its own bytes), ``question``
    (each by itself, with all its rotations in MMBench), or the field of the documents that names the picture."""
    samples: int | None = None
    max_new_tokens: int | None = None
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


class Column(Frozen):
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


class Protocol(Frozen):
    """Published cells that come from another protocol than the numbers they stand beside, or may do so.

    A cell of config/published.csv is meant where its column, its table (``tables`` may hold ``*``) and its model are listed;
    without ``models`` any model. ``comparable`` says that a difference can still be judged: the same questions, prompt and
    metric, with a reservation. ``source`` is where the note's facts can be read.
    """

    columns: Annotated[tuple[Name, ...], Field(min_length=1)]
    tables: Annotated[tuple[str, ...], Field(min_length=1)]
    models: tuple[Name, ...] = ()
    comparable: bool = False
    note: str
    source: str

    def covers(self, table: str, model: str, column: str) -> bool:
        return (
            column in self.columns
            and any(fnmatchcase(table, pattern) for pattern in self.tables)
            and (not self.models or model in self.models)
        )


class Calibration(Frozen):
    """A table of checkpoints that others have evaluated too: is this evaluation to be trusted?

    ``references`` are tables of config/published.csv. A cell is judged by the first of them with a comparable number, within
    the tolerance that follows when ``flipped`` of all answers are scored otherwise there (docs/decisions.md).
    """

    references: Annotated[tuple[str, ...], Field(min_length=1)]
    flipped: Annotated[float, Field(gt=0, lt=1)] = 0.02


class Arms(Frozen):
    """Checkpoints: every one of ``models`` (or their roles) in every one of ``variants``, in this order, with every seed."""

    models: tuple[Name, ...]
    """Models, or the roles that the study gives to models."""
    variants: tuple[Name, ...]
    """Ways to train them."""


class Table(Arms):
    """A row is a model in a variant; ``published`` names tables of config/published.csv."""

    title: str
    """Its heading."""
    columns: tuple[Name, ...]
    """Of ``columns``, in the order of the table."""
    published: tuple[str, ...] = ()
    """Tables of config/published.csv whose numbers stand beside those that are reproduced."""
    calibration: Calibration | None = None
    """Whether the rows are checkpoints that others have evaluated too."""


class LossFigure(Arms):
    """The losses of some checkpoints' runs, drawn together."""


class AttentionFigure(Frozen):
    """Figure 1 of the paper: a model in two variants, side by side on the same images."""

    model: Name
    """A model or a role."""
    left: Name
    """The variant on the left."""
    right: Name
    """The variant on the right."""
    asset: Name
    """Where the images are."""
    file: str
    """The asset's folder of images."""
    samples: Annotated[int, Field(ge=1)] = 4
    """Images that are shown."""
    curve_samples: Annotated[int, Field(ge=1)] = 64
    """Images that the curves are a mean of."""
    question: str = "Describe this photo in detail."
    """Whose words attend to the image."""


class Target(Frozen):
    """What ``snakemake NAME`` builds. Runs, evaluations, data and downloads follow from it."""

    targets: tuple[Name, ...] = ()
    """Other targets that belong to it."""
    tables: tuple[Name, ...] = ()
    """Of ``tables``."""
    figures: tuple[Name, ...] = ()
    """Of ``figures`` and ``loss_figures``."""


Kernels = Literal["none", "compile", "liger"]


class StageExecution(Frozen):
    """How a stage is run, which does not change what it computes. Not part of a recipe."""

    gpus: Annotated[int, Field(ge=0)]
    processes: Annotated[int, Field(ge=1)]
    micro_batch: Annotated[int, Field(ge=1)] = 16
    """Samples per rank and pass, where they are not packed."""
    engine: str = "ddp"
    threads: Annotated[int, Field(ge=1)] = 1
    workers: Annotated[int, Field(ge=0)] = 0
    save_every: Annotated[int, Field(ge=1)] = 200
    keep: Annotated[int, Field(ge=1)] = 2
    log_every: Annotated[int, Field(ge=1)] = 10
    probe_every: Annotated[int, Field(ge=0)] = 100
    validation_samples: Annotated[int, Field(ge=1)] = 1024
    """How many samples of a validation set, its first, are looked at whenever a checkpoint is saved."""
    activation_checkpointing: bool = False
    packing: bool = False
    """Whether the samples of a micro-batch follow each other in one row, without padding, instead of one row each."""
    micro_batch_tokens: Annotated[int, Field(ge=1)] = 8192
    """Tokens per rank and pass at most, where samples are packed; or as many as the longest sample has."""
    kernels: Kernels = "none"
    """Fused kernels for the language model's layers: torch.compile, or Liger's (``vdep.model.kernels``)."""
    stall_limit: Annotated[float, Field(ge=0)] = 1800.0
    """Seconds that a rank may take over a step (eight times that over a checkpoint) until the launcher ends all; 0: never."""
    grace: Annotated[float, Field(gt=0)] = 600.0
    """Seconds to save in for ranks that are asked to stop. Under SLURM they are asked so long before the job's time limit."""
    gradient_jump: Annotated[float, Field(ge=0)] = 100.0
    """Training stops where the gradient's norm is as many times the median of the steps before; 0: never."""
    wandb: str | None = None
    """Project of Weights & Biases to report to as well; its package is not part of the pinned set."""
    runtime: str = "8h"
    memory: str = "64GB"


class EvaluationExecution(Frozen):
    gpus: Annotated[int, Field(ge=0)] = 1
    threads: Annotated[int, Field(ge=1)] = 1
    batch_size: Annotated[int, Field(ge=1)] = 16
    runtime: str = "8h"
    memory: str = "64GB"


class JudgeExecution(Frozen):
    """How a judge's server is asked. These limits end a judge that gives no grade, within fifty requests and two minutes."""

    where: Literal["driver", "job"] = "driver"
    """The machine that runs Snakemake, because compute nodes often have no internet; or a job like any other, without a GPU."""
    parallel: Annotated[int, Field(ge=1, le=16)] = 8
    """Requests at a time; one at a time as long as a request fails."""
    attempts: Annotated[int, Field(ge=1, le=5)] = 4
    """Requests for one answer, until it counts as one that cannot be graded. The third of these in a row ends the grading."""
    timeout: Annotated[float, Field(gt=0)] = 45.0
    """Seconds until a request counts as failed."""
    patience: Annotated[float, Field(gt=0)] = 90.0
    """Seconds without any grade until the grading ends, whatever the reason; one that asks to wait longer ends it at once."""
    backoff: Annotated[float, Field(gt=0)] = 1.0
    """Seconds to wait after a failure; doubled with each one that follows."""
    runtime: str = "2h"


class Execution(Frozen):
    device: Literal["cuda", "cpu"]
    pretrain: StageExecution
    finetune: StageExecution
    evaluate: EvaluationExecution
    judge: JudgeExecution = JudgeExecution()
    prepare_workers: Annotated[int, Field(ge=1)] = 1
    command: str = "python -m vdep"
    """What jobs call; a wrapper may stand before it, such as a container's."""


class EvaluationSettings(Frozen):
    """What scores depend on besides the checkpoint and the benchmark."""

    seed: int = 1234
    precision: Literal["bf16", "float32"] = "bf16"
