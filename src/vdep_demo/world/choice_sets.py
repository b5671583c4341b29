"""The demo's test sets with lettered options: in the columns of the real datasets."""

from __future__ import annotations

from typing import Any

from . import language as words
from .language import Question, choices, lettered
from .prompts import chinese
from .questions import LETTERS, Asked, Maker, Row, in_turn, open_asked
from .scenes import Scene


def _choice(maker: Maker, skill: str, **wanted: Any) -> tuple[Scene, Question, list[str], int]:
    scene, question = maker.open(skill, **wanted)
    while len(question.wrong) < 3:
        scene, question = maker.open(skill, **wanted)
    options, right = choices(question, 4, maker.rng)
    return scene, question, options, right


def realworldqa(maker: Maker, count: int) -> tuple[list[Row], list[Asked]]:
    rows: list[Row] = []
    asked: list[Asked] = []
    for i, skill in enumerate(in_turn(("position", "count", "relation", "position"), count)):
        scene, question = maker.open(skill)
        if skill == "position":
            options, right = choices(question, 4, maker.rng)
            text = f"{question.text}\n{lettered(options)}\n{words.LETTER_ONLY}"
            answer, entry = LETTERS[right], Asked(skill, LETTERS[right], LETTERS)
        else:
            text = f"{question.text}\n{words.WORD_OR_NUMBER}"
            answer, entry = question.answer, open_asked(question)
        rows.append({"image_path": f"{i}.png", "image": scene, "question": text, "answer": answer})
        asked.append(entry)
    return rows, asked


def scienceqa_img(maker: Maker, count: int) -> tuple[list[Row], list[Asked]]:
    rows: list[Row] = []
    asked: list[Asked] = []
    for i, skill in enumerate(in_turn(("color", "position", "count", "knowledge"), count)):
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


def seedbench_img(maker: Maker, count: int) -> tuple[list[Row], list[Asked]]:
    rows: list[Row] = []
    asked: list[Asked] = []
    for i, skill in enumerate(in_turn(("color", "count", "position", "shape", "digit"), count)):
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


def mmmu(maker: Maker, count: int) -> tuple[list[Row], list[Asked]]:
    subjects = {"color": "Art", "count": "Math", "position": "Geography", "label": "Physics"}
    rows: list[Row] = []
    asked: list[Asked] = []
    for i, skill in enumerate(in_turn(tuple(subjects), count)):
        is_open = skill == "count"
        if is_open:
            scene, question = maker.open(skill)
            options: list[str] = []
            answer, entry = question.answer, open_asked(question)
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
    for i, skill in enumerate(in_turn(tuple(category), count)):
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
    for i, skill in enumerate(in_turn(("color", "position", "digit", "count"), count // 4)):
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
