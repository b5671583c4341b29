"""VDEP's stage 1: the stock class in two passes, this repository's interleaved schedule, its fused one, and the baseline.

Two passes, stock: ``LlavaForConditionalGeneration`` with labels for the text loss, and again with all hidden states for the
image loss. The same samples, the projector trained, AdamW. And an epoch: the fused schedule takes an optimizer step twice as
often as the baseline does on the same samples.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from common import (
    CPU,
    GEOMETRIES,
    Claim,
    Geometry,
    Timing,
    alternate,
    arguments,
    batch_of,
    build,
    build_task,
    optimizer_of,
    report,
    samples,
    stock_inputs,
)

from vdep.data.collate import Batch
from vdep.data.conversation import Mode
from vdep.model.objective import image_losses
from vdep.settings import VdepSettings

BATCH, TEXT = 4, 20
ALPHA = 0.001


def measure(geometry: Geometry, device: torch.device, dtype: torch.dtype, repeats: int) -> Timing:
    """Seconds of each way to take a step on the same ``BATCH`` samples, and of two such batches as an epoch takes them."""
    model = build(geometry, device, dtype)
    optimizer = optimizer_of(model)
    chosen = samples([TEXT] * BATCH, geometry.vocabulary)
    text = batch_of(model, chosen)
    stock = stock_inputs(model, text)

    def step() -> None:
        optimizer.step()
        optimizer.zero_grad()

    def two_passes() -> None:
        model(**stock).loss.backward()
        outputs = model(**{**stock, "labels": None}, output_hidden_states=True)
        mask = text.image_mask
        loss = image_losses(outputs.hidden_states[-1], outputs.hidden_states[0], mask).mean()
        (ALPHA * loss).backward()
        step()

    # a second model: ours has no layer of the tower that nothing reads
    own = build(geometry, device, dtype)
    task, own_optimizer = build_task(own, VdepSettings(alpha=ALPHA)), optimizer_of(own)
    image, both = batch_of(own, chosen, Mode.VDEP, image_loss=True), batch_of(own, chosen, image_loss=True)

    def passes(*batches: Batch, steps: int = 1) -> Callable[[], None]:
        def run() -> None:
            for number, batch in enumerate(batches, 1):
                task(batch)[0].backward()
                if number * steps % len(batches) == 0:
                    own_optimizer.step()
                    own_optimizer.zero_grad()

        return run

    sides = {
        "stock, two passes": two_passes,
        "interleaved": passes(text, image),
        "fused": passes(both),
        "baseline epoch": passes(text, text),
        "fused epoch": passes(both, both, steps=2),
    }
    return alternate(sides, repeats)


def main() -> None:
    device, dtype, repeats = arguments(__doc__)
    geometry = GEOMETRIES["7b"] if device.type == "cuda" else CPU
    claims = []
    figures: dict[str, dict[str, float]] = {}
    for vocabulary, target in ((32000, 2.5), (2000, 1.9)):
        seconds = measure(geometry.with_vocabulary(vocabulary), device, dtype, repeats)
        figures[f"seconds, vocabulary {vocabulary}"] = seconds.rounded()
        ratio = seconds.ratio("stock, two passes", "fused")
        claims.append(Claim(f"fused VDEP over stock two-pass, vocabulary {vocabulary}", ratio, target))
        if vocabulary == 32000:
            epochs = seconds.ratio("fused epoch", "baseline epoch")
            claims.append(Claim("fused VDEP epoch : baseline epoch", epochs, 1.05, at_least=False))
    report(claims, **figures)


if __name__ == "__main__":
    main()
