"""How much memory of a GPU a training takes: arithmetic over shapes, before anything is loaded.

State is what stays between steps: weights, gradients, masters and moments, as the engine divides them among ranks.
Activations are what the language model's layers keep for the backward pass, found by running one layer on torch's ``meta``
device, which has shapes and no memory. What a run really takes is in its log (docs/training.md).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface

from ..model.head import CHUNK

RESERVE = 2e9
"""Bytes for the CUDA context and NCCL: an allowance, not a measurement."""
FRAGMENTS = 0.10
"""Of the activations, what the allocator cannot hand out: likewise."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU."""

    weights: float
    gradients: float
    optimizer: float
    buffers: float
    activations: float
    logits: float

    @property
    def state(self) -> float:
        return self.weights + self.gradients + self.optimizer + self.buffers

    @property
    def total(self) -> float:
        return self.state + (1 + FRAGMENTS) * self.activations + self.logits + RESERVE


def training_memory(model: Any, tokens: int, ranks: int, deepspeed: dict[str, Any] | None, recomputed: bool = False) -> Memory:
    """What a step in bf16 takes at its fullest.

    Args:
        model: a LLaVA on any device; what is trained are its parameters with ``requires_grad``.
        tokens: of one micro-batch, all of its rows together.
        deepspeed: the engine's configuration (``config/deepspeed``); None under DDP.
        recomputed: with activation checkpointing.
    """
    every = sum(_elements(p) for p in model.parameters())
    trained = sum(_elements(p) for p in model.parameters() if p.requires_grad)
    language = model.model.language_model
    per_token = activations_per_token(language, any(p.requires_grad for p in language.parameters()), recomputed)
    # bf16 logits, float32 logits, their softmax, a bf16 gradient
    logits = CHUNK * language.config.vocab_size * (2 + 4 + 4 + 2)
    activations = per_token * tokens
    if recomputed:
        # one layer at a time is there in full
        activations += activations_per_token(language, True) / len(language.layers) * tokens
    if deepspeed is None:
        # float32 weights, gradients and moments of what is trained
        return Memory(2.0 * (every - trained) + 4.0 * trained, 4.0 * trained, 8.0 * trained, 0.0, activations, logits)
    zero = deepspeed["zero_optimization"]
    partitioned = zero["stage"] == 3
    # two buckets in bf16 where communication overlaps, and one in the precision in which it is added up
    buffers = float(zero["reduce_bucket_size"]) * (4 + 4)
    if partitioned:
        buffers += 2.0 * min(every, zero["stage3_max_live_parameters"])
    return Memory(
        weights=2.0 * every / (ranks if partitioned else 1),
        gradients=4.0 * trained / ranks,
        optimizer=12.0 * trained / ranks,
        buffers=buffers,
        activations=activations,
        logits=logits,
    )


def activations_per_token(language_model: Any, trained: bool, recomputed: bool = False) -> float:
    """Bytes that all layers together keep of a token in bf16 until the backward pass is through them, attention being one
    that keeps no square of the length."""
    layers = len(language_model.layers)
    if recomputed:
        return 2.0 * layers * float(language_model.config.hidden_size)
    config = copy.deepcopy(language_model.config)
    config._attn_implementation = _ACCOUNTED
    tokens = 1024
    with torch.device("meta"):
        layer: nn.Module = type(language_model.layers[0])(config, 0).to(torch.bfloat16).train().requires_grad_(trained)
        rotary = type(language_model.rotary_emb)(config)
        row = torch.empty(1, tokens, config.hidden_size, dtype=torch.bfloat16, requires_grad=True)
        angles = rotary(row, torch.zeros(1, tokens, dtype=torch.long))
    # the angles are shared by all layers
    shared = {t.untyped_storage()._cdata for t in (*layer.parameters(), *angles)}
    kept: dict[int, Any] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in shared:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(row, attention_mask=None, position_embeddings=angles)
    return layers * sum(storage.nbytes() for storage in kept.values()) / tokens


def _elements(parameter: Tensor) -> int:
    """Under ZeRO-3 a parameter's own size is 0 while it is partitioned."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


_ACCOUNTED = "accounted"


def _accounted_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """What the packed attention of a GPU keeps: its inputs, its output, a number for each head and token."""
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    ends = torch.empty(2, dtype=torch.int32, device=query.device)
    output = varlen_attn(q, k, v, ends, ends, q.shape[0], q.shape[0], window_size=(-1, 0))
    assert isinstance(output, Tensor)
    return output.unsqueeze(0), None


AttentionInterface.register(_ACCOUNTED, _accounted_attention)
