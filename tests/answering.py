"""Benchmarks and checkpoints for tests of the evaluation, and other pictures than the demo's for them."""

from __future__ import annotations

import io
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
import world
import yaml
from PIL import Image

from vdep.data.tokenizer import load_tokenizer
from vdep.evaluation.run import EvaluationJob
from vdep.model.export import export_checkpoint
from vdep.model.llava import build_model
from vdep.study.evaluation import SUBMISSION, Benchmark, EvaluationSettings, Judge
from vdep.study.recipe import EvaluationRecipe
from vdep_demo.world.benchmarks import make_benchmark

Rows = list[dict[str, Any]]


def benchmark(name: str, **changes: Any) -> Benchmark:
    """A benchmark as the demo configures it, with other settings."""
    settings: dict[str, Any] = {}
    for file in ("benchmarks", "demo"):
        settings |= yaml.safe_load((world.ROOT / "config" / f"{file}.yaml").read_text())["benchmarks"][name]
    return Benchmark(**{**settings, "samples": None, "blind": False, **changes})


def all_benchmarks() -> dict[str, Benchmark]:
    """The sixteen, as they are at full size."""
    found = yaml.safe_load((world.ROOT / "config" / "benchmarks.yaml").read_text())["benchmarks"]
    return {name: Benchmark(**settings) for name, settings in found.items() if settings["scorer"] != SUBMISSION}


def export(
    assets: Path, folder: Path, family: str = "llama", change: Callable[[Any], None] | None = None, **finished: str
) -> Path:
    """An untrained checkpoint of the tiny world; ``change`` gets the model before it is saved. Returns its ``done.json``."""
    tower, _ = world.FAMILIES[family]
    study = world.make_study(family)
    model = build_model(assets / tower, assets / family, study.models["tiny"].vision_tower, torch.float32, 3)
    if change is not None:
        change(model)
    image = study.stage("tiny", "run", "finetune").image
    export_checkpoint(model, assets / tower, assets / family, image, folder / "run")
    return world.finish(folder / "run", **finished)


