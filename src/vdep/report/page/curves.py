"""How the runs went: what each stage logged, in as many points as can be told apart on a screen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...errors import UserError
from ..loss_figure import Rows, read_log
from .content import Curve
from .request import AskedStage, Request

POINTS = 240
QUANTITIES = ("text_loss", "image_loss", "gradient_ratio", "projector_norm", "projector_cosine", "gradient_norm")


def curves(request: Request) -> tuple[Curve, ...]:
    return tuple(curve for stage in request.stages for curve in _of(stage))


def _of(stage: AskedStage) -> Iterator[Curve]:
    try:
        log = read_log(Path(stage.done))
    except UserError:
        # an imported checkpoint has no log, and one whose log was cleared away has a table all the same
        return
    steps = len(log.losses)
    model, variant, seed = stage.checkpoint.split("/")
    for quantity in QUANTITIES:
        x, y = thinned(log.losses, quantity)
        if x:
            yield Curve(model=model, variant=variant, seed=seed, stage=stage.stage, quantity=quantity, x=x, y=y, steps=steps)
    measured = [(int(row["step"]), _short(row["text_loss"])) for row in log.validation]
    if measured:
        yield Curve(
            model=model,
            variant=variant,
            seed=seed,
            stage=stage.stage,
            quantity="text_loss",
            x=tuple(step for step, _ in measured),
            y=tuple(value for _, value in measured),
            steps=steps,
            validation=True,
        )


def thinned(rows: Rows, quantity: str) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Steps, counted from 1, and means of the quantity over the steps since the last point: at most ``POINTS`` of each.

    Steps without the quantity are left out, and so are values that are not finite.
    """
    found = [(row["step"] + 1, row[quantity]) for row in rows if row.get(quantity) is not None]
    found = [(step, value) for step, value in found if np.isfinite(value)]
    if not found:
        return (), ()
    parts = np.array_split(np.array(found, float), min(POINTS, len(found)))
    return tuple(int(part[-1, 0]) for part in parts), tuple(_short(part[:, 1].mean()) for part in parts)


def _short(value: float) -> float:
    """Four significant digits."""
    return float(f"{value:.4g}")
