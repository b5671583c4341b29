"""The statistics of comparisons, against scipy, statsmodels, lmms-eval and calculations by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from vdep.evaluation.scores import MEAN, SCORERS, Scored
from vdep.report.inference import (
    cluster_interval,
    cluster_variance,
    crossed_interval,
    detectable,
    detectable_by_questions,
    holm,
    one_sided,
    seeds_needed,
    t_interval,
    t_power,
)
from vdep.report.paired import difference, measure

points = st.lists(st.floats(-20, 20), min_size=3, max_size=9).filter(lambda d: np.std(d) > 1e-3)


@given(points, st.sampled_from([0.01, 0.05, 0.2]))
def test_the_interval_over_seeds_is_the_paired_t_test(differences: list[float], level: float) -> None:
    treatment, reference = np.array(differences) + 50.0, np.full(len(differences), 50.0)
    theirs = stats.ttest_rel(treatment, reference)
    low, high = theirs.confidence_interval(1 - level)
    ours = t_interval(list(treatment - reference), level)
    assert (ours.low, ours.high, ours.p) == pytest.approx((low, high, theirs.pvalue), rel=1e-6, abs=1e-9)
    for bound in (-1.0, 1.0):
        for below, alternative in ((True, "less"), (False, "greater")):
            expected = stats.ttest_1samp(differences, bound, alternative=alternative).pvalue
            assert one_sided(differences, bound, below) == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_differences_without_spread_prove_nothing() -> None:
    assert t_interval([0.0, 0.0, 0.0]).p == 1.0
    assert t_interval([2.0, 2.0, 2.0]).p is None
    assert one_sided([2.0, 2.0], 1.0, below=True) is None


def test_two_one_sided_tests_are_statsmodels_equivalence_test() -> None:
    from statsmodels.stats import weightstats

    differences = [0.3, -0.2, 0.5, 0.1, -0.4]
    p, lower, upper = weightstats.ttost_paired(np.array(differences), np.zeros(5), -1.0, 1.0)
    assert one_sided(differences, -1.0, below=False) == pytest.approx(lower[1])
    assert one_sided(differences, 1.0, below=True) == pytest.approx(upper[1])
    assert p == pytest.approx(max(lower[1], upper[1]))


@settings(max_examples=15)  # of statsmodels' 50 ms each
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_is_statsmodels_holm(values: list[float]) -> None:
    from statsmodels.stats import multitest

    assert holm(values) == pytest.approx(list(multitest.multipletests(values, method="holm")[1]))


def test_what_is_no_test_is_not_adjusted_for() -> None:
    assert holm([0.01, None, 0.04]) == pytest.approx([0.02, None, 0.04])
    assert holm([0.01, None, 0.04], among=5) == pytest.approx([0.05, None, 0.16]), "those that are planned count"
    assert holm([]) == []
    assert holm([0.6, 0.6]) == [1.0, 1.0]


def answers(rng: np.random.Generator, clusters: np.ndarray, share: float) -> list[Scored]:
    return [Scored(i, f"picture {c}", float(rng.random() < share)) for i, c in enumerate(clusters)]


def paired(clusters: np.ndarray, seed: int = 0) -> tuple[list[Scored], list[Scored]]:
    rng = np.random.default_rng(seed)
    return answers(rng, clusters, 0.65), answers(rng, clusters, 0.6)


def test_two_checkpoints_on_single_questions_are_lmms_evals_baseline_test() -> None:
    from lmms_eval.api import metrics

    ours, theirs = paired(np.arange(200))
    change = difference(measure(MEAN, ours), measure(MEAN, theirs))
    interval = cluster_interval(change.value, [s.to_numpy() for s in change.influence.values()])
    expected = metrics.paired_ttest([100 * q.points for q in ours], [100 * q.points for q in theirs])
    assert interval.mean == pytest.approx(expected["mean_diff"])
    assert (interval.low, interval.high) == pytest.approx((expected["ci_lower"], expected["ci_upper"]), rel=1e-6)
    assert interval.p == pytest.approx(expected["p_value"], rel=1e-6)


def test_two_checkpoints_on_pictures_with_several_questions_are_statsmodels_cluster_robust_regression() -> None:
    from statsmodels import api

    clusters = np.sort(np.random.default_rng(1).integers(0, 60, 300))
    ours, theirs = paired(clusters)
    change = difference(measure(MEAN, ours), measure(MEAN, theirs))
    (contributions,) = change.influence.values()
    differences = np.array([100 * (a.points - b.points) for a, b in zip(ours, theirs, strict=True)])
    fit = api.OLS(differences, np.ones(len(differences))).fit(cov_type="cluster", cov_kwds={"groups": clusters}, use_t=True)
    interval = cluster_interval(change.value, [contributions.to_numpy()])
    assert interval.mean == pytest.approx(fit.params[0])
    assert math.sqrt(cluster_variance([contributions.to_numpy()]).variance) == pytest.approx(fit.bse[0], rel=1e-6)
    assert (interval.low, interval.high) == pytest.approx(tuple(fit.conf_int()[0]), rel=1e-6)


def test_seeds_and_pictures_crossed_are_the_analysis_of_variance_and_statsmodels_mixed_model() -> None:
    import pandas as pd
    from statsmodels.formula import api as formula

    rng = np.random.default_rng(2)
    seeds, pictures = 6, 40
    of_seed, of_picture = rng.normal(0, 2.0, seeds), rng.normal(0, 3.0, pictures)
    table = 1.0 + of_seed[:, None] + of_picture + rng.normal(0, 2.0, (seeds, pictures))
    differences = table.mean(1)
    ours = crossed_interval(list(differences), [(table - differences[:, None]) / pictures])
    half = (ours.high - ours.low) / 2 / stats.t.ppf(0.975, seeds - 1)
    rows = pd.DataFrame({"y": table.ravel(), "seed": np.repeat(np.arange(seeds), pictures), "one": 1})
    rows["picture"] = np.tile(np.arange(pictures), seeds)
    model = formula.mixedlm(
        "y ~ 1", rows, groups="one", re_formula="0", vc_formula={"seed": "0 + C(seed)", "picture": "0 + C(picture)"}
    )
    theirs = model.fit(reml=True)
    assert ours.mean == pytest.approx(theirs.params["Intercept"], rel=1e-6)
    assert half == pytest.approx(theirs.bse["Intercept"], rel=0.01)


@given(st.integers(0, 2**32 - 1))
def test_a_crossed_interval_is_no_narrower_than_that_over_seeds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    differences = list(rng.normal(0, 1, 4))
    table = rng.normal(0, 1, (4, 12))
    crossed = crossed_interval(differences, [table - table.mean(1, keepdims=True)])
    over_seeds = t_interval(differences)
    assert crossed.high - crossed.low >= (over_seeds.high - over_seeds.low) * (1 - 1e-9)


@pytest.mark.parametrize("kind", sorted(SCORERS))
def test_what_clusters_contribute_predicts_the_score_without_one_of_them(kind: str) -> None:
    """Of every statistic: the derivative is right where leaving one of many clusters out moves the score as it says."""
    rng = np.random.default_rng(3)
    groups = ("existence", "count", "commonsense_reasoning", "OCR") if kind == "mme" else ("",)
    questions = [
        Scored(
            2 * i + j,
            f"c{i}",
            float(rng.random() < 0.7),
            groups[i % len(groups)],
            rng.random() < 0.6,
            rng.random() < 0.5,
            f"u{i}",
        )
        for i in range(400)
        for j in range(2)
    ]
    for name, statistic in SCORERS[kind].parts.items():
        if not math.isfinite(statistic(questions)):
            continue
        (contributions,) = measure(statistic, questions).influence.values()
        assert abs(contributions.sum()) < 1e-6 * max(1.0, contributions.abs().sum()), name
        without = np.array([statistic([q for q in questions if q.cluster != f"c{i}"]) for i in range(40)])
        moved = statistic(questions) - without
        assert moved == pytest.approx(contributions.to_numpy()[:40], abs=0.03 * contributions.abs().max() + 1e-9), name


def test_an_interval_over_clusters_agrees_with_the_bootstrap_of_single_scores() -> None:
    ours, _ = paired(np.sort(np.random.default_rng(4).integers(0, 150, 600)))
    measured = measure(MEAN, ours)
    interval = cluster_interval(measured.value, [s.to_numpy() for s in measured.influence.values()])
    low, high = MEAN.interval(ours)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.4)


def test_several_strata_have_the_degrees_of_freedom_of_satterthwaite() -> None:
    one, other = np.array([1.0, -1.0, 0.5, -0.5]), np.array([3.0, -3.0])
    both = cluster_variance([one, other])
    a, b = cluster_variance([one]), cluster_variance([other])
    assert both.variance == pytest.approx(a.variance + b.variance)
    assert both.freedom == pytest.approx(both.variance**2 / (a.variance**2 / 3 + b.variance**2 / 1))


def test_power_is_statsmodels_power_and_grows_with_seeds() -> None:
    from statsmodels.stats import power

    for n in (2, 3, 5, 10):
        for effect in (0.5, 1.0, 3.0):
            # two-sided, but an effect that is found with the wrong sign is not found
            theirs = power.TTestPower().power(effect, n, 0.025, alternative="larger")
            assert t_power(effect, 1.0, n) == pytest.approx(theirs, abs=1e-6)
        assert t_power(detectable(1.0, n), 1.0, n) == pytest.approx(0.8)
    assert detectable(1.0, 3) > detectable(1.0, 5) > detectable(1.0, 10)


@given(st.floats(0.3, 5.0))
def test_the_seeds_that_are_needed_are_enough_and_one_less_is_not(spread: float) -> None:
    n = seeds_needed(1.0, spread)
    assert t_power(1.0, spread, n) >= 0.8
    assert n == 2 or t_power(1.0, spread, n - 1) < 0.8


def test_one_pair_of_checkpoints_detects_what_lmms_evals_power_analysis_says() -> None:
    from lmms_eval.api import metrics

    # 15% of 1,000 questions turn: variance of a difference 0.15
    theirs = metrics.power_analysis(0.03, std_a=math.sqrt(0.15 / 2), correlation=0.0, current_n=1000)
    ours = detectable_by_questions(math.sqrt(0.15 / 1000))
    assert ours == pytest.approx(theirs["min_detectable_effect"], abs=1e-4)
