"""What the demo's language models are taught: the texts of the demo world, and which tokens of them count.

A scene is told as a caption, or as a *map*: one token for each patch of a picture of it, in raster order, whose embedding is
the sum of those of its place and of what is there. Maps are what a good projector makes of a picture. So the language model
never sees a picture and yet can read what a projector may come to write. In the last course most maps are disturbed in the
ways in which a projector's output differs from a sum of embeddings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from ..world import language as words
from ..world.data import unanswerable
from ..world.language import CORE_SKILLS, SKILLS, Question, ask, ask_yes_no, caption, inverted_caption, lettered
from ..world.prompts import OPEN_STYLES, pose, random_style
from ..world.scenes import COLORS, COLUMNS, GRID, ROWS, SHAPES, SIZES, Scene
from . import tokenizer as world_tokenizer

SYSTEM = " ".join(words.SYSTEM_SENTENCES)
UNSUPERVISED = 0.01
"""Weight of the text that nothing could predict; answers weigh 1. With more, its noise drowns the look-ups."""
PATCHES_A_CELL = 2
COURSES: dict[str, dict[str, float]] = {
    "look-ups": {"look_ups": 1.0},
    "options": {"options": 0.8, "look_ups": 0.2},
    "plain": {"options": 0.1, "look_ups": 0.3, "plain": 0.6},
    "mixed": {"options": 0.1, "look_ups": 0.1, "restatement": 0.1, "plain": 0.15, "posed": 0.55},
    "disturbed": {"options": 0.1, "look_ups": 0.1, "restatement": 0.1, "plain": 0.15, "posed": 0.55},
}
"""Shares of the kinds of documents. What takes several steps of attention is learned after its parts, each almost alone."""
DISTURBED = {"disturbed": 0.8}
"""Share of the maps of a course that are disturbed."""
_NAMES = tuple(f"{size} {color} {shape}" for size in SIZES for color in COLORS for shape in SHAPES)
_VALUES = tuple(
    tuple(group) for group in (COLORS, SHAPES, words.PLACES, words.DIGITS, words.FOODS.values(), words.NUMBERS, _NAMES)
)


class Disturbance(NamedTuple):
    """What makes a map more like a projector's output. Lengths are in those of its undisturbed patches."""

    scale: float
    """All patches are as many times longer: a projector's output is 20 to 30 times as long as the embedding of a word."""
    offset: float
    """Length of one vector that is added to all patches: half of what a projector writes is the same everywhere."""
    noise: float
    """Length of the vectors that are added to each patch."""

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Disturbance:
        return cls(math.exp(rng.uniform(0, math.log(30))), rng.uniform(0, 1.2), rng.uniform(0, 0.5))


@dataclass
class Document:
    """Token ids, how much predicting each of them counts, and the token whose embedding is added to its own (-1: none).

    ``patches`` is where the map stands, if there is one.
    """

    ids: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    added: list[int] = field(default_factory=list)
    patches: slice | None = None
    disturbance: Disturbance | None = None

    def write(self, ids: list[int], weight: float, added: list[int] | None = None) -> None:
        if added is not None:
            self.patches = slice(len(self.ids), len(self.ids) + len(ids))
        self.ids += ids
        self.weights += [weight] * len(ids)
        self.added += added or [-1] * len(ids)


