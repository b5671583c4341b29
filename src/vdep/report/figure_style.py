"""What all figures have in common: sizes at which they are printed, colours, and files that are the same bytes every time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

PAGE = 6.75
"""Width of a page of two columns, in inches."""
STYLE = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "figure.titlesize": 8,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.0,
    "lines.markersize": 3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    # letters stay letters in a PDF: most submission systems refuse Type 3
    "pdf.fonttype": 42,
    "axes.formatter.useoffset": False,
}
DPI = 300

# Okabe and Ito, which can be told apart with any colour vision
_COLORS = {"baseline": "#000000", "vdep": "#D55E00", "vdep-alpha0": "#56B4E9", "baseline-2epochs": "#009E73"}
_OTHERS = ("#0072B2", "#CC79A7", "#E69F00", "#F0E442")
STYLES = ("-", "--", ":", "-.")


def method_colors(variants: Iterable[str]) -> dict[str, str]:
    """A colour for each variant: the same in every figure for those that most figures have."""
    names = list(dict.fromkeys(variants))
    others = [name for name in names if name not in _COLORS]
    return {name: _COLORS.get(name) or _OTHERS[others.index(name) % len(_OTHERS)] for name in names}


@contextmanager
def style() -> Iterator[None]:
    with matplotlib.rc_context(STYLE):
        yield


def save(figure: Figure, path: Path) -> None:
    """Write ``path`` (PNG), and a PDF beside it; neither says when and by which version it was made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    with _no_time():
        figure.savefig(path.with_suffix(".pdf"), metadata={"Creator": None, "Producer": None, "CreationDate": None})
    plt.close(figure)


@contextmanager
def _no_time() -> Iterator[None]:
    """Fonts that are embedded say when (fontTools), unless the environment says at which time all is built."""
    before = os.environ.get("SOURCE_DATE_EPOCH")
    os.environ["SOURCE_DATE_EPOCH"] = before or "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ["SOURCE_DATE_EPOCH"]
