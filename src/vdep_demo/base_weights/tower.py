"""The vision towers of the demo world: small CLIP and SigLIP models, trained to tell a scene's caption from its neighbours'.

They stand where the paper downloads CLIP and SigLIP. Every batch holds scenes together with scenes that differ in one thing
(a colour, a shape, a place, a digit): without such neighbours a tower learns what is there but not which digit, nor where.
Only the vision half is kept.
"""

from __future__ import annotations

import json
import logging
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import CLIPConfig, CLIPModel, CLIPVisionModel, SiglipConfig, SiglipModel, SiglipVisionModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from ..world.language import caption
from ..world.scenes import (
    BACKGROUNDS,
    COLORS,
    GRID,
    IMAGE_SIZE,
    SHAPES,
    Scene,
    Thing,
    handwritten_digits,
    render,
    sample_scenes,
)
from . import tokenizer as world_tokenizer

log = logging.getLogger(__name__)

TEXT_VOCABULARY, TEXT_LENGTH = 256, 32
# not 2: transformers pools CLIP's text at the largest id where the end token is 2, as the first CLIP had it
BEGIN, END = 1, TEXT_VOCABULARY - 1


@dataclass(frozen=True)
class TowerRecipe:
    """What the weights depend on."""

    family: str
    width: int = 128
    layers: int = 4
    heads: int = 4
    patch: int = 8
    steps: int = 2500
    scenes_per_batch: int = 32
    learning_rate: float = 1e-3
    scenes: int = 24_000
    seed: int = 21


def new_model(recipe: TowerRecipe) -> Any:
    torch.manual_seed(recipe.seed)
    vision = {
        "hidden_size": recipe.width,
        "intermediate_size": recipe.width * 4,
        "num_hidden_layers": recipe.layers,
        "num_attention_heads": recipe.heads,
        "image_size": IMAGE_SIZE,
        "patch_size": recipe.patch,
    }
    text = {
        "hidden_size": 96 if recipe.family == "clip" else recipe.width,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": TEXT_VOCABULARY,
        "max_position_embeddings": TEXT_LENGTH,
        "bos_token_id": BEGIN,
        "eos_token_id": END,
        "pad_token_id": 0,
    }
    if recipe.family == "clip":
        return CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=recipe.width))
    model = SiglipModel(SiglipConfig(vision_config=vision, text_config={**text, "projection_size": recipe.width}))
    with torch.no_grad():
        model.logit_scale.fill_(math.log(1 / 0.07))
    return model


def processor(family: str) -> Any:
    if family == "clip":
        return CLIPImageProcessorPil(size={"shortest_edge": IMAGE_SIZE}, crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE})
    return SiglipImageProcessorPil(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE})


