"""What is said of attention: intervals with the noise they claim, differences that are paired, a sentence by rule."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from vdep.errors import ReportError
from vdep.report.attention_data import MEASURES, Flow
from vdep.report.attention_statistics import AttentionReport, crossed_interval, of_mean, report
from vdep.report.attention_tables import as_csv, as_markdown

OBJECT = MEASURES.index("object_without_sinks")


def make_flow(values: np.ndarray, seed: int = 0, shown: int = 1) -> Flow:
    """``values`` (pictures, layers) of the share on objects; everything else is made up."""
    rng = np.random.default_rng(seed)
    pictures, layers = values.shape
    by_layer = rng.random((pictures, layers, len(MEASURES)))
    by_layer[..., OBJECT] = values
    return Flow(
        maps=rng.random((shown, layers, 9)),
        head_maps=rng.random((shown, layers, 2, 9)).astype(np.float16),
        pixels=np.zeros((shown, 12, 12, 3), np.uint8),
        cells=np.arange(9),
        side=3,
        uniform=0.9,
        names=np.arange(pictures).astype(str),
        areas=np.full(pictures, 0.1),
        by_layer=by_layer,
        by_head=rng.random((2, layers, 2, len(MEASURES))),
        best=np.array([1, 0]),
        best_values=by_layer[1::2, 1],
        sinks=np.zeros((layers, 9), bool),
    )


def study(effect: float, seeds: int, seed: int, pictures: int = 40, noise: float = 0.3) -> dict[str, list[Flow]]:
    """Two arms on the same pictures, with noise of training that all pictures of a checkpoint share."""
    rng = np.random.default_rng(seed)
    level = rng.normal(1.5, 0.5, (pictures, 1))
    arms = {}
    for name, shift in (("m/baseline", 0.0), ("m/vdep", effect)):
        trainings = rng.normal(0, noise, (seeds, 1, 3))
        arms[name] = [make_flow(level + shift + one + rng.normal(0, 0.1, (pictures, 3))) for one in trainings]
    return arms


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=3, max_size=20).filter(lambda values: np.std(values) > 1e-3))
def test_an_interval_is_scipys(values: list[float]) -> None:
    found = of_mean(np.array([*values, np.nan]))
    theirs = stats.ttest_1samp(values, 0)
    interval = theirs.confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    assert found.p == pytest.approx(theirs.pvalue, abs=1e-9)


def test_the_crossed_interval_covers_as_it_says() -> None:
    """5 seeds and 30 pictures, drawn anew in each of 600 studies: 95%. The control, a t interval over seeds, does not."""
    rng = np.random.default_rng(1)
    covered, over_seeds = 0, 0
    studies = 600
    for _ in range(studies):
        values = rng.normal(0, 0.1, (5, 1)) + rng.normal(0, 1.0, (1, 30)) + rng.normal(0, 0.5, (5, 30))
        crossed = crossed_interval(values)
        covered += crossed.low <= 0 <= crossed.high
        narrow = of_mean(values.mean(1))
        over_seeds += narrow.low <= 0 <= narrow.high
    assert 0.93 <= covered / studies <= 0.985
    assert over_seeds / studies < 0.9


def test_without_an_effect_seeds_say_so_and_pictures_do_not() -> None:
    """Noise of training alone: five seeds call it a difference in at most 5% of the studies, one seed in nearly all."""
    false, single = 0, 0
    for number in range(60):
        arms = study(0.0, 5, number)
        false += "attends" in report(arms, "q").conclusion
        single += "attends" in report({name: seeds[:1] for name, seeds in arms.items()}, "q").conclusion
    assert false <= 8, "binomial: more than 8 of 60 at 5% has a chance below 0.5%"
    assert single > 50, "which is why a figure of two checkpoints says that it is of two checkpoints"


def test_a_planted_effect_is_found_over_seeds() -> None:
    said = report(study(2.0, 5, 0), "q")
    assert "vdep attends more to objects in layers 1, 2, 3 of 3 than baseline" in said.conclusion
    assert "Intervals are over 5 seeds of each" in said.conclusion
    assert "less to objects" in report(study(-2.0, 5, 0), "q").conclusion
    assert "no evidence of an effect" not in said.conclusion


def test_one_seed_is_no_evidence() -> None:
    said = report(study(2.0, 1, 0), "q")
    assert said.noise == "two checkpoints, no training noise"
    assert said.conclusion.endswith("another seed could differ as much, so this is no evidence of an effect of VDEP.")


def test_differences_are_paired_by_picture_and_by_seed() -> None:
    """Pictures differ much, arms hardly: the difference's interval is far narrower than those of its two levels."""
    for seeds in (1, 4):
        said = report(study(0.5, seeds, 3, noise=0.01), "q")
        (difference,) = [d for d in said.differences if d.measure == "object_without_sinks" and d.layer == 1]
        assert difference.difference == pytest.approx(0.5, abs=0.1)
        levels = [e for e in said.estimates if e.measure == "object_without_sinks" and e.layer == 1]
        assert difference.difference == pytest.approx(levels[1].mean - levels[0].mean)
        if seeds == 1:
            assert difference.high - difference.low < 0.5 * (levels[0].high - levels[0].low)
            assert difference.crossed_low is None
        else:
            assert difference.crossed_low is not None
            assert difference.seeds == 4


