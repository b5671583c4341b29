"""One checkpoint on one benchmark: seen and blind, in one process, validated before anything is published."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..artifacts import AnsweredPass, FinishedStage, SamplesFile, ScoredCheckpoint, Scores
from ..errors import EvaluationError
from ..files import sha256
from ..study.evaluation import SUBMISSION, Benchmark
from ..study.recipe import EvaluationRecipe
from .clusters import check_documents, cluster_keys
from .samples import describe, write_samples
from .submission import take_submission
from .tasks import LMMS_EVAL_VERSION, offline_environment, picture_files, task_config

log = logging.getLogger(__name__)

MOST_EMPTY = 0.1


@dataclass(frozen=True)
class EvaluationJob:
    """What is evaluated, and where everything lies. ``output`` is written last."""

    recipe: EvaluationRecipe
    checkpoint: Path
    """done.json of the SFT."""
    asset: Path
    cache: Path
    output: Path
    """The scores, beside which the samples lie; or the answers, where these are all that is asked for."""
    device: str
    threads: int
    batch_size: int
    graded: Path | None = None
    """Recorded answers and their grades: with them nothing is answered here."""


def evaluate(job: EvaluationJob) -> dict[str, Any]:
    """Run the benchmark, or take its recorded and graded answers, and write its scores, or the file for a server that scores.

    Raises:
        CheckpointError: where the weights are not those that were trained.
        EvaluationError: where anything says that the score cannot be trusted. Nothing is written then but the answers.
    """
    # recorded answers are of the weights that done.json names, and no other weights are looked at
    stage = (FinishedStage.open if job.graded is None else FinishedStage.read)(job.checkpoint)
    judge = job.recipe.judge
    if job.recipe.settings.judged and judge is None:
        raise EvaluationError(f"{job.recipe.benchmark} needs a judge, and its recipe has none")
    if judge is not None and judge.kind == "openai" and job.graded is None:
        raise EvaluationError(
            f"{job.recipe.benchmark} is graded by a server: first `vdep record-answers`, then `vdep grade`, whose file "
            "`--graded` names"
        )
    one_pass = _submission if job.recipe.settings.scorer == SUBMISSION else _one_pass
    with _lmms_eval(job) as scratch:
        from .judged import GradedAnswers, LocalJudge, Recorded

        grader: LocalJudge | GradedAnswers | None = None
        if job.graded is not None:
            grader = GradedAnswers(job.graded, job.recipe, stage.digest)
            model: Any = Recorded(grader)
        else:
            grader = LocalJudge(judge) if judge is not None else None
            model = _model(job, stage)
        task = _task(job, grader)
        passes = {name: one_pass(job, model, task, scratch) for name in _passes(job, model)}
    samples_path = job.output.with_suffix(".samples.jsonl.gz")
    write_samples(samples_path, {name: result["rows"] for name, result in passes.items()})
    scores = Scores(
        benchmark=job.recipe.benchmark,
        recipe=job.recipe.model_dump(mode="json"),
        digest=job.recipe.digest,
        checkpoint=ScoredCheckpoint(
            recipe=stage.recipe, initial_recipe=stage.initial_recipe, weights=stage.digest, versions=stage.versions
        ),
        judge=grader.name if grader else None,
        grading=grader.provenance() if grader else None,
        lmms_eval=LMMS_EVAL_VERSION,
        samples=SamplesFile(file=samples_path.name, sha256=sha256(samples_path)),
        **{name: result["summary"] for name, result in passes.items()},
    )
    scores.write(job.output)
    return scores.content


def answer(job: EvaluationJob) -> None:
    """Have the model answer a benchmark that a server grades, and write down its answers with the prompts for the judge.

    Raises:
        CheckpointError: where the weights are not those that were trained.
        EvaluationError: where answers are missing or empty. Nothing is written then but the answers so far.
    """
    stage = FinishedStage.open(job.checkpoint)
    passes: dict[str, AnsweredPass] = {}
    with _lmms_eval(job) as scratch:
        from .judged import Prompts, recorded_pass, write_answers

        prompts = Prompts()
        task = _task(job, prompts)
        model = _model(job, stage)
        for name in _passes(job, model):
            prompts.collected.clear()
            samples, _ = _answered(job, model, task, scratch)
            passes[name] = recorded_pass(model, [_answer(sample) for sample in samples], prompts.collected)
        write_answers(job.output, job.recipe, stage.digest, passes)


@contextmanager
def _lmms_eval(job: EvaluationJob) -> Iterator[Path]:
    """lmms-eval, imported and kept from the network; yields a folder for what it writes."""
    offline_environment(job.cache)
    import_libraries()
    import torch

    torch.set_num_threads(max(1, job.threads - decoding_threads(job.device, job.threads)))
    _quiet()
    with tempfile.TemporaryDirectory() as scratch:
        yield Path(scratch)


def _passes(job: EvaluationJob, model: Any) -> Iterator[str]:
    """Names each pass that is due, and has the model see, or not."""
    yield "seen"
    if job.recipe.settings.blind:
        model.blind = True
        yield "blind"


def _task(job: EvaluationJob, grader: Any) -> Any:
    from .benchmark import BenchmarkTask
    from .judged import graded_by
    from .scores import check_metric

    benchmark = job.recipe.settings
    config = task_config(benchmark, job.asset)
    if benchmark.scorer != SUBMISSION:
        check_metric(job.recipe.benchmark, benchmark.scorer, [metric["metric"] for metric in config["metric_list"]])
    if grader is not None:
        config["process_results"] = graded_by(config["process_results"], grader)
    task = BenchmarkTask(job.recipe.benchmark, config, job.recipe.evaluation.seed, picture_files(benchmark, job.asset))
    if benchmark.cluster is not None:
        check_documents(job.recipe.benchmark, benchmark.cluster, task.eval_docs)
    return task


def _model(job: EvaluationJob, stage: FinishedStage) -> Any:
    from ..model.llava import DTYPES
    from .lmms_model import VdepModel

    benchmark = job.recipe.settings
    recipe = job.recipe.of_answers
    answers = job.output.parent / "answers" / f"{recipe.benchmark}-{recipe.key}-{stage.digest[:16]}"
    answers.parent.mkdir(parents=True, exist_ok=True)
    return VdepModel(
        stage.weights,
        job.recipe.template,
        job.recipe.image,
        device=job.device,
        dtype=DTYPES[job.recipe.evaluation.precision],
        batch_size=job.batch_size,
        max_new_tokens=benchmark.max_new_tokens,
        answers=answers,
        decoders=decoding_threads(job.device, job.threads),
    )


def decoding_threads(device: str, threads: int) -> int:
    """How many of a job's threads decode pictures: all but one beside a GPU, half of them where the model needs them too."""
    return threads // 2 if device == "cpu" else max(1, threads - 1)


