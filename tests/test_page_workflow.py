"""``snakemake report``: of what is finished, when something is finished since, and without training anything."""

from __future__ import annotations

import json
import re
import zipfile
from collections import Counter
from pathlib import Path

import page_study
import pytest
import world
import yaml
from test_workflow import planned, snakemake

from vdep.evaluation.samples import write_samples
from vdep.report.page.content import Page
from vdep.study.plan import Plan
from vdep.study.study import Run, deep_merge

DEMO = ("report", "--configfile", "config/demo.yaml")
MADE_OF_WHAT_IS_FINISHED = {"page", "report", "comparison", "power", "audit"}


@pytest.fixture(scope="module")
def plan() -> Plan:
    config: dict[str, object] = {}
    named = re.findall(r"config/\w+\.yaml", (world.ROOT / "Snakefile").read_text().split("include:")[0])
    for name in (*named, "config/demo.yaml"):
        config = deep_merge(config, yaml.safe_load((world.ROOT / name).read_text()))
    return Plan.of(config, world.ROOT)


def evaluate(checkout: Path, plan: Plan, variant: str) -> None:
    """Have a checkpoint be evaluated, by the recipes of the demo."""
    run = Run("demo-llava", variant, "seed-42")
    path = checkout / plan.scores(run, "gqa")
    path.parent.mkdir(parents=True)
    samples = path.with_name("gqa.samples.jsonl.gz")
    rows = [
        {
            "document": i, "prompt": "What?", "question": "What?", "answer": f"{variant} {i}", "target": "what",
            "points": i % 2, "pictures": "", "cluster": str(i), "group": "",
            "unit": "", "is_yes": False, "predicted_yes": False, "metric": i % 2,
        }
        for i in range(4)
    ]  # fmt: skip
    write_samples(samples, {"seen": rows})
    recipe = json.loads(plan.study.evaluation_recipe("demo-llava", variant, "gqa").canonical)
    training = plan.study.recipe("demo-llava", variant, "finetune", "seed-42").digest
    page_study.write_scores(path, samples, 4, 50.0, recipe, training)


def read(checkout: Path) -> Page:
    html = (checkout / "results" / "demo" / "report.html").read_text()
    return Page.model_validate_json(html.split('id="data">')[1].split("</script>")[0])


@pytest.mark.long
def test_it_shows_what_is_finished_and_trains_nothing(tmp_path: Path, plan: Plan) -> None:
    checkout = world.copy_checkout(tmp_path)
    evaluate(checkout, plan, "baseline")
    evaluate(checkout, plan, "vdep")
    done = snakemake(*DEMO, "--cores", "1", folder=checkout)
    assert done.returncode == 0, done.stderr[-2000:]
    page = read(checkout)
    assert page.answers.checkpoints == ("demo-llava/baseline/seed-42", "demo-llava/vdep/seed-42")
    assert {"claims", "differences", "audit", "power"}.isdisjoint(page.missing), "what can be concluded is made first"
    assert planned(*DEMO, folder=checkout) == Counter(), "nothing is finished since"

    evaluate(checkout, plan, "vdep-alpha0")
    changed = ("--config", "stages={finetune: {learning_rate: 0.5}}")
    done = snakemake(*DEMO[:1], "--cores", "1", "--configfile", "config/demo.yaml", *changed, folder=checkout)
    assert done.returncode == 0, done.stderr[-2000:]
    page = read(checkout)
    assert page.answers is None
    assert len(page.origin.left_out) == 3, "these are of another learning rate"

    report = snakemake("report", "--report", "all.zip", "--configfile", "config/demo.yaml", folder=checkout)
    assert report.returncode == 0, report.stderr[-2000:]
    with zipfile.ZipFile(checkout / "all.zip") as archive:
        names = archive.namelist()
        main = next(name for name in names if name.count("/") == 1 and name.endswith("report.html"))
        assert any(name.endswith("report.html") and name != main for name in names), "the page is in it"
        assert "reference implementation and reproduction" in archive.read(main).decode()


def test_at_the_papers_size_nothing_is_planned_but_the_page() -> None:
    jobs = planned("report")
    assert jobs["page"] == 1
    assert set(jobs) <= MADE_OF_WHAT_IS_FINISHED
