"""The whole demo, as `make demo` runs it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import world
from test_workflow import snakemake

from vdep_demo.world.language import CORE_SKILLS

pytestmark = pytest.mark.long

TABLES = ("main_vqa", "main_general", "main_mme")
DEMO = ("demo", "--configfile", "config/demo.yaml", "--cores", "2")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkout = world.copy_checkout(tmp_path_factory.mktemp("demo"))
    done = snakemake(*DEMO, folder=checkout, timeout=2400)
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    return checkout


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_three_tables_hold_both_models_with_and_without_vdep(demo: Path) -> None:
    for table in TABLES:
        found = {(row["model"], row["run"]) for row in rows(demo / "results" / "demo" / "tables" / f"{table}.csv")}
        assert found == {(model, run) for model in ("demo-llava", "demo-tinyllava") for run in ("baseline", "vdep")}
    assert (demo / "results" / "demo" / "figures" / "attention.png").is_file()


def test_a_second_call_has_nothing_to_do(demo: Path) -> None:
    done = snakemake(*DEMO, folder=demo)
    assert "Nothing to be done" in done.stdout + done.stderr


@pytest.mark.parametrize("run", ["baseline", "vdep"])
@pytest.mark.parametrize("model", ["demo-llava", "demo-tinyllava"])
def test_every_checkpoint_sees(demo: Path, model: str, run: str) -> None:
    """20 points above chance, and blind is the control."""
    table = rows(demo / "results" / "demo" / "tables" / "skills.csv")
    skills = {row["skill"]: row for row in table if (row["model"], row["run"]) == (model, run)}
    for skill in CORE_SKILLS:
        assert float(skills[skill]["seen"]) >= float(skills[skill]["chance"]) + 20, skills[skill]
        assert float(skills[skill]["low"]) > 0, skills[skill]


def test_the_mme_totals_are_built_as_in_the_paper(demo: Path) -> None:
    parts = ("mme_commonsense", "mme_existence", "mme_count", "mme_position", "mme_color")
    for row in rows(demo / "results" / "demo" / "tables" / "main_mme.csv"):
        if row["quantity"] == "reproduced":
            assert float(row["mme_total"]) == pytest.approx(sum(float(row[part]) for part in parts), abs=0.03)
