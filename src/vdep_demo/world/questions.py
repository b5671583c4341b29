"""Questions about test scenes, which no training ever saw: skill after skill, with what a guesser could say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .language import Question, ask, ask_yes_no
from .scenes import Scene, sample_scenes

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
            yes, no = (ask_yes_no(scene, skill, truth, self.rng) for truth in (True, False))
            if yes is not None and no is not None:
                return scene, yes, no


def candidates(question: Question) -> tuple[str, ...]:
    return tuple(sorted((question.answer, *question.wrong)))


def open_asked(question: Question) -> Asked:
    return Asked(question.skill, question.answer, candidates(question))


def in_turn(skills: tuple[str, ...], count: int) -> list[str]:
    return [skills[i % len(skills)] for i in range(count)]
