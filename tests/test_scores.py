"""Scores: recomputed from samples, equal to lmms-eval's own, with intervals that resample images."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vdep.errors import EvaluationError
from vdep.evaluation.clusters import check_documents, cluster_keys
from vdep.evaluation.run import validate
from vdep.evaluation.samples import read_samples, write_samples
from vdep.evaluation.scores import ALL_OF_UNIT, F1, MEAN, SCORERS, Scored, Statistic, check_metric, mme, score_samples
from vdep.study.evaluation import SUBMISSION, Benchmark, EvaluationSettings
from vdep.study.recipe import EvaluationRecipe
from vdep_demo.chance import chance_of, guess_rates

scored = st.lists(
    st.builds(
        Scored,
        document=st.integers(0, 99),
        cluster=st.sampled_from("abcdefgh"),
        points=st.sampled_from([0.0, 1.0]),
        predicted_yes=st.booleans(),
        is_yes=st.booleans(),
        unit=st.sampled_from("stuvw"),
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
    # a unit lies in one cluster
    samples = [replace(s, cluster=s.unit) for s in samples]
    units = {s.unit for s in samples}
    whole = sum(all(s.points == 1 for s in samples if s.unit == u) for u in units)
    assert ALL_OF_UNIT(samples) == pytest.approx(100 * whole / len(units))
    assert ALL_OF_UNIT([replace(s, cluster="") for s in samples]) == ALL_OF_UNIT(samples), "clusters are no part of a score"


def test_mme_is_accuracy_plus_accuracy_plus() -> None:
    def pair(name: str, *points: float) -> list[Scored]:
        return [Scored(0, name, p, group="color", unit=name) for p in points]

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
    benchmark = Benchmark(
        **(
            {"asset": "a", "task": "t", "files": {"test": "*.parquet"}, "scorer": "mean", "cluster": "question", "samples": 10}
            | changes
        )
    )
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


def test_chance_is_the_better_of_the_best_constant_and_an_even_guess() -> None:
    questions = [{"skill": "x", "answer": "Yes" if i < 7 else "No", "candidates": ["No", "Yes"]} for i in range(10)]
    rows = [Scored(i, str(i), 0.0, is_yes=i < 7) for i in range(10)]
    assert chance_of(MEAN, rows, questions) == pytest.approx(70)
    assert chance_of(F1, rows, questions) == pytest.approx(100 * 2 * 7 / 17)
    letters = [{"skill": "x", "answer": "ABCD"[i % 4], "candidates": list("ABCD")} for i in range(40)]
    rows = [Scored(i, str(i // 4), 0.0, unit=str(i // 4)) for i in range(40)]
    assert 22 < chance_of(MEAN, rows, letters) < 28
    assert chance_of(ALL_OF_UNIT, rows, letters) < 2, "four rotations are hardly guessed"
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
    assert {b["scorer"] for b in benchmarks.values()} == {*SCORERS, SUBMISSION}
    assert len(benchmarks) == 16 + 3


def test_f1_is_the_same_whichever_way_it_is_written() -> None:
    for tp, fp, fn in itertools.product(range(4), range(4), range(4)):
        samples = [Scored(0, str(i), 1, "", True, True) for i in range(tp)]
        samples += [Scored(0, f"p{i}", 0, "", True, False) for i in range(fp)]
        samples += [Scored(0, f"n{i}", 0, "", False, True) for i in range(fn)] + [Scored(0, "t", 1)]
        assert F1(samples) == pytest.approx(100 * 2 * tp / (2 * tp + fp + fn) if tp else 0)


# -- clusters


def documents(**columns: list[Any]) -> Any:
    from datasets import Dataset

    return Dataset.from_dict(columns)


def logged(points: list[float], **columns: list[Any]) -> list[dict[str, Any]]:
    """As lmms-eval logs them."""
    return [{"doc_id": i, "exact_match": p, "doc": {k: v[i] for k, v in columns.items()}} for i, p in enumerate(points)]


class Task:
    """As much of lmms-eval's task as names pictures: a document's are 2 x 2 pixels of the given shades."""

    def __init__(self, *shades: tuple[int, ...]) -> None:
        self.eval_docs = shades

    def doc_to_visual(self, document: tuple[int, ...]) -> list[Image.Image]:
        return [Image.new("RGB", (2, 2), (shade, 0, 0)) for shade in document]


def test_mm_vets_questions_are_resampled_by_their_own_pictures() -> None:
    """Its ``image_source`` is where a picture comes from, and the same for many: the interval once had no width."""
    points = [1.0, 0.5, 0.0, 1.0, 0.7, 0.2]
    samples = logged(points, image_source=["web"] * 6)
    keys = cluster_keys("mmvet", "picture", samples, Task((1,), (1,), (2,), (2,), (1, 2), (2, 1)))
    scored, parts = score_samples("mean", samples, {"exact_match,none": float(np.mean(points))}, keys)
    first, again, *others = (s.cluster for s in scored)
    assert first == again
    assert others[0] == others[1]
    assert len({first, *others}) == 4, "the same pictures in another order are another picture"
    assert parts["score"]["low"] < parts["score"]["value"] < parts["score"]["high"]
    for check in (
        lambda: cluster_keys("mmvet", "image_source", samples, Task()),
        lambda: check_documents("mmvet", "image_source", documents(image_source=["web"] * 6)),
    ):
        with pytest.raises(EvaluationError, match=r"mmvet: all 6 questions are one cluster, because image_source is 'web'"):
            check()


def test_a_field_that_is_not_there_is_named_with_those_that_are() -> None:
    message = r"gqa: the documents have no field 'imageID'.*\(they have: imageId, question;"
    with pytest.raises(EvaluationError, match=message):
        check_documents("gqa", "imageID", documents(imageId=["1", "2"], question=["a", "b"]))
    with pytest.raises(EvaluationError, match=message):
        cluster_keys("gqa", "imageID", logged([1, 0], imageId=["1", "2"], question=["a", "b"]), Task())
    with pytest.raises(EvaluationError, match="gqa: document 1 has nothing in imageId"):
        check_documents("gqa", "imageId", documents(imageId=["1", None]))
    with pytest.raises(EvaluationError, match="gqa: document 1 has nothing in imageId"):
        cluster_keys("gqa", "imageId", logged([1, 0], imageId=["1", None]), Task())
    with pytest.raises(EvaluationError, match="ai2d: document 1 has nothing in picture"):
        cluster_keys("ai2d", "picture", logged([1, 0]), Task((1,), ()))


def test_a_scorer_that_cannot_read_a_task_is_named_before_anything_is_asked() -> None:
    check_metric("gqa", "mean", ["exact_match"])
    with pytest.raises(EvaluationError, match=r"chartqa: the scorer mean reads lmms-eval.s exact_match, and its task has"):
        check_metric("chartqa", "mean", ["relaxed_overall"])
    with pytest.raises(EvaluationError, match=r"benchmarks\.gqa\.scorer: there is no scorer named .means."):
        check_metric("gqa", "means", ["exact_match"])


def test_a_benchmark_says_what_is_resampled() -> None:
    with pytest.raises(ValueError, match="say in `cluster` what an interval resamples together"):
        Benchmark(asset="a", task="t", files={"test": "*.parquet"}, scorer="mean")


def test_what_is_scored_together_is_resampled_together() -> None:
    rows = [
        {"doc_id": i, "mme_perception_score": {"category": "count", "question_id": str(i // 2), "score": 1.0}} for i in range(4)
    ]
    reported = {"mme_perception_score,none": 200.0}
    scored, _ = score_samples("mme", rows, reported)
    assert [s.cluster for s in scored] == ["count/0", "count/0", "count/1", "count/1"]
    scored, _ = score_samples("mme", rows, reported, ["one"] * 4)
    assert len({s.unit for s in scored}) == 2, "a picture with two pairs of questions"
    with pytest.raises(EvaluationError, match="document 0 is scored together with 1 others that are resampled apart from it"):
        score_samples("mme", rows, reported, ["a", "b", "c", "c"])


def test_every_benchmark_of_the_demo_has_the_field_that_the_paper_resamples_by(tmp_path: Path) -> None:
    """In the columns of the real datasets; so what the configuration names is checked before anything is asked."""
    from datasets import Dataset
    from test_recipe import paper_config

    from vdep_demo.world.benchmarks import MAKERS, make_benchmark

    benchmarks = paper_config()["benchmarks"]
    named = {n for n in MAKERS if benchmarks[n]["cluster"] not in ("picture", "question")}
    assert named == {"gqa", "textvqa", "pope", "seedbench_img", "mme"}
    for name in sorted(named):
        split, _ = MAKERS[name]
        (tmp_path / name).mkdir()
        make_benchmark(tmp_path / name, name, 8, 3)
        rows = Dataset.from_parquet(str(next((tmp_path / name).glob(f"{split}-*.parquet"))), cache_dir=str(tmp_path / "cache"))
        check_documents(name, benchmarks[name]["cluster"], rows)


# -- how far single outcomes move a score


def turned(samples: list[Scored], share: float, rng: np.random.Generator) -> list[Scored]:
    """The outcomes of a share of the questions are others, as likely for the better as for the worse."""
    count = round(share * len(samples))
    gained = rng.binomial(count, 0.5)
    wrong = rng.permutation([i for i, s in enumerate(samples) if s.points == 0.0])[:gained]
    right = rng.permutation([i for i, s in enumerate(samples) if s.points == 1.0])[: count - gained]
    others = {*right.tolist(), *wrong.tolist()}
    return [s.otherwise() if i in others else s for i, s in enumerate(samples)]


@pytest.mark.parametrize("statistic", [MEAN, F1], ids=["mean", "F1"])
def test_turned_outcomes_move_a_score_as_its_sensitivity_says(statistic: Statistic) -> None:
    rng = np.random.default_rng(0)
    samples = [
        Scored(i, str(i // 10), float(right), predicted_yes=bool(right) == yes, is_yes=yes)
        for i, (right, yes) in enumerate(zip(rng.random(1000) < 0.7, (rng.random(1000) < 0.5).tolist(), strict=True))
    ]
    assert statistic.sensitivity(samples) > 2.5, "percent; 100 / sqrt(1000) for the mean"
    moved = [statistic(turned(samples, 0.04, rng)) - statistic(samples) for _ in range(300)]
    assert np.std(moved) == pytest.approx(math.sqrt(0.04) * statistic.sensitivity(samples), rel=0.2)


def test_the_sensitivity_of_a_mean_is_one_over_the_root_of_the_questions() -> None:
    for n in (4, 100):
        samples = [Scored(i, "0", float(i % 2)) for i in range(n)]
        assert MEAN.sensitivity(samples) == pytest.approx(100 / math.sqrt(n)), "whatever the clusters"
    rotations = [Scored(i, "", 1.0, unit=str(i // 4)) for i in range(8)]
    assert ALL_OF_UNIT.sensitivity(rotations) == pytest.approx(math.sqrt(8) * 50), "each of them loses its question"
    wrong_twice = [replace(s, points=float(i % 4 > 1)) for i, s in enumerate(rotations)]
    assert ALL_OF_UNIT.sensitivity(wrong_twice) == 0, "no single one gains it"
