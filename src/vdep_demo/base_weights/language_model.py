"""The language models of the demo world: small Llama and Phi, trained to answer questions about a scene from its caption or
its map (``lessons``).

They stand where the paper downloads Vicuna and Phi-2. They never see a picture. How well they answer each kind of question is
in the ``quality`` of their recipe.json; what made them learn, and what did not, in docs/log.md.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM, PhiConfig, PhiForCausalLM, PreTrainedModel

from ..world.language import CORE_SKILLS, SKILLS, ask, ask_yes_no, caption
from ..world.prompts import CHOICE_STYLES, pose
from ..world.scenes import crowded_scenes, sample_scenes
from . import tokenizer as world_tokenizer
from .lessons import SYSTEM, Batch, Disturbance, Document, Writer, pad

log = logging.getLogger(__name__)

WARM_UP = 100
"""Steps in which the learning rates rise."""
COOL_DOWN = 0.6
"""Share of the last phase, at its end, in which they fall."""
ROPE = {"rope_type": "default", "rope_theta": 1e6}
"""Llama's rotations, slower than its own 10,000: look-ups match words wherever they stand. Phi rotates half of each head."""


@dataclass(frozen=True)
class Phase:
    """Steps with documents of one course of ``lessons.COURSES``."""

    course: str
    steps: int
    matrix_rate: float = 0.01
    """Muon's learning rate, for the matrices of the layers."""
    enough: float | None = None
    """Ends the phase early, once this share of letters is right: when they are learned depends much on chance."""


def courses(options_rate: float, *last: Phase) -> tuple[Phase, ...]:
    """What is learned after what; the letters of options need a higher rate than the rest."""
    first = Phase("look-ups", 400), Phase("options", 1200, matrix_rate=options_rate, enough=0.85), Phase("plain", 200)
    return (*first, *last)


@dataclass(frozen=True)
class LanguageModelRecipe:
    """What the weights depend on. Llama reads whole words until its last phase, and then the tokens of its own tokenizer."""

    family: str
    phases: tuple[Phase, ...]
    width: int = 128
    layers: int = 4
    heads: int = 4
    batch: int = 32
    learning_rate: float = 1e-3
    """AdamW's, for embeddings, output layer, norms and biases."""
    scenes: int = 30_000
    seed: int = 1

    @property
    def parts(self) -> list[tuple[str, tuple[Phase, ...]]]:
        """The tokenizers, each with the phases that are taught in it."""
        if self.family == "llama" and len(self.phases) > 1:
            return [("words", self.phases[:-1]), ("llama", self.phases[-1:])]
        return [(self.family, self.phases)]


def new_model(recipe: LanguageModelRecipe, tokens: str) -> PreTrainedModel:
    """Untrained, with room for the tokens of a tokenizer."""
    torch.manual_seed(recipe.seed)
    common = {
        "vocab_size": world_tokenizer.VOCABULARY[tokens],
        "hidden_size": recipe.width,
        "num_hidden_layers": recipe.layers,
        "num_attention_heads": recipe.heads,
        "max_position_embeddings": 512,
        "initializer_range": 1 / math.sqrt(recipe.width),
    }
    if recipe.family == "llama":
        intermediate = recipe.width * 8 // 3 // 16 * 16
        model: PreTrainedModel = LlamaForCausalLM(
            LlamaConfig(intermediate_size=intermediate, bos_token_id=1, eos_token_id=2, rope_parameters=ROPE, **common)
        )
    else:
        # Phi-2 carries dropout and rotates part of each head; here the base is made without dropout and shipped with it
        half = {"partial_rotary_factor": 0.5, "resid_pdrop": 0.0}
        model = PhiForCausalLM(PhiConfig(intermediate_size=recipe.width * 4, bos_token_id=0, eos_token_id=0, **half, **common))
    return model


def train(recipe: LanguageModelRecipe, folder: Path, report_every: int = 500) -> dict[str, float]:
    """Train one language model and save it with its tokenizer; returns its accuracy by skill and way of asking."""
    (first, _), *others = recipe.parts
    model = new_model(recipe, first)
    for tokens, phases in recipe.parts:
        if others and tokens == others[0][0]:
            model = carry_over(model, recipe, first, tokens)
        teach(model, recipe, tokens, phases, report_every)
    save(model, recipe.family, folder)
    return examine(model, recipe.family, questions=200)


