"""Comparison, verdicts, power and results.csv as Snakemake builds them: of what is finished, and of no other configuration."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import world
import yaml
from evidence_world import questions_of, write_evaluation
from test_recipe import paper_config
from test_workflow import planned, snakemake

from vdep.files import read_json, write_json
from vdep.report.evidence import Comparison, Difference
from vdep.study.check import load_study
from vdep.study.plan import Plan
from vdep.study.study import Run, deep_merge

BENCHMARKS = ("gqa", "ai2d", "pope")
MODEL = "demo-llava"
OVERLAY: dict[str, Any] = {
    "seeds": [1, 2, 3],
    "only_model": MODEL,
    "comparison": {"columns": list(BENCHMARKS)},
    "verdicts": {"endpoints": {"primary": {"columns": list(BENCHMARKS)}}},
}
CONFIG = ("--configfile", "config/demo.yaml", "mine.yaml")
TABLES = "results/demo/tables"


def plan_of(**change: Any) -> Plan:
    return Plan(load_study(deep_merge(deep_merge(paper_config("demo"), OVERLAY), change)))


def evaluate(checkout: Path, plan: Plan, variant: str, seed: int, benchmark: str, share: float) -> None:
    """What an evaluation of this run would leave, by the configuration of the plan."""
    study, run = plan.study, Run(MODEL, variant, f"seed-{seed}")
    rng = np.random.default_rng(len(variant) + 10 * seed + 100 * BENCHMARKS.index(benchmark))
    questions = questions_of(rng.random(60) < share, np.arange(60))
    path = write_evaluation(checkout / plan.scores(run, benchmark), questions, study.benchmarks[benchmark].scorer)
    recipe = study.evaluation_recipe(*run[:2], benchmark)
    scores = read_json(path)
    scores["recipe"], scores["digest"] = json.loads(recipe.canonical), recipe.digest
    scores["checkpoint"]["recipe"] = study.recipe(*run[:2], "finetune", run.seed).digest
    write_json(path, scores)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    copy = world.copy_checkout(tmp_path)
    (copy / "mine.yaml").write_text(yaml.safe_dump(OVERLAY))
    return copy


def build(checkout: Path, *targets: str, **change: Any) -> Comparison:
    (checkout / "mine.yaml").write_text(yaml.safe_dump(deep_merge(OVERLAY, change)))
    made = snakemake(*targets, "--cores", "1", *CONFIG, folder=checkout)
    assert made.returncode == 0, (made.stdout + made.stderr)[-3000:]
    return Comparison.read(checkout / TABLES / "comparison.json")


def seeds_of(found: Difference | None) -> list[str]:
    return [seed.seed for seed in found.by_seed] if found else []


@pytest.mark.slow
def test_what_is_finished_is_compared_and_nothing_is_trained_for_it(checkout: Path) -> None:
    plan, pair = plan_of(), (MODEL, "vdep", "baseline")
    for seed in (1, 2):
        for variant, share in (("baseline", 0.5), ("vdep", 0.6)):
            for benchmark in BENCHMARKS:
                evaluate(checkout, plan, variant, seed, benchmark, share)
    comparison = build(checkout, "comparison", "power", "tidy")
    assert seeds_of(comparison.of(pair, "primary", pooled=True)) == ["seed-1", "seed-2"]
    with open(checkout / TABLES / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(r["variant"], r["seed"], r["benchmark"]) for r in rows} == {
        (v, f"seed-{s}", b) for v in ("baseline", "vdep") for s in (1, 2) for b in BENCHMARKS
    }
    record = read_json(checkout / TABLES / "comparison.provenance.json")
    assert record["verdicts"]["rules_sha256"] == comparison.definition.rules_sha256
    assert len(record["verdicts"]["file_sha256"]) == 64
    assert len(record["results"]) == 12
    assert not planned("comparison", "power", "tidy", *CONFIG, folder=checkout), "it is all there"

    # a third seed is finished: it alone is reason enough
    for variant, share in (("baseline", 0.5), ("vdep", 0.6)):
        for benchmark in BENCHMARKS:
            evaluate(checkout, plan, variant, 3, benchmark, share)
    assert planned("comparison", *CONFIG, folder=checkout) == {"comparison": 1}
    comparison = build(checkout, "comparison")
    assert len(seeds_of(comparison.of(pair, "primary", pooled=True))) == 3
    (helps,) = [v for v in comparison.verdicts if (v.claim, v.endpoint) == ("helps", "primary")]
    assert helps.n == 3
    assert helps.verdict is not None

    # VDEP means something else now: what was trained before is no evidence for it, and is named
    comparison = build(checkout, "comparison", variants={"vdep": {"vdep": {"alpha": 0.5}}})
    assert comparison.of(pair, "primary", pooled=True) is None
    left_out = [line for line in comparison.missing if "trained by another recipe" in line]
    assert len(left_out) == 3


@pytest.mark.slow
def test_before_any_run_power_is_calculated_from_the_assumptions(checkout: Path) -> None:
    comparison = build(checkout, "power")
    assert not comparison.differences
    assert all(claim.verdict is None for claim in comparison.verdicts)
    power = read_json(checkout / TABLES / "power.json")
    assert {row["basis"] for row in power["rows"]} == {"assumed"}
    assert power["rules_sha256"] == comparison.definition.rules_sha256


@pytest.mark.slow
def test_a_target_with_verdicts_evaluates_every_arm_on_the_whole_list_before_it_compares(checkout: Path) -> None:
    overlay = deep_merge(OVERLAY, {"seeds": [1], "targets": {"judged": {"verdicts": ["helps", "not-the-schedule"]}}})
    (checkout / "mine.yaml").write_text(yaml.safe_dump(overlay))
    jobs = planned("judged", *CONFIG, folder=checkout)
    # primary, and its version without MM-Vet, which the overlay left as long as it was
    whole = len(plan_of().study.benchmarks) - len(plan_of().study.submission_benchmarks)
    assert (jobs["pretrain"], jobs["finetune"]) == (3, 3), "baseline, vdep, vdep-alpha0"
    assert jobs["comparison"] == 1
    assert jobs["evaluate"] == 3 * (whole - 1)
