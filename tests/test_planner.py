"""What the other tests see of a plan, from a process that has imported Snakemake already, is what the command prints."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
import world
from test_workflow import command, snakemake

# of a process: when and how it was started, and where Snakemake was imported
ITS_OWN = re.compile(r"(?m)^( *(Date|Workflow ID|Command|Run directory): .*|\[.* \d\d:\d\d:\d\d \d{4}\])$")


def words(text: str) -> Counter[str]:
    """In any order: that of the inputs in a line is another in every process."""
    return Counter(re.findall(r"[^\s,;]+", ITS_OWN.sub("", text)))


@pytest.mark.slow
@pytest.mark.parametrize("target", ["controls", "al"])
def test_the_command_itself_plans_what_the_other_tests_see(target: str, tmp_path: Path) -> None:
    arguments = ("-n", target, "-s", str(world.ROOT / "Snakefile"))
    started, forked = (ask(*arguments, folder=tmp_path) for ask in (command, snakemake))
    assert (started.returncode, started.stderr) == (forked.returncode, forked.stderr)
    assert words(started.stdout) == words(forked.stdout)
    assert len(started.stdout) > 500
