"""What the demo's language models are taught is true of the scenes it is about, and in the order that the recipe says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vdep.data.conversation import IMAGE_INDEX, TEMPLATES, encode_segments, training_segments
from vdep.data.tokenizer import load_tokenizer
from vdep_demo.base_weights.language_model import (
    COOL_DOWN,
    WARM_UP,
    LanguageModelRecipe,
    Phase,
    _steps,
    carry_over,
    disturb,
    embed,
    new_model,
)
from vdep_demo.base_weights.lessons import COURSES, Disturbance, Document, Writer, pad
from vdep_demo.base_weights.tokenizer import save
from vdep_demo.world.language import _absent_name, ask_yes_no, full_name
from vdep_demo.world.scenes import COLUMNS, GRID, ROWS, Scene, sample_scenes

SCENES = sample_scenes(40, "train", 5)


@pytest.fixture(params=["words", "llama", "phi"])
def writer(request: pytest.FixtureRequest) -> Writer:
    return Writer(request.param, SCENES, seed=3)


def answers(writer: Writer, document: Document) -> list[str]:
    """What counts fully: runs of tokens between others, without their end tokens."""
    runs: list[list[int]] = [[]]
    for token, weight in zip(document.ids, document.weights, strict=True):
        if weight == 1.0 and token != writer.end:
            runs[-1].append(token)
        elif runs[-1]:
            runs.append([])
    return [writer.tokenizer.decode(run, skip_special_tokens=False) for run in runs if run]


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
        told = {(thing.row, thing.column): full_name(thing) for thing in scene.things}
        if writer.tokens == "llama":
            told = {where: name.removeprefix("digit ") for where, name in told.items()}
        assert seen == told


def test_maps_are_disturbed_in_the_last_course_alone(writer: Writer) -> None:
    for course in COURSES:
        documents = [document for document in (writer.lesson(course) for _ in range(80)) if document.patches is not None]
        disturbed = sum(document.disturbance is not None for document in documents)
        assert disturbed == 0 if course != "disturbed" else len(documents) * 0.6 < disturbed < len(documents)


def test_a_disturbed_map_is_longer_and_shares_a_part(writer: Writer) -> None:
    document = writer.look_ups(SCENES[0])
    while document.patches is None:
        document = writer.look_ups(SCENES[0])
    assert document.added[document.patches] == writer.map(SCENES[0])[2]
    patches = torch.randn(36, 128)
    assert torch.equal(disturb(patches, Disturbance(7.0, 0.0, 0.0)), 7.0 * patches)
    shifted = disturb(patches, Disturbance(1.0, 2.0, 0.0)) - patches
    assert torch.allclose(shifted, shifted[:1].expand(36, -1), atol=1e-5)
    assert float(shifted[0].norm() / patches.norm(dim=-1).mean()) == pytest.approx(2.0, rel=0.3)

    model = torch.nn.Module()
    model.get_input_embeddings = lambda: torch.nn.Embedding(576, 16, _weight=torch.ones(576, 16))  # type: ignore[assignment]
    plain = embed(model, pad([document]))
    document.disturbance = Disturbance(3.0, 0.0, 0.0)
    changed = embed(model, pad([document]))
    inside = torch.zeros(len(document.ids), dtype=torch.bool)
    inside[document.patches] = True
    assert torch.equal(changed[0, inside], 3 * plain[0, inside])
    assert torch.equal(changed[0, ~inside], plain[0, ~inside])


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


@pytest.mark.parametrize("tokens", ["llama", "phi"])
def test_a_conversation_is_written_as_training_writes_it(tokens: str, tmp_path: Path) -> None:
    """The tokens of the lessons are those that SFT will show, the token that is only the space before a number among them."""
    writer = Writer(tokens, SCENES, seed=3)
    scene = next(scene for scene in SCENES if len(scene.digits) == 1)
    turns = [("What digit is in the image?", str(scene.digits[0].digit)), ("How many things are in the image?", "2")]
    turns += [("Is there a small red circle in the image?\nAnswer the question using a single word or phrase.", "Yes")]
    document = writer._talk(scene, turns)
    while document.patches is None or writer.ids("\n")[-1] != document.ids[document.patches.stop + len(writer.ids("\n")) - 1]:
        document = writer._talk(scene, turns)
    save(writer.tokens, tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    spoken = [(who, text) for turn in turns for who, text in zip(("human", "gpt"), turn, strict=True)]
    spoken[0] = ("human", f"<image>\n{spoken[0][1]}")
    template = TEMPLATES["vicuna_v1" if writer.tokens == "llama" else "phi"]
    trained = encode_segments(training_segments(spoken, template, tokenizer.eos_token), tokenizer).input_ids.tolist()
    at = trained.index(IMAGE_INDEX)
    assert document.ids[: document.patches.start] == trained[:at]
    assert document.ids[document.patches.stop :] == trained[at + 1 :]
    counted = [token for token, weight in zip(document.ids, document.weights, strict=True) if weight == 1.0]
    assert tokenizer.decode(counted, skip_special_tokens=True).split() == [answer for _, answer in turns]
    if writer.tokens == "llama":
        assert tokenizer.convert_ids_to_tokens(counted)[:2] == ["▁", turns[0][1]]


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
    phases = Phase("look-ups", 150), Phase("options", 400, 0.02, enough=0.5), Phase("mixed", 100)
    asked = []

    def enough(share: float) -> bool:
        asked.append(share)
        return len(asked) == 4

    steps = list(_steps(phases, enough))
    assert [step for step, _, _ in steps] == list(range(150 + 150 + 100))
    assert asked == [0.5] * 4
    rates = [rate for _, _, rate in steps]
    assert rates[:WARM_UP] == sorted(rates[:WARM_UP])
    assert set(rates[WARM_UP : 300 + int(100 * (1 - COOL_DOWN))]) == {1.0}
    assert rates[-1] < 0.05


def test_llama_reads_whole_words_until_its_last_phase() -> None:
    phases = Phase("look-ups", 150), Phase("mixed", 100), Phase("disturbed", 50)
    assert LanguageModelRecipe("llama", phases).parts == [("words", phases[:2]), ("llama", phases[2:])]
    assert LanguageModelRecipe("phi", phases).parts == [("phi", phases)]


def test_words_mean_the_same_in_the_new_tokens() -> None:
    """Before any further step, a text of words alone is continued as before, and a numeral keeps both of its meanings."""
    recipe = LanguageModelRecipe("llama", (Phase("look-ups", 1),), layers=1)
    before = new_model(recipe, "words")
    after = carry_over(before, recipe, "words", "llama")
    old, new = (Writer(name, SCENES, 1) for name in ("words", "llama"))
    text = "USER: top left small red circle , Where is the cross"
    ids = [torch.tensor([[1, *writer.ids(text)]]) for writer in (old, new)]
    assert ids[0].shape == ids[1].shape
    with torch.no_grad():
        said = [model(input_ids=i).logits[0] for model, i in zip((before, after), ids, strict=True)]
    for word in ("top left", "Yes", "red", "circle"):
        assert torch.equal(said[0][:, old.ids(word)[0]], said[1][:, new.ids(word)[0]])
    for digit in "07":
        assert torch.equal(said[0][:, old.ids(digit)[0]], said[1][:, new.ids(digit)[-1]])
    tables = [model.get_input_embeddings().weight for model in (before, after)]
    told = tables[0][old.ids("7")[0]] + tables[0][old.ids("digit 7")[0]]
    assert torch.equal(tables[1][new.ids("7")[-1]], told)
