"""An SFT epoch: samples packed into rows, against padded as LLaVA groups them (by modality and length).

The same global batches, from this repository's plan, in micro-batches of as many samples. Lengths: 94% of the samples come with
an image of 64 (CPU) or 576 (GPU) image tokens, the others text alone; the text log-normal, median 90 tokens and sigma 0.9
(half a page now and then), at least 12 and at most 700. That is stated, not measured on LLaVA's data.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from common import (
    CPU_SHORT,
    GEOMETRIES,
    Claim,
    alternate,
    arguments,
    batch_of,
    build,
    build_task,
    optimizer_of,
    report,
    samples,
)

from vdep.data.plan import BatchPlan, assign

SAMPLES, GLOBAL_BATCH, MICRO_BATCH = 64, 32, 8


def main() -> None:
    device, dtype, repeats = arguments(__doc__)
    geometry = GEOMETRIES["3b"] if device.type == "cuda" else CPU_SHORT
    rng = np.random.default_rng(0)
    texts = np.clip(rng.lognormal(np.log(90), 0.9, SAMPLES), 12, 700).astype(int)
    has_image = rng.random(SAMPLES) < 0.94
    model = build(geometry, device, dtype)
    model.model.language_model.requires_grad_(True)
    model.lm_head.requires_grad_(True)
    optimizer = optimizer_of(model)
    task = build_task(model, None, packing=True)
    lengths = texts + has_image * model.config.image_seq_length
    plan = BatchPlan(lengths, has_image, global_batch=GLOBAL_BATCH, epochs=1, seed=0, grouping="modality_length")
    chosen = samples(texts.tolist(), geometry.vocabulary, has_image.tolist())

    def epoch(packing: bool) -> Callable[[], None]:
        steps = []
        for number in range(plan.steps):
            batch = plan.batch(number)
            (micro_batches,) = assign(batch, lengths[batch.samples], 1, MICRO_BATCH, packing)
            steps.append([batch_of(model, [chosen[i] for i in m.samples], packing=packing) for m in micro_batches])

        def run() -> None:
            for micro_batches in steps:
                for micro in micro_batches:
                    task(micro)[0].backward()
                optimizer.step()
                optimizer.zero_grad()

        return run

    seconds = alternate({"padded": epoch(False), "packed": epoch(True)}, repeats)
    ratio = seconds.ratio("padded", "packed")
    report(
        [Claim("SFT, packed over padded as LLaVA groups it", ratio, 1.5 if device.type == "cuda" else 1.0)],
        seconds=seconds.rounded(),
        tokens={"longest": int(lengths.max()), "mean": round(float(lengths.mean()), 1), "samples": SAMPLES},
    )


if __name__ == "__main__":
    main()
