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


def counted(text: str) -> Counter[str]:
    return Counter({rule: int(number) for number, rule in COUNT.findall(text)})


def training_and_evaluation(jobs: Counter[str]) -> Counter[str]:
    return Counter({rule: jobs[rule] for rule in COUNTED if jobs[rule]})


@cache
def plain(target: str) -> Counter[str]:
    return training_and_evaluation(planned(target))


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=[text.splitlines()[0][12:40] for text in EXAMPLES])
def test_an_example_plans_what_it_says_and_leaves_the_papers_targets_alone(example: str, tmp_path: Path) -> None:
    overlay = tmp_path / "mine.yaml"
    overlay.write_text(example)
    said = dict(re.findall(r"^# snakemake (\S+): (.*)$", example, re.MULTILINE))
    assert said, "an example says what it plans"
    for target in (*said, *TARGETS):
        jobs = training_and_evaluation(planned(target, "--configfile", str(overlay)))
        if target in said:
            assert jobs == counted(said[target]), target
        elif not {"seeds", "only_model"} & set(yaml.safe_load(example)):
            assert jobs == plain(target), target


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
