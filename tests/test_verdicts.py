"""The rules by which differences over seeds become verdicts, and the reasons that are given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from evidence_world import MODEL
from test_comparison import BENCHMARKS, define, rules

from vdep.report.evidence import Difference
from vdep.report.verdicts import _refuted, decide, judge

DIFFERENCES = {
    "holds": [1.9, 2.2, 2.1, 1.8, 2.0],
    "does not hold": [0.1, -0.2, 0.0, 0.2, -0.1],
    "cannot tell": [3.0, -2.0, 1.5, -1.0, 2.0],
}


@pytest.mark.parametrize("verdict", DIFFERENCES)
def test_the_three_verdicts(verdict: str) -> None:
    assert decide(DIFFERENCES[verdict], 1.0, rules())[0] == verdict


def test_a_treatment_that_is_worse_does_not_hold_and_one_seed_or_two_tell_nothing() -> None:
    assert decide([-2.0, -2.2, -1.9], 1.0, rules())[0] == "does not hold"
    assert decide([2.0, 2.1], 1.0, rules())[0] == "cannot tell"
    assert decide([5.0], 1.0, rules())[0] == "cannot tell"
    assert decide([2.0, 2.0, 2.0], 1.0, rules())[0] == "cannot tell", "no spread, no test"
    assert decide([0.0, 0.0, 0.0], 1.0, rules())[0] == "does not hold", "arms that are the same"


def judged(by_pair: dict[tuple[str, str], dict[str, list[float]]], **changes: Any) -> dict[str, Any]:
    """Claims' verdicts on given differences over seeds."""
    differences = [
        Difference(
            model=MODEL, treatment=t, reference=r, quantity=q, pooled=q == "all", label=q, maximum=100.0,
            by_seed=[{"seed": f"seed-{i}", "treatment": 50 + v, "reference": 50} for i, v in enumerate(values)],
            difference=float(np.mean(values)), low=-1, high=1, basis="over seeds", questions=100, clusters=50,
            gained=5, lost=4, question_error=0.5,
        )
        for (t, r), quantities in by_pair.items()
        for q, values in quantities.items()
    ]  # fmt: skip
    return {v.claim: v for v in judge(define(rules=rules(**changes)), differences)}


def test_a_claim_about_every_benchmark_holds_where_all_hold_and_falls_with_one() -> None:
    pair = ("vdep", "baseline")
    everywhere = judged({pair: dict.fromkeys(BENCHMARKS, DIFFERENCES["holds"])})["everywhere"]
    assert everywhere.verdict == "holds"
    one_fails = dict.fromkeys(BENCHMARKS, DIFFERENCES["holds"]) | {"pope": DIFFERENCES["does not hold"]}
    fallen = judged({pair: one_fails})["everywhere"]
    assert fallen.verdict == "does not hold"
    assert "in 1 of 3 differences, such as pope of vdep" in fallen.why
    one_open = dict.fromkeys(BENCHMARKS, DIFFERENCES["holds"]) | {"pope": DIFFERENCES["cannot tell"]}
    undecided = judged({pair: one_open})["everywhere"]
    assert undecided.verdict == "cannot tell"
    assert undecided.needed is not None
    assert undecided.needed > 5
    del one_open["pope"]
    assert "1 of 3 differences are not evaluated" in judged({pair: one_open})["everywhere"].why


def test_a_refutation_of_the_margin_is_none_of_a_smaller_difference_that_the_paper_prints() -> None:
    part = judged({("vdep", "baseline"): {"all": DIFFERENCES["does not hold"]}})["helps"].parts[0]
    said = "the paper's own difference is +0.44, below the margin: this does not contradict it"
    assert _refuted([part.model_copy(update={"published": 0.44, "high": 0.6})], 1).endswith(said)
    for published, high in ((3.36, 0.6), (0.44, 0.2), (None, 0.6)):
        assert "contradict" not in _refuted([part.model_copy(update={"published": published, "high": high})], 1)


def test_the_worst_of_several_differences_is_worst_by_its_margin() -> None:
    """20 of MME's 2800 points are less than one of 100."""
    part = judged({("vdep", "baseline"): {"all": DIFFERENCES["does not hold"]}})["helps"].parts[0]
    mme = part.model_copy(update={"label": "MME", "difference": -20.0, "margin": 28.0})
    pope = part.model_copy(update={"label": "POPE", "difference": -4.0, "margin": 1.0})
    assert "such as POPE of vdep" in _refuted([mme, pope], 2)


def test_one_of_many_differences_refutes_only_by_a_stricter_test() -> None:
    values = [0.1, 0.8, -0.4, 0.6, -0.2]
    assert decide(values, 1.0, rules(), among=1)[0] == "does not hold"
    p = decide(values, 1.0, rules())[2]
    assert p is not None
    assert 0.05 / 16 < p < 0.05
    assert decide(values, 1.0, rules(), among=16)[0] == "cannot tell"
