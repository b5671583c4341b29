"""The language model's head as training uses it: hidden states and targets in, losses out, and never all logits at once.

The logits of 16,000 positions and 32,000 words are 5 GB with their softmax and gradient. Here they exist for a chunk of
positions at a time, and are computed a second time in the backward pass: a hundredth of a step at 7B, where the head is 1/50
of the language model's layers and few positions are supervised.

Under ZeRO-3 a module gathers its weights from all ranks whenever it is called, so that all ranks have to call it equally
often, whatever they hold. The loop over chunks is therefore inside one call of the head, also where nothing is supervised.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

CHUNK = 1024
"""Positions at a time: 0.3 GB of logits for Llama's vocabulary, 0.5 GB for Phi-2's. Enough rows to fill a GPU."""


class TrainingHead(nn.Linear):
    """A head that shares the weights of ``head``, and called with targets yields losses instead of logits."""

    def __init__(self, head: nn.Linear, chunk: int = CHUNK) -> None:
        super().__init__(head.in_features, head.out_features, bias=head.bias is not None, device="meta")
        self.weight, self.bias = head.weight, head.bias
        self.chunk = chunk

    def forward(self, input: Tensor, targets: Tensor | None = None) -> Tensor:
        """Logits (..., vocabulary) of states (..., dim); with ``targets`` (tokens,) of states (tokens, dim), their
        cross-entropies (tokens,)."""
        if targets is None:
            return super().forward(input)
        return token_losses(input, targets, self.weight, self.bias, self.chunk)


def precise(values: Tensor) -> Tensor:
    """Losses are computed in float32, or in float64 where the model is."""
    return values if values.dtype == torch.float64 else values.float()


def token_losses(states: Tensor, targets: Tensor, weight: Tensor, bias: Tensor | None, chunk: int = CHUNK) -> Tensor:
    """The cross-entropy of each position, its logits computed for at most ``chunk`` positions at a time.

    Args:
        states: (tokens, dim), what the head reads.
        targets: (tokens,) numbers of words.
        weight: (vocabulary, dim).
        bias: (vocabulary,) or None.

    Returns:
        (tokens,) in float32, or float64 where the states are; with gradients for states, weight and bias.
    """
    if len(states) <= chunk:
        return F.cross_entropy(precise(F.linear(states, weight, bias)), targets, reduction="none")
    losses = _ChunkedCrossEntropy.apply(states, targets, weight, bias, chunk)
    assert isinstance(losses, Tensor)
    return losses


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, targets: Tensor, weight: Tensor, bias: Tensor | None, chunk: int) -> Tensor:
        kind = states.device.type
        # autocast knows nothing of a function's backward pass: the precision is chosen here, for both
        ctx.dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states.dtype
        ctx.chunk = chunk
        ctx.save_for_backward(states, targets, weight, bias)
        with torch.autocast(kind, enabled=False):
            head = _cast(weight, bias, ctx.dtype)
            return torch.cat(
                [
                    F.cross_entropy(precise(F.linear(x.to(ctx.dtype), *head)), labels, reduction="none")
                    for x, labels in zip(states.split(chunk), targets.split(chunk), strict=True)
                ]
            )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_losses: Tensor) -> tuple[Tensor | None, None, Tensor | None, Tensor | None, None]:
        states, targets, weight, bias = ctx.saved_tensors
        needs_states, _, needs_weight, needs_bias, _ = ctx.needs_input_grad
        head = _cast(weight, bias, ctx.dtype)
        grad_states = torch.empty_like(states) if needs_states else None
        # sums over chunks are kept in full precision, as the one product over all positions would keep them
        exact = precise(states[:0]).dtype
        grad_weight = torch.zeros_like(weight, dtype=exact) if needs_weight else None
        grad_bias = torch.zeros_like(bias, dtype=exact) if needs_bias else None
        for start in range(0, len(states), ctx.chunk):
            part = slice(start, start + ctx.chunk)
            x, labels = states[part].to(ctx.dtype), targets[part]
            grad_logits = precise(F.linear(x, *head)).softmax(-1)
            grad_logits[torch.arange(len(labels), device=labels.device), labels] -= 1.0
            grad = grad_logits.mul_(grad_losses[part, None]).to(ctx.dtype)
            if grad_states is not None:
                grad_states[part] = grad @ head[0]
            if grad_weight is not None:
                grad_weight += grad.T @ x
            if grad_bias is not None:
                grad_bias += grad.sum(0, dtype=exact)
        return (
            grad_states,
            None,
            grad_weight.to(weight.dtype) if grad_weight is not None else None,
            grad_bias.to(bias.dtype) if grad_bias is not None else None,
            None,
        )


def _cast(weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    return weight.to(dtype), None if bias is None else bias.to(dtype)
