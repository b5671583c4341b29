"""The demo's test sets whose answers are words, numbers, yes or no: in the columns of the real datasets."""

from __future__ import annotations

from . import language as words
from . import pictures
from .language import Question
from .questions import YES_NO, Asked, Maker, Row, candidates, in_turn, open_asked
from .scenes import Scene


def okvqa(maker: Maker, count: int) -> tuple[list[Row], list[Asked]]:
    rows: list[Row] = []
    asked: list[Asked] = []
    for i, skill in enumerate(in_turn(("knowledge", "color", "count", "shape"), count)):
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
        asked.append(open_asked(question))
    return rows, asked


def gqa(maker: Maker, count: int) -> tuple[list[Row], list[Asked]]:
    rows: list[Row] = []
    asked: list[Asked] = []
    for i, skill in enumerate(in_turn(("existence", "position", "color", "relation", "size"), count)):
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
        asked.append(open_asked(question))
    return rows, asked


def vizwiz(maker: Maker, count: int) -> tuple[list[Row], list[Asked]]:
    from .data import unanswerable

    rows: list[Row] = []
    asked: list[Asked] = []
    for i, skill in enumerate(in_turn(("digit", "color", "count", "unanswerable", "position"), count)):
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
        asked.append(Asked(skill, question.answer, candidates(question)))
    return rows, asked


def textvqa(maker: Maker, count: int) -> tuple[list[Row], list[Asked]]:
    rows: list[Row] = []
    asked: list[Asked] = []
    for i, skill in enumerate(in_turn(("digit", "digit", "label"), count)):
        scene, question = maker.open(skill, diagram=skill == "label")
        rows.append(textvqa_row(i, scene, question))
        asked.append(open_asked(question))
    return rows, asked


def textvqa_row(number: int, scene: Scene, question: Question) -> Row:
    width, height = pictures.form(scene).size
    return {
        "image_id": f"{number:016x}",
        "question_id": 30000 + number,
        "question": question.text,
        "question_tokens": question.text.lower().removesuffix("?").split(),
        "image": scene,
        "image_width": width,
        "image_height": height,
        "flickr_original_url": "",
        "flickr_300k_url": "",
        "answers": [question.answer] * 10,
        "image_classes": [],
        "set_name": "val",
        "ocr_tokens": [str(d.digit) for d in scene.digits],
    }


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


def mmvet(maker: Maker, count: int) -> tuple[list[Row], list[Asked]]:
    capability = {"color": "rec", "digit": "ocr", "position": "rec,spat", "knowledge": "rec,know"}
    rows: list[Row] = []
    asked: list[Asked] = []
    for i, skill in enumerate(in_turn(tuple(capability), count)):
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
        asked.append(open_asked(question))
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
        asked.append(open_asked(question))
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
