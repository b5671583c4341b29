"""Draw two runs' attention side by side, on one colour scale, with the totals over the layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ..errors import ReportError
from .attention_data import Flow, total_interval

MOST_LAYERS = 8
MAP = "magma"
COLORS = ("#666666", "#c0392b")


def shown_layers(layers: int) -> list[int]:
    """At most ``MOST_LAYERS``, evenly spread, the first and the last among them."""
    return sorted({round(x) for x in np.linspace(0, layers - 1, min(layers, MOST_LAYERS))})


Flows = Mapping[str, Sequence[Flow]]
"""Checkpoint -> its flows, one a seed, all on the same pictures."""


def mean_totals(flows: Sequence[Flow]) -> np.ndarray:
    """(pictures, layers): the mean over seeds."""
    return np.mean([flow.totals for flow in flows], axis=0)


def totals_csv(flows: Flows) -> str:
    """The numbers behind the curves: checkpoint, layer, total attention to the image, 95% interval over pictures."""
    frames = []
    for name, seeds in flows.items():
        totals = mean_totals(seeds)
        low, high = total_interval(totals)
        numbers = {"total": totals.mean(0), "low": low, "high": high, "pictures": len(totals), "seeds": len(seeds)}
        frames.append(pd.DataFrame({"checkpoint": name, "layer": np.arange(1, len(low) + 1)} | numbers))
    return pd.concat(frames).to_csv(index=False, float_format="%.5f", lineterminator="\n")


def draw(flows: Flows, question: str, path: Path) -> None:
    """Write the figure of two checkpoints by name: maps of the first seed, curves of the mean over seeds.

    Raises:
        ReportError: where they are not two, did not see the same pictures, or their image tokens make no square.
    """
    if len(flows) != 2:
        raise ReportError("the attention figure compares exactly two checkpoints")
    every = [flow for seeds in flows.values() for flow in seeds]
    shapes = {(flow.maps.shape, flow.totals.shape) for flow in every}
    if len(shapes) > 1 or any(not np.array_equal(flow.pixels, every[0].pixels) for flow in every):
        raise ReportError("the checkpoints of the attention figure did not see the same pictures")
    firsts = {name: seeds[0] for name, seeds in flows.items()}
    samples, layers, tokens = every[0].maps.shape
    side = round(tokens**0.5)
    if side * side != tokens:
        raise ReportError(f"{tokens} image tokens make no square map")
    chosen = shown_layers(layers)
    top = float(max(np.quantile(flow.maps[:, chosen], 0.999) for flow in firsts.values()))
    width, height = 1.15 * (len(chosen) + 1) + 0.9, 1.2 * 2 * samples + 2.9
    figure = plt.figure(figsize=(width, height), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=[1.2 * 2 * samples + 0.4, 2.5])
    axes = upper.subplots(2 * samples, len(chosen) + 1, squeeze=False)
    image = None
    for sample in range(samples):
        for number, (name, flow) in enumerate(firsts.items()):
            row = axes[2 * sample + number]
            row[0].imshow(flow.pixels[sample])
            row[0].set_ylabel(name.partition("/")[2], fontsize=8)
            _bare(row[0])
            for axis, layer in zip(row[1:], chosen, strict=True):
                axis.imshow(flow.pixels[sample].mean(-1), cmap="gray", vmin=0, vmax=255)
                image = axis.imshow(
                    flow.maps[sample, layer].reshape(side, side),
                    cmap=MAP, vmin=0, vmax=top, alpha=0.75, interpolation="nearest",
                    extent=(-0.5, flow.pixels.shape[2] - 0.5, flow.pixels.shape[1] - 0.5, -0.5),
                )  # fmt: skip
                if sample == 0 and number == 0:
                    axis.set_title(f"layer {layer + 1}", fontsize=8)
                _bare(axis)
    model = next(iter(flows)).partition("/")[0]
    of = "\n(the first of several seeds)" if len(every) > 2 else ""
    upper.suptitle(f"{model}: attention of “{question}” to each image token, mean over heads{of}", fontsize=9)
    upper.colorbar(image, ax=axes, shrink=0.5, pad=0.01, label="attention, one scale for all maps")
    _curves(lower.subplots(), flows)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=160, metadata={"Software": None})
    plt.close(figure)


def _bare(axis: Axes) -> None:
    axis.set_xticks([])
    axis.set_yticks([])


def _curves(axis: Axes, flows: Flows) -> None:
    for (name, seeds), color in zip(flows.items(), COLORS, strict=True):
        totals = mean_totals(seeds)
        layers = np.arange(1, totals.shape[1] + 1)
        low, high = total_interval(totals)
        axis.plot(layers, totals.mean(0), "o-", color=color, label=name, markersize=3)
        axis.fill_between(layers, low, high, color=color, alpha=0.2, linewidth=0)
    axis.set_xlabel("layer", fontsize=8)
    axis.set_ylabel("attention to the image", fontsize=8)
    axis.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    axis.set_ylim(bottom=0)
    axis.tick_params(labelsize=8)
    n = " and ".join(dict.fromkeys(str(len(seeds)) for seeds in flows.values()))
    noise = "two checkpoints, no training noise" if n == "1" else f"mean over {n} seeds"
    axis.set_title(f"total over image tokens; {noise}; 95% interval over {len(totals)} pictures", fontsize=8)
    axis.legend(fontsize=8, frameon=False)
