"""lmms-eval's own ``llava_hf``, unchanged, and this repository's model on the same checkpoint, questions and odd pictures.

    python tests/stock.py CHECKPOINT SCRATCH [QUESTIONS]

compares them on a LLaVA checkpoint that an SFT left (results/demo/runs/demo-llava/baseline/seed-42/finetune/<run>), over ten
benchmarks: first as they answer by themselves, then with answers of sixty tokens.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import answering
import torch
from answering import Rows

TEN = ("gqa", "vizwiz", "textvqa", "scienceqa_img", "pope", "seedbench_img", "ai2d", "mmmu", "ocrbench", "mme")


@dataclass(frozen=True)
class Compared:
    """What the two answered to the same questions; ``tokens`` is the length of each stock answer."""

    stock: list[str]
    ours: list[str]
    tokens: list[int]
    sizes: set[tuple[int, int]]

    @property
    def different(self) -> list[tuple[str, str]]:
        return [(a, b) for a, b in zip(self.stock, self.ours, strict=True) if a != b]


def compare(checkpoint: Path, name: str, questions: int, max_new_tokens: int, scratch: Path) -> Compared:
    """Both at float32, stock one question at a time, ours in batches of eight with pictures decoded ahead.

    Args:
        checkpoint: a LLaVA that prepares pictures by ``pad``.
    """
    from lmms_eval.api.task import ConfigurableTask
    from lmms_eval.models.simple.llava_hf import LlavaHf

    from vdep.evaluation.benchmark import BenchmarkTask
    from vdep.evaluation.lmms_model import VdepModel
    from vdep.evaluation.tasks import picture_files, task_config

    os.environ["HF_DATASETS_CACHE"] = os.environ["LMMS_EVAL_DATASETS_CACHE"] = str(scratch / "cache")
    asset = answering.make(scratch / "data" / name, name, questions, two_pictures if name == "mmmu" else None)
    for path in asset.glob("*.parquet"):
        answering.rewrite(path, answering.oddly)
    settings = answering.benchmark(name)
    config, joined = task_config(settings, asset), picture_files(settings, asset)
    # llava_hf does not apply an `until`, and an untrained model does say "ASSISTANT:"
    config["generation_kwargs"] |= {"max_new_tokens": max_new_tokens, "until": []}
    stock = LlavaHf(pretrained=str(checkpoint), device="cpu", device_map="cpu", dtype="float32", batch_size=1)
    ours = VdepModel(
        checkpoint, "vicuna_v1", "pad", device="cpu", dtype=torch.float32, batch_size=8, decoders=1
    )  # fmt: skip
    their_config = dict(config)
    if joined:
        their_config["process_docs"] = lambda documents: with_pictures(documents, joined.files)
    own = answers(ours, BenchmarkTask(name, config, 0, joined))
    theirs = ConfigurableTask(config=their_config)
    sizes = {image.size for request in _requests(theirs) for image in _pictures(theirs, request)}
    text = answers(stock, theirs)
    return Compared(text, own, [len(ours.tokenizer(t, add_special_tokens=False)["input_ids"]) for t in text], sizes)


def answers(model: Any, task: Any) -> list[str]:
    """What a model of lmms-eval answers to every question of a task, asked as lmms-eval's evaluator asks."""
    model.task_dict[task.config.task] = task.dataset
    return [text.strip() for text in model.generate_until(_requests(task))]


def _requests(task: Any) -> list[Any]:
    task.build_all_requests()
    return list(task.instances)


def _pictures(task: Any, request: Any) -> list[Any]:
    return list(task.doc_to_visual(task.dataset[task.config.test_split][request.args[3]]))


def two_pictures(rows: Rows) -> Rows:
    """MMMU has up to seven: here every third question has two."""
    for number, row in enumerate(rows):
        if number % 3 == 0:
            row["image_2"] = dict(rows[number - 1]["image_1"])
            row["question"] = f"<image 1> <image 2> {row['question'].removeprefix('<image 1> ')}"
    return rows


def with_pictures(documents: Any, files: list[str]) -> Any:
    """GQA as lmms-eval joins it, one picture for each question, for few of them; each is the file that it was."""
    from datasets import Dataset, Features, Image, load_dataset

    pictures = load_dataset("parquet", data_files={"images": files}, split="images")
    of = {row["id"]: row["image"] for row in pictures.cast_column("image", Image(decode=False))}
    return Dataset.from_list(
        [{**row, "image": of[row["imageId"]]} for row in documents],
        features=Features({**documents.features, "image": pictures.features["image"]}),
    )


def lengthened(checkpoint: Path, folder: Path, tokens: int) -> Path:
    """The same checkpoint, whose own generation settings have it say as many tokens."""
    shutil.copytree(checkpoint, folder)
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"min_new_tokens": tokens}))
    return folder


def main(checkpoint: Path, scratch: Path, questions: int = 30) -> None:
    from vdep.evaluation.run import import_libraries
    from vdep.evaluation.tasks import offline_environment

    offline_environment(scratch / "cache")
    import_libraries()
    long = lengthened(checkpoint, scratch / "long", 60)
    asked = different = 0
    for name in TEN:
        for folder, tokens in ((checkpoint, 16), (long, 60)):
            found = compare(folder, name, questions, tokens, scratch / str(tokens))
            asked, different = asked + len(found.stock), different + len(found.different)
            print(
                f"{name:14} up to {tokens} tokens: {len(found.stock)} questions, {len(set(found.stock))} different answers of "
                f"{min(found.tokens)} to {max(found.tokens)} tokens, {len(found.different)} differ {found.different[:1]}",
                flush=True,
            )
    print(f"{asked} questions, {different} answers differ")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:4]))
