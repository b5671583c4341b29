"""What `vdep evaluate` writes: files for the servers that score test splits, complete and of what the model said; clusters."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import world
from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE
from test_recipe import paper_config

from vdep.errors import ConfigError, EvaluationError
from vdep.evaluation.samples import read_samples
from vdep.evaluation.submission import take_submission
from vdep.evaluation.tasks import task_config
from vdep.files import read_json, sha256
from vdep.model.export import export_checkpoint
from vdep.model.llava import build_model
from vdep.study.check import load_study
from vdep.study.evaluation import SUBMISSION, Benchmark, EvaluationSettings
from vdep.study.recipe import EvaluationRecipe
from vdep.study.study import deep_merge
from vdep_demo.world.benchmarks import _write_parquet
from vdep_demo.world.choice_sets import mmbench_cn, mmbench_en
from vdep_demo.world.open_sets import okvqa, vizwiz
from vdep_demo.world.questions import Maker

STUDY = load_study(paper_config())


def test_the_paper_has_three_splits_that_are_submitted_and_no_column_of_them() -> None:
    assert STUDY.submission_benchmarks == ["vizwiz_test", "mmbench_en_test", "mmbench_cn_test"]
    evaluated = {benchmark for table in STUDY.tables for _, benchmark in STUDY.table_evaluations(table)}
    assert not evaluated & set(STUDY.submission_benchmarks)


def make_test_split(folder: Path, name: str) -> Path:
    """A few questions in the columns of the real test split, whose answers are kept back."""
    makers = {"vizwiz_test": vizwiz, "mmbench_en_test": mmbench_en, "mmbench_cn_test": mmbench_cn}
    rows, _ = makers[name](Maker(7), 8)
    for i, row in enumerate(rows):
        if name == "vizwiz_test":
            row.update(question_id=f"VizWiz_test_{i:08d}", answers=None, category=None)
        else:
            row.update(answer=None, split="test")
    pattern = STUDY.benchmarks[name].files["test"]
    path = folder / pattern.replace("**/", "").replace("*", "00000-of-00001")
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_parquet(path, rows)
    world.write_manifest(folder)
    return folder


def make_shared_pictures(folder: Path) -> Path:
    """OK-VQA, of which no field names the picture: eight questions on five pictures."""
    rows, _ = okvqa(Maker(8), 8)
    for i in (1, 3, 7):
        rows[i]["image"] = rows[i - 1]["image"]
    folder.mkdir()
    _write_parquet(folder / "val2014-00000-of-00001.parquet", rows)
    world.write_manifest(folder)
    return folder


@pytest.fixture(scope="module")
def submitted(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three submissions of an untrained checkpoint and a score, by the command lines that the workflow calls."""
    folder = tmp_path_factory.mktemp("submitted")
    study = world.make_study()
    model = build_model(assets / "clip", assets / "llama", study.models["tiny"].vision_tower, torch.float32, 3)
    export_checkpoint(model, assets / "clip", assets / "llama", "pad", folder / "run")
    world.finish(folder / "run")
    execution = {"threads": 1, "batch_size": 8, "device": "cpu", "cache": str(folder / "cache")}
    commands = []
    for name in (*STUDY.submission_benchmarks, "okvqa"):
        benchmark = STUDY.benchmarks[name].model_copy(update={"samples": 8, "max_new_tokens": 6})
        recipe = EvaluationRecipe(
            benchmark=name, settings=benchmark, source={}, template="vicuna_v1", image="pad",
            evaluation=EvaluationSettings(precision="float32"),
        )  # fmt: skip
        asset = make_shared_pictures(folder / name) if name == "okvqa" else make_test_split(folder / name, name)
        command = [
            "evaluate", "--recipe", recipe.canonical, "--execution", json.dumps(execution),
            "--checkpoint", str(folder / "done.json"), "--data", str(asset / "manifest.json"),
            "--scores", str(folder / "submissions" / f"{name}.json"),
        ]  # fmt: skip
        commands.append(command)
    # in one process, because importing lmms-eval takes longest
    code = f"import sys, vdep.__main__ as vdep; sys.exit(any([vdep.run(command) for command in {commands!r}]))"
    ended = subprocess.run([sys.executable, "-c", code], env=world.environment(), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return folder / "submissions"


FILES = {
    "vizwiz_test": "vizwiz_vqa-test-submission.json",
    "mmbench_en_test": "mmbench_en_test_results.xlsx",
    "mmbench_cn_test": "mmbench_cn_test_results.xlsx",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_every_question_is_in_the_file_with_the_models_answer(name: str, submitted: Path) -> None:
    result = read_json(submitted / f"{name}.json")
    assert "parts" not in result["seen"], "no score"
    submission = result["seen"]["submission"]
    assert submission == {"file": FILES[name], "sha256": sha256(submitted / FILES[name]), "rows": 8}
    answers = [row["answer"] for row in read_samples(submitted / f"{name}.samples.jsonl.gz")]
    assert len(answers) == 8
    assert any(answers)
    if name == "vizwiz_test":
        rows = json.loads((submitted / FILES[name]).read_text())
        assert [set(row) for row in rows] == [{"image", "answer"}] * 8
        assert [row["image"] for row in rows] == [f"VizWiz_test_{i:08d}.jpg" for i in range(8)]
    else:
        sheet = pd.read_excel(submitted / FILES[name], dtype=str, keep_default_na=False)
        assert {"index", "question", "A", "B", "C", "D", "prediction", "split"} <= set(sheet.columns)
        assert sorted(map(int, sheet["index"])) == sorted(i + 1_000_000 * k for i in range(2) for k in range(4))
        # an untrained model says single bytes, too
        assert list(sheet["prediction"]) == [ILLEGAL_CHARACTERS_RE.sub("", answer) for answer in answers]


@pytest.mark.slow
def test_questions_about_the_same_picture_are_resampled_together(submitted: Path) -> None:
    assert read_json(submitted / "okvqa.json")["seen"]["clusters"] == {"by": "picture", "n": 5}
    clusters = [row["cluster"] for row in read_samples(submitted / "okvqa.samples.jsonl.gz")]
    assert [clusters[i] == clusters[i - 1] for i in range(1, 8)] == [True, False, True, False, False, False, True]


def test_an_answer_that_a_sheet_cannot_hold_is_written_without_what_is_in_the_way(tmp_path: Path) -> None:
    make_test_split(tmp_path, "mmbench_en_test")
    config = task_config(STUDY.benchmarks["mmbench_en_test"], tmp_path)
    (metric,) = config["metric_list"]
    document = dict.fromkeys(("question", "answer", "hint", "source", "split", "category", "L2-category"), "x")
    answers = ["= 2", "B\x0b\x00\ufffe.", "圆形", "nan", ""]
    rows = [config["process_results"](document | {"index": i}, [answer]) for i, answer in enumerate(answers)]
    metric["aggregation"]([row["submission"] for row in rows], argparse.Namespace(output_path=str(tmp_path)))
    samples = [{"doc_id": i, **row} for i, row in enumerate(rows)]
    taken = take_submission("mmbench_en_test", samples, tmp_path / "submissions", tmp_path / "out")
    sheet = pd.read_excel(tmp_path / "out" / taken["file"], dtype=str, keep_default_na=False)
    assert list(sheet["prediction"]) == ["2", "B.", "圆形", "nan", ""]


def test_a_scored_split_cannot_be_submitted_nor_the_reverse(tmp_path: Path) -> None:
    make_test_split(tmp_path, "vizwiz_test")
    test = STUDY.benchmarks["vizwiz_test"]
    with pytest.raises(EvaluationError, match=r"vizwiz_vqa_test\.yaml has no score: name another scorer"):
        task_config(test.model_copy(update={"scorer": "mean"}), tmp_path)
    (tmp_path / "val-0.parquet").touch()
    val = Benchmark(asset="a", task="vizwiz_vqa/vizwiz_vqa_val.yaml", files={"val": "val-*"}, scorer=SUBMISSION)
    with pytest.raises(EvaluationError, match=r"vizwiz_vqa_val\.yaml writes no submission"):
        task_config(val, tmp_path)


def samples(*answers: str) -> list[dict[str, Any]]:
    return [{"doc_id": i, "submission": {"image": f"{i}.jpg", "answer": answer}} for i, answer in enumerate(answers)]


def written(folder: Path, rows: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vizwiz_vqa-test-submission-2026-1124-1805-59.json").write_text(json.dumps(rows))
    return folder


def test_a_file_that_does_not_say_what_the_model_said_is_refused(tmp_path: Path) -> None:
    rows = [s["submission"] for s in samples("red", "none", "")]
    taken = take_submission("v", samples("red", "none", ""), written(tmp_path / "good", rows), tmp_path / "out")
    assert (taken["file"], taken["rows"]) == ("vizwiz_vqa-test-submission.json", 3)
    assert json.loads((tmp_path / "out" / taken["file"]).read_text()) == rows
    cases = {
        "has 2 rows for 3 questions": rows[:2],
        "row 1 of .* is image '1.jpg', answer 'blue'": [rows[0], {"image": "1.jpg", "answer": "blue"}, rows[2]],
        "row 0 of .* is image '1.jpg'": [rows[1], rows[0], rows[2]],
    }
    for number, (message, content) in enumerate(cases.items()):
        with pytest.raises(EvaluationError, match=message):
            take_submission("v", samples("red", "none", ""), written(tmp_path / str(number), content), tmp_path / "out")
    with pytest.raises(EvaluationError, match="wrote no submission of a known kind"):
        take_submission("v", samples("red"), tmp_path / "nowhere", tmp_path / "out")


def test_a_question_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    twice = [{"doc_id": i, "submission": {"image": "0.jpg", "answer": "red"}} for i in range(2)]
    with pytest.raises(EvaluationError, match="more than one row for the same image"):
        take_submission("v", twice, written(tmp_path / "twice", [s["submission"] for s in twice]), tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"columns": {"x": {"label": "X", "benchmark": "vizwiz_test"}}}, r"columns\.x\.benchmark: vizwiz_test .* has no score"),
        ({"benchmarks": {"vizwiz_test": {"cluster": "picture"}}}, r"benchmarks\.vizwiz_test: a submission is not scored"),
    ],
)
def test_a_submission_has_neither_column_nor_clusters(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_study(deep_merge(paper_config(), change))
