"""The demo's world: its scenes, what is said about them, and the files it writes."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from vdep.files import folder_digest
from vdep_demo.base_weights import tokenizer
from vdep_demo.world import language
from vdep_demo.world.benchmarks import MAKERS, make_benchmark
from vdep_demo.world.data import make_captions, make_conversations, random_turn
from vdep_demo.world.prompts import CHOICE_STYLES, OPEN_STYLES, pose
from vdep_demo.world.scenes import IMAGE_SIZE, crowded_scenes, handwritten_digits, render, sample_scenes, thing_mask

THING = re.compile(
    r"(?P<place>(?:top|middle|bottom) (?:left|center|right)) (?:label (?P<label>\d) )?"
    r"(?:digit (?P<digit>\d)|(?P<size>small|large) (?P<color>\w+) (?P<kind>\w+))"
)


def read(caption: str) -> list[dict[str, str | None]]:
    """The things of a caption, by a reader that shares no code with its writer."""
    return [match.groupdict() for match in THING.finditer(caption)]


def expected(question: language.Question, things: list[dict[str, str | None]]) -> str:
    """The answer, worked out from the caption and the question's words alone."""
    text = question.text
    shapes = [t for t in things if t["kind"]]
    named = [t for t in shapes if f"{t['color']} {t['kind']}" in text]
    if question.skill == "existence":
        return "Yes" if named else "No"
    if question.skill == "count":
        return str(len(things) + sum(t["label"] is not None for t in things))
    if question.skill == "digit":
        return str(next(t["digit"] or t["label"] for t in things if t["digit"] or t["label"]))
    if question.skill == "position":
        thing = named[0] if named else next(t for t in things if t["digit"])
        return str(thing["place"])
    if question.skill == "color":
        return str(next(t["color"] for t in shapes if str(t["kind"]) in text))
    if question.skill == "shape":
        return str(next(t["kind"] for t in shapes if str(t["color"]) in text))
    if question.skill == "size":
        return str(named[0]["size"])
    if question.skill == "label":
        return str(named[0]["label"])
    if question.skill == "knowledge":
        color = next(t["color"] for t in shapes if str(t["kind"]) in text)
        return language.FOODS[str(color)]
    raise AssertionError(question.skill)


@pytest.mark.parametrize("skill", [s for s in language.SKILLS if s != "relation"])
def test_answers_follow_from_the_caption(skill: str) -> None:
    rng = np.random.default_rng(5)
    asked = 0
    for scene in sample_scenes(400, "test", 31, diagram_share=0.3):
        question = language.ask(scene, skill, rng)
        if question is not None and not (scene.diagram and skill in ("count", "position")):
            asked += 1
            assert question.answer == expected(question, read(language.caption(scene))), (question, language.caption(scene))
            assert question.answer not in question.wrong
            assert len(set(question.wrong)) == len(question.wrong) > 0
    assert asked > 30


def test_train_and_test_share_no_scene_and_no_handwriting() -> None:
    train, test = (sample_scenes(4000, split, 9) for split in ("train", "test"))
    assert not {s.signature for s in train} & {s.signature for s in test}
    used = [{t.digit_index for s in scenes for t in s.digits} for scenes in (train, test)]
    assert not used[0] & used[1]
    rows = handwritten_digits()[2]
    assert not {int(i) for (split, _), r in rows.items() if split == "train" for i in r} & {
        int(i) for (split, _), r in rows.items() if split == "test" for i in r
    }


def test_a_scene_is_drawn_where_its_boxes_say() -> None:
    for scene in sample_scenes(50, "test", 3, diagram_share=0.0):
        image = render(scene)
        assert image.size == (IMAGE_SIZE, IMAGE_SIZE)
        covered = np.zeros((IMAGE_SIZE, IMAGE_SIZE), bool)
        for thing in scene.things:
            left, top, right, bottom = thing.box
            mask = thing_mask(thing)
            assert mask.any()
            assert not mask[:top].any()
            assert not mask[bottom:].any()
            assert not mask[:, :left].any()
            assert not mask[:, right:].any()
            covered |= mask
        if scene.background == "plain":
            changed = (np.asarray(image).astype(int) - scene.shade).__abs__().sum(-1) > 40
            assert (covered & ~changed).sum() <= 0.1 * covered.sum()


def test_every_word_is_known_and_comes_back() -> None:
    rng = np.random.default_rng(6)
    for family in tokenizer.VOCABULARY:
        built = tokenizer.build(family)
        assert built.get_vocab_size() <= tokenizer.VOCABULARY[family]
        unknown = {"<|endoftext|>", *(f"<0x{byte:02X}>" for byte in range(256) if byte != ord("\n"))}
        for scene in [*sample_scenes(150, "train", 12, diagram_share=0.3), *crowded_scenes(50, "train", 12)]:
            texts = [language.caption(scene), language.caption(scene, rng)]
            for _ in range(4):
                if turn := random_turn(scene, rng):
                    texts += turn
            for text in texts:
                encoded = built.encode(text, add_special_tokens=False)
                assert not unknown & set(encoded.tokens), text
                if family == "llama":
                    assert built.decode(encoded.ids) == text
                elif "\n" not in text and "图" not in text:
                    assert built.decode(encoded.ids).split() == re.sub(r"([?,])", r" \1", text).split()


def test_every_style_asks_the_question_it_was_given() -> None:
    rng = np.random.default_rng(8)
    scene = next(s for s in sample_scenes(50, "test", 2) if s.shapes)
    question = language.ask(scene, "size", rng)
    assert question is not None
    for style in (*OPEN_STYLES, *CHOICE_STYLES):
        text, answer = pose(question, style, rng)
        assert question.text in text
        if style in CHOICE_STYLES:
            assert re.search(rf"^{answer}[.:] {question.answer}$", text, re.MULTILINE)
        else:
            assert answer == question.answer
    with pytest.raises(ValueError, match="unknown style"):
        pose(question, "sung", rng)


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    for maker in (make_captions, make_conversations):
        digests = []
        for run, seed in enumerate((1, 1, 2)):
            folder = tmp_path / f"{maker.__name__}{run}"
            folder.mkdir()
            maker(folder, 40, seed)
            digests.append(folder_digest(folder))
        assert digests[0] == digests[1] != digests[2]


def test_conversations_are_llavas_format(tmp_path: Path) -> None:
    make_conversations(tmp_path, 200, 4)
    samples = json.loads((tmp_path / "conversations.json").read_text())
    members = set(zipfile.ZipFile(tmp_path / "images.zip").namelist())
    pictured = [s for s in samples if "image" in s]
    assert {s["image"] for s in pictured} == members
    assert 0 < len(samples) - len(pictured) < 30
    for sample in samples:
        speakers = [turn["from"] for turn in sample["conversations"]]
        assert speakers == ["human", "gpt"] * (len(speakers) // 2)
        assert len(speakers) >= 6
        assert sum(turn["value"].count("<image>") for turn in sample["conversations"]) == ("image" in sample)


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_benchmarks_know_their_questions(name: str, tmp_path: Path) -> None:
    digests = []
    for run in range(2):
        folder = tmp_path / str(run)
        folder.mkdir()
        make_benchmark(folder, name, 24, 5)
        digests.append(folder_digest(folder))
    assert digests[0] == digests[1]
    asked = json.loads((tmp_path / "0" / "questions.json").read_text())
    for question in asked:
        assert question["skill"] in (*language.SKILLS, "unanswerable")
        assert question["answer"] in question["candidates"]
