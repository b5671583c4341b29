"""Answering a benchmark: this repository's batched model class, against lmms-eval's own ``llava_hf`` at batch size 1.

The same checkpoint (the demo's base weights with an untrained projector), the same questions, the same answers, checked.
Both run in this process, after all imports, through lmms-eval's evaluator.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from common import Claim, arguments, report

from vdep.evaluation.tasks import offline_environment, task_config
from vdep.model.export import export_checkpoint
from vdep.model.llava import build_model
from vdep.study.evaluation import Benchmark
from vdep.study.settings import VisionTower
from vdep_demo.base_weights.make import SHIPPED
from vdep_demo.world.benchmarks import make_benchmark

QUESTIONS = 120
BENCHMARK = Benchmark(
    asset="pope", task="pope/pope.yaml", files={"test": "test-*.parquet"}, scorer="f1", cluster="image_source"
)


def main() -> None:
    device, dtype, _ = arguments(__doc__)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        offline_environment(folder / "cache")
        import lmms_eval.evaluator
        from lmms_eval.api.task import ConfigurableTask
        from lmms_eval.models.simple.llava_hf import LlavaHf

        from vdep.evaluation.benchmark import BenchmarkTask
        from vdep.evaluation.lmms_model import VdepModel

        tower = VisionTower(weights="clip", image_tokens=36)
        model = build_model(SHIPPED / "clip", SHIPPED / "llama", tower, torch.float32, 3)
        export_checkpoint(model, SHIPPED / "clip", SHIPPED / "llama", "pad", folder / "checkpoint")
        (folder / "data").mkdir()
        make_benchmark(folder / "data", "pope", QUESTIONS, 5)
        stock = LlavaHf(
            pretrained=str(folder / "checkpoint"), device=str(device), device_map=str(device),
            dtype=str(dtype).removeprefix("torch."), batch_size=1,
        )  # fmt: skip
        ours = VdepModel(
            folder / "checkpoint", "vicuna_v1", "pad", device=str(device), dtype=dtype, batch_size=64, max_new_tokens=6
        )
        seconds, answers = {}, {}
        for name, lmms in (("ours, warming up", ours), ("stock", stock), ("ours", ours)):
            config = task_config(BENCHMARK, folder / "data")
            task = ConfigurableTask(config=config) if lmms is stock else BenchmarkTask("pope", config, seed=0)
            task.config.generation_kwargs["max_new_tokens"] = 6
            started = time.perf_counter()
            results: Any = lmms_eval.evaluator.simple_evaluate(
                model=lmms, tasks=[task], task_manager=lmms_eval.tasks.TaskManager("ERROR", include_defaults=False),
                log_samples=True, bootstrap_iters=0, process_docs_parallel=1,
            )  # fmt: skip
            seconds[name] = time.perf_counter() - started
            answers[name] = [sample["resps"][0][0].strip() for sample in results["samples"]["pope"]]
    if answers["ours"] != answers["stock"]:
        raise SystemExit("the answers differ: the comparison would be of two different things")
    report(
        [Claim("batched evaluation over llava_hf at batch 1, same answers", seconds["stock"] / seconds["ours"], 3.0)],
        seconds={name: round(value, 2) for name, value in seconds.items()},
        questions=QUESTIONS,
    )


if __name__ == "__main__":
    main()
