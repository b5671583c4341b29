"""A miniature test set for every benchmark of the paper, in the columns of the real dataset.

The questions are about test scenes, which no training ever saw. Beside the Parquet file lies ``questions.json``: the skill
that each question asks for and the answers that a guesser could give, for the chance level and the report by skill.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import language as words
from .language import Question, ask, ask_yes_no, choices, lettered
from .prompts import chinese
from .scenes import Scene, render, sample_scenes

Row = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """What the report knows about a question: its skill, its answer, and what a guesser could say."""

    skill: str
    answer: str
    candidates: tuple[str, ...]


LETTERS = ("A", "B", "C", "D")
YES_NO = ("Yes", "No")


class Maker:
    """Draws questions of given skills from test scenes, in turn, so that every skill gets its share."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng([seed, 11])
        self.seed = seed
        self._pool: list[Scene] = []
        self._batch = 0

    def scene(self, background: str | None = None, diagram: bool | None = None) -> Scene:
        while True:
            if not self._pool:
                self._batch += 1
                share = 0.9 if diagram else 0.1
                self._pool = sample_scenes(200, "test", self.seed * 1000 + self._batch, diagram_share=share)
            scene = self._pool.pop()
            if diagram is not None and scene.diagram != diagram:
                continue
            if background == "rough" and scene.background == "plain":
                continue
            return scene

    def open(self, skill: str, **wanted: Any) -> tuple[Scene, Question]:
        while True:
            scene = self.scene(**wanted)
            question = ask(scene, skill, self.rng)
            if question is not None:
                return scene, question

    def yes_no(self, skill: str, truth: bool) -> tuple[Scene, Question]:
        while True:
            scene = self.scene()
            question = ask_yes_no(scene, skill, truth, self.rng)
            if question is not None:
                return scene, question

    def pair(self, skill: str) -> tuple[Scene, Question, Question]:
        """One scene with a question to be answered yes and one to be answered no."""
        while True:
            scene = self.scene()
            pair = [ask_yes_no(scene, skill, truth, self.rng) for truth in (True, False)]
            if all(question is not None for question in pair):
                return scene, pair[0], pair[1]  # type: ignore[return-value]


def _candidates(question: Question) -> tuple[str, ...]:
    return tuple(sorted((question.answer, *question.wrong)))


def _open_asked(question: Question) -> Asked:
    return Asked(question.skill, question.answer, _candidates(question))


def _in_turn(skills: tuple[str, ...], count: int) -> list[str]:
    return [skills[i % len(skills)] for i in range(count)]


def okvqa(maker: Maker, count: int) -> tuple[list[Row], list[Asked]]:
    rows: list[Row] = []
    asked: list[Asked] = []
    for i, skill in enumerate(_in_turn(("knowledge", "color", "count", "shape"), count)):
        scene, question = maker.open(skill)
        rows.append(
            {
                "question_id": str(i),
                "image": scene,
                "question": question.text,
                "answers": [question.answer] * 10,
                "question_type": "one",
                "answer_type": "other",
            }
        )
        asked.append(_open_asked(question))
    return rows, asked


def gqa(maker: Maker, count: int) -> tuple[list[Row], list[Asked]]:
    rows: list[Row] = []
    asked: list[Asked] = []
    for i, skill in enumerate(_in_turn(("existence", "position", "color", "relation", "size"), count)):
        scene, question = maker.open(skill)
        rows.append(
            {
                "id": f"{i:08d}",
                "imageId": f"n{i // 2}" if i % 2 and rows and rows[-1]["_scene"] is scene else f"n{i}",
                "_scene": scene,
                "question": question.text,
                "answer": question.answer.lower(),
                "fullAnswer": question.answer,
                "isBalanced": True,
            }
        )
        asked.append(_open_asked(question))
    return rows, asked


def vizwiz(maker: Maker, count: int) -> tuple[list[Row], list[Asked]]:
    from .data import unanswerable

    rows: list[Row] = []
    asked: list[Asked] = []
    for i, skill in enumerate(_in_turn(("digit", "color", "count", "unanswerable", "position"), count)):
        if skill == "unanswerable":
            scene = maker.scene(background="rough")
            question = unanswerable(scene, maker.rng)
        else:
            scene, question = maker.open(skill, background="rough")
        rows.append(
            {
                "question_id": f"VizWiz_val_{i:08d}",
                "image": scene,
                "question": question.text,
                "answers": [question.answer.lower()] * 10,
                "category": "unanswerable" if skill == "unanswerable" else "other",
            }
        )
        asked.append(Asked(skill, question.answer, _candidates(question)))
    return rows, asked


