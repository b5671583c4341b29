"""The command line: what rules call is there, it starts at once, and its exit status says how it ended."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import world
from typer.main import get_command

import vdep
from vdep.__main__ import app, run
from vdep.artifacts import AssetManifest
from vdep.errors import UserError
from vdep.study.recipe import PreparationRecipe

COMMANDS = get_command(app).commands


def vdep_process(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-X", "importtime", "-m", "vdep", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=world.environment())


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["train", "--help"]], ids=" ".join)
def test_to_ask_what_it_can_do_waits_for_no_library(arguments: list[str]) -> None:
    done = vdep_process(*arguments)
    assert done.returncode == 0, done.stderr[-2000:]
    imported = set(re.findall(r"\| +(\w+)$", done.stderr, re.MULTILINE))
    assert {"typer", "json"} <= imported, "the imports are where this test looks"
    assert imported.isdisjoint({"torch", "transformers", "numpy", "pandas", "snakemake"})
    if arguments == ["--version"]:
        assert done.stdout == f"{vdep.__version__}\n"


def test_every_command_has_one_whole_line_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    _, _, listed = capsys.readouterr().out.partition("Commands:\n")
    lines = dict(line.split(maxsplit=1) for line in listed.splitlines())
    assert lines.keys() == COMMANDS.keys()
    assert all(text.endswith(".") and "..." not in text for text in lines.values()), lines


def called_by_rules() -> list[tuple[str, str, list[str]]]:
    """(file, command, options) of every call of ``$VDEP``."""
    found = []
    for path in sorted((world.ROOT / "rules").glob("*.smk")):
        for call in re.findall(r'"\$VDEP (.*)"', re.sub(r"""["']\n        ["']""", "", path.read_text())):
            found.append((path.name, call.split()[0], re.findall(r"(?<= )--[a-z-]+", call)))
    return found


def test_rules_call_commands_with_options_that_they_have_and_leave_out_none_that_they_need() -> None:
    calls = called_by_rules()
    assert {command for _, command, _ in calls} == {
        "fetch", "prepare", "train", "import-checkpoint", "record-answers", "grade", "evaluate", "attention",
    }  # fmt: skip
    for file, command, given in calls:
        known = {option: parameter for parameter in COMMANDS[command].params for option in parameter.opts}
        assert set(given) <= set(known), (file, command)
        needed = {option for option, parameter in known.items() if parameter.required}
        assert needed <= set(given), (file, command)


@pytest.mark.parametrize(
    ("command_line", "message"),
    [
        ([], "Missing command"),
        (["trian"], "No such command 'trian'"),
        (["lock", "--resource", "x"], "No such option: --resource"),
        (["fetch", "--name", "x", "--manifest", "y"], "Missing option '--asset'"),
        (["inspect", "--template", "llama", "--tokenizer", "x"], "'llama' is not one of 'plain', 'vicuna_v1', 'phi'"),
    ],
)
def test_a_call_that_cannot_be_meant_is_refused_with_status_2(
    command_line: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command_line) == 2
    assert message in capsys.readouterr().err


def test_what_users_can_put_right_is_one_line_and_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command_line = ["export-llava", "--checkpoint", str(tmp_path / "none"), "--output", str(tmp_path / "x")]
    assert run(command_line) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    monkeypatch.setenv("VDEP_TRACEBACK", "1")
    with pytest.raises(UserError):
        run(command_line)


def test_all_inputs_of_a_preparation_follow_one_option(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    monkeypatch.setattr(PreparationRecipe, "model_validate_json", lambda text: None)
    monkeypatch.setattr(AssetManifest, "open", lambda path: opened.append(path) or SimpleNamespace(asset=path))
    with pytest.raises(AttributeError):  # there is no recipe
        run(["prepare", "--recipe", "{}", "--inputs", "a", "b", "c", "--manifest", "m", "--workers", "2"])
    assert opened == [Path("a"), Path("b"), Path("c")]
