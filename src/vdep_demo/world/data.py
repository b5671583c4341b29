"""The demo's training data, in the formats of the real one: LLaVA JSON beside a ZIP of images."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Container
from pathlib import Path
from typing import Any

import numpy as np

from . import language as words
from . import pictures
from .language import CORE_SKILLS, SKILLS, Question, ask, ask_yes_no, caption
from .prompts import OPEN_STYLES, chinese, pose, random_style
from .scenes import Scene, sample_scenes


def write_images(scenes: list[Scene], path: Path) -> list[str]:
    """A ZIP of pictures, half of them stored and half deflated; returns the member names."""
    names = []
    with zipfile.ZipFile(path, "w") as archive:
        for number, scene in enumerate(scenes):
            name = f"{number // 1000:05d}/{number:09d}.{pictures.form(scene).ending}"
            # a fixed date: the same scenes make the same bytes
            info = zipfile.ZipInfo(name, (2025, 2, 13, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED if number % 2 else zipfile.ZIP_STORED
            archive.writestr(info, pictures.encode(scene))
            names.append(name)
    return names


def make_captions(folder: Path, scenes: int, seed: int, split: str = "train") -> None:
    """Stage-1 data: one picture and its caption a sample (LLaVA-Pretrain's format)."""
    drawn = sample_scenes(scenes, split, seed)
    names = write_images(drawn, folder / "images.zip")
    write_samples(
        folder / "captions.json",
        [captioned(name, caption(scene)) for name, scene in zip(names, drawn, strict=True)],
    )


def make_conversations(
    folder: Path, scenes: int, seed: int, turns: int = 3, text_only_share: float = 0.06, split: str = "train"
) -> None:
    """SFT data: several turns about a picture, and some conversations in text alone (mix-665K's format)."""
    rng = np.random.default_rng([seed, 7])
    drawn = sample_scenes(scenes, split, seed)
    text_only = set(np.flatnonzero(rng.random(scenes) < text_only_share).tolist())
    pictured = [scene for i, scene in enumerate(drawn) if i not in text_only]
    names = iter(write_images(pictured, folder / "images.zip"))
    samples: list[dict[str, Any]] = []
    for number, scene in enumerate(drawn):
        talk = talk_about(scene, turns, rng)
        if number in text_only:
            samples.append(in_text_alone(number, scene, talk))
        else:
            samples.append(about_picture(next(names), talk, rng))
    write_samples(folder / "conversations.json", samples)


def captioned(image: str, text: str) -> dict[str, Any]:
    """A sample of stage 1."""
    asked = "<image>\nGive a brief description of the image."
    return {"id": _sample_id(image), "image": image, "conversations": _as_turns([(asked, text)])}


def about_picture(image: str, talk: list[tuple[str, str]], rng: np.random.Generator) -> dict[str, Any]:
    """A sample of SFT whose picture stands before or behind the first question."""
    (question, answer), *rest = talk
    placed = f"<image>\n{question}" if rng.random() < 0.5 else f"{question}\n<image>"
    return {"id": _sample_id(image), "image": image, "conversations": _as_turns([(placed, answer), *rest])}


def in_text_alone(number: int, scene: Scene, talk: list[tuple[str, str]]) -> dict[str, Any]:
    """A sample of SFT in which a caption stands for the picture."""
    (question, answer), *rest = talk
    return {"id": f"text-{number:09d}", "conversations": _as_turns([(f"{caption(scene)}\n{question}", answer), *rest])}


def _sample_id(image: str) -> str:
    return image.partition(".")[0].replace("/", "-")


def _as_turns(turns: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [
        turn for question, answer in turns for turn in ({"from": "human", "value": question}, {"from": "gpt", "value": answer})
    ]


def talk_about(scene: Scene, count: int, rng: np.random.Generator, without: Container[str] = ()) -> list[tuple[str, str]]:
    """Some turns about a scene, none of which asks for the skills ``without``."""
    turns: list[tuple[str, str]] = []
    if rng.random() < 0.1:
        turns.append((words.DESCRIBE, caption(scene)))
    while len(turns) < count:
        posed = random_turn(scene, rng, without)
        if posed is not None:
            turns.append(posed)
    return turns


def random_turn(scene: Scene, rng: np.random.Generator, without: Container[str] = ()) -> tuple[str, str] | None:
    """One question about the scene in one of the ways in which benchmarks ask, or None where it does not fit."""
    pool = CORE_SKILLS if rng.random() < 0.6 else SKILLS
    skill = pool[int(rng.integers(len(pool)))]
    if rng.random() < 0.04:
        return pose(unanswerable(scene, rng), "hint", rng)
    as_yes_no, truth = rng.random() < 0.25, bool(rng.random() < 0.5)
    question = ask_yes_no(scene, skill, truth, rng) if as_yes_no else ask(scene, skill, rng)
    if question is None or skill in without:
        return None
    if question.wrong in (("Yes",), ("No",)):
        return pose(question, OPEN_STYLES[int(rng.integers(len(OPEN_STYLES)))], rng)
    style = random_style(question, rng)
    return chinese(question, rng) if style == "chinese" else pose(question, style, rng)


def unanswerable(scene: Scene, rng: np.random.Generator) -> Question:
    """A question about a shape that is not there."""
    present = {t.kind for t in scene.shapes}
    absent = [s for s in words.CHINESE_SHAPES if s not in present]
    if absent:
        text = f"What color is the {absent[int(rng.integers(len(absent)))]}?"
        return Question("color", text, words.UNANSWERABLE, ())
    colors = [c for c in words.FOODS if c not in {t.color for t in scene.shapes}]
    return Question("shape", f"What shape is {colors[int(rng.integers(len(colors)))]}?", words.UNANSWERABLE, ())


def write_samples(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n")