def _one_pass(job: EvaluationJob, model: Any, task: Any, scratch: Path) -> dict[str, Any]:
    from .scores import score_samples

    samples, results = _answered(job, model, task, scratch)
    cluster = job.recipe.settings.cluster
    assert cluster is not None
    keys = cluster_keys(job.recipe.benchmark, cluster, samples, task)
    scored, parts = score_samples(job.recipe.settings.scorer, samples, results, keys)
    empty = sum(not _answer(s).strip() for s in samples)
    rows = [
        {**asdict(s), **_record(job.recipe.settings, sample, model.pictures)} for s, sample in zip(scored, samples, strict=True)
    ]
    clusters = {"by": cluster, "n": len({s.cluster for s in scored})}
    summary: dict[str, Any] = {"parts": parts, "n": len(samples), "empty": empty, "clusters": clusters, **model.summary()}
    return {"summary": summary, "rows": rows}


def _answered(job: EvaluationJob, model: Any, task: Any, scratch: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """One pass through lmms-eval: its samples, validated, and its own results."""
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    seed = job.recipe.evaluation.seed
    _reset_module_totals(task)
    # lmms-eval writes some result files wherever it is, unless it is told where
    arguments = argparse.Namespace(output_path=str(scratch), process_with_media=False, reasoning_tags=None)
    with _stdout_to_stderr():
        results = simple_evaluate(
            model=model,
            tasks=[task],
            task_manager=TaskManager("ERROR", include_defaults=False),
            batch_size=job.batch_size,
            log_samples=True,
            bootstrap_iters=0,
            random_seed=seed,
            numpy_random_seed=seed,
            torch_random_seed=seed,
            fewshot_random_seed=seed,
            cli_args=arguments,
            process_docs_parallel=1,
        )
    (name, samples), *_ = results["samples"].items()
    validate(job.recipe, samples)
    return samples, results["results"][name]


def _submission(job: EvaluationJob, model: Any, task: Any, scratch: Path) -> dict[str, Any]:
    samples, _ = _answered(job, model, task, scratch)
    summary: dict[str, Any] = {"n": len(samples), "empty": sum(not _answer(s).strip() for s in samples)}
    summary["submission"] = take_submission(job.recipe.benchmark, samples, scratch / "submissions", job.output.parent)
    return {"summary": summary, "rows": [{"document": s["doc_id"], "answer": _answer(s)} for s in samples]}


def validate(recipe: EvaluationRecipe, samples: list[dict[str, Any]]) -> None:
    """The right number of samples, and no surge of empty answers.

    Raises:
        EvaluationError: saying what is wrong and what to do.
    """
    expected = recipe.settings.samples
    if not samples or (expected is not None and len(samples) != expected):
        raise EvaluationError(
            f"{recipe.benchmark}: {len(samples)} samples were scored, {expected or 'at least one'} should have been. "
            "The data is another revision, or the run was cut short."
        )
    empty = sum(not _answer(s).strip() for s in samples)
    if empty > MOST_EMPTY * len(samples):
        raise EvaluationError(
            f"{recipe.benchmark}: {empty} of {len(samples)} answers are empty. The checkpoint does not answer: look at its "
            "training log, and at the prompt template of its model."
        )


def _record(benchmark: Benchmark, sample: dict[str, Any], pictures: dict[int, str]) -> dict[str, Any]:
    """What is kept of a question: what it was, what was answered, what is right, and what lmms-eval's metric made of it."""
    from .scores import SCORERS

    target, metric = sample["target"], SCORERS[benchmark.scorer].metric
    if metric == "mme_perception_score" and metric not in sample:
        metric = "mme_cognition_score"
    return {
        **describe(benchmark.task, sample["doc"]),
        "prompt": sample["arguments"][0],
        "pictures": pictures.get(sample["doc_id"], ""),
        "answer": _answer(sample),
        "target": " / ".join(map(str, target)) if isinstance(target, list) else str(target),
        "metric": sample[metric],
    }


def _answer(sample: dict[str, Any]) -> str:
    response = sample["resps"][0] if sample.get("resps") else ""
    while isinstance(response, list):
        response = response[0] if response else ""
    return str(response)


def _reset_module_totals(task: Any) -> None:
    """OCRBench adds its hits up in a global of its module; a second pass would count the first one's too."""
    # each function of a task file is loaded with a module of its own
    for function in (task.config.process_results, *task.aggregation().values()):
        totals: dict[str, int] = getattr(function, "__globals__", {}).get("OCRBench_score") or {}
        for key in totals:
            totals[key] = 0


def import_libraries() -> None:
    """Everything that an evaluation needs, in an order that works. ``offline_environment`` comes first."""
    importlib.import_module("torch")
    # lmms-eval imports it for metrics that no benchmark here asks for, which costs a second; after torch, which looks into
    # every module that is loaded already
    _import_when_used("evaluate")
    # fills lmms-eval's registry of metrics, which tasks look their metrics up in
    for name in ("lmms_eval.api.task", "lmms_eval.api.metrics", "lmms_eval.evaluator"):
        importlib.import_module(name)
    for name in ("lmms_model", "benchmark", "judged", "scores"):
        importlib.import_module(f"{__package__}.{name}")


def _import_when_used(name: str) -> None:
    if name in sys.modules:
        return
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.loader is not None
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Benchmarks print their details; standard output stays clean."""
    before, sys.stdout = sys.stdout, sys.stderr
    try:
        yield
    finally:
        sys.stdout = before


def _quiet() -> None:
    from loguru import logger

    logger.remove()
    logger.add(sys.stderr, level=os.environ.get("VDEP_LMMS_EVAL_LOG", "WARNING"))