class Neighbours:
    """Draws scenes and others that differ from them in one thing."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng([seed, 13])

    def jittered(self, scene: Scene) -> Scene:
        """The same description, drawn anew: other offsets, handwriting, shade, noise."""
        background = "plain" if scene.diagram else BACKGROUNDS[int(self.rng.choice(3, p=[0.7, 0.2, 0.1]))]
        things = tuple(self._redrawn(thing) for thing in scene.things)
        return Scene(things, background, int(self.rng.integers(20, 80)), int(self.rng.integers(2**31)), scene.diagram)

    def _redrawn(self, thing: Thing) -> Thing:
        offset = (int(self.rng.integers(-1, 2)), int(self.rng.integers(-1, 2)))
        if thing.digit is None:
            return replace(thing, offset=offset)
        index = int(self.rng.choice(handwritten_digits()[2]["train", thing.digit]))
        return replace(thing, offset=offset, digit_index=index)

    def neighbour(self, scene: Scene) -> Scene | None:
        """A training scene that differs in one thing, or None where none was found in a few tries."""
        for _ in range(12):
            row = int(self.rng.integers(len(scene.things)))
            changed = self._changed(scene, scene.things[row])
            if changed is None:
                continue
            things = [changed if i == row else thing for i, thing in enumerate(scene.things)]
            if not scene.diagram:
                things.sort(key=lambda t: (t.row, t.column))
            other = replace(scene, things=tuple(things))
            if other.split == "train":
                return other
        return None

    def _changed(self, scene: Scene, thing: Thing) -> Thing | None:
        if thing.digit is not None and (scene.diagram or self.rng.random() < 0.7):
            return self._redrawn(replace(thing, digit=int((thing.digit + self.rng.integers(1, 10)) % 10)))
        choice = int(self.rng.integers(4))
        if choice == 0 and not scene.diagram:
            taken = {(t.row, t.column) for t in scene.things}
            free = [c for c in (divmod(i, GRID) for i in range(GRID * GRID)) if c not in taken]
            row, column = free[int(self.rng.integers(len(free)))]
            return replace(thing, row=row, column=column)
        if thing.digit is not None:
            return None
        if choice == 1:
            return replace(thing, size="small" if thing.size == "large" else "large")
        if choice == 2:
            changed = replace(thing, color=tuple(COLORS)[int(self.rng.integers(len(COLORS)))])
        else:
            changed = replace(thing, kind=SHAPES[int(self.rng.integers(len(SHAPES)))])
        others = {(t.color, t.kind) for t in scene.things}
        return None if (changed.color, changed.kind) in others else changed


def train(recipe: TowerRecipe, folder: Path, report_every: int = 250) -> dict[str, float]:
    """Train one tower and save its vision half with its image processor; returns what probes read off it."""
    model, transform = new_model(recipe), processor(recipe.family)
    tokenizer = world_tokenizer.build("words")
    drawn = sample_scenes(recipe.scenes, "train", recipe.seed, digit_share=0.7)
    neighbours = Neighbours(recipe.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.05)
    started, hits = time.monotonic(), [0.0]
    for step in range(recipe.steps):
        rate = min(1, (step + 1) / 200) * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * step / recipe.steps)))
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * rate
        scenes = _batch(drawn, neighbours, recipe.scenes_per_batch)
        ids = caption_ids(tokenizer, scenes)
        pixels = torch.from_numpy(transform([render(s) for s in scenes], return_tensors="np")["pixel_values"])
        logits = _logits(model, recipe.family, ids, pixels)
        loss = _loss(logits)
        hits = [*hits[-200:], float((logits.argmax(1) == torch.arange(len(scenes))).float().mean())]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % report_every == 0 or step + 1 == recipe.steps:
            elapsed = time.monotonic() - started
            log.info("step %d, loss %.3f, right caption %.3f, %.0f s", step + 1, loss.item(), float(np.mean(hits)), elapsed)
    save(model, recipe, folder)
    return examine(folder, recipe)


def _batch(drawn: list[Scene], neighbours: Neighbours, count: int) -> list[Scene]:
    scenes: dict[str, Scene] = {}
    for index in neighbours.rng.integers(len(drawn), size=count):
        scene = neighbours.jittered(drawn[int(index)])
        for candidate in (scene, neighbours.neighbour(scene), neighbours.neighbour(scene)):
            if candidate is not None:
                scenes.setdefault(candidate.signature, candidate)
    return list(scenes.values())


def caption_ids(tokenizer: Any, scenes: list[Scene]) -> torch.Tensor:
    ids = torch.full((len(scenes), TEXT_LENGTH), END)
    for row, scene in enumerate(scenes):
        own = [BEGIN, *tokenizer.encode(caption(scene)).ids][: TEXT_LENGTH - 1]
        ids[row, : len(own)] = torch.tensor(own)
    return ids


def _logits(model: Any, family: str, ids: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """(images, captions)."""
    if family == "siglip":
        return model(input_ids=ids, pixel_values=pixels).logits_per_image
    ends = (ids == END).int()
    mask = (ends.cumsum(1) - ends == 0).long()
    text = model.text_projection(model.text_model(input_ids=ids, attention_mask=mask).pooler_output)
    # the mean of all tokens instead of CLIP's class token: LLaVA reads the patches, so they are what has to know things
    states = model.vision_model(pixel_values=pixels).last_hidden_state
    image = model.visual_projection(model.vision_model.post_layernorm(states).mean(1))
    return model.logit_scale.exp() * F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T


def _loss(logits: torch.Tensor) -> torch.Tensor:
    """Which caption of the batch, both ways. For SigLIP too: its sigmoid needs more steps than a demo has (docs/log.md)."""
    target = torch.arange(len(logits))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def save(model: Any, recipe: TowerRecipe, folder: Path) -> None:
    """The vision half in half precision, under the configuration of a whole CLIP or SigLIP model."""
    vision = (CLIPVisionModel if recipe.family == "clip" else SiglipVisionModel)(model.config.vision_config)
    wanted = vision.state_dict()
    whole = model.state_dict() if any(name.startswith("vision_model.") for name in wanted) else model.vision_model.state_dict()
    vision.load_state_dict({name: value for name, value in whole.items() if name in wanted})
    vision.half().save_pretrained(folder)
    processor(recipe.family).save_pretrained(folder)


@torch.no_grad()
def examine(folder: Path, recipe: TowerRecipe, scenes: int = 2000) -> dict[str, float]:
    """What a linear probe reads off the patch states of layer -2 of unseen scenes of one thing: its digit and its place."""
    from sklearn.linear_model import LogisticRegression

    from vdep.model.llava import load_vision_tower

    tower = load_vision_tower(folder, torch.float32).eval()
    transform = processor(recipe.family)

    def states(split: str, seed: int) -> tuple[np.ndarray, list[Scene]]:
        found = [s for s in sample_scenes(scenes, split, seed, digit_share=1.0, diagram_share=0.0) if len(s.things) == 1]
        pixels = torch.from_numpy(transform([render(s) for s in found], return_tensors="np")["pixel_values"])
        hidden = tower(pixels, output_hidden_states=True).hidden_states[-2]
        return hidden[:, -((IMAGE_SIZE // recipe.patch) ** 2) :].numpy(), found

    train_x, train_scenes = states("train", 3)
    test_x, test_scenes = states("test", 3)
    results = {}
    readouts = {"digit": lambda x: x.mean(1), "place": lambda x: x.reshape(len(x), -1)}
    for name, readout in readouts.items():
        labels = [[getattr(s.things[0], name) for s in group] for group in (train_scenes, test_scenes)]
        probe = LogisticRegression(max_iter=500).fit(readout(train_x), labels[0])
        results[f"probe/{name}"] = round(float(probe.score(readout(test_x), labels[1])), 3)
    log.info("%s", json.dumps(results))
    return results