def taught(assets: Path, folder: Path, question: str, answer: str) -> Path:
    """A checkpoint that gives one answer, letter by letter, to MM-Vet's prompt with this question, whatever the picture.

    Its tokenizer has the words, spaces and newlines of these two texts alone.
    """
    import re

    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    from vdep.data.conversation import IGNORE_INDEX, IMAGE_INDEX, TEMPLATES, encode_conversation
    from vdep.model.llava import load_checkpoint

    before = "First please perform reasoning, and think step by step to provide best answer to the following question: \n\n"
    asked = before + question
    piece = r"\n|[^\S\n]|[^\s]+"
    template = TEMPLATES["vicuna_v1"]
    words = re.findall(piece, f"{template.system} USER: {asked} ASSISTANT: {answer}")
    vocabulary = dict.fromkeys(["<unk>", "<s>", "</s>", *words])
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(piece), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    own = folder / "assets"
    shutil.copytree(assets / "llama", own / "llama")
    shutil.copytree(assets / "clip", own / "clip")
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(own / "llama")
    export(own, folder)
    model = load_checkpoint(folder / "run", torch.float32)
    encoded = encode_conversation(
        [{"from": "human", "value": f"<image>\n{asked}"}, {"from": "gpt", "value": answer}],
        True, template, load_tokenizer(folder / "run"), world.IMAGE_TOKENS, 2048,
    )  # fmt: skip
    repeats = torch.where(torch.from_numpy(encoded.input_ids) == IMAGE_INDEX, world.IMAGE_TOKENS, 1)
    ids = torch.from_numpy(encoded.input_ids).long().repeat_interleave(repeats)
    labels = torch.from_numpy(encoded.labels).long().repeat_interleave(repeats)
    ids[ids == IMAGE_INDEX] = model.config.image_token_index
    optimizer = torch.optim.AdamW(model.model.language_model.parameters(), lr=3e-3)
    optimizer.add_param_group({"params": model.lm_head.parameters()})
    torch.manual_seed(0)
    for _ in range(150):
        pixels = torch.randn(2, 3, 48, 48)
        loss = model(input_ids=ids.repeat(2, 1), pixel_values=pixels, labels=labels.repeat(2, 1)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert (labels != IGNORE_INDEX).sum() > 20
    assert loss < 0.05, "it has learned its answer"
    model.save_pretrained(folder / "run")
    return world.finish(folder / "run")


def job(done: Path, asset: Path, name: str, folder: Path, family: str = "llama", **changes: Any) -> EvaluationJob:
    """An evaluation of ``done`` on the data in ``asset``; its scores and answers come into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    batch_size, threads = changes.pop("batch_size", 8), changes.pop("threads", 1)
    settings = benchmark(name, **{"max_new_tokens": 6, **changes})
    recipe = EvaluationRecipe(
        benchmark=name,
        settings=settings,
        source={},
        template=world.FAMILIES[family][1],
        image=world.make_study(family).stage("tiny", "run", "finetune").image,
        evaluation=EvaluationSettings(precision="float32"),
        judge=Judge(kind="function", model="vdep_demo.judge:exact_match") if settings.judged else None,
    )
    return EvaluationJob(
        recipe=recipe, checkpoint=done, asset=asset, cache=folder / "cache", output=folder / f"{name}.json",
        device="cpu", threads=threads, batch_size=batch_size,
    )  # fmt: skip


def make(folder: Path, name: str, questions: int, change: Callable[[Rows], Rows] | None = None) -> Path:
    """The demo's test set of a benchmark, and what ``change`` makes of its rows."""
    folder.mkdir(parents=True, exist_ok=True)
    make_benchmark(folder, name, questions, 5)
    if change is not None:
        (file,) = (path for path in folder.glob("*.parquet") if not path.name.startswith("images"))
        rewrite(file, change)
    return folder


def rewrite(path: Path, change: Callable[[Rows], Rows]) -> None:
    """Write a Parquet file anew, with other rows in the same columns; what the rows have no more is no column any more.

    A picture may become a list of pictures, as in MMT-Bench.
    """
    from datasets import Dataset, Features, Image, List

    table = pq.read_table(path)
    rows = change(table.to_pylist())
    features = Features.from_arrow_schema(table.schema)
    features = Features({name: feature for name, feature in features.items() if name in rows[0]})
    features |= {
        name: List(Image()) for name in features if isinstance(features[name], Image) and isinstance(rows[0][name], list)
    }
    path.unlink()
    columns = {name: [row[name] for row in rows] for name in features}
    # row groups of a hundred, as the hub's files with pictures have them: one is read at a time
    Dataset.from_dict(columns, features=features).to_parquet(str(path), batch_size=100)


def pictures_of(row: dict[str, Any]) -> Iterator[tuple[str, int | None, dict[str, Any]]]:
    """Every picture of a row: its column, its place in the column's list, and what Parquet holds."""
    for column, value in row.items():
        if isinstance(value, dict) and "bytes" in value:
            yield column, None, value
        elif isinstance(value, list) and value and isinstance(value[0], dict) and "bytes" in value[0]:
            yield from ((column, place, item) for place, item in enumerate(value))


def with_comment(jpeg: bytes, comment: str) -> bytes:
    """The same picture in another file: a JPEG with a comment behind its first marker."""
    text = comment.encode()
    return jpeg[:2] + b"\xff\xfe" + struct.pack(">H", len(text) + 2) + text + jpeg[2:]


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def odd(data: bytes, number: int) -> bytes:
    """A picture in one of seven other forms: tall, wide, large, turned by its camera, grey, CMYK, with a palette.

    None is transparent: today's stock processor lays that onto white, LLaVA's and ours ignore it (docs/decisions.md).
    """
    with Image.open(io.BytesIO(data)) as image:
        image = image.convert("RGB")
    if image.info.pop("transparency", None) is not None:
        data = encoded(image)
    width, height = image.size
    kind = number % 8
    if kind == 1:
        return encoded(image.crop((0, 0, width * 2 // 5, height)))
    if kind == 2:
        return encoded(image.crop((0, 0, width, height // 2)), "JPEG")
    if kind == 3:
        return encoded(image.resize((1224, 1632), Image.Resampling.BICUBIC), "JPEG")
    if kind == 4:
        exif = Image.Exif()
        exif[0x0112] = 6
        return encoded(image.resize((90, 60)), "JPEG", exif=exif)
    if kind == 5:
        return encoded(image.convert("L"))
    if kind == 6:
        return encoded(image.convert("CMYK"), "JPEG")
    if kind == 7:
        return encoded(image.quantize(16))
    return data


def oddly(rows: Rows) -> Rows:
    """``odd`` for every picture of some rows."""
    for number, row in enumerate(rows):
        for _, _, value in pictures_of(row):
            value["bytes"] = odd(value["bytes"], number)
    return rows


def large_jpegs(count: int) -> list[bytes]:
    """Different pictures of 1224 x 1632, as a phone takes them."""
    from vdep_demo.world.scenes import render, sample_scenes

    scenes = [render(scene) for scene in sample_scenes(count, "test", 9)]
    return [encoded(image.resize((1224, 1632), Image.Resampling.BICUBIC), "JPEG") for image in scenes]


def stand_in(folder: Path, name: str, count: int) -> Path:
    """A test set of ``count`` large pictures, each another file: six pictures, three questions, so 18 that really differ."""
    jpegs = large_jpegs(6)

    def change(rows: Rows) -> Rows:
        made = []
        for number in range(count):
            picture = {"bytes": with_comment(jpegs[number % 6], f"picture {number}"), "path": None}
            row = rows[number // 6 % 3]
            image = [picture] if isinstance(row["image"], list) else picture
            made.append({**row, "question_id": str(number), "image": image})
        return made

    return make(folder, name, 3, change)


def read_rows(scores: Path) -> Rows:
    from vdep.evaluation.samples import read_samples

    return read_samples(scores.with_suffix(".samples.jsonl.gz"))