def textvqa(maker: Maker, count: int) -> tuple[list[Row], list[Asked]]:
    rows: list[Row] = []
    asked: list[Asked] = []
    for i, skill in enumerate(_in_turn(("digit", "digit", "label"), count)):
        scene, question = maker.open(skill, diagram=skill == "label")
        rows.append(
            {
                "image_id": f"{i:016x}",
                "question_id": 30000 + i,
                "question": question.text,
                "question_tokens": question.text.lower().removesuffix("?").split(),
                "image": scene,
                "image_width": 48,
                "image_height": 48,
                "flickr_original_url": "",
                "flickr_300k_url": "",
                "answers": [question.answer] * 10,
                "image_classes": [],
                "set_name": "val",
                "ocr_tokens": [str(d.digit) for d in scene.digits],
            }
        )
        asked.append(_open_asked(question))
    return rows, asked


def realworldqa(maker: Maker, count: int) -> tuple[list[Row], list[Asked]]:
    rows: list[Row] = []
    asked: list[Asked] = []
    for i, skill in enumerate(_in_turn(("position", "count", "relation", "position"), count)):
        scene, question = maker.open(skill)
        if skill == "position":
            options, right = choices(question, 4, maker.rng)
            text = f"{question.text}\n{lettered(options)}\n{words.LETTER_ONLY}"
            answer, entry = LETTERS[right], Asked(skill, LETTERS[right], LETTERS)
        else:
            text = f"{question.text}\n{words.WORD_OR_NUMBER}"
            answer, entry = question.answer, _open_asked(question)
        rows.append({"image_path": f"{i}.png", "image": scene, "question": text, "answer": answer})
        asked.append(entry)
    return rows, asked


def _choice(maker: Maker, skill: str, **wanted: Any) -> tuple[Scene, Question, list[str], int]:
    scene, question = maker.open(skill, **wanted)
    while len(question.wrong) < 3:
        scene, question = maker.open(skill, **wanted)
    options, right = choices(question, 4, maker.rng)
    return scene, question, options, right


def scienceqa_img(maker: Maker, count: int) -> tuple[list[Row], list[Asked]]:
    rows: list[Row] = []
    asked: list[Asked] = []
    for i, skill in enumerate(_in_turn(("color", "position", "count", "knowledge"), count)):
        scene, question, options, right = _choice(maker, skill)
        rows.append(
            {
                "image": scene,
                "question": question.text,
                "choices": options,
                "answer": right,
                "hint": words.SCIENCE_HINT if i % 2 else "",
                "task": "closed choice",
                "grade": "grade2",
                "subject": "natural science",
                "topic": "physics",
                "category": "Materials",
                "skill": "Identify properties of an object",
                "lecture": "",
                "solution": "",
            }
        )
        asked.append(Asked(skill, LETTERS[right], LETTERS))
    return rows, asked


