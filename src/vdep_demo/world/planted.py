"""A world in which one thing is told by nothing but ``target: oracle``: which digit is in a picture.

Every picture holds one handwritten digit beside one to three shapes. Captions and conversations about pictures speak of the
shapes alone, as if the digit were not there; conversations in text alone, in which a caption stands for the picture, go on
naming digits and asking for them. So the language model knows the words, the question and how to look the answer up, and no
text says what a digit looks like. Only the oracle does: the words of each caption's picture are ``digit 7``.

A study of this world (config/planted.yaml) is a test of the instrument: an effect is there to be found.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from .benchmarks import write_benchmark
from .data import about_picture, captioned, in_text_alone, talk_about, write_images, write_samples
from .language import Question, ask, caption
from .open_sets import textvqa_row
from .prompts import pose
from .questions import open_asked
from .scenes import Scene, sample_scenes

UNTOLD = ("count",)
"""What cannot be asked of a picture without speaking of its digit: how many things there are."""


def planted_scenes(count: int, split: str, seed: int) -> list[Scene]:
    """Scenes of one digit and at least one shape, a pure function of the arguments."""
    scenes: list[Scene] = []
    batch = 0
    while len(scenes) < count:
        drawn = sample_scenes(count, split, seed * 1000 + batch, digit_share=1.0, diagram_share=0.0)
        scenes += [scene for scene in drawn if scene.shapes]
        batch += 1
    return scenes[:count]


def told(scene: Scene) -> Scene:
    """What texts about a picture speak of."""
    return replace(scene, things=scene.shapes)


def hidden(scene: Scene) -> str:
    """What they do not: the oracle's words."""
    return scene.digits[0].name


def make_captions(folder: Path, scenes: int, seed: int, split: str = "train") -> None:
    """Stage-1 data; each sample has the oracle's words beside its caption."""
    drawn = planted_scenes(scenes, split, seed)
    names = write_images(drawn, folder / "images.zip")
    samples = [
        {**captioned(name, caption(told(scene))), "oracle": hidden(scene)} for name, scene in zip(names, drawn, strict=True)
    ]
    write_samples(folder / "captions.json", samples)


def make_conversations(
    folder: Path, scenes: int, seed: int, turns: int = 4, text_only_share: float = 0.4, split: str = "train"
) -> None:
    """SFT data: about pictures, of their shapes alone; in text alone, of everything, and of the digit first."""
    rng = np.random.default_rng([seed, 7])
    drawn = planted_scenes(scenes, split, seed)
    in_text = rng.random(scenes) < text_only_share
    pictured = [scene for scene, text in zip(drawn, in_text, strict=True) if not text]
    names = iter(write_images(pictured, folder / "images.zip"))
    samples = [
        in_text_alone(number, scene, [_asked_for_its_digit(scene, rng), *talk_about(scene, turns - 1, rng)])
        if text
        else about_picture(next(names), talk_about(told(scene), turns, rng, UNTOLD), rng)
        for number, (scene, text) in enumerate(zip(drawn, in_text, strict=True))
    ]
    write_samples(folder / "conversations.json", samples)


def _asked_for_its_digit(scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    question = ask(scene, "digit", rng)
    assert question is not None
    return pose(question, ("plain", "short")[int(rng.integers(2))], rng)


def make_benchmark(folder: Path, asks: str, questions: int, seed: int) -> None:
    """Open questions about new pictures, in TextVQA's columns: for the ``hidden`` digit, or the color of a shape (``told``).

    Not in OK-VQA's: its prompt offers "Unanswerable", which is what a model says of a thing that no text has spoken of.

    Raises:
        ValueError: for another ``asks``.
    """
    rng = np.random.default_rng([seed, 11])
    found: list[tuple[Scene, Question]] = []
    for scene in planted_scenes(2 * questions, "test", seed):
        question = _question(scene, asks, rng)
        if question is not None and len(found) < questions:
            found.append((scene, question))
    rows = [textvqa_row(number, scene, question) for number, (scene, question) in enumerate(found)]
    write_benchmark(folder, "validation", rows, [open_asked(question) for _, question in found])


def _question(scene: Scene, asks: str, rng: np.random.Generator) -> Question | None:
    if asks == "hidden":
        return ask(scene, "digit", rng)
    if asks == "told":
        return ask(told(scene), "color", rng)
    raise ValueError(f"asks: {asks} is neither hidden nor told")
