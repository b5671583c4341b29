"""``vdep inspect``: one sample or question as a table or as JSON, all samples as lines of JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vdep.__main__ import run
from vdep.data.conversation import TEMPLATES, encode_segments, prompt_segments
from vdep.data.tokenizer import load_tokenizer

TALK = [
    {"from": "human", "value": "<image>\nWhat color is the circle?"},
    {"from": "gpt", "value": "red"},
    {"from": "human", "value": "Where is the digit?"},
    {"from": "gpt", "value": "top left"},
]
SAMPLES: list[dict[str, Any]] = [
    {"id": "talk", "image": "not/there.jpg", "conversations": TALK},
    {"id": "words", "conversations": [{"from": "human", "value": "Is there a circle?"}, {"from": "gpt", "value": "No"}]},
    {"id": "caption", "image": "not/there.jpg", "conversations": [TALK[0], {"from": "gpt", "value": "small red circle"}]},
    {"id": "open", "conversations": [{"from": "human", "value": "What?"}]},
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "samples.json"
    path.write_text(json.dumps(SAMPLES))
    return path


def inspect(data: Path, assets: Path, *arguments: str, template: str = "vicuna_v1", model: str = "llama") -> int:
    return run(["inspect", "--template", template, "--tokenizer", str(assets / model), "--data", str(data), *arguments])


def test_one_sample_as_json(data: Path, assets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect(data, assets, "--index", "0", "--json") == 0
    (row,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (row["index"], row["id"], row["image"]) == (0, "talk", "not/there.jpg")
    assert row["input_ids"].count(-200) == 1
    assert row["labels"][row["input_ids"].index(-200)] == -100
    trained = [(i, label) for i, label in zip(row["input_ids"], row["labels"], strict=True) if label != -100]
    assert len(trained) == 4, "two answers of a token, each with its end token"
    assert all(i == label for i, label in trained)


def test_all_samples_are_a_line_of_json_each_and_a_defect_is_named(
    data: Path, assets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inspect(data, assets) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["id"] for row in rows] == [sample["id"] for sample in SAMPLES]
    assert rows[3]["defect"]["kind"] == "no_answer"
    assert [-200 in row["input_ids"] for row in rows[:3]] == [True, False, True]


def test_a_table_for_a_person(data: Path, assets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect(data, assets, "--index", "2", "--image-tokens", "9", template="plain", model="phi") == 0
    shown = capsys.readouterr().out
    lines = [[cell.strip() for cell in line.split("│")] for line in shown.splitlines() if "│" in line]
    assert lines[0] == ["0", "<image> x 9", "-200", "-100", "VDEP"]
    assert lines[1][1] == "small␣red␣circle"
    assert lines[1][2] == lines[1][3]
    assert lines[1][4] == "LLaVA"
    assert lines[2][1] == "\\n"
    assert "11 tokens, 2 of text trained in LLaVA mode" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--index", "9"), "has no sample 9: it holds 4"),
        (("--index", "3"), "sample 3 (id open), no_answer"),
    ],
)
def test_what_cannot_be_shown_is_said(
    data: Path, assets: Path, arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inspect(data, assets, *arguments) == 1
    assert message in capsys.readouterr().err


def test_a_file_that_is_no_json_is_named(tmp_path: Path, assets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "samples.json"
    path.write_text("{")
    assert inspect(path, assets) == 1
    assert "samples.json cannot be read as JSON" in capsys.readouterr().err


def ask(assets: Path, question: str, *arguments: str, template: str = "vicuna_v1", model: str = "llama") -> int:
    folder = str(assets / model)
    return run(["inspect", "--template", template, "--tokenizer", folder, "--question", question, *arguments])


@pytest.mark.parametrize(("model", "template"), [("llama", "vicuna_v1"), ("phi", "phi")])
@pytest.mark.parametrize("question", ["What color is the circle?", "<image>\nWhat color is the circle?"])
def test_a_question_as_json_is_the_prompt_of_evaluation(
    question: str, model: str, template: str, assets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(assets, question, "--json", template=template, model=model) == 0
    (row,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (row["question"], row["template"]) == (question, template)
    tokenizer = load_tokenizer(assets / model)
    assert row["input_ids"] == encode_segments(prompt_segments(question, TEMPLATES[template]), tokenizer).input_ids.tolist()
    assert row["input_ids"].count(-200) == question.count("<image>")


def test_a_question_as_a_table_ends_where_the_answer_begins(assets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(assets, "<image>\nIs there a circle?", "--image-tokens", "9") == 0
    shown = capsys.readouterr().out
    lines = [[cell.strip() for cell in line.split("│")] for line in shown.splitlines() if "│" in line]
    assert [line[1:] for line in lines if line[1].startswith("<image>")] == [["<image> x 9", "-200"]]
    assert lines[-1][1] == "␣ASSISTANT:"
    tokens = len(lines) - 1 + 9
    assert f"{tokens} tokens, and then the model's answer" in shown


def test_a_question_and_data_at_once_are_refused(data: Path, assets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect(data, assets, "--question", "What?") == 2
    assert "give one of --data and --question" in capsys.readouterr().err
