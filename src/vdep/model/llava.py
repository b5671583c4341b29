"""LLaVA as transformers has it, built from a vision tower and a language model, for both families of the paper.

The stock class holds Llama. Phi's head has a bias, which the stock class would drop, so Phi gets a subclass; nothing else
differs, and a checkpoint of either loads with ``load_checkpoint`` here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    CLIPVisionModel,
    LlavaConfig,
    LlavaForConditionalGeneration,
    SiglipVisionModel,
)
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from ..errors import ConfigError
from ..study.settings import ProjectorInit, VisionTower

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}
NORMAL_STD = 0.02


class LlavaWithHeadBias(LlavaForConditionalGeneration):
    """LLaVA around a language model whose head has a bias, such as Phi-2."""

    def __init__(self, config: LlavaConfig) -> None:
        super().__init__(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=True)
        self.post_init()


def model_class(config: LlavaConfig) -> type[LlavaForConditionalGeneration]:
    return LlavaWithHeadBias if config.text_config.model_type == "phi" else LlavaForConditionalGeneration


def load_vision_tower(folder: Path, dtype: torch.dtype) -> CLIPVisionModel | SiglipVisionModel:
    """The vision half of a CLIP or SigLIP folder.

    Raises:
        ConfigError: for another kind of model.
    """
    kind = json.loads((folder / "config.json").read_text()).get("model_type", "")
    towers = {"clip": CLIPVisionModel, "siglip": SiglipVisionModel}
    for name, tower in towers.items():
        if kind.startswith(name):
            return tower.from_pretrained(folder, dtype=dtype)
    raise ConfigError(f"{folder}: a vision tower of type {kind!r} is not supported (known: {', '.join(towers)})")


def count_image_tokens(vision: Any, feature_select: str) -> int:
    """How many image tokens a tower of this configuration yields for one image."""
    class_tokens = 1 if vision.model_type.startswith("clip") else 0
    return int((vision.image_size // vision.patch_size) ** 2 + class_tokens - (feature_select == "default"))


def build_model(
    tower_folder: Path,
    language_folder: Path,
    tower: VisionTower,
    dtype: torch.dtype,
    projector_seed: int,
    projector_init: ProjectorInit = "linear",
) -> LlavaForConditionalGeneration:
    """A LLaVA with pretrained parts and a new projector.

    Raises:
        ConfigError: where the tower yields another number of image tokens than the recipe says.
    """
    vision_tower = load_vision_tower(tower_folder, dtype)
    tokens = count_image_tokens(vision_tower.config, tower.feature_select)
    if tokens != tower.image_tokens:
        raise ConfigError(
            f"{tower_folder}: this tower yields {tokens} image tokens with feature_select {tower.feature_select!r}, "
            f"but the model's image_tokens is {tower.image_tokens}"
        )
    language_model = AutoModelForCausalLM.from_pretrained(language_folder, dtype=dtype)
    return assemble(vision_tower, language_model, tower, projector_seed, projector_init)


def assemble(
    vision_tower: CLIPVisionModel | SiglipVisionModel,
    language_model: Any,
    tower: VisionTower,
    projector_seed: int,
    projector_init: ProjectorInit = "linear",
) -> LlavaForConditionalGeneration:
    """A LLaVA of these parts, with a new projector (Linear, GELU, Linear)."""
    vision, text = vision_tower.config, language_model.config
    config = LlavaConfig(
        vision_config=_portable(vision.to_dict()),
        text_config=_portable(text.to_dict()),
        image_token_index=text.vocab_size,
        image_seq_length=tower.image_tokens,
        vision_feature_layer=tower.layer,
        vision_feature_select_strategy=tower.feature_select,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        model = model_class(config)(config)
    torch.manual_seed(projector_seed)
    model.model.multi_modal_projector = new_projector(config, projector_init).to(language_model.dtype)
    model.model.vision_tower = vision_tower
    model.model.language_model = language_model.model
    model.lm_head = language_model.lm_head
    return model


def new_projector(config: LlavaConfig, init: ProjectorInit) -> LlavaMultiModalProjector:
    """A projector drawn from torch's generator, in float32.

    ``linear`` leaves it as ``nn.Linear`` draws it: LLaVA builds it after the language model has been loaded. ``normal`` draws
    it as the TinyLLaVA Factory does, whose connector is part of the model when transformers initialises it
    (modeling_tinyllava.py ``_init_weights``; Phi-2's ``initializer_range`` is 0.02). VDEP's target X is the longer for it.
    """
    drawn = LlavaMultiModalProjector(config)
    if init == "normal":
        for layer in (drawn.linear_1, drawn.linear_2):
            nn.init.normal_(layer.weight, std=NORMAL_STD)
            nn.init.zeros_(layer.bias)
    return drawn


def _portable(config: dict[str, Any]) -> dict[str, Any]:
    """Without the folder it was loaded from: the same weights have the same files wherever they are trained."""
    return {key: value for key, value in config.items() if key != "_name_or_path"}


def projector(model: LlavaForConditionalGeneration) -> nn.Module:
    return model.model.multi_modal_projector


def set_dropout(model: nn.Module, dropout: str | float) -> None:
    """Replace every dropout probability, or leave the model's own (``model``): Phi-2 carries 0.1 and is trained with it."""
    if dropout == "model":
        return
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = float(dropout)
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = float(dropout)  # type: ignore[assignment]


def image_features(model: LlavaForConditionalGeneration, pixel_values: Tensor) -> Tensor:
    """What the projector reads: the tower's states of the chosen layer, (images, image_tokens, vision_dim), no gradient."""
    with torch.no_grad():
        states = model.model.vision_tower(pixel_values, output_hidden_states=True).hidden_states
        features = states[model.config.vision_feature_layer]
        return features[:, 1:] if model.config.vision_feature_select_strategy == "default" else features


def drop_unused_layers(model: LlavaForConditionalGeneration) -> None:
    """Take what lies behind the chosen layer out of the vision tower: the same features, and one layer less to compute.

    For training only. What is exported is built anew, with a whole tower.
    """
    tower, layer = model.model.vision_tower, model.config.vision_feature_layer
    used = layer if layer >= 0 else len(tower.encoder.layers) + 1 + layer
    tower.encoder.layers = tower.encoder.layers[:used]
    model.config.vision_feature_layer = used
    if getattr(tower, "use_head", False):
        tower.use_head = False


def splice(text_embeddings: Tensor, image_mask: Tensor, image_embeddings: Tensor) -> Tensor:
    """Put image embeddings (images, image_tokens, dim) at the image positions of (batch, length, dim)."""
    values = image_embeddings.reshape(-1, image_embeddings.shape[-1]).to(text_embeddings.dtype)
    return text_embeddings.masked_scatter(image_mask.unsqueeze(-1), values)


def load_checkpoint(folder: Path, dtype: torch.dtype | Literal["auto"], **kwargs: Any) -> LlavaForConditionalGeneration:
    """A saved checkpoint of either family."""
    config = AutoConfig.from_pretrained(folder)
    return model_class(config).from_pretrained(folder, dtype=dtype, **kwargs)
