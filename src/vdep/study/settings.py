"""What can be trained, from what and on what. Beside it: ``evaluation``, ``tables``, ``execution``. None of them imports torch.

Unknown keys, values out of range and names of the wrong form are errors; ``check`` says whether the parts fit together.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

Stage = Literal["pretrain", "finetune"]
STAGES: tuple[Stage, ...] = ("pretrain", "finetune")
NAME = r"^[a-z0-9][a-z0-9._-]*$"
Name = Annotated[str, Field(pattern=NAME, max_length=100)]
ADDRESS = r"^https?://[^/@]+(/[^@]*)?$"
Address = Annotated[str, Field(pattern=ADDRESS)]
"""Without a user or a password: it stands in recipes, which are published."""
Mirror = Annotated[str, Field(pattern=r"^https?://")]
EntryPoint = Annotated[str, Field(pattern=r"^[\w.]+:\w+$")]
"""``package.module:function``."""


def _parts(annotation: Any) -> set[Any]:
    """A type, and those that it is made of."""
    inner = [part for part in get_args(annotation) if isinstance(part, type) or get_args(part)]
    return {annotation}.union(*map(_parts, inner)) if inner else {annotation}


def _leaves(value: Any) -> list[Any]:
    return [leaf for each in value for leaf in _leaves(each)] if isinstance(value, list | tuple) else [value]


class Frozen(BaseModel):
    """Unknown keys and numbers that are not finite are errors, and nothing changes after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _yes_is_no_number(cls, values: Any) -> Any:
        """Neither ``alpha: yes`` is 1.0, nor ``tf32: 1`` true. A number in quotes is one: the command line gives lists so."""
        wrong = []
        for name, value in values.items() if isinstance(values, Mapping) else ():
            kinds = _kinds(cls).get(name, set())
            if kinds == {bool} and not isinstance(value, bool) and str(value).lower() not in ("true", "false"):
                wrong.append((name, value, "should be true or false"))
            elif kinds and bool not in kinds and any(isinstance(leaf, bool) for leaf in _leaves(value)):
                wrong.append((name, value, "should be a number; yes, no, true and false are none"))
        if wrong:
            raise ValidationError.from_exception_data(
                cls.__name__,
                [InitErrorDetails(type=PydanticCustomError("kind", m), loc=(n,), input=v) for n, v, m in wrong],
            )
        return values


@cache
def _kinds(model: type[BaseModel]) -> dict[str, set[type]]:
    """Of the fields of a model: whether they hold truth values or numbers."""
    return {name: _parts(field.annotation) & {bool, int, float} for name, field in model.model_fields.items()}


def _present(value: Any) -> Any:
    """Without what an overlay took away by saying null."""
    return {key: entry for key, entry in value.items() if entry is not None} if isinstance(value, Mapping) else value


Removable = BeforeValidator(_present)


# ---------------------------------------------------------------------------------------------------------------- assets


class HubAsset(Frozen):
    """Files of a Hugging Face repository. ``revision`` is a commit; null until a first download records it.

    ``mirror`` is another hub to ask, ``https://...``, which is sent no token. HF_ENDPOINT sets one for all.
    """

    kind: Literal["hub"]
    repo: Annotated[str, Field(pattern=r"^[\w.-]+(/[\w.-]+)?$")]
    type: Literal["model", "dataset"] = "model"
    revision: str | None = None
    files: tuple[str, ...] = ()
    mirror: Mirror | None = None


class UrlAsset(Frozen):
    """One file over HTTP. ``sha256`` and ``size`` are null until a first download records them.

    ``mirror`` is another address of the same file, which is asked instead.
    """

    kind: Literal["url"]
    url: Address
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    size: Annotated[int, Field(ge=1)] | None = None
    mirror: Mirror | None = None

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
    path: Annotated[str, Field(min_length=1), AfterValidator(os.path.expanduser)]
    revision: str | None = None


