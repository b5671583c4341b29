"""From lmms-eval's per-sample results to scores with intervals.

Every benchmark's score is computed here once more from its samples, compared with lmms-eval's own number, and given a 95%
interval by resampling clusters (the questions of one image, the rotations of one MMBench question). lmms-eval reports no
interval for custom aggregations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import EvaluationError

MME_PERCEPTION = (
    "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR",
)  # fmt: skip
MME_COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
RESAMPLES = 1000
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Scored:
    """One question. ``points`` in [0, 1]; ``predicted_yes`` and ``is_yes`` only where F1 needs them."""

    document: int
    cluster: str
    points: float
    group: str = ""
    predicted_yes: bool = False
    is_yes: bool = False


@dataclass(frozen=True)
class Statistic:
    """A score that depends on sums over clusters: ``totals`` of one cluster's samples, ``combine`` of (..., totals).

    Written so, resampling clusters is one matrix product.
    """

    totals: Callable[[Sequence[Scored]], Sequence[float]]
    combine: Callable[[np.ndarray], np.ndarray]

    def __call__(self, samples: Sequence[Scored]) -> float:
        return float(self.combine(self.matrix(samples).sum(0)))

    def matrix(self, samples: Sequence[Scored]) -> np.ndarray:
        """(clusters, totals)."""
        clusters: dict[str, list[Scored]] = {}
        for s in samples:
            clusters.setdefault(s.cluster, []).append(s)
        return np.array([self.totals(group) for group in clusters.values()], float)

    def interval(self, samples: Sequence[Scored], seed: int = 0) -> tuple[float, float]:
        """The 95% interval by resampling whole clusters with replacement."""
        matrix = self.matrix(samples)
        rng = np.random.default_rng(seed)
        share = np.full(len(matrix), 1 / len(matrix))
        values = np.concatenate(
            [self.combine(rng.multinomial(len(matrix), share, size=100) @ matrix) for _ in range(RESAMPLES // 100)]
        )
        low, high = np.nanquantile(values, [0.025, 0.975])
        return float(low), float(high)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return numerator / denominator


def scaled_mean(scale: float) -> Statistic:
    return Statistic(lambda g: (sum(s.points for s in g), len(g)), lambda t: scale * _ratio(t[..., 0], t[..., 1]))


MEAN = scaled_mean(100.0)

F1 = Statistic(
    lambda g: (sum(s.is_yes and s.predicted_yes for s in g), sum(s.predicted_yes for s in g), sum(s.is_yes for s in g)),
    # 2 TP / (predicted + actual) is the harmonic mean of precision and recall
    lambda t: 100.0 * np.nan_to_num(_ratio(2 * t[..., 0], t[..., 1] + t[..., 2])),
)

# MMBench's circular evaluation: a question counts where every rotation of its options is answered rightly
ALL_OF_CLUSTER = Statistic(
    lambda g: (float(all(s.points == 1.0 for s in g)), 1.0), lambda t: 100.0 * _ratio(t[..., 0], t[..., 1])
)


def mme(*categories: str) -> Statistic:
    """Sum over categories of accuracy plus accuracy+ (both questions of an image right), each in percent: 200 at most."""

    def totals(group: Sequence[Scored]) -> list[float]:
        value = 100.0 * (sum(s.points for s in group) / len(group) + all(s.points == 1.0 for s in group))
        return [x for c in categories for x in ((value, 1.0) if group[0].group == c else (0.0, 0.0))]

    def combine(t: np.ndarray) -> np.ndarray:
        per_category = _ratio(t[..., 0::2], t[..., 1::2])
        # a category without an image in the data is no part of the sum; with none at all there is no score
        return np.where(np.isnan(per_category).all(-1), np.nan, np.nansum(per_category, axis=-1))

    return Statistic(totals, combine)


@dataclass(frozen=True)
class Scorer:
    """How one kind of benchmark is scored.

    ``read`` turns a sample of lmms-eval's log into a ``Scored``; ``parts`` are the numbers it yields, ``score`` among them;
    ``metric`` is lmms-eval's own result, which ``score`` must equal after multiplication with ``metric_scale(samples)``.
    """

    read: Callable[[dict[str, Any]], Scored]
    parts: dict[str, Statistic]
    metric: str
    metric_scale: Callable[[int], float] = lambda n: 100.0


def _field(name: str) -> Callable[[dict[str, Any]], Scored]:
    def read(sample: dict[str, Any]) -> Scored:
        value = sample[name]
        points = float(value["score"] if isinstance(value, dict) else value)
        return Scored(sample["doc_id"], cluster_of(sample), points)

    return read


def _letter(sample: dict[str, Any]) -> Scored:
    value = sample["seed_image"]
    right = value["pred"].lower().strip() == value["answer"].lower().strip()
    return Scored(sample["doc_id"], cluster_of(sample), float(right))


def _pope(sample: dict[str, Any]) -> Scored:
    value = sample["pope_f1_score"]
    yes, predicted = value["ground_truth"] == "yes", value["prediction"] == "yes"
    return Scored(sample["doc_id"], cluster_of(sample), float(value["score"]), predicted_yes=predicted, is_yes=yes)


def _mmmu(sample: dict[str, Any]) -> Scored:
    from lmms_eval.tasks.mmmu.utils import eval_multi_choice, eval_open

    value = sample["mmmu_acc"]
    judge = eval_multi_choice if value["question_type"] == "multiple-choice" else eval_open
    right = any(judge(value["answer"], parsed) for parsed in value["parsed_pred"])
    return Scored(sample["doc_id"], cluster_of(sample), float(right))


def _mmt(sample: dict[str, Any]) -> Scored:
    return Scored(sample["doc_id"], cluster_of(sample), float(sample["accuracy"]["overall"]))


def _mme(sample: dict[str, Any]) -> Scored:
    value = sample.get("mme_perception_score") or sample["mme_cognition_score"]
    cluster = f"{value['category']}/{value['question_id']}"
    return Scored(sample["doc_id"], cluster, float(value["score"]), group=value["category"])


def _circular(sample: dict[str, Any]) -> Scored:
    from lmms_eval.tasks._task_utils.mcq_extract import extract_mcq_answer
    from lmms_eval.tasks.mmbench.en_utils import mmbench_evaluator

    value = dict(sample["gpt_eval_score"])
    predicted = mmbench_evaluator.prefetch_answer(value)
    if not predicted:
        predicted = extract_mcq_answer(str(value["prediction"]), choices=sorted(mmbench_evaluator.build_choices(value)))
    cluster = str(int(value["index"]) % 1_000_000)
    return Scored(sample["doc_id"], cluster, float(predicted == value["answer"]))


def cluster_of(sample: dict[str, Any]) -> str:
    """The image that a question belongs to, where the benchmark says; else the question itself."""
    document = sample.get("doc") or {}
    for key in ("imageId", "image_id", "image_source", "source_image"):
        if document.get(key):
            return str(document[key])
    return str(sample["doc_id"])


SCORERS: dict[str, Scorer] = {
    "mean": Scorer(_field("exact_match"), {"score": MEAN}, "exact_match"),
    "letter": Scorer(_letter, {"score": MEAN}, "seed_image"),
    "f1": Scorer(_pope, {"score": F1, "accuracy": MEAN}, "pope_f1_score"),
    "judged": Scorer(_field("gpt_eval_score"), {"score": MEAN}, "gpt_eval_score", lambda n: 1.0),
    "mmmu": Scorer(_mmmu, {"score": MEAN}, "mmmu_acc"),
    "mmt": Scorer(_mmt, {"score": MEAN}, "accuracy", lambda n: 1.0),
    # hits in a thousand; lmms-eval divides by 1000 whatever the number of questions
    "ocrbench": Scorer(_field("ocrbench_accuracy"), {"score": scaled_mean(1000.0)}, "ocrbench_accuracy", lambda n: 1e6 / n),
    "circular": Scorer(_circular, {"score": ALL_OF_CLUSTER, "question_accuracy": MEAN}, "gpt_eval_score", lambda n: 1.0),
    "mme": Scorer(
        _mme,
        {
            "score": mme(*MME_PERCEPTION),
            "perception": mme(*MME_PERCEPTION),
            "cognition": mme(*MME_COGNITION),
            **{category: mme(category) for category in (*MME_PERCEPTION, *MME_COGNITION)},
        },
        "mme_perception_score",
        lambda n: 1.0,
    ),
}


def score_samples(kind: str, samples: list[dict[str, Any]], reported: dict[str, Any]) -> tuple[list[Scored], dict[str, Any]]:
    """Every part of a benchmark's score, with intervals, checked against what lmms-eval reports.

    Raises:
        EvaluationError: where a score is not finite, or is not lmms-eval's own.
    """
    if not samples:
        raise EvaluationError("the evaluation yielded no finite score: there is not one sample")
    scorer = SCORERS[kind]
    scored = [scorer.read(sample) for sample in samples]
    parts = {}
    for name, statistic in scorer.parts.items():
        value = statistic(scored)
        if math.isnan(value):
            continue
        low, high = statistic.interval(scored)
        parts[name] = {"value": value, "low": low, "high": high}
    if "score" not in parts or not math.isfinite(parts["score"]["value"]):
        raise EvaluationError("the evaluation yielded no finite score")
    own = next((v for k, v in reported.items() if k.split(",")[0] == scorer.metric and isinstance(v, int | float)), None)
    if own is None:
        raise EvaluationError(f"lmms-eval reports no {scorer.metric}; it reports {', '.join(map(str, reported))}")
    theirs = float(own) * scorer.metric_scale(len(scored))
    if abs(theirs - parts["score"]["value"]) > TOLERANCE * max(1.0, abs(theirs)):
        raise EvaluationError(f"the score from the samples is {parts['score']['value']}, lmms-eval's own is {theirs}")
    return scored, parts
