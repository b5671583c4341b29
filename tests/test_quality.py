"""The tools that read the code: no finding, or an exception that says why at its line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import world

BIN = Path(sys.executable).parent


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],
        ["snakefmt", "--check", "Snakefile", "rules"],
        ["snakemake", "--lint"],
        ["snakemake", "--lint", "--configfile", "config/demo.yaml"],
    ],
    ids=" ".join,
)
def test_no_findings(command: list[str]) -> None:
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        cwd=world.ROOT, env=world.environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


CODE = ("src", "rules", "workflow_scripts", "tests", "envs")


def sources() -> list[Path]:
    found = [world.ROOT / "Snakefile", *(path for folder in CODE for path in (world.ROOT / folder).rglob("*"))]
    return [path for path in found if path.suffix in (".py", ".smk") or path.name == "Snakefile"]


def test_nothing_loads_what_could_execute_code() -> None:
    forbidden = re.compile(
        r"trust_remote_code=True|weights_only=False|pickle\.loads?\(|torch\.load\((?!.*weights_only=True)|extractall\("
    )
    this = Path(__file__)
    found = [
        f"{path.relative_to(world.ROOT)}:{number}"
        for path in sources()
        if path != this
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if forbidden.search(line)
    ]
    assert len(sources()) > 80, "the code is where this test looks"
    assert not found


def test_rules_know_nothing_of_torch_and_the_model_nothing_of_snakemake() -> None:
    for path in [world.ROOT / "Snakefile", *(world.ROOT / "rules").glob("*.smk")]:
        assert "torch" not in path.read_text(), path
    for package in ("model", "data"):
        for path in (world.ROOT / "src" / "vdep" / package).glob("*.py"):
            text = path.read_text()
            assert "snakemake" not in text.lower(), path
            assert not re.search(r"from \.\.(train|evaluation|report|demo|assets|workflow)", text), (
                f"{path}: dependencies point one way"
            )


def test_the_conda_files_are_those_of_the_lock() -> None:
    pins = [line for line in (world.ROOT / "envs" / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    script = (world.ROOT / "envs" / "vdep.post-deploy.sh").read_text()
    assert all(f"\n{pin}\n" in script for pin in pins)
    wanted = [
        line.partition("#")[0].strip()
        for name in ("requirements.in", "no-deps.in")
        for line in (world.ROOT / "envs" / name).read_text().splitlines()
        if "==" in line.partition("#")[0]
    ]
    locked = {pin.partition(" ;")[0].lower() for pin in pins}
    assert {w.lower() for w in wanted} <= locked


def test_the_lmms_eval_of_the_recipes_is_the_locked_one() -> None:
    from vdep.evaluation.tasks import LMMS_EVAL_VERSION
    from vdep.study.recipe import EvaluationRecipe

    assert EvaluationRecipe.model_fields["lmms_eval"].default == LMMS_EVAL_VERSION
    assert f"lmms-eval=={LMMS_EVAL_VERSION}" in (world.ROOT / "envs" / "requirements.lock").read_text()
