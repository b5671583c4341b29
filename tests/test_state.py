"""What a rank holds of the training state, under the real engines on real ranks."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import layouts
import pytest
import world

pytestmark = pytest.mark.slow

NAMES = [layouts.name_of(way) for way in layouts.WAYS]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """By way to load and by way that the checkpoint was saved: what came of it."""
    command = [sys.executable, str(Path(layouts.__file__)), str(tmp_path_factory.mktemp("layouts"))]
    done = subprocess.run(command, env=world.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_any_engine_on_any_ranks_resumes_the_state_of_any_other_to_the_bit(loaded: dict[str, dict[str, Any]]) -> None:
    """Master weights and moments as they were before the save, and the weights that are computed with are those masters."""
    for reader, writer in product(NAMES, NAMES):
        assert loaded[reader][writer]["state"], (reader, writer)
        assert loaded[reader][writer]["weights"], (reader, writer)


def test_the_next_step_after_a_resume_is_the_one_that_would_have_been(loaded: dict[str, dict[str, Any]]) -> None:
    for reader in NAMES:
        assert loaded[reader]["next"]["state"], reader


def test_each_rank_hashes_and_reads_its_own_part(loaded: dict[str, dict[str, Any]]) -> None:
    for (engine, ranks), writer in product(layouts.WAYS, layouts.WAYS):
        found = loaded[layouts.name_of((engine, ranks))][layouts.name_of(writer)]
        whole = 4 * found["elements"]
        assert sum(found["hashed"]) == found["files"]
        if engine == "ddp":
            assert found["read"] == [whole] * ranks
        else:
            assert sum(found["read"]) == whole
            # ZeRO-3 rounds up for each parameter, the largest of which matters
            assert max(found["read"]) < 1.02 * whole / ranks
        if writer[1] % ranks == 0:
            assert max(found["hashed"]) < 1.1 * found["files"] / ranks
