"""Two arms side by side: the paired difference on the same questions, column by column and pooled.

What is finished is compared, and what is missing is named. All seeds that both arms have count; of one seed there is an
interval over questions, labelled as such, and no rule judges it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd

from ..artifacts import Scores
from ..files import sha256
from ..study.tables import Column
from .differing import differing, said
from .evidence import OVER_SEEDS, TWO_CHECKPOINTS, Comparison, Definition, Difference, SeedPair
from .inference import cluster_interval, cluster_variance, crossed_interval, holm, t_interval
from .paired import (
    Answered,
    Influence,
    check_pair,
    difference,
    gained_and_lost,
    read_answered,
)
from .published import Pair
from .quantities import Quantity, benchmarks_of, quantities
from .results import Key, Published
from .verdicts import judge, lacking_seeds

Unlike = dict[str, dict[str, None]]
"""What differs between the evaluations of two arms -> the benchmarks of which it is true."""


class Answers:
    """The evaluations at hand, each read once."""

    def __init__(self, files: Mapping[Key, Path], columns: Mapping[str, Column], level: float = 0.05) -> None:
        self.files, self.columns, self.level = files, columns, level
        self._parts: dict[str, list[str]] = {}
        for column in columns.values():
            if column.benchmark is not None:
                self._parts.setdefault(column.benchmark, []).append(column.part)
        self._read: dict[Key, Answered] = {}

    def seeds(self, model: str, variants: Sequence[str], benchmarks: Sequence[str]) -> list[str]:
        """Seeds at which every variant was evaluated on every benchmark."""
        known = dict.fromkeys(seed for m, v, seed, _ in self.files if m == model and v in variants)
        return [s for s in known if all((model, v, s, b) in self.files for v in variants for b in benchmarks)]

    def read(self, key: Key) -> Answered:
        if key not in self._read:
            self._read[key] = read_answered(self.files[key], self._parts[key[3]])
        return self._read[key]

    def forget(self, model: str) -> None:
        """At full size the answers of one model's arms are a gigabyte."""
        self._read = {key: answered for key, answered in self._read.items() if key[0] != model}


def build_comparison(
    definition: Definition, files: Mapping[Key, Path], published: Sequence[Published], left_out: Sequence[str] = ()
) -> Comparison:
    """Every pair of the definition in every column and endpoint that its evaluations allow.

    Args:
        left_out: what is known of scores that are not among ``files``, to be said with what is missing.

    Raises:
        ReportError: where two evaluations by one recipe are not of the same questions, or samples do not yield their score.
    """
    files, mixtures = of_one_checkpoint(files)
    answers = Answers(files, definition.columns, definition.level)
    differences: list[Difference] = []
    missing = [*left_out, *mixtures]
    for model in dict.fromkeys(model for model, *_ in definition.pairs):
        nothing: list[str] = []
        for pair in (pair for pair in definition.pairs if pair[0] == model):
            unlike: Unlike = {}
            found = [d for q in quantities(definition) if (d := _difference(pair, q, answers, published, unlike))]
            family = [d for d in found if not d.pooled and d.quantity in definition.family]
            # the tests that are planned, whichever of them are finished
            tests = len(definition.family)
            adjusted = dict(zip((d.quantity for d in family), holm([d.p for d in family], tests), strict=True))
            # what only endpoints are made of is adjusted as if it was one more
            ps = [f.p for f in family]
            others = {d.quantity: holm([*ps, d.p], tests + 1)[-1] for d in found if not d.pooled} | adjusted
            differences += [d if d.pooled else d.model_copy(update={"p_adjusted": others[d.quantity]}) for d in found]
            refused = {benchmark for benchmarks in unlike.values() for benchmark in benchmarks}
            absent = [
                definition.columns[name].label
                for name in definition.family
                if name not in adjusted and not refused & {*benchmarks_of(name, definition.columns)}
            ]
            missing += [
                f"{model}, {pair[1]} against {pair[2]}: evaluated in different ways ({how}), and not paired: {', '.join(which)}"
                for how, which in unlike.items()
            ]
            if not found and not unlike:
                nothing.append(f"{pair[1]} against {pair[2]}")
            elif absent:
                missing.append(f"{model}, {pair[1]} against {pair[2]}: not both evaluated at one seed on {', '.join(absent)}")
            missing += _absent_seeds(definition, pair, found)
        if nothing:
            missing.append(f"{model}: not both evaluated at one seed on any benchmark: {', '.join(nothing)}")
        answers.forget(model)
    verdicts = judge(definition, differences)
    return Comparison(definition=definition, differences=tuple(differences), verdicts=tuple(verdicts), missing=tuple(missing))


def of_one_checkpoint(files: Mapping[Key, Path]) -> tuple[dict[Key, Path], list[str]]:
    """Without the runs whose scores are of several checkpoints, such as one from before and one from after it was trained anew.

    Their digests are of recipes, which are the same. Which of them is the run nobody can tell from here: it is named.
    """
    weights: dict[Key, str] = {key: Scores.read(path).checkpoint.weights for key, path in files.items()}
    of_run: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for key, which in weights.items():
        of_run.setdefault(key[:3], {}).setdefault(which, []).append(key[3])
    mixed = {run: found for run, found in of_run.items() if len(found) > 1}
    lines = [
        f"{'/'.join(run)} has scores of {len(found)} checkpoints, and is left out; evaluate it again: "
        + "; ".join(f"weights {which[:12]} on {', '.join(benchmarks)}" for which, benchmarks in found.items())
        for run, found in mixed.items()
    ]
    return {key: path for key, path in files.items() if key[:3] not in mixed}, lines


