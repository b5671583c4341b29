"""What can be said of the attention of some checkpoints: means with their level under chance, paired differences, a sentence.

Pictures and seeds are crossed: every checkpoint sees the same pictures, and arms of one seed saw the same data. From two seeds
on the interval of a difference is a t interval over the seeds' means, which holds training noise; beside it stands one of the
crossed model, which takes the pictures for a sample too (two-way random effects, Satterthwaite's degrees of freedom). From one
seed it is over pictures alone, paired, and says nothing of another training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict

from ..errors import ReportError
from .attention_data import MEASURES, Flow
from .inference import Interval, holm, interval, t_interval

LEVEL = 0.05
TITLES = {
    "image": "attention to the image",
    "object": "share on objects / their area",
    "object_without_sinks": "share on objects / their area, without sinks",
    "pointing": "pointing game",
    "pointing_without_sinks": "pointing game, without sinks",
    "area_without_sinks": "area of objects, without sinks",
    "entropy": "entropy / its maximum",
    "sinks": "share on sinks",
}

Flows = Mapping[str, Sequence[Flow]]
"""Checkpoint -> its flows, one a seed, all on the same pictures. The second is compared with each of the others."""


Number = Annotated[float, BeforeValidator(lambda value: np.nan if value is None else value)]
"""nan, where nothing is defined, is null in JSON."""


class _Typed(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=True, ser_json_inf_nan="null")


class Estimate(_Typed):
    """A measure of a checkpoint at a layer, or (None) of its best head; ``uniform``: of attention without preference."""

    checkpoint: str
    layer: int | None
    measure: str
    mean: Number
    low: Number
    high: Number
    uniform: float | None
    pictures: int
    seeds: int


class Difference(_Typed):
    """``checkpoint`` minus ``reference``, paired, with its 95% interval and p (``p_holm``: over the layers of a measure).

    ``crossed_low``, ``crossed_high``: with the pictures as a sample, too; from two seeds on.
    """

    checkpoint: str
    reference: str
    layer: int | None
    measure: str
    difference: Number
    low: Number
    high: Number
    p: Number
    p_holm: float | None
    crossed_low: float | None
    crossed_high: float | None
    pictures: int
    seeds: int


class Heads(_Typed):
    """A checkpoint's heads, of each seed: measure -> (layers, heads), on the pictures of odd number. ``best`` is (layer, head)
    from 1, chosen on the others."""

    checkpoint: str
    seed: int
    best: tuple[int, int]
    measures: dict[str, list[list[Number]]]


class AttentionReport(_Typed):
    """Everything that the tables, the figures and the page say of a figure's checkpoints."""

    question: str
    checkpoints: list[str]
    layers: int
    pictures: int
    noise: str
    conclusion: str
    titles: dict[str, str]
    estimates: list[Estimate]
    differences: list[Difference]
    heads: list[Heads]


NOTHING = Interval(np.nan, np.nan, np.nan, None)


def of_mean(values: np.ndarray) -> Interval:
    """The t interval of a mean, 95%; (n,), of which what is undefined is left out."""
    values = values[np.isfinite(values)]
    return t_interval(values.tolist(), LEVEL) if len(values) > 1 else NOTHING


def crossed_interval(values: np.ndarray) -> Interval:
    """Of the mean over seeds and pictures, both random and crossed; (seeds, pictures), at least two of each.

    The variance of the mean is (MS_seeds + MS_pictures - MS_rest) / (seeds x pictures).
    """
    values = values[:, np.isfinite(values).all(0)]
    seeds, pictures = values.shape
    if min(seeds, pictures) < 2:
        return NOTHING
    mean, by_seed, by_picture = values.mean(), values.mean(1), values.mean(0)
    rest = values - by_seed[:, None] - by_picture + mean
    squares = np.array(
        [
            pictures * by_seed.var(ddof=1),
            seeds * by_picture.var(ddof=1),
            -(rest**2).sum() / ((seeds - 1) * (pictures - 1)),
        ]
    )
    freedom = np.array([seeds - 1, pictures - 1, (seeds - 1) * (pictures - 1)])
    # where the rest is the greater by chance, the seeds alone are what is left
    total = max(squares.sum(), squares[0])
    degrees = total**2 / max((squares**2 / freedom).sum(), np.finfo(float).tiny)
    return interval(float(mean), float((total / values.size) ** 0.5), float(degrees), LEVEL)


def values_of(flows: Sequence[Flow], layer: int | None, measure: str) -> np.ndarray:
    """(seeds, pictures): of the mean over heads at a layer, from 0; of the best head of each seed without one."""
    at = MEASURES.index(measure)
    return np.stack([flow.best_values[:, at] if layer is None else flow.by_layer[:, layer, at] for flow in flows]).astype(float)


def estimate(values: np.ndarray) -> Interval:
    """Over seeds, if there are two or more, else over pictures; (seeds, pictures)."""
    return of_mean(seed_means(values)) if len(values) > 1 else of_mean(values[0])


def seed_means(values: np.ndarray) -> np.ndarray:
    """(seeds,): over the pictures where every seed has a value."""
    common = values[:, np.isfinite(values).all(0)]
    return common.mean(1) if common.size else np.full(len(values), np.nan)


def chance(flow: Flow, layer: int | None, measure: str) -> float | None:
    """A measure's level where attention has no preference, if it has one."""
    if measure == "image":
        return flow.uniform
    if measure == "pointing":
        return float(flow.areas.mean())
    if measure == "pointing_without_sinks":
        return float(np.nanmean(values_of([flow], layer, "area_without_sinks")))
    return {"object": 1.0, "object_without_sinks": 1.0, "entropy": 1.0}.get(measure)


