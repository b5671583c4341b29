"""Whether the image loss acts: the two losses' gradients on the projector, beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..data.collate import Batch
from ..model.llava import projector
from .engine import Engine


class Gradients(NamedTuple):
    """Of L_t and of L_i (before alpha) on the projector, over a whole step."""

    text: float
    """Norm."""
    image: float
    """Norm."""
    product: float
    """Of the two, as vectors."""

    def ratio(self, alpha: float) -> float | None:
        """|gradient of alpha L_i| / |gradient of L_t|; None where the text loss has none."""
        return alpha * self.image / self.text if self.text else None

    @property
    def cosine(self) -> float | None:
        """Between the two; None where one of them is nothing."""
        return self.product / (self.text * self.image) if self.text and self.image else None


def measure(engine: Engine, batches: Sequence[Batch]) -> Gradients:
    """The gradients of a whole step, the same numbers on all ranks, which measure together.

    A pass of its own, beside training: it leaves no gradient behind. The projector has to be whole on each rank
    (``Engine.partitions_weights``).
    """
    parameters = list(projector(engine.task.model).parameters())
    sums = {name: [torch.zeros_like(p, dtype=torch.float32) for p in parameters] for name in ("text", "image")}
    for batch in batches:
        with engine.accelerator.autocast():
            parts, _ = engine.task.losses(batch.to(engine.device))
        for name, loss in (("text", parts.text), ("image", parts.image)):
            gradients = torch.autograd.grad(loss, parameters, retain_graph=name == "text", allow_unused=True)
            for total, gradient in zip(sums[name], gradients, strict=True):
                if gradient is not None:
                    total += gradient
    text, image = (_summed(engine, sums[name]) for name in ("text", "image"))
    # those of the first rank: what alpha is made of must not differ in a last bit
    return Gradients(*engine.gather((float(text.norm()), float(image.norm()), float(text @ image)))[0])


def _summed(engine: Engine, tensors: Sequence[Tensor]) -> Tensor:
    return engine.sum_over_ranks(torch.cat([t.flatten() for t in tensors])).double()