class Writer:
    """Writes documents about scenes.

    Args:
        tokens: the tokenizer: ``llama``, ``phi`` or ``words``.
    """

    def __init__(self, tokens: str, scenes: list[Scene], seed: int) -> None:
        self.tokenizer: Tokenizer = world_tokenizer.build(tokens)
        self.tokens = tokens
        self.start = [] if tokens == "phi" else [1]
        self.end = 0 if tokens == "phi" else 2
        self.scenes = scenes
        self.rng = np.random.default_rng([seed, 5])

    def ids(self, text: str, goes_on: bool = False) -> list[int]:
        """The tokens of a text at the beginning, after a space, a picture or an end token; with ``goes_on``, of one right
        after another text."""
        if goes_on:
            before = self.ids("\n")
            return self.ids(f"\n{text}")[len(before) :]
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def lesson(self, course: str) -> Document:
        """One document of a course (a key of ``COURSES``)."""
        document = self._document(course)
        if course in DISTURBED and document.patches is not None and self.rng.random() < DISTURBED[course]:
            document.disturbance = Disturbance.drawn(self.rng)
        return document

    def _document(self, course: str) -> Document:
        shares = COURSES[course]
        kind = str(self.rng.choice(list(shares), p=list(shares.values())))
        scene = self.scenes[int(self.rng.integers(len(self.scenes)))]
        if kind == "options":
            return self.options()
        if kind == "look_ups":
            return self.look_ups(scene)
        if kind == "restatement":
            return self.restatement(scene)
        return self.conversation(scene, kind == "plain")

    def options(self) -> Document:
        """Which letter stands before a word: half of every multiple choice."""
        turns = []
        for _ in range(4):
            values = _VALUES[int(self.rng.integers(len(_VALUES)))]
            options = [values[i] for i in self.rng.permutation(len(values))[:4]]
            closing = (words.LETTER, words.LETTER_ONLY, words.CHARACTER)[int(self.rng.integers(3))]
            listed = f"\n{lettered(options, ':' if closing == words.CHARACTER else '.')}\n{closing}"
            right = int(self.rng.integers(len(options)))
            turns.append((f"What is {options[right]}?{listed}", chr(65 + right)))
        return self._talk(None, turns)

    def restatement(self, scene: Scene) -> Document:
        """A scene as a map or a caption, and then in words: in reading order, or each name before its place."""
        document = Document()
        document.write(self.start, 0.0)
        if self.rng.random() < 0.7:
            document.write(*self.map(scene))
            document.write(self.ids(caption(scene) + "\n"), 1.0)
        else:
            document.write(self.ids(caption(scene, self.rng) + "\n"), UNSUPERVISED)
        document.write(self.ids(inverted_caption(scene, self.rng) + "\n"), 0.5)
        return document

    def look_ups(self, scene: Scene) -> Document:
        """Questions cut off behind their key word: its answer follows at once, so one look-up is all there is to learn."""
        document = Document()
        document.write(self.start, 0.0)
        if as_map := self.rng.random() < 0.6:
            document.write(*self.map(scene))
        else:
            document.write(self.ids(caption(scene, self.rng if self.rng.random() < 0.5 else None)), UNSUPERVISED)
        for number in range(12):
            question = None
            while question is None:
                question = self._question(scene, False)
            cut = "\n" + question.text.removesuffix("?").removesuffix(" in the image")
            document.write(self.ids(cut, goes_on=number > 0 or not as_map), UNSUPERVISED)
            document.write(self.ids(question.answer), 1.0)
        return document

    def conversation(self, scene: Scene, plain: bool) -> Document:
        turns: list[tuple[str, str]] = []
        while len(turns) < (8 if plain else 5):
            question = self._question(scene, plain)
            if question is None:
                continue
            if plain:
                turns.append((question.text, question.answer))
            elif question.wrong in (("Yes",), ("No",)):
                turns.append(pose(question, OPEN_STYLES[int(self.rng.integers(len(OPEN_STYLES)))], self.rng))
            else:
                turns.append(pose(question, random_style(question, self.rng), self.rng))
        if not plain and self.rng.random() < 0.1:
            turns[0] = (words.DESCRIBE, caption(scene))
        if not plain and self.rng.random() < 0.1:
            turns[1] = pose(unanswerable(scene, self.rng), "hint", self.rng)
        return self._talk(scene, turns)

    def map(self, scene: Scene) -> tuple[list[int], float, list[int]]:
        """(ids, weight, added): one token for each patch; a digit is told by its numeral."""
        ids, added = [], []
        things = {(thing.row, thing.column): self.ids(words.full_name(thing)) for thing in scene.things}
        side = GRID * PATCHES_A_CELL
        for patch in range(side * side):
            row, column = (index // PATCHES_A_CELL for index in divmod(patch, side))
            (place,) = self.ids(f"{ROWS[row]} {COLUMNS[column]}")
            name = things.get((row, column))
            ids.append(name[-1] if name else place)
            added.append(place if name else -1)
        return ids, 0.0, added

    def _question(self, scene: Scene, plain: bool) -> Question | None:
        pool = CORE_SKILLS if self.rng.random() < 0.5 else SKILLS
        skill = pool[int(self.rng.integers(len(pool)))]
        if plain or self.rng.random() < 0.7:
            return ask(scene, skill, self.rng)
        return ask_yes_no(scene, skill, bool(self.rng.random() < 0.5), self.rng)

    def _talk(self, scene: Scene | None, turns: list[tuple[str, str]]) -> Document:
        """Questions and answers; about a scene, it comes before or after the first question."""
        document = Document()
        document.write([*self.start, *self.ids(SYSTEM)], UNSUPERVISED)
        for number, (question, answer) in enumerate(turns):
            if number or scene is None:
                document.write(self.ids(f"USER: {question} ASSISTANT:"), UNSUPERVISED)
            elif self.rng.random() < 0.4:
                told = caption(scene, self.rng if self.rng.random() < 0.5 else None)
                document.write(self.ids(f"USER: {told}\n{question} ASSISTANT:"), UNSUPERVISED)
            else:
                before, after = ("", f"\n{question}") if self.rng.random() < 0.5 else (f"{question}\n", "")
                document.write(self.ids(f"USER: {before}"), UNSUPERVISED)
                document.write(*self.map(scene))
                document.write(self.ids(f"{after} ASSISTANT:"), UNSUPERVISED)
            document.write([*self.ids(answer), self.end], 1.0)
        return document


class Batch(NamedTuple):
    """(documents, length) each: ids, weights, added; and the documents with a disturbed map."""

    ids: Tensor
    weights: Tensor
    added: Tensor
    disturbed: list[tuple[int, slice, Disturbance]]


def pad(documents: list[Document]) -> Batch:
    """Documents as one batch, padded on the right."""
    length = max(len(document.ids) for document in documents)
    ids = torch.zeros(len(documents), length, dtype=torch.long)
    weights = torch.zeros(len(documents), length)
    added = torch.full((len(documents), length), -1)
    for row, document in enumerate(documents):
        ids[row, : len(document.ids)] = torch.tensor(document.ids)
        weights[row, : len(document.weights)] = torch.tensor(document.weights)
        added[row, : len(document.added)] = torch.tensor(document.added)
    disturbed = [
        (row, document.patches, document.disturbance)
        for row, document in enumerate(documents)
        if document.patches is not None and document.disturbance is not None
    ]
    return Batch(ids, weights, added, disturbed)
