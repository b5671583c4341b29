"""What the README says to type, and to write into a file of one's own, works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import world
import yaml
from test_workflow import planned

README = (world.ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
COMMANDS = re.findall(r"^snakemake ((?:-n )?[^#\n]*?)\s*(?:#.*)?$", README, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=[text.splitlines()[0][:20] for text in EXAMPLES])
def test_an_example_can_be_planned(example: str, tmp_path: Path) -> None:
    overlay = tmp_path / "mine.yaml"
    overlay.write_text(example)
    tables = yaml.safe_load(example)["tables"]
    jobs = planned(*(f"results/tables/{name}.csv" for name in tables), "--configfile", str(overlay))
    rows = {row for table in tables.values() for row in table["rows"]}
    assert jobs["pretrain"] == jobs["finetune"] == len(rows) - jobs["import_checkpoint"]
    assert jobs["import_checkpoint"] == ("imported" in example)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_can_be_planned(command: str) -> None:
    assert planned(*command.replace("-n ", "").split())


def test_links_and_pictures_exist() -> None:
    for page in (world.ROOT / "README.md", *(world.ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name}: {target}"
