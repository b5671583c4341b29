"""Fused kernels for the language model's layers: fewer passes over memory between the matrix products, the same mathematics
to rounding. What is chosen here is a way to run a training (``execution.*.kernels``), and no part of its recipe.

``compile`` has torch fuse each layer by itself, for any language model; attention over packed rows stays as it is. ``liger``
takes Liger's kernels for Llama's norms, rotary embedding and gated layer, on a GPU. The loss is ours under both
(``model.head``).
"""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
import torch._functorch.config
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..errors import ConfigError
from ..study.execution import Kernels


def use_kernels(language_model: Any, kernels: Kernels) -> None:
    """Change the layers of a language model (without its head) in place.

    Raises:
        ConfigError: where the kernels are not installed, or are not for this model.
    """
    if kernels == "compile":
        _compile_layers(language_model.layers)
    elif kernels == "liger":
        _use_liger(language_model)


def _compile_layers(layers: Any) -> None:
    """``dynamic``: one graph for rows of all lengths, instead of one for each."""
    # torch would let a backward pass write over what it has read, and then refuses a second one (``train.probe``)
    torch._functorch.config.donated_buffer = False
    if not layers[0].gradient_checkpointing:
        for layer in layers:
            layer.compile(dynamic=True)
        return
    # a checkpoint inside of what is compiled would, with attention left out of the graph, leave the whole layer uncompiled
    compiled = torch.compile(type(layers[0]).forward.__wrapped__, dynamic=True)

    def recomputed(forward: partial[Tensor], *args: Any) -> Tensor:
        return checkpoint(partial(compiled, *forward.args, **forward.keywords), *args, use_reentrant=False)

    for layer in layers:
        layer._gradient_checkpointing_func = recomputed


def _use_liger(language_model: Any) -> None:
    kind = language_model.config.model_type
    if kind != "llama":
        raise ConfigError(f"kernels: liger is for Llama, and this language model is of type {kind!r}: take kernels: compile")
    if find_spec("liger_kernel") is None or find_spec("triton") is None:
        raise ConfigError(
            "kernels: liger needs a package that is not part of the pinned set: pip install --no-deps liger-kernel==0.8.5 "
            "(beside a torch with CUDA, which brings triton)"
        )
    if not torch.cuda.is_available():
        raise ConfigError("kernels: liger needs a GPU: take kernels: compile, or none")
    from liger_kernel.transformers import apply_liger_kernel_to_llama
    from transformers.models.llama import modeling_llama

    stock = modeling_llama.LlamaRMSNorm, modeling_llama.LlamaMLP
    apply_liger_kernel_to_llama(
        rope=True, rms_norm=True, swiglu=True, cross_entropy=False, fused_linear_cross_entropy=False, model=language_model
    )
    # it changes the classes as well: what is built later, to be exported, is stock
    modeling_llama.LlamaRMSNorm, modeling_llama.LlamaMLP = stock
