"""docs/architecture.md: its walks name functions that there are, in the order in which a run first calls them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import world

pytestmark = pytest.mark.slow

PAGE = (world.ROOT / "docs" / "architecture.md").read_text()
WALKS = {part.partition("\n")[0]: part for part in PAGE.split("\n## ")[1:]}
MOST = {
    "`alpha`, from YAML to the loss": ("training", 10),
    "A sample, from the archive to the gradient": ("training", 21),
    "An answer, to a cell of a table": ("evaluation", 18),
}
"""So many stops and no more: a function that only hands on or repacks is none, and none is there."""


@cache
def called(by: str) -> list[str]:
    """Every function of the library that a tiny training, or evaluation, calls, in the order of the first calls."""
    command = [sys.executable, str(Path(__file__).with_name("walk.py")), by]
    done = subprocess.run(command, env=world.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return list(json.loads(done.stdout.splitlines()[-1]))


def test_there_is_no_other_walk() -> None:
    assert list(WALKS) == list(MOST)


@pytest.mark.parametrize("walk", MOST)
def test_a_walk_is_the_way_that_is_taken(walk: str) -> None:
    by, most = MOST[walk]
    stops = re.findall(r"^\d+\. `([\w/]+\.py: [\w.]+)`", WALKS[walk], re.MULTILINE)
    assert 5 < len(stops) <= most
    assert [stop for stop in stops if stop not in called(by)] == [], "no function of this name is called"
    assert stops == sorted(stops, key=called(by).index), "they are called in another order"


@pytest.mark.parametrize("walk", MOST)
def test_every_function_that_a_walk_names_is_called(walk: str) -> None:
    by, _ = MOST[walk]
    assert [name for name in re.findall(r"`([\w/]+\.py: [\w.]+)`", WALKS[walk]) if name not in called(by)] == []
