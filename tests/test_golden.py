"""Tiny trainings, written down: when behaviour changes on purpose, METHOD_VERSION is raised and these numbers with it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import world
from golden import CASES, CHANGES, GOLDEN

from vdep.study.recipe import METHOD_VERSION

pytestmark = pytest.mark.slow

TOLERANCE = 5e-5
ADVICE = "training computes something else. If that is meant, raise METHOD_VERSION in recipe.py and run tests/golden.py --write"


def trained(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).with_name("golden.py")), *arguments]
    done = subprocess.run(command, env=world.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    # libraries speak on standard output, too
    return dict(json.loads(done.stdout.splitlines()[-1]))


def distance(found: dict[str, list[Any]], expected: dict[str, list[Any]]) -> float:
    """The largest relative difference of any number; a number that is missing on one side is infinitely far."""
    worst = 0.0
    for key, values in expected.items():
        if len(found[key]) != len(values):
            return float("inf")
        for mine, theirs in zip(found[key], values, strict=True):
            if (mine is None) != (theirs is None):
                return float("inf")
            if theirs is not None:
                worst = max(worst, abs(mine - theirs) / max(abs(theirs), 1e-12))
    return worst


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return dict(json.loads(GOLDEN.read_text()))


@pytest.fixture(scope="module")
def now() -> dict[str, Any]:
    return trained()


@pytest.mark.parametrize("family", list(world.FAMILIES))
@pytest.mark.parametrize("case", CASES)
def test_the_loop_comes_to_the_numbers_that_were_written_down(
    family: str, case: str, golden: dict[str, Any], now: dict[str, Any]
) -> None:
    assert golden["method_version"] == METHOD_VERSION, "a new METHOD_VERSION needs new golden numbers: tests/golden.py --write"
    assert distance(now[f"{family}/{case}"], golden["numbers"][f"{family}/{case}"]) < TOLERANCE, ADVICE


def test_a_change_made_on_purpose_shows_under_ddp_and_under_zero(golden: dict[str, Any]) -> None:
    found = trained("--changed")
    assert len(found) == 4 * len(CHANGES)
    for name, numbers in found.items():
        case, _, change = name.partition(" with other ")
        assert distance(numbers, golden["numbers"][case]) > 2 * TOLERANCE, f"{case} does not see other {change}"