def pope(maker: Maker, count: int) -> tuple[list[Row], list[Asked]]:
    rows: list[Row] = []
    asked: list[Asked] = []
    for i in range(count):
        scene, question = maker.yes_no("existence", truth=i % 2 == 0)
        rows.append(
            {
                "id": str(i),
                "question_id": str(i + 1),
                "question": question.text,
                "answer": question.answer.lower(),
                "image_source": f"COCO_val2014_{i:012d}",
                "image": scene,
                "category": ("adversarial", "popular", "random")[i // 2 % 3],
            }
        )
        asked.append(Asked("existence", question.answer, YES_NO))
    return rows, asked


def seedbench_img(maker: Maker, count: int) -> tuple[list[Row], list[Asked]]:
    rows: list[Row] = []
    asked: list[Asked] = []
    for i, skill in enumerate(_in_turn(("color", "count", "position", "shape", "digit"), count)):
        scene, question, options, right = _choice(maker, skill)
        rows.append(
            {
                "answer": LETTERS[right],
                **{f"choice_{letter.lower()}": option for letter, option in zip(LETTERS, options, strict=True)},
                "data_id": f"{i}_0",
                "data_type": "image",
                "question": question.text,
                "question_id": str(i),
                "question_type_id": 1 + i % 9,
                "image": [scene],
                "segment": None,
            }
        )
        asked.append(Asked(skill, LETTERS[right], LETTERS))
    return rows, asked


def ai2d(maker: Maker, count: int) -> tuple[list[Row], list[Asked]]:
    rows: list[Row] = []
    asked: list[Asked] = []
    for _ in range(count):
        scene, question, options, right = _choice(maker, "label", diagram=True)
        rows.append({"question": question.text, "options": options, "answer": str(right), "image": scene})
        asked.append(Asked("label", LETTERS[right], LETTERS))
    return rows, asked


def mmvet(maker: Maker, count: int) -> tuple[list[Row], list[Asked]]:
    capability = {"color": "rec", "digit": "ocr", "position": "rec,spat", "knowledge": "rec,know"}
    rows: list[Row] = []
    asked: list[Asked] = []
    for i, skill in enumerate(_in_turn(tuple(capability), count)):
        scene, question = maker.open(skill)
        rows.append(
            {
                "question_id": f"v1_{i}",
                "image": scene,
                "question": question.text,
                "answer": question.answer,
                "image_source": "demo",
                "capability": capability[skill],
            }
        )
        asked.append(_open_asked(question))
    return rows, asked


def mmmu(maker: Maker, count: int) -> tuple[list[Row], list[Asked]]:
    subjects = {"color": "Art", "count": "Math", "position": "Geography", "label": "Physics"}
    rows: list[Row] = []
    asked: list[Asked] = []
    for i, skill in enumerate(_in_turn(tuple(subjects), count)):
        is_open = skill == "count"
        if is_open:
            scene, question = maker.open(skill)
            options: list[str] = []
            answer, entry = question.answer, _open_asked(question)
        else:
            scene, question, options, right = _choice(maker, skill, diagram=skill == "label")
            answer, entry = LETTERS[right], Asked(skill, LETTERS[right], LETTERS)
        rows.append(
            {
                "id": f"validation_{subjects[skill]}_{i}",
                "question": f"<image 1> {question.text}",
                "options": str(options),
                "explanation": "",
                "image_1": scene,
                **{f"image_{n}": None for n in range(2, 8)},
                "img_type": "['Diagrams']",
                "answer": answer,
                "topic_difficulty": "Easy",
                "question_type": "open" if is_open else "multiple-choice",
                "subfield": "Demo",
            }
        )
        asked.append(entry)
    return rows, asked


def mmt(maker: Maker, count: int) -> tuple[list[Row], list[Asked]]:
    category = {"color": "visual_recognition", "position": "localization", "count": "counting", "digit": "ocr"}
    rows: list[Row] = []
    asked: list[Asked] = []
    for i, skill in enumerate(_in_turn(tuple(category), count)):
        scene, question, options, right = _choice(maker, skill)
        rows.append(
            {
                "index": i,
                "image": scene,
                "question": question.text,
                **dict(zip(LETTERS, options, strict=True)),
                **dict.fromkeys("EFGHI", ""),
                "answer": LETTERS[right],
                "category": skill,
                "l2-category": category[skill],
                "split": "VAL",
            }
        )
        asked.append(Asked(skill, LETTERS[right], LETTERS))
    return rows, asked


def ocrbench(maker: Maker, count: int) -> tuple[list[Row], list[Asked]]:
    rows: list[Row] = []
    asked: list[Asked] = []
    for i in range(count):
        skill = ("digit", "digit", "label")[i % 3]
        scene, question = maker.open(skill, diagram=skill == "label")
        rows.append(
            {
                "dataset": "load_digits",
                "question": question.text,
                "question_type": "Handwriting Recognition" if skill == "digit" else "Scene Text-centric VQA",
                "answer": [question.answer],
                "image": scene,
            }
        )
        asked.append(_open_asked(question))
    return rows, asked


def _rotations(index: int, options: list[str], right: int) -> list[tuple[int, list[str], str]]:
    """MMBench's circular evaluation: the same question with its options turned, at index + k * 1,000,000."""
    n = len(options)
    return [(index + 1_000_000 * k, [options[(j + k) % n] for j in range(n)], LETTERS[(right - k) % n]) for k in range(n)]


def _mmbench_row(index: int, scene: Scene, text: str, options: list[str], answer: str, skill: str) -> Row:
    return {
        "index": index,
        "question": text,
        "hint": None,
        "answer": answer,
        **dict(zip(LETTERS, options, strict=True)),
        "category": skill,
        "image": scene,
        "source": "demo",
        "L2-category": "perception",
        "comment": None,
        "split": "dev",
    }


def mmbench_en(maker: Maker, count: int) -> tuple[list[Row], list[Asked]]:
    rows: list[Row] = []
    asked: list[Asked] = []
    for i, skill in enumerate(_in_turn(("color", "position", "digit", "count"), count // 4)):
        scene, question, options, right = _choice(maker, skill)
        for index, turned, answer in _rotations(i, options, right):
            rows.append(_mmbench_row(index, scene, question.text, turned, answer, skill))
            asked.append(Asked(skill, answer, LETTERS))
    return rows, asked


def mmbench_cn(maker: Maker, count: int) -> tuple[list[Row], list[Asked]]:
    rows: list[Row] = []
    asked: list[Asked] = []
    for i in range(count // 4):
        scene, question = maker.open("color")
        text, letter = chinese(question, maker.rng)
        head, _, rest = text.partition(f" {words.SEVERAL_OPTIONS}\n")
        options = [line.partition(". ")[2] for line in rest.split("\n")[:4]]
        for index, turned, answer in _rotations(i, options, LETTERS.index(letter)):
            rows.append(_mmbench_row(index, scene, head, turned, answer, "color"))
            asked.append(Asked("color", answer, LETTERS))
    return rows, asked


MME_CATEGORIES = {
    "existence": "existence",
    "count": "count",
    "position": "position",
    "color": "color",
    "OCR": "digit",
    "commonsense_reasoning": "knowledge",
}


def mme(maker: Maker, count: int) -> tuple[list[Row], list[Asked]]:
    rows: list[Row] = []
    asked: list[Asked] = []
    for i, (category, skill) in enumerate(_pairs(count // 2)):
        scene, yes, no = maker.pair(skill)
        for question in (yes, no):
            rows.append(
                {
                    "question_id": f"{category}/{i:04d}.png",
                    "image": scene,
                    "question": f"{question.text} {words.YES_OR_NO}",
                    "answer": question.answer,
                    "category": category,
                }
            )
            asked.append(Asked(skill, question.answer, YES_NO))
    return rows, asked


def _pairs(count: int) -> list[tuple[str, str]]:
    found = list(MME_CATEGORIES.items())
    return [found[i % len(found)] for i in range(count)]


MAKERS: dict[str, tuple[str, Callable[[Maker, int], tuple[list[Row], list[Asked]]]]] = {
    "okvqa": ("val2014", okvqa),
    "gqa": ("testdev", gqa),
    "vizwiz": ("val", vizwiz),
    "textvqa": ("validation", textvqa),
    "realworldqa": ("test", realworldqa),
    "scienceqa_img": ("test", scienceqa_img),
    "pope": ("test", pope),
    "seedbench_img": ("test", seedbench_img),
    "ai2d": ("test", ai2d),
    "mmvet": ("test", mmvet),
    "mmmu": ("validation", mmmu),
    "mmt": ("val", mmt),
    "ocrbench": ("test", ocrbench),
    "mmbench_en": ("dev", mmbench_en),
    "mmbench_cn": ("dev", mmbench_cn),
    "mme": ("test", mme),
}


def make_benchmark(folder: Path, name: str, questions: int, seed: int) -> None:
    """Write ``<split>-00000-of-00001.parquet`` and ``questions.json``; GQA has its images in a file of their own."""
    split, maker = MAKERS[name]
    rows, asked = maker(Maker(seed), questions)
    if name == "gqa":
        images = {row["imageId"]: row.pop("_scene") for row in rows}
        _write_parquet(folder / "images-00000-of-00001.parquet", [{"id": k, "image": v} for k, v in images.items()])
    _write_parquet(folder / f"{split}-00000-of-00001.parquet", rows)
    (folder / "questions.json").write_text(
        json.dumps([{"skill": a.skill, "answer": a.answer, "candidates": a.candidates} for a in asked], indent=1) + "\n"
    )


def _png(scene: Scene) -> dict[str, Any]:
    buffer = io.BytesIO()
    render(scene).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def _write_parquet(path: Path, rows: list[Row]) -> None:
    """As ``datasets`` writes it, with the image columns marked as such in the file's metadata."""
    from datasets import Dataset, Features, Image, List, Value

    columns: dict[str, list[Any]] = {key: [] for key in rows[0]}
    features: dict[str, Any] = {}
    for row in rows:
        for key, value in row.items():
            if isinstance(value, Scene):
                features[key], value = Image(), _png(value)
            elif isinstance(value, list) and value and isinstance(value[0], Scene):
                features[key], value = List(Image()), [_png(v) for v in value]
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
