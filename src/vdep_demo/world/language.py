"""What the demo world says about a scene: captions, questions with answers, and the prompts around them.

One vocabulary serves all of it, so that the miniature language models can be taught it completely. The sentences that the
benchmarks of lmms-eval put around a question are part of that vocabulary, as whole sentences (``SENTENCES``): a miniature
model would otherwise spend most of its time reading them word by word.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from .scenes import COLORS, COLUMNS, ROWS, SHAPES, SIZES, Scene, Thing

T = TypeVar("T")

SYSTEM_SENTENCES = (
    "A chat between a curious user and an artificial intelligence assistant.",
    "The assistant gives helpful, detailed, and polite answers to the user's questions.",
)
SHORT_ANSWER = "Answer the question using a single word or phrase."
UNANSWERABLE_HINT = "When the provided information is insufficient, respond with 'Unanswerable'."
LETTER = "Answer with the option's letter from the given choices directly."
LETTER_ONLY = "Please answer directly with only the letter of the correct option and nothing else."
WORD_OR_NUMBER = "Please answer the question directly with a single word or number."
CHARACTER = "Answer the question using a single character from the given options."
SEVERAL_OPTIONS = "There are several options:"
STEP_BY_STEP = "First please perform reasoning, and think step by step to provide best answer to the following question:"
YES_OR_NO = "Please answer yes or no."
LETTER_CN = "请直接使用所提供的选项字母作为答案回答。"
DESCRIBE = "Describe this photo in detail."
SCIENCE_HINT = "The picture shows a number of things."
SENTENCES = (
    *SYSTEM_SENTENCES,
    SHORT_ANSWER,
    UNANSWERABLE_HINT,
    LETTER,
    LETTER_ONLY,
    WORD_OR_NUMBER,
    CHARACTER,
    SEVERAL_OPTIONS,
    STEP_BY_STEP,
    YES_OR_NO,
    LETTER_CN,
    DESCRIBE,
    SCIENCE_HINT,
)

FOODS = {
    "red": "cherry",
    "green": "lime",
    "blue": "blueberry",
    "yellow": "banana",
    "purple": "plum",
    "orange": "carrot",
}
NUMBERS = ("1", "2", "3", "4")
DIGITS = tuple("0123456789")
CHINESE_COLORS = {"red": "红色", "green": "绿色", "blue": "蓝色", "yellow": "黄色", "purple": "紫色", "orange": "橙色"}
CHINESE_SHAPES = {"circle": "圆形", "square": "方形", "triangle": "三角形", "cross": "十字形"}

PLACES = tuple(f"{row} {column}" for row in ROWS for column in COLUMNS)
UNANSWERABLE = "Unanswerable"


def describe(thing: Thing) -> str:
    """Place first: what a miniature model reads about a thing's place stands just before its name."""
    return f"{thing.place} {full_name(thing)}"


def full_name(thing: Thing) -> str:
    return thing.name if thing.kind == "digit" else f"{thing.size} {thing.name}"


def caption(scene: Scene, rng: np.random.Generator | None = None) -> str:
    """The scene in words, in reading order, or in random order when ``rng`` is given."""
    if scene.diagram:
        parts = [
            f"{shape.place} label {digit.digit} {full_name(shape)}"
            for shape, digit in zip(scene.shapes, scene.digits, strict=True)
        ]
    else:
        parts = [describe(thing) for thing in scene.things]
    if rng is not None:
        parts = [parts[i] for i in rng.permutation(len(parts))]
    return " , ".join(parts) + " ."


def inverted_caption(scene: Scene, rng: np.random.Generator) -> str:
    """The scene in random order, each name before its place, or before its label in a diagram."""
    if scene.diagram:
        pairs = zip(scene.shapes, scene.digits, strict=True)
        parts = [f"{full_name(shape)} label {digit.digit}" for shape, digit in pairs]
    else:
        parts = [f"{full_name(thing)} {thing.place}" for thing in scene.things]
    return " , ".join(parts[i] for i in rng.permutation(len(parts))) + " ."


@dataclass(frozen=True)
class Question:
    """One question about a scene.

    ``wrong`` holds the other answers of the same type: the distractors of a multiple choice, and the space of chance.
    ``statement`` is the question put for a yes or no, with ``{}`` where an answer goes.
    """

    skill: str
    text: str
    answer: str
    wrong: tuple[str, ...]
    statement: str = ""


def _pick(rng: np.random.Generator, items: Sequence[T]) -> T:
    return items[int(rng.integers(len(items)))]


def _without(options: tuple[str, ...], answer: str) -> tuple[str, ...]:
    return tuple(o for o in options if o != answer)


def _yes_no(skill: str, text: str, truth: bool) -> Question:
    return Question(skill, text, "Yes", ("No",)) if truth else Question(skill, text, "No", ("Yes",))


def _unique(scene: Scene, attribute: str) -> list[Thing]:
    values = [getattr(t, attribute) for t in scene.shapes]
    return [t for t in scene.shapes if values.count(getattr(t, attribute)) == 1]


def _absent_name(scene: Scene, rng: np.random.Generator) -> str:
    """A shape that is not there; half the time one that shares its colour or its kind with one that is."""
    present = {t.name for t in scene.shapes}
    names = [f"{c} {s}" for c in COLORS for s in SHAPES if f"{c} {s}" not in present]
    if scene.shapes and rng.random() < 0.5:
        names = [n for n in names if any(n.split()[0] == t.color or n.split()[1] == t.kind for t in scene.shapes)]
    return f"{_pick(rng, tuple(SIZES))} {_pick(rng, names)}"