def check(flows: Flows) -> None:
    """Raises:
    ReportError: where there are less than two checkpoints, or they did not see the same pictures.
    """
    if len(flows) < 2:
        raise ReportError("the attention figure compares two checkpoints")
    every = [flow for seeds in flows.values() for flow in seeds]
    first = every[0]
    for flow in every:
        same = flow.maps.shape == first.maps.shape and flow.by_layer.shape == first.by_layer.shape
        if not same or any(not np.array_equal(getattr(flow, n), getattr(first, n)) for n in ("pixels", "names", "cells")):
            raise ReportError("the checkpoints of the attention figure did not see the same pictures")


def report(flows: Flows, question: str) -> AttentionReport:
    """Everything that is said of some checkpoints.

    Raises:
        ReportError: as ``check``.
    """
    check(flows)
    left, right, *controls = flows
    first = flows[left][0]
    layers = first.by_layer.shape[1]
    places: list[int | None] = [*range(layers), None]
    differences = [d for other in (left, *controls) for m in MEASURES for d in _differences(flows, right, other, m, places)]
    seeds = [len(of) for of in flows.values()]
    noise = "two checkpoints, no training noise" if min(seeds) < 2 else f"{min(seeds)} seeds of each"
    if min(seeds) < 2 and len(flows) > 2:
        noise = "single checkpoints, no training noise"
    return AttentionReport(
        question=question,
        checkpoints=list(flows),
        layers=layers,
        pictures=len(first.names),
        noise=noise,
        conclusion=conclude(differences, len(first.names), layers, noise),
        titles=TITLES,
        estimates=[e for name, of in flows.items() for m in MEASURES for e in _estimates(name, of, m, places)],
        differences=differences,
        heads=[_heads(name, seed, flow) for name, of in flows.items() for seed, flow in enumerate(of)],
    )


def _number(layer: int | None) -> int | None:
    return None if layer is None else layer + 1


def _estimates(name: str, flows: Sequence[Flow], measure: str, places: Sequence[int | None]) -> list[Estimate]:
    found = []
    for layer in places:
        values = values_of(flows, layer, measure)
        mean, low, high, _ = estimate(values)
        found.append(
            Estimate(
                checkpoint=name, layer=_number(layer), measure=measure, mean=mean, low=low, high=high,
                uniform=chance(flows[0], layer, measure), pictures=values.shape[1], seeds=len(flows),
            )
        )  # fmt: skip
    return found


def _differences(flows: Flows, right: str, other: str, measure: str, places: Sequence[int | None]) -> list[Difference]:
    seeds = min(len(flows[right]), len(flows[other]))
    pairs = [
        values_of(flows[right][:seeds], layer, measure) - values_of(flows[other][:seeds], layer, measure) for layer in places
    ]
    intervals = [estimate(pair) for pair in pairs]
    adjusted = holm([over.p if layer is not None else None for layer, over in zip(places, intervals, strict=True)])
    found = []
    for layer, pair, over, holms in zip(places, pairs, intervals, adjusted, strict=True):
        crossed = crossed_interval(pair) if seeds > 1 else None
        found.append(
            Difference(
                checkpoint=right, reference=other, layer=_number(layer), measure=measure, difference=over.mean,
                low=over.low, high=over.high, p=np.nan if over.p is None else over.p, p_holm=holms,
                crossed_low=crossed and crossed.low, crossed_high=crossed and crossed.high,
                pictures=pair.shape[1], seeds=seeds,
            )
        )  # fmt: skip
    return found


def _heads(name: str, seed: int, flow: Flow) -> Heads:
    layer, head = (int(number) + 1 for number in flow.best)
    values = {measure: flow.by_head[1, ..., at].astype(float).tolist() for at, measure in enumerate(MEASURES)}
    return Heads(checkpoint=name, seed=seed, best=(layer, head), measures=values)


def conclude(differences: Sequence[Difference], pictures: int, layers: int, noise: str) -> str:
    """What can be concluded of attention to objects, by rule: the layers whose difference is beyond chance after Holm."""
    single = "no training noise" in noise
    said = []
    for reference in dict.fromkeys(d.reference for d in differences):
        rows = [d for d in differences if d.reference == reference and d.measure == "object_without_sinks" and d.layer]
        beyond = [d for d in rows if d.p_holm is not None and d.p_holm < LEVEL]
        more = _listed([d.layer for d in beyond if d.difference > 0])
        less = _listed([d.layer for d in beyond if d.difference < 0])
        right, other = (name.partition("/")[2] or name for name in (rows[0].checkpoint, reference))
        if more or less:
            where = " and ".join([f"more to objects in {more}"] * bool(more) + [f"less in {less}"] * bool(less))
            if not more:
                where = f"less to objects in {less}"
            said.append(f"{right} attends {where} of {layers} than {other}")
        else:
            against = "the pictures" if single else "training noise"
            said.append(f"no layer's attention to objects tells {right} from {other} beyond what varies with {against}")
    found = f"Over {pictures} pictures, {'; '.join(said)} (Holm over layers, {LEVEL:.0%})."
    if single:
        caution = "another seed could differ as much, so this is no evidence of an effect of VDEP"
        return f"{found} {noise[0].upper()}{noise[1:]}: {caution}."
    return f"{found} Intervals are over {noise}, so training noise is in them."


def _listed(layers: Sequence[int | None]) -> str:
    if not layers:
        return ""
    if len(layers) > 6:
        return f"{len(layers)} layers"
    return f"layer{'s' * (len(layers) > 1)} " + ", ".join(map(str, layers))
