"""A stage-1 step of the baseline: the stock class against this repository's, on the same batch. Time, and peak memory.

Ours computes the head at supervised positions only, and no layer of the vision tower behind the one that is read.
"""

from __future__ import annotations

from collections.abc import Callable

from common import (
    CPU,
    GEOMETRIES,
    Claim,
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


def main() -> None:
    device, dtype, repeats = arguments(__doc__)
    geometry = GEOMETRIES["7b"] if device.type == "cuda" else CPU

    def stock() -> Callable[[], None]:
        model = build(geometry, device, dtype)
        optimizer = optimizer_of(model)
        inputs = stock_inputs(model, batch_of(model, samples([TEXT] * BATCH, geometry.vocabulary)))

        def step() -> None:
            model(**inputs).loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

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

    # memory first, each side in a process of its own where there is no GPU to ask
    memory = {name: peak_memory(make) for name, make in (("stock", stock), ("ours", ours))}
    seconds = alternate({"stock": stock(), "ours": ours()}, repeats)
    report(
        [
            Claim("stage-1 step over stock transformers", seconds.ratio("stock", "ours"), 1.3),
            Claim("peak memory of a stage-1 step : stock", memory["ours"] / memory["stock"], 0.6, at_least=False),
        ],
        seconds=seconds.rounded(),
        memory_mb={name: round(value / 1e6) for name, value in memory.items()},
    )


if __name__ == "__main__":
    main()
