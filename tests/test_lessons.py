"""What the demo's language models are taught is true of the scenes it is about, and in the order that the recipe says."""

from __future__ import annotations

import numpy as np
import pytest

from vdep.demo.language import _absent_name, ask_yes_no, full_name
from vdep.demo.language_model import COOL_DOWN, WARM_UP, LanguageModelRecipe, Phase, _steps
from vdep.demo.lessons import COURSES, Document, Writer
from vdep.demo.scenes import COLUMNS, GRID, ROWS, Scene, sample_scenes

SCENES = sample_scenes(40, "train", 5)


@pytest.fixture(params=["llama", "phi"])
def writer(request: pytest.FixtureRequest) -> Writer:
    return Writer(request.param, SCENES, seed=3)


def answers(writer: Writer, document: Document) -> list[str]:
    words = writer.tokenizer
    supervised = [i for i, weight in zip(document.ids, document.weights, strict=True) if weight == 1.0]
    return [words.decode([i], skip_special_tokens=False) for i in supervised if i != writer.end]


@pytest.mark.parametrize("course", COURSES)
def test_a_document_says_of_each_token_how_much_it_counts(writer: Writer, course: str) -> None:
    assert sum(COURSES[course].values()) == pytest.approx(1)
    for _ in range(20):
        document = writer.lesson(course)
        assert len(document.ids) == len(document.weights) == len(document.added)
        assert any(weight == 1.0 for weight in document.weights)


def test_a_map_tells_where_everything_is(writer: Writer) -> None:
    for scene in SCENES:
        ids, _, added = writer.map(scene)
        side = int(len(ids) ** 0.5)
        seen = {}
        for patch, (token, place) in enumerate(zip(ids, added, strict=True)):
            row, column = (index * GRID // side for index in divmod(patch, side))
            text = writer.tokenizer.decode([place if place >= 0 else token])
            assert text == f"{ROWS[row]} {COLUMNS[column]}"
            if place >= 0:
                seen[row, column] = writer.tokenizer.decode([token])
        assert seen == {(thing.row, thing.column): full_name(thing) for thing in scene.things}


def test_look_ups_ask_about_the_scene_and_answer_at_once(writer: Writer) -> None:
    for scene in SCENES:
        document = writer.look_ups(scene)
        text = writer.tokenizer.decode(document.ids, skip_special_tokens=False)
        given = answers(writer, document)
        assert len(given) == 12
        assert "?" not in text
        for question, answer in zip(text.split("\n")[-12:], given, strict=True):
            assert question.strip().endswith(answer)
            if "How many things" in question:
                assert answer == str(len(scene.things))
            if question.strip().startswith("What digit"):
                assert answer == str(scene.digits[0].digit)


def test_the_letter_is_that_of_the_word_asked_for(writer: Writer) -> None:
    for _ in range(50):
        document = writer.options()
        text = writer.tokenizer.decode(document.ids, skip_special_tokens=False)
        for asked, letter in zip(text.split("What is ")[1:], answers(writer, document), strict=True):
            word, _, options = asked.partition("?")
            listed = [line.strip() for line in options.split("\n")]
            assert f"{letter}. {word.strip()}" in listed or f"{letter}: {word.strip()}" in listed


def test_what_is_not_there_is_not_there() -> None:
    rng = np.random.default_rng(0)

    def names(scene: Scene) -> set[str]:
        return {full_name(thing) for thing in scene.shapes} | {thing.name for thing in scene.shapes}

    for scene in SCENES:
        for _ in range(10):
            absent = _absent_name(scene, rng)
            assert absent not in names(scene)
            assert absent.split(" ", 1)[1] not in names(scene)
            question = ask_yes_no(scene, "existence", False, rng)
            assert question is not None
            assert question.answer == "No"


def test_phases_follow_each_other_and_end_when_enough_is_learned() -> None:
    recipe = LanguageModelRecipe(
        "llama", (Phase("look-ups", 150), Phase("options", 400, 0.02, enough=0.5), Phase("mixed", 100))
    )
    asked = []

    def enough(share: float) -> bool:
        asked.append(share)
        return len(asked) == 4

    steps = list(_steps(recipe, enough))
    assert [step for step, _, _ in steps] == list(range(150 + 150 + 100))
    assert asked == [0.5] * 4
    rates = [rate for _, _, rate in steps]
    assert rates[:WARM_UP] == sorted(rates[:WARM_UP])
    assert set(rates[WARM_UP : 300 + int(100 * (1 - COOL_DOWN))]) == {1.0}
    assert rates[-1] < 0.05
