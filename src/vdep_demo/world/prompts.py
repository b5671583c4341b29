"""How a question of the demo world is put: plainly, as a multiple choice, or with the words of a benchmark's prompt.

LLaVA's mix-665K teaches the very response formats that the benchmarks ask for; the demo's conversations do the same.
"""

from __future__ import annotations

import numpy as np

from . import language as words
from .language import Question, choices, lettered

OPEN_STYLES = ("plain", "short", "hint", "number", "steps")
CHOICE_STYLES = ("letter", "letter_only", "character", "several", "context")


def chinese(question: Question, rng: np.random.Generator) -> tuple[str, str]:
    """A colour question as MMBench-CN would put it."""
    options, right = choices(question, 4, rng)
    shape = words.CHINESE_SHAPES[question.text.removesuffix("?").split()[-1]]
    translated = [words.CHINESE_COLORS[o] for o in options]
    text = f"图中{shape}是什么颜色？ {words.SEVERAL_OPTIONS}\n{lettered(translated)}\n\n{words.LETTER_CN}"
    return text, chr(65 + right)


def pose(question: Question, style: str, rng: np.random.Generator) -> tuple[str, str]:
    """(what the user says, what the assistant answers).

    Raises:
        ValueError: for a style that does not exist.
    """
    text, answer = question.text, question.answer
    if style == "plain":
        return text, answer
    if style == "short":
        return f"{text}\n{words.SHORT_ANSWER}", answer
    if style == "hint":
        return f"{text}\n{words.UNANSWERABLE_HINT}\n{words.SHORT_ANSWER}", answer
    if style == "number":
        return f"{text}\n{words.WORD_OR_NUMBER}", answer
    if style == "steps":
        return f"{words.STEP_BY_STEP} \n\n{text}", answer
    if style == "chinese":
        return chinese(question, rng)
    options, right = choices(question, 4, rng)
    letter = chr(65 + right)
    if style == "letter":
        return f"{text}\n{lettered(options)}\n{words.LETTER}", letter
    if style == "letter_only":
        return f"{text}\n{lettered(options)}\n{words.LETTER_ONLY}", letter
    if style == "character":
        return f"Question: {text}\n{lettered(options, ':')}\n{words.CHARACTER}", letter
    if style == "several":
        return f"{text} {words.SEVERAL_OPTIONS}\n{lettered(options)}\n\n{words.LETTER}", letter
    if style == "context":
        return f"Context: {words.SCIENCE_HINT}\n{text}\n{lettered(options)}\n{words.LETTER}", letter
    raise ValueError(f"unknown style of question: {style!r}")


def random_style(question: Question, rng: np.random.Generator, choice_share: float = 0.4) -> str:
    if question.skill == "color" and rng.random() < 0.15:
        return "chinese"
    styles = CHOICE_STYLES if rng.random() < choice_share else OPEN_STYLES
    return styles[int(rng.integers(len(styles)))]