def carry_over(model: PreTrainedModel, recipe: LanguageModelRecipe, before: str, tokens: str) -> PreTrainedModel:
    """The same model for the tokens of another tokenizer, which begin as the words that they stand for, if they stand for any.

    A numeral also begins as the words that are told by it (``digit 7``).
    """
    known, wanted = (world_tokenizer.build(name).get_vocab() for name in (before, tokens))
    changed = new_model(recipe, tokens)
    state, old = changed.state_dict(), model.state_dict()
    for name, values in old.items():
        if values.shape == state[name].shape:
            state[name] = values
            continue
        for token, row in wanted.items():
            word = world_tokenizer.words_of(token)
            if word in known:
                state[name][row] = values[known[word]]
            if name == "model.embed_tokens.weight" and f"digit {word}" in known:
                state[name][row] += values[known[f"digit {word}"]]
    changed.load_state_dict(state)
    return changed


def teach(
    model: PreTrainedModel, recipe: LanguageModelRecipe, tokens: str, phases: tuple[Phase, ...], report_every: int
) -> None:
    """Train a model in phases that are told in the tokens of one tokenizer."""
    scenes = sample_scenes(recipe.scenes * 2 // 3, "train", recipe.seed)
    scenes += crowded_scenes(recipe.scenes // 3, "train", recipe.seed)
    writer = Writer(tokens, scenes, recipe.seed)
    matrices, rest = _optimizers(model, recipe)
    started, recent = time.monotonic(), 0.0
    for step, phase, rate in _steps(phases, lambda share: letters_right(model, writer) >= share):
        for group in matrices.param_groups:
            group["lr"] = phase.matrix_rate * rate
        for group in rest.param_groups:
            group["lr"] = recipe.learning_rate * rate
        batch = pad([writer.lesson(phase.course) for _ in range(recipe.batch)])
        logits = model(inputs_embeds=embed(model, batch)).logits[:, :-1]
        targets, weights = batch.ids[:, 1:], batch.weights[:, 1:]
        counted = weights > 0
        losses = F.cross_entropy(logits[counted], targets[counted], reduction="none")
        loss = (losses * weights[counted]).sum() / weights[counted].sum()
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        matrices.step()
        rest.step()
        recent = loss.item() if step == 0 else 0.98 * recent + 0.02 * loss.item()
        if (step + 1) % report_every == 0:
            accuracy = examine(model, tokens)
            log.info("step %d, loss %.3f, %.0f s: %s", step + 1, recent, time.monotonic() - started, json.dumps(accuracy))


def _steps(phases: tuple[Phase, ...], enough: Callable[[float], bool]) -> Iterator[tuple[int, Phase, float]]:
    """(step, phase, learning rate's factor) for each step."""
    step = 0
    for phase in phases:
        for left in range(phase.steps, 0, -1):
            if phase.enough is not None and left % 50 == 0 and enough(phase.enough):
                break
            cooling = left / phase.steps / COOL_DOWN if phase is phases[-1] else 1.0
            yield step, phase, min(1.0, (step + 1) / WARM_UP, cooling)
            step += 1


def _optimizers(model: PreTrainedModel, recipe: LanguageModelRecipe) -> tuple[torch.optim.Muon, torch.optim.AdamW]:
    inside = {name for name, p in model.named_parameters() if p.ndim == 2 and ".layers." in name}
    matrices = [p for name, p in model.named_parameters() if name in inside]
    rest = [p for name, p in model.named_parameters() if name not in inside]
    return (
        torch.optim.Muon(matrices, momentum=0.95, weight_decay=0.1),
        torch.optim.AdamW(rest, lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.01),
    )


def save(model: Any, family: str, folder: Path) -> None:
    """Half precision on disk; Phi's configuration gets the dropout of Phi-2."""
    if family == "phi":
        model.config.resid_pdrop = 0.1
    copy = type(model)(model.config)
    copy.load_state_dict(model.state_dict())
    copy.half().save_pretrained(folder)
    if family == "phi":
        model.config.resid_pdrop = 0.0
    world_tokenizer.save(family, folder)


def embed(model: Any, batch: Batch) -> torch.Tensor:
    """(documents, length, width): embeddings of the ids, plus those of what is added; disturbed maps disturbed."""
    table = model.get_input_embeddings()
    embeddings = table(batch.ids) + table(batch.added.clamp(min=0)) * (batch.added >= 0)[..., None]
    for row, patches, disturbance in batch.disturbed:
        embeddings[row, patches] = disturb(embeddings[row, patches], disturbance)
    return embeddings


def disturb(patches: torch.Tensor, disturbance: Disturbance) -> torch.Tensor:
    """(patches, width), in random directions."""
    count, width = patches.shape
    length = patches.detach().norm(dim=-1).mean() / math.sqrt(width)
    offset = torch.randn(width) * disturbance.offset * length
    noise = torch.randn(count, width) * disturbance.noise * length
    return disturbance.scale * (patches + offset + noise)


@torch.no_grad()
def examine(model: Any, tokens: str, questions: int = 60, seed: int = 7) -> dict[str, float]:
    """Share of questions answered rightly about unseen scenes: ``skill/style`` from captions, ``map/skill`` from maps."""
    model.eval()
    writer = Writer(tokens, sample_scenes(2000, "test", seed), seed)
    kinds = [(skill, "short") for skill in SKILLS] + [(skill, "yes_no") for skill in ("count", "color", "position", "digit")]
    kinds += [(skill, style) for style in CHOICE_STYLES for skill in ("color", "position", "count", "digit")]
    kinds += [("color", "chinese"), ("label", "letter")]
    results = {f"{skill}/{style}": _share_right(model, writer, skill, style, False, questions) for skill, style in kinds}
    for style in ("short", "letter"):
        skills = CORE_SKILLS if style == "short" else ("color", "position", "count", "digit")
        results |= {f"map/{skill}/{style}": _share_right(model, writer, skill, style, True, questions) for skill in skills}
    results["options"] = letters_right(model, writer, questions)
    model.train()
    return results


@torch.no_grad()
def letters_right(model: Any, writer: Writer, documents: int = 50) -> float:
    """Share of the letters of options named rightly."""
    batch = pad([writer.options() for _ in range(documents)])
    best = model(inputs_embeds=embed(model, batch)).logits[:, :-1].argmax(-1)
    targets = batch.ids[:, 1:]
    asked_for = (batch.weights[:, 1:] == 1) & (targets != writer.end)
    return round(float((best == targets)[asked_for].float().mean()), 3)


def _share_right(model: Any, writer: Writer, skill: str, style: str, as_map: bool, questions: int) -> float:
    asked: list[Document] = []
    answers: list[list[int]] = []
    while len(asked) < questions:
        scene = writer.scenes[int(writer.rng.integers(len(writer.scenes)))]
        truth = bool(writer.rng.random() < 0.5)
        question = ask_yes_no(scene, skill, truth, writer.rng) if style == "yes_no" else ask(scene, skill, writer.rng)
        if question is None:
            continue
        posed, answer = pose(question, "short" if style == "yes_no" else style, writer.rng)
        document = Document()
        document.write([*writer.start, *writer.ids(f"{SYSTEM} USER: {'' if as_map else caption(scene)}")], 0.0)
        if as_map:
            document.write(*writer.map(scene))
        document.write(writer.ids(f"\n{posed} ASSISTANT:", goes_on=not as_map), 0.0)
        answers.append(writer.ids(answer))
        document.write(answers[-1], 1.0)
        asked.append(document)
    best = model(inputs_embeds=embed(model, pad(asked))).logits.argmax(-1)
    right = [
        best[i, len(d.ids) - len(a) - 1 : len(d.ids) - 1].tolist() == a
        for i, (d, a) in enumerate(zip(asked, answers, strict=True))
    ]
    return round(float(np.mean(right)), 3)
