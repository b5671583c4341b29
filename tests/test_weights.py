"""The demo's base weights can be made anew: a reduced set learns what the full one knows, as far as its steps allow."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vdep.demo.weights import RECIPES, make
from vdep.files import read_json, sha256

pytestmark = pytest.mark.long


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def check_files(folder: Path, quality: dict[str, float], **changes: int) -> None:
    written = read_json(folder / "recipe.json")
    assert written["quality"] == quality
    assert all(written["recipe"][field] == value for field, value in changes.items())
    assert {"config.json", "model.safetensors"} <= set(written["sha256"])
    for name, digest in written["sha256"].items():
        assert sha256(folder / name) == digest


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_a_tower_made_in_few_steps_tells_scenes_apart(name: str, tmp_path: Path) -> None:
    quality = make(name, tmp_path / name, steps=300)
    check_files(tmp_path / name, quality, steps=300)
    assert quality["probe/digit"] > 0.2, "chance is 1 in 10"
    assert quality["probe/place"] > 0.3, "chance is 1 in 9"


@pytest.mark.parametrize("name", ["llama", "phi"])
def test_a_language_model_made_in_few_steps_looks_answers_up(name: str, tmp_path: Path) -> None:
    quality = make(name, tmp_path / name, steps=600)
    check_files(tmp_path / name, quality, steps=600)
    assert quality["count/short"] > 0.5
    assert quality["color/short"] > 0.3, "chance is about 1 in 6"


def test_the_recipes_are_those_of_the_demo() -> None:
    assert set(RECIPES) == {"clip", "siglip", "llama", "phi"}
