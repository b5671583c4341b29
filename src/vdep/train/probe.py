"""Whether the image loss acts: the norm of its gradient on the projector beside the text loss's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..data.collate import Batch
from ..model.llava import projector
from .engine import Engine


def gradient_ratio(engine: Engine, batches: Sequence[Batch]) -> float | None:
    """||gradient of alpha L_i|| / ||gradient of L_t|| over a whole step, all ranks together.

    A pass of its own, beside training: it leaves no gradient behind. None where the text loss has none.
    """
    parameters = list(projector(engine.task.model).parameters())
    sums = {name: [torch.zeros_like(p) for p in parameters] for name in ("text", "image")}
    for batch in batches:
        with engine.accelerator.autocast():
            parts, _ = engine.task.losses(batch.to(engine.device))
        for name, loss in (("text", parts.text), ("image", parts.total - parts.text)):
            gradients = torch.autograd.grad(loss, parameters, retain_graph=name == "text", allow_unused=True)
            for total, gradient in zip(sums[name], gradients, strict=True):
                if gradient is not None:
                    total += gradient
    text, image = (_norm(engine, sums[name]) for name in ("text", "image"))
    return image / text if text else None


def _norm(engine: Engine, tensors: Sequence[Tensor]) -> float:
    return float(engine.sum_over_ranks(torch.cat([t.flatten() for t in tensors])).norm())
