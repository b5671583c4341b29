"""docs/architecture.md: its walks name functions that there are, in the order in which a training first calls them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import world

pytestmark = pytest.mark.slow

PAGE = (world.ROOT / "docs" / "architecture.md").read_text()
WALKS = {part.partition("\n")[0]: part for part in PAGE.split("\n## ")[1:]}
MOST = {"`alpha`, from YAML to the loss": 10, "A sample, from the archive to the gradient": 21}
"""So many stops and no more: a function that only hands on or repacks is none, and none is there."""


@pytest.fixture(scope="module")
def called() -> list[str]:
    """Every function of the library that a tiny training calls, in the order of the first calls."""
    command = [sys.executable, str(Path(__file__).with_name("walk.py"))]
    done = subprocess.run(command, env=world.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return list(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("walk", MOST)
def test_a_walk_is_the_way_that_a_training_takes(walk: str, called: list[str]) -> None:
    stops = re.findall(r"^\d+\. `([\w/]+\.py: [\w.]+)`", WALKS[walk], re.MULTILINE)
    assert 5 < len(stops) <= MOST[walk]
    assert [stop for stop in stops if stop not in called] == [], "no function of this name is called"
    assert stops == sorted(stops, key=called.index), "they are called in another order"


def test_every_function_that_the_page_names_is_called(called: list[str]) -> None:
    assert [name for name in re.findall(r"`([\w/]+\.py: [\w.]+)`", PAGE) if name not in called] == []