class MadeAsset(Frozen):
    """Made on the spot by a function: ``maker(folder, **arguments)``."""

    kind: Literal["made"]
    maker: EntryPoint
    arguments: dict[str, bool | int | float | str] = {}


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


class GradientRatio(Frozen):
    """alpha as it has to be for the image loss to weigh ``rho`` of the text loss in the projector's gradient:
    rho * mean |g_t| / mean |g_i|, both of the whole global batch, their means over the steps at which they are measured."""

    rule: Literal["gradient_ratio"]
    rho: Annotated[float, Field(gt=0)]
    """|gradient of alpha L_i| / |gradient of L_t|: what alpha is made to hold."""
    every: Annotated[int, Field(ge=1)] = 50
    """Steps from one measurement to the next, each a pass of its own; at first fewer, an eighth of the steps so far, because
    a new projector's gradients fall by orders of magnitude."""
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """What each measurement leaves of the weight of those before it."""
    min: Annotated[float, Field(ge=0)] = 0.0
    """alpha is never less."""
    max: Annotated[float, Field(ge=0)] = 1000.0
    """alpha is never more."""


def _kind_of_alpha(value: Any) -> str:
    return "(rule)" if isinstance(value, Mapping | GradientRatio) else "(number)"


Alpha = Annotated[
    Annotated[Annotated[float, Field(ge=0)], Tag("(number)")] | Annotated[GradientRatio, Tag("(rule)")],
    Discriminator(_kind_of_alpha),
]


class VdepSettings(Frozen):
    """The objective and the schedule of stage 1 (paper, sections 3.2 and 3.3). What the paper leaves open has a field, and
    docs/decisions.md says why each default is what it is."""

    alpha: Alpha = 0.001
    """Weight of the image loss (Eq. 10): a number, or ``{rule: gradient_ratio, rho: ...}``, which follows the gradients."""
    ratio: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the samples that an epoch trains once more, in VDEP mode (Tables 5 and 6)."""
    loss: Literal["l2", "sigmoid_l2", "inverse_l2", "cosine", "smooth_l1", "info_nce"] = "l2"
    """The image loss: the forms of Tables 8 to 10; or of the field (docs/method.md)."""
    temperature: Annotated[float, Field(gt=0)] = 0.07
    """Of ``info_nce``."""
    target: Literal["own", "other_image", "shuffled", "random", "oracle"] = "own"
    """What states are compared with: X of the same picture; a placebo, which is X of another picture, X with its positions
    permuted, or one random sequence for all; or the data's ``oracle`` words (docs/method.md)."""
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
    if isinstance(vdep.alpha, GradientRatio):
        if vdep.mixing == "steps":
            yield "vdep.alpha: gradient_ratio compares both losses of one step, and with mixing: steps none has both"
        if vdep.alpha.min > vdep.alpha.max:
            yield f"vdep.alpha.min: should not be above max (given: {vdep.alpha.min}, max: {vdep.alpha.max})"
    elif vdep.alpha > 1 and vdep.positions == "mean":
        yield f"vdep.alpha: should be less than or equal to 1, or positions be summed (given: {vdep.alpha})"
    if vdep.target != "own" and not vdep.detach_target:
        yield f"vdep.detach_target: only a picture's own X can be trained through; target: {vdep.target} is detached"
    if vdep.target == "oracle" and vdep.loss == "info_nce":
        yield "vdep.loss: info_nce tells the targets of a picture's positions apart, and with target: oracle they are the same"
    without = {"distance": ("squared", {"cosine", "smooth_l1", "info_nce"}), "reduction": ("mean", {"cosine", "info_nce"})}
    for name, (default, losses) in without.items():
        if vdep.loss in losses and getattr(vdep, name) != default:
            yield f"vdep.{name}: {getattr(vdep, name)} has no part in loss: {vdep.loss}; leave it at {default}"
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
    model: Name | None = None
    """The model that the imported checkpoint is; what is trained is trained for any."""

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
