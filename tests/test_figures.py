"""All figures can be printed: at the width of a column or a page, in letters of 8 points, the same bytes every time."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image
from test_attention_statistics import make_flow
from test_loss_figure import rows

from vdep.report import attention_figure, loss_figure, objects_figure
from vdep.report.attention_data import Flow
from vdep.report.attention_statistics import Flows, report
from vdep.report.figure_style import DPI, PAGE, method_colors, plt


def flows(layers: int = 4, shown: int = 3, names: tuple[str, ...] = ("baseline", "vdep", "vdep-alpha0")) -> Flows:
    rng = np.random.default_rng(0)
    pictures = rng.random((20, layers)) + 1
    return {f"m/{name}": [make_flow(pictures + rng.normal(0, 0.1, pictures.shape), i, shown)] for i, name in enumerate(names)}


def attention(path: Path) -> None:
    made = flows(2, 1)
    attention_figure.draw(made, report(made, "q"), path)


def objects(path: Path) -> None:
    objects_figure.draw(report(flows(2, 1), "q"), path)


def losses(path: Path) -> None:
    log = loss_figure.Log(rows(40, True), [{"step": 20, "text_loss": 2.5, "tokens": 7}], 8)
    loss_figure.draw({("m/vdep", "seed-1"): {"pretrain": log, "finetune": log}}, path)


@pytest.mark.parametrize("draw", [attention, objects, losses])
def test_a_figure_is_as_wide_as_a_page_with_letters_that_can_be_read(
    draw: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    monkeypatch.setattr(plt, "close", drawn.append)
    draw(tmp_path / "one.png")
    (figure,) = drawn
    sizes = {text.get_fontsize() for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()}
    monkeypatch.undo()
    plt.close(figure)
    assert min(sizes) >= 7, sizes
    with Image.open(tmp_path / "one.png") as image:
        assert image.width == round(PAGE * DPI)
        assert len(image.convert("RGB").getcolors(1 << 24) or []) > 100, "not an empty page"
    pdf = (tmp_path / "one.pdf").read_bytes()
    assert float(re.search(rb"/MediaBox \[ ?0 0 ([\d.]+)", pdf)[1]) == pytest.approx(72 * PAGE, abs=0.1)  # type: ignore[index]
    assert b"/Type3" not in pdf.replace(b" ", b""), "letters are TrueType, embedded"
    assert b"/FontFile2" in pdf
    for secret in (b"CreationDate", b"matplotlib.org"):
        assert secret not in pdf


@pytest.mark.parametrize("draw", [attention, objects, losses])
def test_a_figure_is_the_same_bytes_every_time(draw: Callable[[Path], None], tmp_path: Path) -> None:
    for name in ("one", "two"):
        draw(tmp_path / f"{name}.png")
        # fonts say to the second when they were embedded
        time.sleep(1.1)
    for ending in ("png", "pdf"):
        assert (tmp_path / f"one.{ending}").read_bytes() == (tmp_path / f"two.{ending}").read_bytes()


def test_methods_have_the_same_colour_everywhere() -> None:
    assert method_colors(["baseline", "vdep"])["vdep"] == method_colors(["mine", "vdep", "vdep-alpha0"])["vdep"]
    many = method_colors(["baseline", "vdep", "vdep-alpha0", "baseline-2epochs", "a", "b", "c", "d"])
    assert len(set(many.values())) == 8


def axes_of(draw: Callable[[], None], monkeypatch: pytest.MonkeyPatch):
    drawn = []
    monkeypatch.setattr(plt, "close", drawn.append)
    draw()
    monkeypatch.undo()
    plt.close(drawn[0])
    return drawn[0]


def test_baseline_vdep_and_their_difference_stand_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hot patch of VDEP's: bright in its map, not in the baseline's, and red in the third column."""
    made = {name: [Flow(**{**vars(of[0]), "maps": np.full((1, 2, 9), 0.1)})] for name, of in flows(2, 1).items()}
    made["m/vdep"][0].maps[0, 1, 5] = 0.9
    said = report(made, "q")
    figure = axes_of(lambda: attention_figure.draw(made, said, tmp_path / "x.png"), monkeypatch)
    images = [axis.images[0].get_array() for axis in figure.axes if axis.images]
    picture, *maps = (np.asarray(image) for image in images)
    assert picture.shape[-1] == 3
    before, after, change = maps[3:6]
    assert np.allclose(before, 1)
    assert np.unravel_index(after.argmax(), after.shape) == (1, 2)
    assert np.allclose(change, after - before)
    titles = [axis.get_title() for axis in figure.axes]
    assert ("baseline", "vdep", "Δ") in list(zip(titles, titles[1:], titles[2:], strict=False))
    text = " ".join(t.get_text().replace("\n", " ") for t in figure.findobj(Text))
    assert said.conclusion in text
    assert "no training noise" in text
    levels = [line for axis in figure.axes for line in axis.lines if line.get_label() == "uniform attention"]
    assert len(levels) == 1
    assert set(levels[0].get_ydata()) == {0.9}


def test_names_that_do_not_fit_are_letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = flows(2, 4, ("baseline-2epochs", "vdep"))
    figure = axes_of(lambda: attention_figure.draw(made, report(made, "q"), tmp_path / "x.png"), monkeypatch)
    texts = [text.get_text() for text in figure.findobj(Text)]
    assert "A: baseline-2epochs\nB: vdep" in texts
    assert texts.count("A") == 4


def test_a_class_token_lies_nowhere_on_the_map() -> None:
    whole = flows(2, 1)["m/vdep"][0]
    one = Flow(**{**vars(whole), "maps": np.full((1, 2, 10), 0.1), "cells": np.arange(-1, 9)})
    assert np.allclose(attention_figure.relative(one), 1)
    less = Flow(**{**vars(whole), "maps": np.full((1, 2, 8), 0.1), "cells": np.arange(1, 9)})
    drawn = attention_figure.relative(less)
    assert np.isnan(drawn[0, 0, 0, 0])
    assert np.isfinite(drawn).sum() == 16


def test_layers_are_chosen_evenly_with_the_first_and_the_last() -> None:
    assert attention_figure.shown_layers(3) == [0, 1, 2]
    chosen = attention_figure.shown_layers(32)
    assert (chosen[0], chosen[-1], len(chosen)) == (0, 31, 6)
