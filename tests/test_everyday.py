"""``vdep compare``, ``answer`` and ``push`` on checkpoints that are there, and what they say of those that are not."""

from __future__ import annotations

import json
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import world
from answering import export, job, make
from evidence_world import questions_of as questions
from evidence_world import write_evaluation
from local_hub import Hub, local_hub
from PIL import Image
from test_recipe import paper_config

from vdep.__main__ import run
from vdep.data.conversation import TEMPLATES, chat_segments, encode_segments, training_segments
from vdep.data.tokenizer import load_tokenizer
from vdep.errors import CheckpointError, EvaluationError
from vdep.evaluation.chat import Chat, open_picture
from vdep.files import read_json, write_json
from vdep.report.checkpoints import find, find_one
from vdep.report.differing import differing
from vdep.report.results import read_published
from vdep.report.side_by_side import as_text, side_by_side
from vdep.study.check import load_study
from vdep.study.recipe import canonical_json
from vdep.study.settings import VdepSettings

STUDY = load_study(paper_config())
PUBLISHED = read_published(world.ROOT / "config" / "published.csv")
SECRET = "hf_" + "s" * 34


def checkpoint(results: Path, assets: Path, name: str, alpha: float | None, right: np.ndarray | None = None) -> Path:
    """A finished run of the tiny world in its place among the results, and its answers to GQA."""
    study = world.make_study(vdep=None if alpha is None else {"alpha": alpha})
    recipes = {stage: study.recipe("tiny", "run", stage, "seed-42") for stage in ("pretrain", "finetune")}
    folder = results / "runs" / name / "finetune"
    done = export(assets, folder, recipe=recipes["finetune"].digest, initial_recipe=recipes["pretrain"].digest)
    place = folder / recipes["finetune"].key
    place.mkdir()
    (folder / "run").rename(place / "final")
    write_json(done, read_json(done) | {"run": f"{place.name}/final"})
    for stage, recipe in recipes.items():
        at = folder.parent / stage / recipe.key
        at.mkdir(parents=True, exist_ok=True)
        write_json(at / "job.json", {"recipe": recipe.model_dump(mode="json"), "tower": "/nowhere"})
    if right is not None:
        scores = write_evaluation(results / "evaluations" / name / "gqa.json", questions(right, np.arange(len(right)) // 2))
        document = read_json(scores)
        document["checkpoint"] |= {"weights": read_json(done)["digest"]}
        write_json(scores, document)
    return done


@pytest.fixture(scope="module")
def results(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("everyday") / "results"
    right = np.random.default_rng(0).random(40) < 0.5
    right[:6] = [False, False, False, False, False, True]
    checkpoint(folder, assets, "llava-7b/baseline/seed-42", None, right)
    changed = right.copy()
    changed[:6] = ~changed[:6]
    checkpoint(folder, assets, "llava-7b/vdep/seed-42", 0.01, changed)
    checkpoint(folder, assets, "llava-7b/alone/seed-42", 0.1)
    return folder


def compared(results: Path, *names: str) -> Any:
    return side_by_side(find(names[0], results), find(names[1], results), STUDY, PUBLISHED)


def test_every_way_to_name_a_checkpoint_names_the_same(results: Path) -> None:
    run_folder = results / "runs" / "llava-7b/vdep/seed-42"
    weights = find_one("llava-7b/vdep", results).stage.weights
    for text in ("llava-7b/vdep/seed-42", run_folder, run_folder / "finetune", run_folder / "finetune" / "done.json", weights):
        found = find_one(str(text), results)
        assert (found.name, found.done) == ("llava-7b/vdep/seed-42", run_folder / "finetune" / "done.json")
        assert set(found.recipes) == {"pretrain", "finetune"}
    with pytest.raises(CheckpointError, match=r"no finished checkpoint llava-7b/vdpe.*finished in .*llava-7b/vdep/seed-42"):
        find("llava-7b/vdpe", results)


def test_a_comparison_has_the_keys_that_differ_and_the_paired_difference_by_hand(results: Path) -> None:
    found = compared(results, "llava-7b/baseline", "llava-7b/vdep")
    stage_1 = found.recipes["pretrain"]
    assert set(stage_1) - {"vdep"} == {
        f"vdep.{name}" for name in VdepSettings(alpha=0.01).model_dump() if f"vdep.{name}" in stage_1
    }
    assert stage_1["vdep.alpha"] == ("-", "0.01")
    assert set(found.recipes["finetune"]) == {"initial"}
    (difference,) = [d for d in found.comparison.differences if not d.pooled]
    assert difference.quantity == "gqa"
    one, other = (
        read_json(results / "evaluations/llava-7b" / v / "seed-42/gqa.json")["seen"]["parts"] for v in ("baseline", "vdep")
    )
    assert difference.difference == pytest.approx(other["score"]["value"] - one["score"]["value"])
    assert difference.difference == pytest.approx(100 * (5 - 1) / 40)
    assert (difference.gained, difference.lost) == (5, 1)
    text = as_text(found)
    assert "two checkpoints, no training noise" in text
    assert "| vdep.alpha | - | 0.01 |" in text
    assert (
        compared(results, "llava-7b/vdep", "llava-7b/baseline").comparison.differences[0].difference == -difference.difference
    )


def test_without_common_scores_recipes_are_compared_and_it_is_said_why(results: Path) -> None:
    text = as_text(compared(results, "llava-7b/vdep", "llava-7b/alone"))
    assert "| vdep.alpha | 0.01 | 0.1 |" in text
    assert "## No scores in common" in text
    assert "gqa: llava-7b/vdep/seed-42 was evaluated on it, and llava-7b/alone/seed-42 was not" in text


def test_scores_of_other_weights_are_named_and_not_used(results: Path, tmp_path: Path) -> None:
    path = results / "evaluations/llava-7b/alone/seed-42/gqa.json"
    write_evaluation(path, questions(np.ones(40), np.arange(40) // 2))
    try:
        assert f"{path} is of other weights" in as_text(compared(results, "llava-7b/vdep", "llava-7b/alone"))
    finally:
        path.unlink()


def test_differing_keys_of_nested_mappings() -> None:
    assert differing({"a": {"b": 1, "c": [1]}, "d": None}, {"a": {"b": 2, "c": [1]}, "e": {}}) == {
        "a.b": ("1", "2"),
        "d": ("null", "-"),
        "e": ("-", "{}"),
    }


# ---------------------------------------------------------------------------------------------------------------- answer


def picture(path: Path) -> Path:
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (50, 70, 3), dtype=np.uint8)).save(path)
    return path


def test_a_conversation_is_encoded_as_in_training_and_its_first_question_as_at_evaluation(assets: Path) -> None:
    tokenizer, template = load_tokenizer(assets / "llama"), TEMPLATES["vicuna_v1"]
    turns = [("human", "<image>\nWhat is it?"), ("gpt", "red"), ("human", "How many?"), ("gpt", "2")]
    whole = encode_segments(training_segments(turns, template, tokenizer.eos_token), tokenizer).input_ids
    asked = encode_segments(
        chat_segments([("<image>\nWhat is it?", "red")], "How many?", template, tokenizer.eos_token), tokenizer
    ).input_ids
    assert list(whole[: len(asked)]) == list(asked)


@pytest.mark.parametrize("family", ["llama", "phi"])
def test_the_first_answer_is_that_of_an_evaluation(assets: Path, tmp_path: Path, family: str) -> None:
    from vdep.evaluation.run import evaluate

    done = export(assets, tmp_path / "run", family)
    asset = make(tmp_path / "data", "gqa", 4)
    wanted = job(done, asset, "gqa", tmp_path / "scores", family, max_new_tokens=6)
    evaluate(wanted)
    from answering import read_rows

    rows = [row for row in read_rows(wanted.output) if row["pass"] == "seen"]
    recipe = wanted.recipe
    chat = Chat(done.parent / "run", recipe.template, recipe.image, device="cpu", precision="float32", max_new_tokens=6)
    import pyarrow.parquet as pq

    (images,) = asset.glob("images*.parquet")
    known = {row["id"]: row["image"]["bytes"] for row in pq.read_table(images).to_pylist()}
    (asked,) = (path for path in asset.glob("*.parquet") if not path.name.startswith("images"))
    for row, document in zip(rows, pq.read_table(asked).to_pylist(), strict=True):
        (tmp_path / "picture").write_bytes(known[document["imageId"]])
        chat.show(open_picture(tmp_path / "picture"))
        assert chat.ask(row["prompt"].removeprefix("<image>\n")) == row["answer"]


def test_a_second_question_goes_on_and_a_new_picture_begins_anew(results: Path, tmp_path: Path) -> None:
    weights = find_one("llava-7b/vdep", results).stage.weights
    chat = Chat(weights, "vicuna_v1", "pad", device="cpu", precision="float32", max_new_tokens=3)
    chat.show(open_picture(picture(tmp_path / "p.png")))
    first = chat.prompt("What?")
    chat.ask("What?")
    assert list(chat.prompt("And?")[: len(first)]) == list(first)
    chat.show(chat.picture)
    assert list(chat.prompt("What?")) == list(first)
    with pytest.raises(EvaluationError, match=r"has .* tokens, and the model 256 positions"):
        chat.prompt("word " * 300)
    with pytest.raises(EvaluationError, match="leave it out"):
        chat.prompt("What is <image>?")


def answered(*arguments: str, given: str = "", monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.chdir(world.ROOT)
    monkeypatch.setattr(sys, "stdin", StringIO(given))
    return run(["answer", *arguments, "--device", "cpu", "--max-new-tokens", "3"])


def test_what_cannot_be_asked_is_refused_and_a_chat_goes_on(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_folder = results / "runs" / "llava-7b/vdep/seed-42"
    no_picture = tmp_path / "notes.txt"
    no_picture.write_text("words")
    for arguments, message in (
        (["--checkpoint", str(run_folder), "--image", str(no_picture), "What?"], "notes.txt: the picture is in no format"),
        (["--checkpoint", str(run_folder), "--image", str(tmp_path / "none.png"), "What?"], "none.png cannot be read"),
        (["--checkpoint", str(tmp_path / "nothing"), "What?"], "there is no finished checkpoint"),
    ):
        assert answered(*arguments, monkeypatch=monkeypatch) == 1
        assert message in capsys.readouterr().err
    shown = picture(tmp_path / "p.png")
    given = f"What?\n/image {no_picture}\n/new\nWhat?\n\n"
    assert answered("--checkpoint", str(run_folder), "--image", str(shown), given=given, monkeypatch=monkeypatch) == 0
    out, err = capsys.readouterr()
    answers = out.splitlines()
    assert len(answers) == 2
    assert answers[0] == answers[1], "after /new the same question has the same answer"
    assert "notes.txt: the picture is in no format" in err


# ------------------------------------------------------------------------------------------------------------------ push


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Any:
    from huggingface_hub import constants

    with local_hub() as server:
        monkeypatch.chdir(world.ROOT)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", SECRET)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        yield server


def pushed(results: Path, *more: str) -> int:
    return run(["push", str(results / "runs/llava-7b/vdep/seed-42"), "--repo", "me/tiny", *more])


def test_what_is_published_is_what_was_trained_with_its_recipes_scores_and_card(
    results: Path, hub: Hub, capfd: pytest.CaptureFixture[str]
) -> None:
    assert pushed(results, "--private", "--license", "llama2") == 0
    out, err = capfd.readouterr()
    assert out.splitlines()[-1].startswith(f"{hub.url}/me/tiny/commit/")
    assert hub.private
    assert hub.tokens == {f"Bearer {SECRET}"}
    assert SECRET not in out + err
    found = find_one("llava-7b/vdep", results)
    for name in found.stage.files:
        assert hub.files[name] == (found.stage.weights / name).read_bytes(), name
    for stage, recipe in found.recipes.items():
        assert hub.files[f"vdep/recipe.{stage}.json"].decode() == canonical_json(recipe)
    card = hub.files["README.md"].decode()
    scores = json.loads(hub.files["vdep/scores/gqa.json"])
    for said in (
        "license: llama2",
        "alpha 0.01",
        found.stage.digest,
        found.stage.recipe,
        f"{scores['seen']['parts']['score']['value']:.2f}",
    ):
        assert said in card, said
    everything = b"".join(data for name, data in hub.files.items() if name.startswith("vdep/") or name == "README.md")
    assert str(results).encode() not in everything
    assert b"/nowhere" not in everything, "no path of this machine"
    assert pushed(results) == 1
    assert "holds" in capfd.readouterr().err
    assert pushed(results, "--update") == 0


@pytest.mark.parametrize(
    ("part", "fault", "message"),
    [
        ("/", 401, "wants a token: set HF_TOKEN"),
        ("/", 403, "does not let this token write to me/tiny"),
        ("/commit/", 409, "was changed at the same time"),
        ("/commit/", "cut", "the connection was cut"),
        ("/store/", "cut", "the connection was cut"),
        ("/store/", 403, "does not let this token write"),
        ("/tree/", 500, "answered 500"),
    ],
)
def test_a_hub_that_refuses_gets_nothing_and_says_what_to_do(
    results: Path, hub: Hub, capfd: pytest.CaptureFixture[str], part: str, fault: int | str, message: str
) -> None:
    hub.faults = {part: fault}
    assert pushed(results) == 1
    out, err = capfd.readouterr()
    assert message in err.splitlines()[-1]
    assert "Traceback" not in err
    assert SECRET not in out + err
    assert "signature" not in out + err, "who has a signed address may write there"
    assert not hub.files
    hub.faults = {}
    assert pushed(results) == 0, "the same command again"
    assert "model.safetensors" in hub.files


def test_a_dry_run_writes_the_card_and_sends_nothing(
    results: Path, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pushed(results, "--dry-run", "--card", str(tmp_path / "card.md")) == 0
    assert not hub.requests
    listed = {line.split()[1] for line in capsys.readouterr().out.splitlines()[1:]}
    assert pushed(results) == 0
    assert listed == set(hub.files)
    assert (tmp_path / "card.md").read_bytes() == hub.files["README.md"]


def test_weights_that_were_changed_are_not_published(results: Path, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    config = find_one("llava-7b/vdep", results).stage.weights / "config.json"
    before = config.read_bytes()
    config.write_bytes(before + b"\n")
    try:
        assert pushed(results) == 1
    finally:
        config.write_bytes(before)
    assert "is not the file that" in capsys.readouterr().err
    assert not hub.requests
