"""The benchmarks as lmms-eval defines them, on data of ours.

Prompts, answer extraction and metrics come from lmms-eval's own task files, untouched. What is replaced is where the data
lies (Parquet files of a pinned revision), what would reach out to the network, and what would write submission files for
servers that nobody asks; of a split whose answers are not public, those files are all that there is.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import EvaluationError
from ..study.evaluation import SUBMISSION, Benchmark

if TYPE_CHECKING:
    from .documents import PictureFiles

LMMS_EVAL_VERSION = "0.7.3"


def parquet_files(folder: Path, pattern: str) -> list[str]:
    """Files of an asset that match a pattern, sorted.

    Raises:
        EvaluationError: where there is none.
    """
    paths = sorted(str(path) for path in folder.glob(pattern))
    if not paths:
        raise EvaluationError(f"{folder} holds no file that matches {pattern!r}: download the asset again")
    return paths


def task_config(benchmark: Benchmark, asset: Path) -> dict[str, Any]:
    """lmms-eval's configuration of the task, with the data replaced."""
    import lmms_eval
    from lmms_eval.utils import load_yaml_config

    path = Path(lmms_eval.__file__).parent / "tasks" / benchmark.task
    if not path.is_file():
        raise EvaluationError(f"lmms-eval {LMMS_EVAL_VERSION} has no task file {benchmark.task}")
    config = load_yaml_config(str(path))
    split = config["test_split"]
    if split not in benchmark.files:
        raise EvaluationError(f"{benchmark.task} evaluates the split {split!r}, for which no file is configured")
    config.pop("dataset_name", None)
    config.pop("tag", None)
    config["dataset_path"] = "parquet"
    config["dataset_kwargs"] = {"data_files": {split: parquet_files(asset, benchmark.files[split])}}
    # where a file gives no `until`, lmms-eval adds a blank line, which would cut every answer at its first paragraph
    config["generation_kwargs"] = {"until": [], **(config.get("generation_kwargs") or {})}
    submits = benchmark.scorer == SUBMISSION
    config["metric_list"] = [m for m in config["metric_list"] if (m["metric"] == "submission") == submits]
    if not config["metric_list"]:
        raise EvaluationError(f"{benchmark.task} {'writes no submission' if submits else 'has no score'}: name another scorer")
    adapt = _ADAPTATIONS.get(benchmark.task)
    if adapt is not None:
        adapt(config, benchmark, asset)
    return config


def picture_files(benchmark: Benchmark, asset: Path) -> PictureFiles | None:
    """Where the pictures are, for the one benchmark whose questions do not hold them."""
    if benchmark.task != "gqa/gqa.yaml":
        return None
    from .documents import PictureFiles

    return PictureFiles(parquet_files(asset, benchmark.files["images"]), key="imageId")


def _pictures_apart(config: dict[str, Any], benchmark: Benchmark, asset: Path) -> None:
    """lmms-eval fetches the images of GQA from the hub, and writes one for each of its 31 questions; see ``picture_files``."""
    config.pop("process_docs")


def _several_answers(config: dict[str, Any], benchmark: Benchmark, asset: Path) -> None:
    """These benchmarks have the answers of ten people. lmms-eval logs the word "answer" as the target."""
    config["doc_to_target"] = most_common_answer


def most_common_answer(document: dict[str, Any]) -> str:
    """What most people answered, the first of several that are as frequent."""
    return str(Counter(document["answers"]).most_common(1)[0][0])


def _image_questions_only(config: dict[str, Any], benchmark: Benchmark, asset: Path) -> None:
    """The paper's column is the image half of SEED-Bench; each video row would cost eight images."""
    config["process_docs"] = _only_images
    config["metric_list"] = [m for m in config["metric_list"] if m["metric"] == "seed_image"]


def _only_images(documents: Any) -> Any:
    kinds = documents["data_type"]
    return documents.select([row for row, kind in enumerate(kinds) if kind == "image"])


def _static_mmbench(config: dict[str, Any], benchmark: Benchmark, asset: Path) -> None:
    """Circular evaluation by rules, without a judge; lmms-eval has such a task for the English half only."""
    from lmms_eval.tasks.mmbench.en_utils import mmbench_evaluator

    def aggregate(results: list[dict[str, Any]]) -> float:
        overall, _, _ = mmbench_evaluator.eval_result(results, eval_method="static")
        return float(overall) * 100

    config["metric_list"] = [{"metric": "gpt_eval_score", "aggregation": aggregate, "higher_is_better": True}]


def _fit_for_a_sheet(config: dict[str, Any], benchmark: Benchmark, asset: Path) -> None:
    """What MMBench's server gets is a sheet: it cannot hold control characters, and takes "= 2" for a formula."""
    as_it_is = config["process_results"]

    def process_results(document: dict[str, Any], results: list[str]) -> Any:
        return as_it_is(
            document, [re.sub(r"^[=\s]+|[\x00-\x08\x0b-\x0c\x0e-\x1f\ufffe\uffff]", "", answer) for answer in results]
        )

    config["process_results"] = process_results


_ADAPTATIONS = {
    "ok_vqa/ok_vqa_val2014.yaml": _several_answers,
    "vizwiz_vqa/vizwiz_vqa_val.yaml": _several_answers,
    "textvqa/textvqa_val.yaml": _several_answers,
    "gqa/gqa.yaml": _pictures_apart,
    "seedbench/seedbench.yaml": _image_questions_only,
    "mmbench/mmbench_en_dev_static.yaml": _static_mmbench,
    "mmbench/mmbench_cn_dev.yaml": _static_mmbench,
    "mmbench/mmbench_en_test.yaml": _fit_for_a_sheet,
    "mmbench/mmbench_cn_test.yaml": _fit_for_a_sheet,
}


def offline_environment(cache: Path) -> None:
    """Before lmms-eval is imported: no network, no token, and a cache of our own."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_TOKEN"):
        os.environ.pop(name, None)
    os.environ.update(
        {
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
            "HF_DATASETS_CACHE": str(cache),
            "LMMS_EVAL_DATASETS_CACHE": str(cache),
            "TOKENIZERS_PARALLELISM": "false",
            # MM-Vet's task file cannot be imported without one; who grades is this package's matter
            "OPENAI_API_KEY": "none",
        }
    )
