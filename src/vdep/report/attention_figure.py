"""Figure 1 anew: what two checkpoints attend to, and their difference side by side; and the totals over the layers.

A map shows each image token's share of the attention to the image, in multiples of the share that it would have under uniform
attention: layers that pay little to the image as a whole are as readable as others. Totals are what they are.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.ticker import FuncFormatter, MaxNLocator

from .attention_data import Flow
from .attention_statistics import AttentionReport, Difference, Estimate, Flows
from .figure_style import PAGE, method_colors, save, style

MOST_LAYERS, MOST_SHOWN = 6, 4
MAP, CHANGE = "viridis", "RdBu_r"
DELTA, MINUS = chr(0x394), chr(0x2212)
WIDEST = 8
"""Letters that fit above a map."""
LOWEST = 0.25
"""Colours begin at a quarter of what uniform attention would give."""


def shown_layers(layers: int) -> list[int]:
    """At most ``MOST_LAYERS``, evenly spread, the first and the last among them."""
    return sorted({round(x) for x in np.linspace(0, layers - 1, min(layers, MOST_LAYERS))})


def relative(flow: Flow) -> np.ndarray:
    """(shown, layers, side, side): attention to each patch over its level if the image's attention were uniform."""
    share = flow.maps / flow.maps.sum(-1, keepdims=True) * flow.maps.shape[-1]
    return flow.grid(share)


def draw(flows: Flows, report: AttentionReport, path: Path) -> None:
    """Write the figure: maps of the first seeds of the first two checkpoints, curves of all. PNG, and a PDF beside it."""
    names = list(flows)[:2]
    left, right = (relative(flows[name][0])[:MOST_SHOWN] for name in names)
    chosen = shown_layers(report.layers)
    side = (PAGE - 1.3) / (3.25 * len(left))
    height = side * (len(chosen) + 1) + 0.5
    with style():
        figure = plt.figure(figsize=(PAGE, height + 2.5), layout="constrained")
        upper, lower = figure.subfigures(2, 1, height_ratios=[height, 2.5])
        _maps(upper, flows[names[0]][0].pixels, (left, right), [_variant(name) for name in names], chosen)
        _totals(lower, report)
        figure.get_layout_engine().set(w_pad=0.01, h_pad=0.02, wspace=0.02, hspace=0.02)
        save(figure, path)


def _variant(name: str) -> str:
    return name.partition("/")[2] or name


def _maps(figure: Any, pixels: np.ndarray, pair: tuple[np.ndarray, np.ndarray], names: list[str], chosen: list[int]) -> None:
    groups = len(pair[0])
    widths = [1.0, 1.0, 1.0, 0.25] * groups
    grid, right = figure.subfigures(1, 2, width_ratios=[PAGE - 0.95, 0.95])
    axes = grid.subplots(len(chosen) + 1, len(widths), squeeze=False, width_ratios=widths)
    drawn = np.stack(pair)[:, :, chosen]
    highest = max(4.0, float(np.nanquantile(drawn, 0.999)))
    change = max(0.5, float(np.nanquantile(np.abs(drawn[1] - drawn[0]), 0.995)))
    level, about_zero = LogNorm(LOWEST, highest), Normalize(-change, change)
    letters = ["A", "B"] if max(map(len, names)) > WIDEST else names
    roomy = groups < MOST_SHOWN or len(chosen) < MOST_LAYERS
    if not roomy:
        axes[0, 0].text(0, 0, "layer", ha="center", transform=axes[0, 0].transAxes)
    for axis in axes.flat:
        axis.set_axis_off()
    for group in range(groups):
        columns = axes[:, 4 * group : 4 * group + 3]
        columns[0, 1].imshow(pixels[group])
        for row, layer in enumerate(chosen, 1):
            before, after = (maps[group, layer] for maps in pair)
            for axis, values in zip(columns[row], (before, after), strict=False):
                shown = axis.imshow(np.clip(values, LOWEST, None), cmap=MAP, norm=level, interpolation="nearest")
            changed = columns[row, 2].imshow(after - before, cmap=CHANGE, norm=about_zero, interpolation="nearest")
            if group == 0:
                where = {"rotation": 90, "ha": "right", "va": "center", "transform": columns[row, 0].transAxes}
                columns[row, 0].text(-0.15, 0.5, f"layer {layer + 1}" if roomy else f"{layer + 1}", **where)
        for axis, title in zip(columns[1], (*letters, DELTA), strict=True):
            axis.set_title(title, pad=2)
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    ticks = [2.0**power for power in range(-2, 12) if 2.0**power <= highest]
    bars = right.subplots(2, 1)
    bar = figure.colorbar(shown, cax=bars[0], ticks=ticks, format=plain)
    bar.minorticks_off()
    bar.set_label("× uniform")
    figure.colorbar(changed, cax=bars[1]).set_label(f"{DELTA} = {letters[1]} {MINUS} {letters[0]}")
    for axis in bars:
        axis.set_box_aspect(12)
    if letters != names:
        axes[0, 0].text(0, 1, f"A: {names[0]}\nB: {names[1]}", va="top", transform=axes[0, 0].transAxes, fontsize=7)


