"""A benchmark that a server grades: answered, graded and scored in three steps, as if in one, with lmms-eval's own numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import world
from judge_server import SERVED_MODEL, JudgeServer, Reply, says
from test_workflow import snakemake

from vdep.errors import EvaluationError
from vdep.evaluation.grades import grade, mmvet_prompt
from vdep.evaluation.judged import GradedAnswers
from vdep.evaluation.run import EvaluationJob, answer, evaluate
from vdep.evaluation.samples import read_samples
from vdep.files import read_json, write_json
from vdep.model.export import export_checkpoint
from vdep.model.llava import build_model
from vdep.study.evaluation import Benchmark, EvaluationSettings, Judge
from vdep.study.execution import JudgeExecution
from vdep.study.recipe import EvaluationRecipe
from vdep_demo.world.benchmarks import make_benchmark

pytestmark = pytest.mark.slow

QUESTIONS = 12
JUDGE = Judge(kind="openai", model="gpt-4o")
SECRET = "sk-not-to-be-shown"


def recipe(judge: Judge | None = JUDGE) -> EvaluationRecipe:
    benchmark = Benchmark(
        asset="a", task="mmvet/mmvet.yaml", files={"test": "test-*.parquet"}, scorer="judged", samples=QUESTIONS,
        cluster="picture", max_new_tokens=4, blind=True,
    )  # fmt: skip
    return EvaluationRecipe(
        benchmark="mmvet", settings=benchmark, source={}, template="vicuna_v1", image="pad",
        evaluation=EvaluationSettings(precision="float32"), judge=judge,
    )  # fmt: skip


def by_length(prompt: str, number: int) -> Reply:
    """A judge that knows a dog, and otherwise gives any grade, always the same one for a prompt."""
    row = prompt.rpartition("\n")[2]
    if "a dog |" in row:
        return says("1.0" if row.count("a dog") == 2 else "0.0")
    return says(str(sum(map(ord, row)) % 11 / 10))


def said(reply: Reply) -> float:
    assert reply.body is not None
    return float(json.loads(reply.body)["choices"][0]["message"]["content"])


@pytest.fixture(scope="module")
def folder(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained checkpoint, and twelve questions in MM-Vet's columns."""
    whole = tmp_path_factory.mktemp("judged")
    tower = world.make_study("llama").models["tiny"].vision_tower
    model = build_model(assets / "clip", assets / "llama", tower, torch.float32, 3)
    export_checkpoint(model, assets / "clip", assets / "llama", "pad", whole / "weights")
    world.finish(whole / "weights")
    (whole / "data").mkdir()
    make_benchmark(whole / "data", "mmvet", QUESTIONS, 5)
    return whole


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    # what an evaluation sets for its process is taken back
    for name in ("OPENAI_API_KEY", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_DATASETS_CACHE", "LMMS_EVAL_DATASETS_CACHE"):
        monkeypatch.setenv(name, "none" if name == "OPENAI_API_KEY" else "1")


def job(folder: Path, output: str, graded: str | None = None, judge: Judge | None = JUDGE, **changes: Any) -> EvaluationJob:
    return EvaluationJob(
        recipe=recipe(judge), checkpoint=folder / changes.pop("checkpoint", "done.json"), asset=folder / "data",
        cache=folder / "cache", output=folder / output, device="cpu", threads=1, batch_size=4,
        graded=folder / graded if graded else None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def graded(folder: Path) -> list[str]:
    """All three steps; returns what the judge was asked."""
    with pytest.MonkeyPatch.context() as patch, JudgeServer(by_length) as server:
        patch.setenv("OPENAI_API_KEY", "none")
        answer(job(folder, "mmvet.answers.json"))
        patch.setenv("OPENAI_BASE_URL", server.url)
        grade(folder / "mmvet.answers.json", folder / "mmvet.graded.json", JUDGE, JudgeExecution(backoff=0.01))
        evaluate(job(folder, "mmvet.json", "mmvet.graded.json"))
    return server.prompts


def test_the_score_is_that_of_the_grades_and_says_who_gave_them(folder: Path, graded: list[str]) -> None:
    scores, document = read_json(folder / "mmvet.json"), read_json(folder / "mmvet.graded.json")
    for name in ("seen", "blind"):
        given = [row["grade"] for row in document["passes"][name]["rows"]]
        assert len(set(given)) > 3
        score = scores[name]["parts"]["score"]
        assert score["value"] == pytest.approx(100 * sum(given) / QUESTIONS)
        assert score["low"] < score["value"] < score["high"], "over pictures that no model has opened"
        assert scores[name]["clusters"] == {"by": "picture", "n": QUESTIONS}
        rows = [row for row in read_samples(folder / "mmvet.samples.jsonl.gz") if row["pass"] == name]
        assert [row["points"] for row in rows] == given
        assert [row["answer"] for row in rows] == [row["answer"] for row in document["passes"][name]["rows"]]
    assert scores["judge"] == f"gpt-4o (its server says {SERVED_MODEL})"
    grading = scores["grading"]
    assert grading["reported_model"] == {SERVED_MODEL: 2 * QUESTIONS}
    assert grading["lmms_eval"] == "0.7.3"
    assert len(grading["instructions_sha256"]) == 64
    assert grading["graded"]["first"].startswith("20")


def test_the_prompts_are_those_of_lmms_eval(graded: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own file, its own client, and a plain number: the same prompt, the same reading of the grade, the same mean."""
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    with JudgeServer(by_length) as server:
        monkeypatch.setenv("OPENAI_API_URL", server.url)
        from lmms_eval.tasks.mmvet import utils

        document = {"question_id": "v1", "question": "Which?", "answer": "red<AND>7", "capability": "rec"}
        theirs = utils.mmvet_process_results(document, ["a red 7"])
        again = utils.mmvet_process_results(document, ["a red 8"])
    assert server.prompts[0] == mmvet_prompt("Which?", "red <AND> 7", "a red 7")
    values = [theirs["gpt_eval_score"], again["gpt_eval_score"]]
    grades = [said(by_length(prompt, 0)) for prompt in server.prompts]
    assert [value["score"] for value in values] == grades
    assert utils.mmvet_aggregate_results(values) == pytest.approx(100 * sum(grades) / 2)


def test_scoring_asks_neither_the_model_nor_the_judge(folder: Path, graded: list[str]) -> None:
    """The weights are away and no server runs: the same scores once more."""
    before = read_json(folder / "mmvet.json")
    away = (folder / "weights").rename(folder / "away")
    try:
        evaluate(job(folder, "again.json", "mmvet.graded.json"))
    finally:
        away.rename(folder / "weights")
    again = read_json(folder / "again.json")
    assert {k: v for k, v in again.items() if k != "samples"} == {k: v for k, v in before.items() if k != "samples"}
    assert again["samples"]["sha256"] == before["samples"]["sha256"]


def test_another_judge_grades_the_same_answers_again_without_the_model(folder: Path, graded: list[str]) -> None:
    assert recipe().digest != recipe(Judge(kind="openai", model="other")).digest
    assert recipe().of_answers.digest == recipe(Judge(kind="openai", model="other")).of_answers.digest
    with pytest.raises(EvaluationError, match="holds answers of another judge"):
        evaluate(job(folder, "other.json", "mmvet.graded.json", judge=Judge(kind="openai", model="other")))


def test_answers_of_other_weights_are_refused(folder: Path, graded: list[str]) -> None:
    (folder / "other" / "weights").mkdir(parents=True)
    (folder / "other" / "weights" / "model.safetensors").write_bytes(b"others")
    world.finish(folder / "other" / "weights")
    with pytest.raises(EvaluationError, match="holds answers of another weights"):
        evaluate(job(folder, "x.json", "mmvet.graded.json", checkpoint="other/done.json"))


@pytest.mark.parametrize("text", ["", "[]", '{"passes": {}}', None])
def test_a_file_that_holds_no_recorded_answers_is_named(text: str | None, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "some.json"
    if text is not None:
        path.write_text(text)
    for use in (
        lambda: GradedAnswers(path, recipe(), "d" * 64),
        lambda: grade(path, tmp_path / "out.json", JUDGE, JudgeExecution()),
    ):
        with pytest.raises(EvaluationError, match=r"some\.json (cannot be read|does not hold recorded answers)"):
            use()


def test_what_was_changed_after_it_was_graded_is_refused(folder: Path, graded: list[str]) -> None:
    recorded = GradedAnswers(folder / "mmvet.graded.json", recipe(), read_json(folder / "done.json")["digest"])
    assert recorded(graded[-1])[0] == said(by_length(graded[-1], 0))
    with pytest.raises(EvaluationError, match="an answer or its question is not the one that was graded"):
        recorded(graded[-1].replace(" |", " indeed |"))
    document = read_json(folder / "mmvet.graded.json")
    document["passes"]["seen"]["rows"][3]["answer"] += " and more"
    write_json(folder / "changed.json", document)
    with pytest.raises(EvaluationError, match="an answer or its question is not the one that was graded"):
        evaluate(job(folder, "x.json", "changed.json"))


def test_the_workflow_asks_a_judge_and_keeps_its_key_to_itself(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The three rules on a finished checkpoint of the demo, which is an untrained one here."""
    checkout = world.copy_checkout(tmp_path)
    stage = checkout / "results" / "demo" / "runs" / "demo-llava" / "vdep" / "seed-42" / "finetune"
    stage.mkdir(parents=True)
    shutil.copytree(folder / "weights", stage / "weights")
    shutil.copy(folder / "done.json", stage / "done.json")
    overlay = "judge: {kind: openai, model: gpt-4o}\nbenchmarks: {mmvet: {blind: false}}\n"
    (checkout / "judge.yaml").write_text(overlay)
    scores = "results/demo/evaluations/demo-llava/vdep/seed-42/mmvet.json"
    command = [scores, "--configfile", "config/demo.yaml", "judge.yaml", "--cores", "2"]
    # nothing is trained for this
    command += ["--allowed-rules", "fetch", "answer", "grade", "evaluate"]
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    with JudgeServer(by_length) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        done = snakemake(*command, folder=checkout)
        assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
        answered = read_json(checkout / scores.replace(".json", ".answers.json"))["passes"]["seen"]["rows"]
        # the known pair is graded before the first job and before the first grade
        assert len(server.prompts) == 4 + len({row["rest"] for row in answered})
        assert read_json(checkout / scores)["judge"] == f"gpt-4o (its server says {SERVED_MODEL})"
        asked = len(server.prompts)
        again = snakemake(*command, folder=checkout)
        assert "Nothing to be done" in again.stdout + again.stderr
        assert len(server.prompts) == asked
    printed = done.stdout + done.stderr
    written = [path for path in checkout.rglob("*") if path.is_file() and ".git" not in path.parts]
    assert SECRET not in printed
    assert not [path for path in written if SECRET.encode() in path.read_bytes()]
    assert server.keys == {f"Bearer {SECRET}"}


def test_words_compared_on_this_machine_need_one_step(folder: Path) -> None:
    local = Judge(kind="function", model="vdep_demo.judge:exact_match")
    scores = evaluate(job(folder, "local.json", judge=local))
    assert scores["judge"] == "vdep_demo.judge:exact_match (local)"
    assert 0 <= scores["seen"]["parts"]["score"]["value"] <= 100


def test_without_recorded_grades_a_servers_benchmark_is_not_scored(folder: Path) -> None:
    with pytest.raises(EvaluationError, match="first `vdep record-answers`, then `vdep grade`"):
        evaluate(job(folder, "x.json"))
    with pytest.raises(EvaluationError, match="mmvet needs a judge"):
        evaluate(job(folder, "x.json", judge=None))