def _absent_seeds(definition: Definition, pair: Pair, found: Sequence[Difference]) -> list[str]:
    """What is said of configured seeds that either arm of a pair lacks, a line for each set of them."""
    lacking: dict[tuple[str, ...], list[str]] = {}
    for d in found:
        lacking.setdefault(tuple(definition.absent_seeds(s.seed for s in d.by_seed)), []).append(d.label)
    return [
        f"{pair[0]}, {pair[1]} against {pair[2]}: {lacking_seeds(absent, definition)}"
        + ("" if len(lacking) == 1 else f" on {', '.join(labels)}")
        for absent, labels in lacking.items()
        if absent
    ]


def _difference(
    pair: Pair, quantity: Quantity, answers: Answers, published: Sequence[Published], unlike: Unlike
) -> Difference | None:
    """None where the arms have no seed in common with everything that the quantity is computed from.

    And where they were evaluated by different recipes, such as with another prompt, which ``unlike`` is then told.
    """
    model, *variants = pair
    benchmarks = list(dict.fromkeys(b for column in quantity.columns for b in benchmarks_of(column, answers.columns)))
    by_seed, paired, gained, lost, questions = [], [], 0, 0, 0
    seeds = answers.seeds(model, variants, benchmarks)
    if _evaluated_otherwise(pair, seeds, benchmarks, answers, unlike):
        return None
    for seed in seeds:
        arms = [{b: answers.read((model, variant, seed, b)) for b in benchmarks} for variant in variants]
        for benchmark in benchmarks:
            check_pair(arms[0][benchmark], arms[1][benchmark])
            more, fewer = gained_and_lost(arms[0][benchmark], arms[1][benchmark])
            gained, lost, questions = gained + more, lost + fewer, questions + len(arms[0][benchmark].points)
        numbers = [quantity.of(arm, answers.columns) for arm in arms]
        by_seed.append(SeedPair(seed=seed, treatment=numbers[0].value, reference=numbers[1].value))
        paired.append(difference(*numbers).influence)
    if not by_seed:
        return None
    n = len(by_seed)
    differences = [seed.difference for seed in by_seed]
    strata = [_by_seed(source, paired) for source in paired[0]]
    variances = [cluster_variance([table[i] for table in strata]).variance for i in range(n)]
    level = answers.level
    if n > 1:
        interval, crossed = t_interval(differences, level), crossed_interval(differences, strata, level)
    else:
        interval, crossed = cluster_interval(differences[0], [table[0] for table in strata], level), None
    return Difference(
        model=model,
        treatment=variants[0],
        reference=variants[1],
        quantity=quantity.name,
        pooled=quantity.pooled,
        label=quantity.label,
        maximum=quantity.maximum,
        by_seed=tuple(by_seed),
        difference=interval.mean,
        low=interval.low,
        high=interval.high,
        basis=OVER_SEEDS if n > 1 else TWO_CHECKPOINTS,
        # a test over the questions of two checkpoints is none of the ways in which they were trained
        p=interval.p if n > 1 else None,
        crossed_low=crossed and crossed.low,
        crossed_high=crossed and crossed.high,
        questions=questions // n,
        clusters=sum(table.shape[1] for table in strata),
        gained=gained / n,
        lost=lost / n,
        question_error=math.sqrt(fmean(variances)),
        published=quantity.published(pair, answers.columns, published),
    )


def _evaluated_otherwise(pair: Pair, seeds: Sequence[str], benchmarks: Sequence[str], answers: Answers, unlike: Unlike) -> bool:
    """Whether any seed of both arms was; what differs is noted, with the benchmarks."""
    found = False
    for seed in seeds:
        for benchmark in benchmarks:
            one, other = (answers.read((pair[0], variant, seed, benchmark)) for variant in pair[1:])
            if one.digest != other.digest:
                found = True
                unlike.setdefault(said(differing(one.recipe, other.recipe)), {})[benchmark] = None
    return found


def _by_seed(source: str, paired: Sequence[Influence]) -> np.ndarray:
    """(seeds, clusters): what each cluster of a source contributes to the difference of each seed."""
    return pd.concat([influence[source] for influence in paired], axis=1).to_numpy().T


def provenance(comparison: Comparison, files: Mapping[Key, Path]) -> dict[str, Any]:
    """The rules, and every file that a number comes from, with the weights behind it."""
    definition = comparison.definition
    used = {
        key: path
        for key, path in files.items()
        if any(key[0] == d.model and key[1] in d.pair and key[2] in {s.seed for s in d.by_seed} for d in comparison.differences)
    }
    return {
        "verdicts": {"file_sha256": definition.rules_file_sha256, "rules_sha256": definition.rules_sha256},
        "results": {str(path): {"key": list(key), **_origin(path)} for key, path in sorted(used.items())},
    }


def _origin(path: Path) -> dict[str, Any]:
    scores = Scores.read(path)
    return {
        "sha256": sha256(path),
        "samples": scores.samples.model_dump(),
        "evaluation_recipe": scores.digest,
        "finetune_recipe": scores.checkpoint.recipe,
        "pretrain_recipe": scores.checkpoint.initial_recipe,
        "weights": scores.checkpoint.weights,
        "versions": scores.checkpoint.versions | {"lmms_eval": scores.lmms_eval},
        "judge": scores.judge,
    }
