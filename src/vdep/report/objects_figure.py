"""How much of the attention lies on objects, by layer and for the best head: levels above, paired differences below."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from .attention_figure import changes, layers_axis, levels, sentence
from .attention_statistics import AttentionReport
from .figure_style import PAGE, method_colors, save, style

PANELS = {
    "object_without_sinks": "objects: attention / area",
    "pointing_without_sinks": "pointing game",
    "entropy": "entropy / maximum",
    "sinks": "share on sinks",
}


def draw(report: AttentionReport, path: Path) -> None:
    """Write the figure: PNG, and a PDF beside it."""
    variants = {name: name.partition("/")[2] or name for name in report.checkpoints}
    colors = method_colors(variants.values())
    with style():
        figure, axes = plt.subplots(2, len(PANELS), figsize=(PAGE, 4.1), layout="constrained", sharex=True)
        for column, (measure, title) in enumerate(PANELS.items()):
            upper, lower = axes[:, column]
            for name in report.checkpoints:
                rows = [e for e in report.estimates if e.checkpoint == name and e.measure == measure]
                levels(upper, rows, colors[variants[name]])
                if best := [e for e in rows if e.layer is None]:
                    _best(upper, report.layers, best[0].mean, best[0].low, best[0].high, colors[variants[name]])
            paired = [d for d in report.differences if d.measure == measure]
            changes(lower, paired, colors)
            for d in paired:
                if d.layer is None:
                    _best(lower, report.layers, d.difference, d.low, d.high, colors[variants[d.reference]])
            lower.get_legend().remove()
            if measure == "sinks":
                upper.set_ylim(0, max(0.1, upper.get_ylim()[1]))
            upper.set_title(title)
            layers_axis(lower, report.layers, _place(report.layers))
        axes[0, 0].set_ylabel("mean over pictures")
        axes[1, 0].set_ylabel("difference, paired")
        handles = [*axes[0, 0].get_legend_handles_labels()[0], *axes[1, 0].get_legend_handles_labels()[0]]
        figure.legend(handles=handles, loc="outside lower center", ncols=4, handlelength=1.5)
        text = f"{report.conclusion} Bars: 95%; best: the head that looks at objects most, chosen on other pictures."
        figure.suptitle(sentence(text), x=0.01, ha="left")
        save(figure, path)


def _place(layers: int) -> float:
    return layers + max(1.0, layers / 6)


def _best(axis: Axes, layers: int, middle: float, low: float, high: float, color: str) -> None:
    axis.errorbar([_place(layers)], [middle], [[middle - low], [high - middle]], fmt="D", color=color, elinewidth=1.0)
    axis.axvline((layers + _place(layers)) / 2, color="#BBBBBB", linewidth=0.5)
