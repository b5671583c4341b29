"""The demo's base weights: what is shipped is what its recipe says, and a reduced set, made anew, learns the same things."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import world
import yaml
from transformers import AutoModelForCausalLM

from vdep.files import folder_digest, read_json, sha256
from vdep_demo.base_weights import tokenizer
from vdep_demo.base_weights.language_model import Phase, embed
from vdep_demo.base_weights.lessons import Writer, pad
from vdep_demo.base_weights.make import RECIPES, SHIPPED, make
from vdep_demo.world.scenes import sample_scenes


def check_files(folder: Path) -> dict[str, dict[str, float]]:
    written = read_json(folder / "recipe.json")
    assert {"config.json", "model.safetensors"} <= set(written["sha256"])
    assert set(written["sha256"]) == {path.name for path in folder.iterdir()} - {"recipe.json"}
    for name, digest in written["sha256"].items():
        assert sha256(folder / name) == digest
    return written


@pytest.mark.parametrize("name", RECIPES)
def test_shipped_weights_are_what_the_configuration_pins(name: str) -> None:
    written = check_files(SHIPPED / name)
    assert written["recipe"] == json.loads(json.dumps(asdict(RECIPES[name]))), "the recipe changed, the weights did not"
    (asset,) = (
        a for a in yaml.safe_load((world.ROOT / "config" / "demo.yaml").read_text())["assets"].values()
        if a.get("path") == f"src/vdep_demo/base_weights/shipped/{name}"
    )  # fmt: skip
    assert asset["revision"] == folder_digest(SHIPPED / name)


@pytest.mark.parametrize("name", ["llama", "phi"])
def test_the_shipped_tokenizers_are_those_of_the_lessons(name: str, tmp_path: Path) -> None:
    tokenizer.save(name, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} <= {path.name for path in (SHIPPED / name).iterdir()}
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (SHIPPED / name / path.name).read_bytes()


@pytest.mark.long
@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_a_tower_made_in_few_steps_tells_scenes_apart(name: str, tmp_path: Path) -> None:
    quality = make(name, tmp_path / name, steps=300)
    assert check_files(tmp_path / name)["quality"] == quality
    shipped = read_json(SHIPPED / name / "recipe.json")["quality"]
    assert quality["probe/place"] > 0.25, "chance is 1 in 9"
    assert quality["probe/digit"] < shipped["probe/digit"], "ten times the steps are worth something"


def look_ups(folder: Path, name: str) -> tuple[float, float]:
    """Share of the answers of lessons about new scenes that a model gives, and the share of the most common one."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    writer = Writer(name, sample_scenes(400, "test", 7), 7)
    batch = pad([writer.lesson("look-ups") for _ in range(48)])
    with torch.no_grad():
        logits = model(inputs_embeds=embed(model, batch)).logits[:, :-1]
    answers = batch.weights[:, 1:] == 1
    wanted = batch.ids[:, 1:][answers]
    return float((logits.argmax(-1)[answers] == wanted).float().mean()), float(wanted.bincount().max()) / len(wanted)


@pytest.mark.long
@pytest.mark.parametrize("name", ["llama", "phi"])
def test_a_language_model_made_in_few_steps_looks_answers_up(name: str, tmp_path: Path) -> None:
    quality = make(name, tmp_path / name, phases=(Phase("look-ups", 200), Phase("look-ups", 100)))
    assert check_files(tmp_path / name)["quality"] == quality
    right, common = look_ups(tmp_path / name, name)
    assert right > 0.6, "of scenes that it has not seen"
    assert right > common + 0.3, "what always saying the most common word would score"
    shipped = read_json(SHIPPED / name / "recipe.json")["quality"]
    assert quality["color/short"] < shipped["color/short"], "the other phases are worth something"
