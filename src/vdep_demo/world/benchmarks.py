"""A miniature test set for every benchmark of the paper, in the columns of the real dataset.

Beside the Parquet file lies ``questions.json``: the skill that each question asks for and the answers that a guesser could
give, for the chance level and the report by skill.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import choice_sets, open_sets, pictures
from .questions import Asked, Maker, Row
from .scenes import Scene

MAKERS: dict[str, tuple[str, Callable[[Maker, int], tuple[list[Row], list[Asked]]]]] = {
    "okvqa": ("val2014", open_sets.okvqa),
    "gqa": ("testdev", open_sets.gqa),
    "vizwiz": ("val", open_sets.vizwiz),
    "textvqa": ("validation", open_sets.textvqa),
    "realworldqa": ("test", choice_sets.realworldqa),
    "scienceqa_img": ("test", choice_sets.scienceqa_img),
    "pope": ("test", open_sets.pope),
    "seedbench_img": ("test", choice_sets.seedbench_img),
    "ai2d": ("test", choice_sets.ai2d),
    "mmvet": ("test", open_sets.mmvet),
    "mmmu": ("validation", choice_sets.mmmu),
    "mmt": ("val", choice_sets.mmt),
    "ocrbench": ("test", open_sets.ocrbench),
    "mmbench_en": ("dev", choice_sets.mmbench_en),
    "mmbench_cn": ("dev", choice_sets.mmbench_cn),
    "mme": ("test", open_sets.mme),
}


def make_benchmark(folder: Path, name: str, questions: int, seed: int) -> None:
    """Write ``<split>-00000-of-00001.parquet`` and ``questions.json``; GQA has its images in a file of their own."""
    split, maker = MAKERS[name]
    rows, asked = maker(Maker(seed), questions)
    if name == "gqa":
        images = {row["imageId"]: row.pop("_scene") for row in rows}
        _write_parquet(folder / "images-00000-of-00001.parquet", [{"id": k, "image": v} for k, v in images.items()])
    write_benchmark(folder, split, rows, asked)


def write_benchmark(folder: Path, split: str, rows: list[Row], asked: list[Asked]) -> None:
    """Write ``<split>-00000-of-00001.parquet`` and ``questions.json``."""
    _write_parquet(folder / f"{split}-00000-of-00001.parquet", rows)
    (folder / "questions.json").write_text(
        json.dumps([{"skill": a.skill, "answer": a.answer, "candidates": a.candidates} for a in asked], indent=1) + "\n"
    )


def _picture(scene: Scene) -> dict[str, Any]:
    return {"bytes": pictures.encode(scene), "path": None}


def _write_parquet(path: Path, rows: list[Row]) -> None:
    """As ``datasets`` writes it, with the image columns marked as such in the file's metadata."""
    from datasets import Dataset, Features, Image, List, Value

    columns: dict[str, list[Any]] = {key: [] for key in rows[0]}
    features: dict[str, Any] = {}
    for row in rows:
        for key, value in row.items():
            if isinstance(value, Scene):
                features[key], value = Image(), _picture(value)
            elif isinstance(value, list) and value and isinstance(value[0], Scene):
                features[key], value = List(Image()), [_picture(v) for v in value]
            columns[key].append(value)
    for key, values in columns.items():
        if key.startswith("image_") and key[6:].isdigit():
            features[key] = Image()
        example = next((v for v in values if v is not None), None)
        if key not in features:
            kinds = {bool: "bool", int: "int64", float: "float64"}
            if isinstance(example, list):
                features[key] = List(Value("string"))
            else:
                features[key] = Value(kinds.get(type(example), "string"))
    Dataset.from_dict(columns, features=Features(features)).to_parquet(str(path))