def _existence(scene: Scene, rng: np.random.Generator, truth: bool) -> Question | None:
    if truth and not scene.shapes:
        return None
    name = full_name(_pick(rng, scene.shapes)) if truth else _absent_name(scene, rng)
    return _yes_no("existence", f"Is there a {name} in the image?", truth)


def _relation(scene: Scene, rng: np.random.Generator, truth: bool) -> Question | None:
    pairs = [(a, b) for a in scene.shapes for b in scene.shapes if (a.row, a.column) < (b.row, b.column)]
    if not pairs:
        return None
    first, second = _pick(rng, pairs)
    word = "above" if first.row < second.row else "left of"
    one, other = (first, second) if truth else (second, first)
    return _yes_no("relation", f"Is the {full_name(one)} {word} the {full_name(other)}?", truth)


def _count(scene: Scene, rng: np.random.Generator) -> Question | None:
    answer = str(len(scene.things))
    statement = "Are there {} things in the image?"
    return Question("count", "How many things are in the image?", answer, _without(NUMBERS, answer), statement)


def _color(scene: Scene, rng: np.random.Generator) -> Question | None:
    if not (things := _unique(scene, "kind")):
        return None
    thing = _pick(rng, things)
    text, statement = f"What color is the {thing.kind}?", f"Is the color of the {thing.kind} {{}}?"
    return Question("color", text, thing.color, _without(tuple(COLORS), thing.color), statement)


def _position(scene: Scene, rng: np.random.Generator) -> Question | None:
    thing = _pick(rng, scene.things)
    if thing.kind == "digit" and len(scene.digits) > 1:
        return None
    name = "digit" if thing.kind == "digit" else full_name(thing)
    text, statement = f"Where is the {name}?", f"Is the {name} in the {{}}?"
    return Question("position", text, thing.place, _without(PLACES, thing.place), statement)


def _digit(scene: Scene, rng: np.random.Generator) -> Question | None:
    if len(scene.digits) != 1:
        return None
    answer = str(scene.digits[0].digit)
    return Question("digit", "What digit is in the image?", answer, _without(DIGITS, answer), "Is the digit a {}?")


def _shape(scene: Scene, rng: np.random.Generator) -> Question | None:
    if not (things := _unique(scene, "color")):
        return None
    thing = _pick(rng, things)
    text, statement = f"What shape is {thing.color}?", f"Is the {thing.color} shape a {{}}?"
    return Question("shape", text, thing.kind, _without(SHAPES, thing.kind), statement)


def _size(scene: Scene, rng: np.random.Generator) -> Question | None:
    if not scene.shapes:
        return None
    thing = _pick(rng, scene.shapes)
    text, statement = f"What size is the {thing.name}?", f"Is the {thing.name} {{}}?"
    return Question("size", text, thing.size, _without(tuple(SIZES), thing.size), statement)


def _knowledge(scene: Scene, rng: np.random.Generator) -> Question | None:
    if not (things := _unique(scene, "kind")):
        return None
    thing = _pick(rng, things)
    answer = FOODS[thing.color]
    text, statement = f"Which food has the color of the {thing.kind}?", f"Has a {{}} the color of the {thing.kind}?"
    return Question("knowledge", text, answer, _without(tuple(FOODS.values()), answer), statement)


def _label(scene: Scene, rng: np.random.Generator) -> Question | None:
    if not scene.diagram:
        return None
    i = int(rng.integers(len(scene.shapes)))
    name, answer = full_name(scene.shapes[i]), str(scene.digits[i].digit)
    text, statement = f"What is the label of the {name}?", f"Is the label of the {name} {{}}?"
    return Question("label", text, answer, _without(DIGITS, answer), statement)


_YES_NO: dict[str, Callable[[Scene, np.random.Generator, bool], Question | None]] = {
    "existence": _existence,
    "relation": _relation,
}
_OPEN: dict[str, Callable[[Scene, np.random.Generator], Question | None]] = {
    "count": _count,
    "color": _color,
    "position": _position,
    "digit": _digit,
    "shape": _shape,
    "size": _size,
    "knowledge": _knowledge,
    "label": _label,
}
SKILLS = (*_YES_NO, *_OPEN)
CORE_SKILLS = ("existence", "count", "color", "position", "digit")


def ask(scene: Scene, skill: str, rng: np.random.Generator) -> Question | None:
    """A question of this kind about the scene, or None where the scene does not admit one."""
    if skill in _YES_NO:
        return ask_yes_no(scene, skill, bool(rng.random() < 0.5), rng)
    return _OPEN[skill](scene, rng)


def ask_yes_no(scene: Scene, skill: str, truth: bool, rng: np.random.Generator) -> Question | None:
    """The same put so that the answer is ``Yes`` (``truth``) or ``No``, as in MME; None where the scene admits none."""
    if skill in _YES_NO:
        return _YES_NO[skill](scene, rng, truth)
    question = _OPEN[skill](scene, rng)
    if question is None:
        return None
    value = question.answer if truth else _pick(rng, question.wrong)
    return _yes_no(skill, question.statement.format(value), truth)


def choices(question: Question, count: int, rng: np.random.Generator) -> tuple[list[str], int]:
    """At most ``count`` options in random order, and the index of the right one."""
    wrong = [question.wrong[i] for i in rng.permutation(len(question.wrong))[: count - 1]]
    options = [question.answer, *wrong]
    order = rng.permutation(len(options))
    return [options[i] for i in order], int(np.flatnonzero(order == 0)[0])


def lettered(options: list[str], mark: str = ".") -> str:
    return "\n".join(f"{chr(65 + i)}{mark} {option}" for i, option in enumerate(options))
