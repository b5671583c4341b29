"""A stage-1 step of the baseline on the same batch: the stock class as it comes, tuned, and this repository's. Time, and peak
memory.

Ours computes the head at supervised positions only, and no layer of the vision tower behind the one that is read; tuned stock
does the first with ``logits_to_keep``. How much the head is depends on the model: 0.020 of the layers at 7B, and under 32,000
words 0.64 at this CPU's width. So the claims are made at 7B's ratio, where there is little to save, and the other is a figure.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from common import (
    CPU,
    GEOMETRIES,
    PROMPT,
    Claim,
    Geometry,
    alternate,
    arguments,
    batch_of,
    build,
    build_task,
    optimizer_of,
    peak_memory,
    report,
    samples,
    stock_inputs,
)

BATCH, TEXT = 4, 20

Side = Callable[[], Callable[[], None]]


def sides(geometry: Geometry, device: torch.device, dtype: torch.dtype) -> dict[str, Side]:
    """What makes each side's step."""

    def stock(tuned: bool) -> Side:
        def make() -> Callable[[], None]:
            model = build(geometry, device, dtype)
            optimizer = optimizer_of(model)
            inputs = stock_inputs(model, batch_of(model, samples([TEXT] * BATCH, geometry.vocabulary)))
            keep = TEXT - PROMPT + 1
            kept = {"labels": inputs["labels"][:, -keep:], "logits_to_keep": keep} if tuned else {}

            def step() -> None:
                model(**{**inputs, **kept}).loss.backward()
                optimizer.step()
                optimizer.zero_grad()

            return step

        return make

    def ours() -> Callable[[], None]:
        model = build(geometry, device, dtype)
        optimizer = optimizer_of(model)
        batch = batch_of(model, samples([TEXT] * BATCH, geometry.vocabulary))
        task = build_task(model, None)

        def step() -> None:
            task(batch)[0].backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    return {"stock": stock(False), "tuned stock": stock(True), "ours": ours}


def main() -> None:
    device, dtype, repeats = arguments(__doc__)
    geometry = GEOMETRIES["7b"] if device.type == "cuda" else CPU.like_7b()
    # memory first, each side in a process of its own where there is no GPU to ask
    makers = sides(geometry, device, dtype)
    memory = {name: peak_memory(make) for name, make in makers.items()}
    seconds = alternate({name: make() for name, make in makers.items()}, repeats)
    wide = {}
    if device.type != "cuda":
        other = alternate({name: make() for name, make in sides(CPU, device, dtype).items()}, max(1, repeats // 3))
        wide = {name: round(other.ratio(name, "ours"), 3) for name in makers}
    report(
        [
            Claim("stage-1 step: stock over ours, at 7B's head : layers", seconds.ratio("stock", "ours"), 1.0),
            Claim("stage-1 step: tuned stock over ours, likewise", seconds.ratio("tuned stock", "ours"), 0.98),
            Claim("peak memory of a stage-1 step : stock", memory["ours"] / memory["stock"], 1.0, at_least=False),
        ],
        seconds=seconds.rounded(),
        clock=seconds.by_the_clock(),
        memory_mb={name: round(value / 1e6) for name, value in memory.items()},
        **({f"over ours, vocabulary {CPU.vocabulary}": wide} if wide else {}),
    )


if __name__ == "__main__":
    main()
