"""What the README says to type, and to write into a file of one's own, works, and plans what the text says."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
import world
import yaml
from test_workflow import planned

README = (world.ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
COMMANDS = re.findall(r"^snakemake ((?:-n )?[^#\n]*?)\s*(?:#(.*))?$", README, re.MULTILINE)
COUNT = re.compile(r"(\d+) (pretrain|finetune|evaluate|import_checkpoint)")
COUNTED = ("pretrain", "finetune", "evaluate", "import_checkpoint")
TARGETS = ("all", "main", "controls")
# of the paper's targets, all at once; in the whole battery one by one, where what moved from one to another shows too
ASKED = [pytest.param(False, id="together"), pytest.param(True, id="each", marks=pytest.mark.full)]


def counted(text: str) -> Counter[str]:
    return Counter({rule: int(number) for number, rule in COUNT.findall(text)})


def training_and_evaluation(jobs: Counter[str]) -> Counter[str]:
    return Counter({rule: jobs[rule] for rule in COUNTED if jobs[rule]})


@cache
def plain(*targets: str) -> Counter[str]:
    return training_and_evaluation(planned(*targets))


@pytest.mark.slow
@pytest.mark.parametrize("one_by_one", ASKED)
@pytest.mark.parametrize("example", EXAMPLES, ids=[text.splitlines()[0][12:40] for text in EXAMPLES])
def test_an_example_plans_what_it_says_and_leaves_the_papers_targets_alone(
    example: str, one_by_one: bool, tmp_path: Path
) -> None:
    overlay = tmp_path / "mine.yaml"
    # what is on the reader's machine
    for path in re.findall(r"path: (/[^,}\s]+)", example):
        there = tmp_path / path[1:]
        there.parent.mkdir(parents=True, exist_ok=True)
        there.touch() if there.suffix == ".json" else there.mkdir(exist_ok=True)
        example = example.replace(path, str(there))
    overlay.write_text(example)
    said = dict(re.findall(r"^# snakemake (\S+): (.*)$", example, re.MULTILINE))
    assert said, "an example says what it plans"
    for target, jobs in said.items():
        assert training_and_evaluation(planned(target, "--configfile", str(overlay))) == counted(jobs), target
    others = tuple(target for target in TARGETS if target not in said)
    if not {"seeds", "only_model"} & set(yaml.safe_load(example)):
        for targets in [(target,) for target in others] if one_by_one else [others]:
            assert training_and_evaluation(planned(*targets, "--configfile", str(overlay))) == plain(*targets), targets


@pytest.mark.slow
@pytest.mark.parametrize(("command", "text"), COMMANDS)
def test_a_command_plans_what_is_said_beside_it(command: str, text: str) -> None:
    jobs = planned(*command.replace("-n ", "").split())
    assert jobs
    if said := counted(text):
        assert training_and_evaluation(jobs) == said


def test_links_and_pictures_exist() -> None:
    for page in (world.ROOT / "README.md", *(world.ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name}: {target}"
