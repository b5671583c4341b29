"""Seeds as an axis of the study, on the reduced demo: what arms of a seed share, what a table says, what a seed more costs."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import world
from test_workflow import planned, snakemake

pytestmark = pytest.mark.long

OVERLAY = """
variants: {mild: {extends: vdep, vdep: {alpha: 0.0001}}}
tables: {main_vqa: {models: [llava], variants: [baseline, vdep, mild], columns: [gqa]}}
"""
TABLE = "results/demo/tables/main_vqa.csv"
ARMS = ("baseline", "vdep", "mild")


def command(seeds: str) -> tuple[str, ...]:
    reduced = str(world.ROOT / "tests" / "reduced.yaml")
    return (TABLE, "--configfile", "config/demo.yaml", reduced, "seeds.yaml", "--config", f"seeds={seeds}", "--cores", "2")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkout = world.copy_checkout(tmp_path_factory.mktemp("seeds"))
    (checkout / "seeds.yaml").write_text(OVERLAY)
    made = snakemake(*command("[42,43]"), folder=checkout, timeout=1200)
    assert made.returncode == 0, (made.stdout + made.stderr)[-5000:]
    return checkout


def batches(checkout: Path, arm: str, seed: int, stage: str) -> list[str]:
    """Of every step, the hash of its samples in their order."""
    (log,) = (checkout / "results/demo/runs/demo-llava" / arm / f"seed-{seed}" / stage).glob("*/losses.jsonl")
    return [json.loads(line)["samples"] for line in log.read_text().splitlines()]


def test_arms_of_one_seed_see_the_same_batches_where_schedule_and_ratio_agree(done: Path) -> None:
    for seed in (42, 43):
        sft = [batches(done, arm, seed, "finetune") for arm in ARMS]
        assert sft[0] == sft[1] == sft[2]
        assert batches(done, "vdep", seed, "pretrain") == batches(done, "mild", seed, "pretrain")
    for stage in ("pretrain", "finetune"):
        assert batches(done, "vdep", 42, stage) != batches(done, "vdep", 43, stage)


def test_every_run_of_a_seed_is_a_training_of_its_own(done: Path) -> None:
    digests = {
        json.loads((done / "results/demo/runs/demo-llava" / arm / f"seed-{seed}" / "finetune/done.json").read_text())["digest"]
        for arm in ARMS
        for seed in (42, 43)
    }
    assert len(digests) == 6


def test_the_table_has_mean_spread_and_n(done: Path) -> None:
    with open(done / TABLE, newline="") as file:
        cells = {(row["run"], row["quantity"]): row["gqa"] for row in csv.DictReader(file)}
    for arm in ARMS:
        scores = [
            json.loads((done / "results/demo/evaluations/demo-llava" / arm / f"seed-{seed}" / "gqa.json").read_text())
            for seed in (42, 43)
        ]
        first, second = (score["seen"]["parts"]["score"]["value"] for score in scores)
        assert float(cells[arm, "reproduced"]) == pytest.approx((first + second) / 2, abs=0.01)
        assert float(cells[arm, "spread"]) == pytest.approx(abs(first - second) / 2**0.5, abs=0.01)
        assert cells[arm, "n"] == "2"
        assert (arm, "low") not in cells, "an interval over the questions of one seed says nothing of two"


def test_a_third_seed_makes_nothing_but_its_own_runs(done: Path) -> None:
    jobs = planned(*command("[42,43,44]"), folder=done)
    assert {rule: jobs[rule] for rule in jobs if jobs[rule]} == {"pretrain": 3, "finetune": 3, "evaluate": 3, "table": 1}


def test_one_seed_of_them_is_found_finished(done: Path) -> None:
    jobs = planned(*command("[43]"), folder=done)
    assert set(jobs) == {"table"}
