"""Scores: recomputed from samples, equal to lmms-eval's own, with intervals that resample images."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vdep.errors import EvaluationError
from vdep.evaluation.chance import chance_of, guess_rates
from vdep.evaluation.run import validate
from vdep.evaluation.samples import read_samples, write_samples
from vdep.evaluation.scores import ALL_OF_CLUSTER, F1, MEAN, SCORERS, Scored, mme, score_samples
from vdep.recipe import EvaluationRecipe
from vdep.settings import Benchmark, EvaluationSettings, Judge

scored = st.lists(
    st.builds(
        Scored,
        document=st.integers(0, 99),
        cluster=st.sampled_from("abcdefgh"),
        points=st.sampled_from([0.0, 1.0]),
        predicted_yes=st.booleans(),
        is_yes=st.booleans(),
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(scored)
def test_statistics_by_hand(samples: list[Scored]) -> None:
    assert MEAN(samples) == pytest.approx(100 * np.mean([s.points for s in samples]))
    hits = sum(s.is_yes and s.predicted_yes for s in samples)
    predicted, actual = sum(s.predicted_yes for s in samples), sum(s.is_yes for s in samples)
    precision, recall = hits / predicted if predicted else 0, hits / actual if actual else 0
    by_hand = 2 * precision * recall / (precision + recall) if hits else 0
    assert F1(samples) == pytest.approx(100 * by_hand)
    clusters = {s.cluster for s in samples}
    whole = sum(all(s.points == 1 for s in samples if s.cluster == c) for c in clusters)
    assert ALL_OF_CLUSTER(samples) == pytest.approx(100 * whole / len(clusters))


def test_mme_is_accuracy_plus_accuracy_plus() -> None:
    def pair(name: str, *points: float) -> list[Scored]:
        return [Scored(0, name, p, group="color") for p in points]

    samples = pair("one", 1, 1) + pair("two", 1, 0) + pair("three", 0, 0)
    assert mme("color")(samples) == pytest.approx(100 * (3 / 6 + 1 / 3))
    assert math.isnan(mme("count")(samples)), "no image of that kind, no score"
    assert mme("color", "count")(samples) == mme("color")(samples)


@settings(max_examples=20, deadline=None)
@given(scored)
def test_the_interval_is_a_function_of_the_samples_and_holds_the_score(samples: list[Scored]) -> None:
    low, high = MEAN.interval(samples)
    assert (low, high) == MEAN.interval(samples)
    assert low - 1e-9 <= MEAN(samples) <= high + 1e-9 or len({s.cluster for s in samples}) < 4


def test_questions_about_one_image_are_not_independent() -> None:
    rng = np.random.default_rng(0)
    right = rng.random(40) < 0.5
    alone = [Scored(i, str(i), float(right[i // 5])) for i in range(200)]
    clustered = [Scored(i, str(i // 5), float(right[i // 5])) for i in range(200)]
    widths = [high - low for low, high in (MEAN.interval(alone), MEAN.interval(clustered))]
    assert widths[1] > 1.7 * widths[0]


def test_a_score_that_is_not_lmms_evals_own_is_refused() -> None:
    samples = [{"doc_id": i, "exact_match": float(i % 2)} for i in range(10)]
    _, parts = score_samples("mean", samples, {"exact_match,none": 0.5})
    assert parts["score"]["value"] == 50
    with pytest.raises(EvaluationError, match=r"from the samples is 50\.0, lmms-eval's own is 60"):
        score_samples("mean", samples, {"exact_match,none": 0.6})
    with pytest.raises(EvaluationError, match="reports no exact_match"):
        score_samples("mean", samples, {"accuracy": 0.5})
    with pytest.raises(EvaluationError, match="no finite score"):
        score_samples("mean", [], {"exact_match,none": 0.5})


def recipe(**changes: Any) -> EvaluationRecipe:
    benchmark = Benchmark(**({"asset": "a", "task": "t", "files": {}, "scorer": "mean", "samples": 10} | changes))
    return EvaluationRecipe(
        benchmark="demo", settings=benchmark, source={}, template="phi", image="pad", evaluation=EvaluationSettings()
    )


def answers(*texts: str) -> list[dict[str, Any]]:
    return [{"resps": [[text]]} for text in texts]


def test_an_evaluation_that_answers_nothing_fails() -> None:
    validate(recipe(), answers(*["yes"] * 9, ""))
    with pytest.raises(EvaluationError, match=r"demo: 2 of 10 answers are empty\. The checkpoint does not answer"):
        validate(recipe(), answers(*["yes"] * 8, "", " "))


def test_an_evaluation_of_too_few_samples_fails() -> None:
    with pytest.raises(EvaluationError, match="9 samples were scored, 10 should have been"):
        validate(recipe(), answers(*["yes"] * 9))
    with pytest.raises(EvaluationError, match="0 samples were scored"):
        validate(recipe(samples=None), [])


def test_a_judge_that_was_silent_fails_the_evaluation() -> None:
    judged = recipe(samples=2, judge=Judge(kind="openai", model="gpt"))
    rows = [
        {**a, "gpt_eval_score": {"score": 0.0, "eval_model": m}} for a, m in zip(answers("a", "b"), ("gpt", ""), strict=True)
    ]
    with pytest.raises(EvaluationError, match="the judge did not grade 1 of 2 answers"):
        validate(judged, rows)


def test_chance_is_the_better_of_the_best_constant_and_an_even_guess() -> None:
    questions = [{"skill": "x", "answer": "Yes" if i < 7 else "No", "candidates": ["No", "Yes"]} for i in range(10)]
    rows = [Scored(i, str(i), 0.0, is_yes=i < 7) for i in range(10)]
    assert chance_of(MEAN, rows, questions) == pytest.approx(70)
    assert chance_of(F1, rows, questions) == pytest.approx(100 * 2 * 7 / 17)
    letters = [{"skill": "x", "answer": "ABCD"[i % 4], "candidates": list("ABCD")} for i in range(40)]
    rows = [Scored(i, str(i // 4), 0.0) for i in range(40)]
    assert 22 < chance_of(MEAN, rows, letters) < 28
    assert chance_of(ALL_OF_CLUSTER, rows, letters) < 2, "four rotations are hardly guessed"
    assert guess_rates(questions) == [0.7] * 10
    assert guess_rates(letters) == [0.25] * 40


def test_samples_read_back_and_have_the_same_bytes_again(tmp_path: Path) -> None:
    rows = {"seen": [{"document": 0, "answer": "圆形"}], "blind": [{"document": 0, "answer": ""}]}
    write_samples(tmp_path / "a.gz", rows)
    write_samples(tmp_path / "b.gz", rows)
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()
    assert [r["pass"] for r in read_samples(tmp_path / "a.gz")] == ["seen", "blind"]


def test_every_scorer_of_the_configuration_exists() -> None:
    import world
    import yaml

    benchmarks = yaml.safe_load((world.ROOT / "config" / "benchmarks.yaml").read_text())["benchmarks"]
    assert {b["scorer"] for b in benchmarks.values()} <= set(SCORERS)
    assert len(benchmarks) == 16


def test_f1_is_the_same_whichever_way_it_is_written() -> None:
    for tp, fp, fn in itertools.product(range(4), range(4), range(4)):
        samples = [Scored(0, str(i), 1, "", True, True) for i in range(tp)]
        samples += [Scored(0, f"p{i}", 0, "", True, False) for i in range(fp)]
        samples += [Scored(0, f"n{i}", 0, "", False, True) for i in range(fn)] + [Scored(0, "t", 1)]
        assert F1(samples) == pytest.approx(100 * 2 * tp / (2 * tp + fp + fn) if tp else 0)
