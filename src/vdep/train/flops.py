"""How many floating-point operations the mathematics of a step needs, and how many a GPU could have done meanwhile (MFU).

Counted are matrix products: two operations for each multiply-add, the forward pass once, the gradient of activations where
something below is trained, the gradient of weights where they are. Nothing that is recomputed counts, and no padding.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from transformers import LlavaForConditionalGeneration

from ..data.step import Step

PEAKS = {
    "H200 NVL": 835e12,
    "H200": 989e12,
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "4090": 165e12,
}
"""Operations per second of dense bf16 matrix products (data sheets), by a part of the device's name; the longer names first."""


def peak_flops(device: torch.device, precision: str) -> float | None:
    """What one device can do at best; None where that is not known: on a CPU, another GPU, or in float32."""
    if device.type != "cuda" or precision != "bf16":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAKS.items() if part in name), None)


class StepFlops:
    """The operations of a step, from the model's shapes and from which of its parameters are trained."""

    def __init__(self, model: LlavaForConditionalGeneration) -> None:
        config = model.config
        text, vision = config.text_config, config.vision_config
        language = model.model.language_model
        trained = any(p.requires_grad for p in language.parameters())
        backward = 2 + 2 * trained
        # what is trained below is the projector at least: activations have a gradient all the way down
        self.per_token = (2 + backward) * _matrix_elements(language.layers)
        self.per_supervised = (2 + backward) * _matrix_elements(model.lm_head)
        width = text.num_attention_heads * (getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)
        # two products of (tokens, tokens, width), half of them masked; the backward pass is twice that
        self.per_token_pair = 3 * 2 * text.num_hidden_layers * width
        first, second = model.model.multi_modal_projector.linear_1, model.model.multi_modal_projector.linear_2
        self.per_image_token = 4 * _elements(first.weight) + 6 * _elements(second.weight)
        # without a gradient
        self.per_partner_token = 2 * _elements(first.weight) + 2 * _elements(second.weight)
        self.image_tokens = config.image_seq_length
        tower, layer = model.model.vision_tower, config.vision_feature_layer
        layers = layer if layer >= 0 else len(tower.encoder.layers) + 1 + layer
        patches = (vision.image_size // vision.patch_size) ** 2
        states = patches + vision.model_type.startswith("clip")
        each = states * _matrix_elements(tower.encoder.layers[0]) + 2 * states**2 * vision.hidden_size
        self.per_image = 2 * (layers * each + patches * _elements(tower.embeddings.patch_embedding.weight))

    def __call__(self, step: Step) -> float:
        """Operations for all samples of a step."""
        tokens = step.lengths.astype(np.float64)
        return float(
            self.per_token * tokens.sum()
            + self.per_token_pair * (tokens**2).sum()
            + self.per_supervised * int(step.text_tokens.sum())
            + int(step.images.sum()) * (self.per_image + self.per_image_token * self.image_tokens)
            + step.partners * (self.per_image + self.per_partner_token * self.image_tokens)
        )


def _elements(parameter: torch.Tensor) -> int:
    """Under ZeRO-3 a parameter's own size is 0 while it is partitioned."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def _matrix_elements(module: nn.Module) -> int:
    return sum(_elements(p) for p in module.parameters() if len(getattr(p, "ds_shape", p.shape)) == 2)
