"""Logits and loss are those of the originals, for the same conversations, pictures and weights (fixtures: tests/originals).

From LLaVA's JSON on: their dataset, collator and model there; conversation, image transform, collation and task here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
import world
from originals import material
from safetensors.numpy import load_file

from vdep.data.collate import Batch, Row, collate
from vdep.data.conversation import IGNORE_INDEX, TEMPLATES, encode_conversation
from vdep.data.images import ImageTransform, decode_image, load_processor
from vdep.data.tokenizer import load_tokenizer
from vdep.data.weights import weigh
from vdep.model import packed
from vdep.model.llava import build_model, new_projector, projector
from vdep.model.task import AlignmentTask
from vdep.run.job import Job
from vdep.study.check import load_study
from vdep.study.settings import VisionTower
from vdep.train.build import build_task

TOWERS = {"llama": "clip", "phi": "siglip"}
STAGES = {
    "llama": {"pretrain": ("plain", "crop"), "finetune": ("vicuna_v1", "pad")},
    "phi": {"pretrain": ("plain", "warp"), "finetune": ("phi", "warp")},
}
# what SigLIP's towers yield: all patches, or all but the first, as the Factory has it
CASES = [("llama", "default", 9), ("phi", "full", 9), ("phi", "default", 8)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    material.write_models(folder, "clip", "siglip", "llama", "phi")
    return folder


def projector_weights() -> dict[str, torch.Tensor]:
    """In the names of transformers' LLaVA."""
    names = {"0": "linear_1", "2": "linear_2"}
    return {names[name[0]] + name[1:]: torch.from_numpy(value) for name, value in material.weights("projector").items()}


def task_of(models: Path, family: str, select: Any, tokens: int, is_packed: bool) -> AlignmentTask:
    tower = VisionTower(weights="tower", image_tokens=tokens, feature_select=select)
    model = build_model(models / TOWERS[family], models / family, tower, torch.float32, 0)
    projector(model).load_state_dict(projector_weights())
    if is_packed:
        model.model.language_model.set_attn_implementation(packed.NAME)
    return AlignmentTask(model, None).eval()


def batch_of(models: Path, family: str, stage: str, samples: list[dict[str, Any]], tokens: int, is_packed: bool) -> Batch:
    template, path = STAGES[family][stage]
    tokenizer, pictures = load_tokenizer(models / family), material.pictures()
    encoded = [
        encode_conversation(s["conversations"], "image" in s, TEMPLATES[template], tokenizer, tokens, 2048) for s in samples
    ]
    images = [decode_image(pictures[s["image"]], s["image"]) for s in samples if "image" in s]
    pixels = ImageTransform(load_processor(models / TOWERS[family]), path)(images) if images else None
    # what a step of these samples is made of
    supervised = np.array([np.count_nonzero(e.labels[1:] != IGNORE_INDEX) for e in encoded])
    weights = weigh(supervised, np.zeros(len(encoded), int), None)
    rows = [Row(e.input_ids, e.labels, weight) for e, weight in zip(encoded, weights.text, strict=True)]
    return collate(rows, pixels, tokens, packed=is_packed)


def computed(task: AlignmentTask, batch: Batch) -> tuple[float, torch.Tensor]:
    """A step's loss, and the logits (positions, vocabulary) of the same pass, padding included."""
    hidden: list[torch.Tensor] = []
    hook = task.model.model.language_model.register_forward_hook(lambda _, __, out: hidden.append(out.last_hidden_state))
    with torch.no_grad():
        loss, _ = task(batch)
        logits = task.model.lm_head(hidden[0])
    hook.remove()
    return float(loss), logits.reshape(-1, logits.shape[-1])


def fixture(family: str, select: str, name: str) -> dict[str, np.ndarray]:
    file, prefix = ("llava", "") if family == "llama" else ("factory", f"{select}/")
    whole = load_file(material.FIXTURES / f"{file}_losses.safetensors")
    return {key: whole[f"{prefix}{name}/{key}"] for key in ("loss", "lengths", "labels", "logits")}


@pytest.mark.parametrize("is_packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("name", material.batches())
@pytest.mark.parametrize(("family", "select", "tokens"), CASES)
def test_logits_and_loss(
    family: str, select: Literal["default", "full"], tokens: int, name: str, is_packed: bool, models: Path
) -> None:
    stage, samples = material.batches()[name]
    batch = batch_of(models, family, stage, samples, tokens, is_packed)
    loss, logits = computed(task_of(models, family, select, tokens, is_packed), batch)
    expected = fixture(family, select, name)
    if is_packed:
        assert batch.sequence_lengths == tuple(expected["lengths"])
        real = torch.ones(batch.labels.numel(), dtype=torch.bool)
    else:
        real = (torch.arange(batch.labels.shape[1]) < torch.from_numpy(expected["lengths"])[:, None]).flatten()
    assert batch.labels.flatten()[real].tolist() == expected["labels"].tolist()
    assert np.abs(logits[real][:, :: material.KEPT_LOGITS].numpy() - expected["logits"]).max() < 1e-5
    assert loss == pytest.approx(float(expected["loss"]), abs=1e-5)


def test_the_factorys_projector_starts_as_the_factorys_does(models: Path) -> None:
    theirs = json.loads((material.FIXTURES / "factory.json").read_text())["connector"]
    config = task_of(models, "phi", "full", 9, False).model.config
    torch.manual_seed(0)
    drawn = [new_projector(config, "normal") for _ in range(100)]
    for name in ("0.weight", "2.weight"):
        ours = torch.stack([(p.linear_1 if name[0] == "0" else p.linear_2).weight.detach() for p in drawn])
        assert float(ours.std()) == pytest.approx(theirs[name]["std"], rel=0.02)
        # of a hundred thousand normal values the largest lies beyond four standard deviations, and not beyond six
        assert 4 < float(ours.abs().max()) / theirs[name]["std"] < 6
        assert 4 < theirs[name]["largest"] / theirs[name]["std"] < 6
    assert theirs["0.bias"]["largest"] == theirs["2.bias"]["largest"] == 0
    assert not any(p.linear_1.bias.any() or p.linear_2.bias.any() for p in drawn)


@pytest.mark.parametrize(("init", "zero_biases"), [("linear", False), ("normal", True)])
def test_a_training_starts_with_the_projector_that_its_model_names(
    init: str, zero_biases: bool, assets: Path, tmp_path: Path
) -> None:
    config = world.study_config("phi")
    config["models"]["tiny"]["projector_init"] = init
    study = load_study(config)
    job = Job(
        recipe=study.recipe("tiny", "run", "pretrain"), execution=study.execution.pretrain, device="cpu",
        tower=assets / "siglip", language_model=assets / "phi", data=tmp_path, initial=None, deepspeed=tmp_path,
        run=tmp_path, inputs={},
    )  # fmt: skip
    assert job.recipe.projector_init == init
    own = projector(build_task(job).model)
    assert bool(own.linear_1.bias.any() or own.linear_2.bias.any()) is not zero_biases