def test_controls_are_compared_with_the_second_checkpoint() -> None:
    arms = study(2.0, 5, 0)
    arms["m/vdep-alpha0"] = study(0.0, 5, 0)["m/baseline"]
    said = report(arms, "q")
    assert {(d.checkpoint, d.reference) for d in said.differences} == {("m/vdep", "m/baseline"), ("m/vdep", "m/vdep-alpha0")}
    assert "than baseline; vdep attends more" in said.conclusion


def test_tables_have_every_number() -> None:
    said = report(study(0.5, 3, 0), "What?")
    rows = list(csv.DictReader(io.StringIO(as_csv(said))))
    assert len(rows) == (2 + 1) * len(MEASURES) * (3 + 1)
    assert {row["layer"] for row in rows} == {"1", "2", "3", "best head"}
    differences = [row for row in rows if row["reference"]]
    assert {row["reference"] for row in differences} == {"m/baseline"}
    text = as_markdown(said)
    assert said.conclusion in text
    assert text.count("| best head |") == 5
    assert "layer 2, head 1" in text
    assert AttentionReport.model_validate(json.loads(said.model_dump_json())).conclusion == said.conclusion


def test_undefined_values_are_left_out() -> None:
    arms = study(0.5, 1, 0)
    arms["m/vdep"][0].by_layer[3, 0, OBJECT] = np.nan
    arms["m/vdep"][0].by_layer[:, 2, OBJECT] = np.nan
    said = report(arms, "q")
    first, _, third, _ = [d for d in said.differences if d.measure == "object_without_sinks"]
    assert np.isfinite(first.difference)
    assert np.isnan(third.difference)
    assert "layers 1, 2 of 3" in said.conclusion
    assert "NaN" not in said.model_dump_json()
    assert AttentionReport.model_validate_json(said.model_dump_json()).differences[0].p == said.differences[0].p


def test_two_checkpoints_have_to_see_the_same_pictures() -> None:
    arms = study(0.0, 1, 0)
    (flow,) = arms["m/vdep"]
    for name, changed in (("names", flow.names[::-1]), ("pixels", flow.pixels + 1), ("by_layer", flow.by_layer[1:])):
        other = Flow(**{**vars(flow), name: changed})
        with pytest.raises(ReportError, match="did not see the same pictures"):
            report({**arms, "m/vdep": [other]}, "q")
    with pytest.raises(ReportError, match="compares two"):
        report({"m/vdep": [flow]}, "q")