def _totals(figure: Any, report: AttentionReport) -> None:
    axes = figure.subplots(1, 2)
    colors = method_colors(map(_variant, report.checkpoints))
    for name in report.checkpoints:
        levels(axes[0], [e for e in report.estimates if e.checkpoint == name and e.measure == "image"], colors[_variant(name)])
    changes(axes[1], [d for d in report.differences if d.measure == "image"], colors)
    axes[0].set_ylim(0, 1)
    axes[0].set_ylabel(report.titles["image"])
    axes[0].legend(loc="lower left", ncols=2, handlelength=1.5)
    axes[1].set_ylabel("difference")
    for axis in axes:
        layers_axis(axis, report.layers)
    figure.suptitle(sentence(report.conclusion), x=0.01, ha="left")


def sentence(text: str, width: int = 118) -> str:
    """Wrapped to the width of both columns."""
    return textwrap.fill(text, width)


def marker(layers: int) -> float:
    """Points: with many layers they would hide their intervals."""
    return 3.0 if layers <= 12 else 1.5


def layers_axis(axis: Axes, layers: int, best: float | None = None) -> None:
    """Whole layers as ticks; ``best``: where the best head stands."""
    axis.set_xlabel("layer")
    ticks = [int(tick) for tick in MaxNLocator(4, integer=True).tick_values(1, layers) if 1 <= tick <= layers]
    axis.set_xticks([*ticks, *([best] if best else [])], [*map(str, ticks), *(["best"] if best else [])])


def levels(axis: Axes, estimates: Sequence[Estimate], color: str) -> None:
    """A measure over the layers, with its intervals and the level of uniform attention as a line."""
    rows = [e for e in estimates if e.layer is not None]
    layers = np.array([e.layer for e in rows])
    axis.plot(
        layers, [e.mean for e in rows], "o-", markersize=marker(len(rows)), color=color, label=_variant(rows[0].checkpoint)
    )
    axis.fill_between(layers, [e.low for e in rows], [e.high for e in rows], color=color, alpha=0.2, linewidth=0)
    chance = [e.uniform for e in rows if e.uniform is not None]
    if len(chance) == len(rows) and not any(line.get_label() == "uniform attention" for line in axis.lines):
        axis.plot(layers, chance, "--", color="#777777", linewidth=0.8, label="uniform attention")


def changes(axis: Axes, differences: Sequence[Difference], colors: dict[str, str]) -> None:
    """Paired differences over the layers with their intervals, in the colour of the checkpoint that is compared with."""
    rows = [d for d in differences if d.layer is not None]
    references = list(dict.fromkeys(d.reference for d in rows))
    axis.axhline(0, color="#777777", linewidth=0.8, linestyle="--")
    for number, reference in enumerate(references):
        one = [d for d in rows if d.reference == reference]
        at = np.array([d.layer for d in one], float) + 0.16 * (number - (len(references) - 1) / 2)
        middle = np.array([d.difference for d in one])
        around = [middle - [d.low for d in one], [d.high for d in one] - middle]
        label = f"{_variant(one[0].checkpoint)} {MINUS} {_variant(reference)}"
        axis.errorbar(
            at,
            middle,
            around,
            fmt="o",
            markersize=marker(len(one)),
            color=colors[_variant(reference)],
            label=label,
            elinewidth=0.8,
        )
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, handlelength=1.0)
