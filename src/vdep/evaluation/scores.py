"""From lmms-eval's per-sample results to scores with intervals.

Every benchmark's score is computed here once more from its samples, compared with lmms-eval's own number, and given a 95%
interval by resampling clusters, which each benchmark names (``cluster``: as a rule the questions of one picture). lmms-eval
reports no interval for custom aggregations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
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
    """One question. ``points`` in [0, 1]; ``predicted_yes`` and ``is_yes`` only where F1 needs them.

    ``cluster`` is what is resampled together. ``unit`` is what is scored together, where that is more than a question: the
    rotations of one MMBench question, the two questions of one MME picture. A unit lies in one cluster.
    """

    document: int
    cluster: str
    points: float
    group: str = ""
    predicted_yes: bool = False
    is_yes: bool = False
    unit: str = ""

    def otherwise(self) -> Scored:
        """The same question with the other outcome."""
        return replace(self, points=float(self.points < 0.5), predicted_yes=not self.predicted_yes)


def _grouped(samples: Iterable[Scored], key: Callable[[Scored], object]) -> list[list[Scored]]:
    groups: dict[object, list[Scored]] = {}
    for s in samples:
        groups.setdefault(key(s), []).append(s)
    return list(groups.values())


def _units(samples: Iterable[Scored]) -> list[list[Scored]]:
    return _grouped(samples, lambda s: s.unit or s.document)


@dataclass(frozen=True)
class Statistic:
    """A score that depends on sums over clusters: ``totals`` of one cluster's samples, ``combine`` of (..., totals).

    Written so, resampling clusters is one matrix product. The totals of a cluster are the sums of those of its units.
    """

    totals: Callable[[Sequence[Scored]], Sequence[float]]
    combine: Callable[[np.ndarray], np.ndarray]

    def __call__(self, samples: Sequence[Scored]) -> float:
        return float(self.combine(self.matrix(samples).sum(0)))

    def matrix(self, samples: Sequence[Scored]) -> np.ndarray:
        """(clusters, totals)."""
        return np.array([self.totals(group) for group in _grouped(samples, lambda s: s.cluster)], float)

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

    def sensitivity(self, samples: Sequence[Scored]) -> float:
        """How far the score moves with single outcomes: the root of the summed squares of its changes, one question at a time.

        Where a share d of the outcomes, drawn at random, turns out otherwise, and as often for the better as for the worse, the
        score's standard deviation is sqrt(d) times this.
        """
        whole = self.matrix(samples).sum(0)
        turned = []
        for unit in _units(samples):
            rest = whole - np.asarray(self.totals(unit), float)
            turned += [rest + self.totals([*unit[:i], s.otherwise(), *unit[i + 1 :]]) for i, s in enumerate(unit)]
        return float(np.sqrt(np.nansum((self.combine(np.array(turned)) - self.combine(whole)) ** 2)))


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


def _whole_units(samples: Sequence[Scored]) -> tuple[float, float]:
    """How many units are right in all their questions, of how many."""
    units = _units(samples)
    return float(sum(all(s.points == 1.0 for s in unit) for unit in units)), float(len(units))


# MMBench's circular evaluation: a question counts where every rotation of its options is answered rightly
ALL_OF_UNIT = Statistic(_whole_units, lambda t: 100.0 * _ratio(t[..., 0], t[..., 1]))


def mme(*categories: str) -> Statistic:
    """Sum over categories of accuracy plus accuracy+ (both questions of an image right), each in percent: 200 at most."""

    def totals(group: Sequence[Scored]) -> list[float]:
        sums = {category: [0.0, 0.0] for category in categories}
        for unit in _units(group):
            if unit[0].group in sums:
                sums[unit[0].group][0] += 100.0 * (sum(s.points for s in unit) / len(unit) + all(s.points == 1.0 for s in unit))
                sums[unit[0].group][1] += 1.0
        return [number for category in categories for number in sums[category]]

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
        return Scored(sample["doc_id"], "", points)

    return read


def _letter(sample: dict[str, Any]) -> Scored:
    value = sample["seed_image"]
    right = value["pred"].lower().strip() == value["answer"].lower().strip()
    return Scored(sample["doc_id"], "", float(right))


def _pope(sample: dict[str, Any]) -> Scored:
    value = sample["pope_f1_score"]
    yes, predicted = value["ground_truth"] == "yes", value["prediction"] == "yes"
    return Scored(sample["doc_id"], "", float(value["score"]), predicted_yes=predicted, is_yes=yes)


def _mmmu(sample: dict[str, Any]) -> Scored:
    from lmms_eval.tasks.mmmu.utils import eval_multi_choice, eval_open

    value = sample["mmmu_acc"]
    judge = eval_multi_choice if value["question_type"] == "multiple-choice" else eval_open
    right = any(judge(value["answer"], parsed) for parsed in value["parsed_pred"])
    return Scored(sample["doc_id"], "", float(right))


def _mmt(sample: dict[str, Any]) -> Scored:
    return Scored(sample["doc_id"], "", float(sample["accuracy"]["overall"]))


def _mme(sample: dict[str, Any]) -> Scored:
    value = sample.get("mme_perception_score") or sample["mme_cognition_score"]
    unit = f"{value['category']}/{value['question_id']}"
    return Scored(sample["doc_id"], "", float(value["score"]), group=value["category"], unit=unit)


def _circular(sample: dict[str, Any]) -> Scored:
    from lmms_eval.tasks._task_utils.mcq_extract import extract_mcq_answer
    from lmms_eval.tasks.mmbench.en_utils import mmbench_evaluator

    value = dict(sample["gpt_eval_score"])
    predicted = mmbench_evaluator.prefetch_answer(value)
    if not predicted:
        predicted = extract_mcq_answer(str(value["prediction"]), choices=sorted(mmbench_evaluator.build_choices(value)))
    unit = str(int(value["index"]) % 1_000_000)
    return Scored(sample["doc_id"], "", float(predicted == value["answer"]), unit=unit)


SCORERS: dict[str, Scorer] = {
    "mean": Scorer(_field("exact_match"), {"score": MEAN}, "exact_match"),
    "letter": Scorer(_letter, {"score": MEAN}, "seed_image"),
    "f1": Scorer(_pope, {"score": F1, "accuracy": MEAN}, "pope_f1_score"),
    "judged": Scorer(_field("gpt_eval_score"), {"score": MEAN}, "gpt_eval_score", lambda n: 1.0),
    "mmmu": Scorer(_mmmu, {"score": MEAN}, "mmmu_acc"),
    "mmt": Scorer(_mmt, {"score": MEAN}, "accuracy", lambda n: 1.0),
    # hits in a thousand; lmms-eval divides by 1000 whatever the number of questions
    "ocrbench": Scorer(_field("ocrbench_accuracy"), {"score": scaled_mean(1000.0)}, "ocrbench_accuracy", lambda n: 1e6 / n),
    "circular": Scorer(_circular, {"score": ALL_OF_UNIT, "question_accuracy": MEAN}, "gpt_eval_score", lambda n: 1.0),
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


def check_metric(name: str, kind: str, metrics: Sequence[str]) -> None:
    """Before anything is asked: there is such a scorer, and the task has the metric that it reads.

    Raises:
        EvaluationError: naming the benchmark and what there is.
    """
    if kind not in SCORERS:
        raise EvaluationError(f"benchmarks.{name}.scorer: there is no scorer named {kind!r} (known: {', '.join(SCORERS)})")
    metric = SCORERS[kind].metric
    if metric not in metrics:
        raise EvaluationError(f"{name}: the scorer {kind} reads lmms-eval's {metric}, and its task has {', '.join(metrics)}")


def score_samples(
    kind: str, samples: list[dict[str, Any]], reported: dict[str, Any], clusters: Sequence[str] | None = None
) -> tuple[list[Scored], dict[str, Any]]:
    """Every part of a benchmark's score, with intervals, checked against what lmms-eval reports.

    Args:
        clusters: what each sample is resampled with; None: each question, with its unit, stands for itself.

    Raises:
        EvaluationError: where a score is not finite, or is not lmms-eval's own, or a unit lies in more than one cluster.
    """
    if not samples:
        raise EvaluationError("the evaluation yielded no finite score: there is not one sample")
    scorer = SCORERS[kind]
    scored = _in_clusters([scorer.read(sample) for sample in samples], clusters)
    parts = {}
    for name, statistic in scorer.parts.items():
        value = statistic(scored)
        if math.isnan(value):
            continue
        low, high = statistic.interval(scored)
        parts[name] = {"value": value, "low": low, "high": high, "sensitivity": statistic.sensitivity(scored)}
    if "score" not in parts or not math.isfinite(parts["score"]["value"]):
        raise EvaluationError("the evaluation yielded no finite score")
    reported_score = next(
        (v for k, v in reported.items() if k.split(",")[0] == scorer.metric and isinstance(v, int | float)), None
    )
    if reported_score is None:
        raise EvaluationError(f"lmms-eval reports no {scorer.metric}; it reports {', '.join(map(str, reported))}")
    theirs = float(reported_score) * scorer.metric_scale(len(scored))
    if abs(theirs - parts["score"]["value"]) > TOLERANCE * max(1.0, abs(theirs)):
        raise EvaluationError(f"the score from the samples is {parts['score']['value']}, lmms-eval's own is {theirs}")
    return scored, parts


def _in_clusters(scored: list[Scored], clusters: Sequence[str] | None) -> list[Scored]:
    if clusters is None:
        return [replace(s, cluster=s.unit or str(s.document)) for s in scored]
    scored = [replace(s, cluster=cluster) for s, cluster in zip(scored, clusters, strict=True)]
    for unit in _units(scored):
        if len({s.cluster for s in unit}) > 1:
            raise EvaluationError(
                f"document {unit[0].document} is scored together with {len(unit) - 1} others that are resampled apart from it "
                f"({unit[0].cluster}, {next(s.cluster for s in unit if s.cluster != unit[0].cluster)}): name another cluster"
            )
    return scored
