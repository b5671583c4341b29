"""The language models of the demo world: small Llama and Phi, trained on the world's texts until they answer every question
about a scene from its caption.

They stand where the paper downloads Vicuna and Phi-2. They never see a picture. What made them learn to look things up, and
what did not, is in docs/log.md: the initial weights (1/sqrt(width)) and the order of the lessons matter most.
"""

from __future__ import annotations

import json
import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PhiConfig, PhiForCausalLM, PreTrainedModel

from . import language as words
from . import tokenizer as world_tokenizer
from .data import unanswerable
from .language import CORE_SKILLS, SKILLS, Question, ask, ask_yes_no, caption, lettered
from .prompts import CHOICE_STYLES, OPEN_STYLES, pose, random_style
from .scenes import COLORS, SHAPES, Scene, crowded_scenes, sample_scenes

log = logging.getLogger(__name__)

VOCABULARY = {"llama": 256, "phi": 288}
SYSTEM = " ".join(words.SYSTEM_SENTENCES)
UNSUPERVISED = 0.01
"""Weight of the text that nothing could predict; answers weigh 1. With more, its noise drowns the look-ups."""


@dataclass(frozen=True)
class LanguageModelRecipe:
    """What the weights depend on."""

    family: str
    width: int = 128
    layers: int = 4
    heads: int = 4
    steps: int = 6000
    batch: int = 32
    learning_rate: float = 2e-3
    scenes: int = 30_000
    seed: int = 1


def new_model(recipe: LanguageModelRecipe) -> PreTrainedModel:
    torch.manual_seed(recipe.seed)
    common = {
        "vocab_size": VOCABULARY[recipe.family],
        "hidden_size": recipe.width,
        "num_hidden_layers": recipe.layers,
        "num_attention_heads": recipe.heads,
        "max_position_embeddings": 512,
        "initializer_range": 1 / math.sqrt(recipe.width),
    }
    if recipe.family == "llama":
        intermediate = recipe.width * 8 // 3 // 16 * 16
        model: PreTrainedModel = LlamaForCausalLM(
            LlamaConfig(intermediate_size=intermediate, bos_token_id=1, eos_token_id=2, **common)
        )
    else:
        # Phi-2 carries dropout and rotates part of each head; here the base is made without dropout and shipped with it
        half = {"partial_rotary_factor": 0.5, "resid_pdrop": 0.0}
        model = PhiForCausalLM(PhiConfig(intermediate_size=recipe.width * 4, bos_token_id=0, eos_token_id=0, **half, **common))
    with torch.no_grad():
        # a direction common to all tokens lets attention without biases look at places; copying starts as the identity
        embedding = model.get_input_embeddings().weight
        embedding += torch.randn(recipe.width) * embedding.std()
        model.get_output_embeddings().weight.copy_(embedding)
    return model


class Writer:
    """Writes the documents that a model is trained on: token ids, and how much each of them counts."""

    def __init__(self, family: str, scenes: list[Scene], seed: int) -> None:
        self.tokenizer: Tokenizer = world_tokenizer.build(family, VOCABULARY[family])
        self.start = [1] if family == "llama" else []
        self.end = 2 if family == "llama" else 0
        self.scenes = scenes
        self.rng = np.random.default_rng([seed, 5])

    def ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def document(self, progress: float) -> tuple[list[int], list[float]]:
        """One document. ``progress`` in [0, 1]: at first which letter an option has, then plain questions, then all ways."""
        kind = self.rng.random()
        scene = self.scenes[int(self.rng.integers(len(self.scenes)))]
        if kind < 0.05:
            return self._repetition()
        if kind < (0.95 if progress < 0.1 else 0.2):
            return self._options()
        if kind < 0.3:
            return self._restatement(scene)
        return self._questions(scene, plain=self.rng.random() > min(1.0, max(0.0, (progress - 0.2) / 0.3)))

    def _repetition(self) -> tuple[list[int], list[float]]:
        """Random words three times over: what follows a word here follows it again."""
        count = int(self.rng.integers(6, 16))
        first = self.rng.choice(np.arange(3, VOCABULARY["llama"] - 32), count, replace=False).tolist()
        return [*self.start, *first * 3], [0.0] * (len(self.start) + count + 1) + [1.0] * (2 * count - 1)

    def _restatement(self, scene: Scene) -> tuple[list[int], list[float]]:
        """A caption, then the same scene again in another order."""
        ids, weights = list(self.start), [0.0] * len(self.start)
        for number in range(3):
            part = self.ids(caption(scene, self.rng if number else None) + "\n")
            ids += part
            weights += [0.5 if number else UNSUPERVISED] * len(part)
        return ids, weights

    def _options(self) -> tuple[list[int], list[float]]:
        """Which letter stands before a word: half of every multiple choice."""
        turns = []
        for _ in range(4):
            values = _VALUES[int(self.rng.integers(len(_VALUES)))]
            options = [values[i] for i in self.rng.permutation(len(values))[:4]]
            right = int(self.rng.integers(len(options)))
            closing = (words.LETTER, words.LETTER_ONLY, words.CHARACTER)[int(self.rng.integers(3))]
            mark = ":" if closing == words.CHARACTER else "."
            turns.append((f"What is {options[right]}?\n{lettered(options, mark)}\n{closing}", chr(65 + right)))
        return self._talk("", turns)

    def _questions(self, scene: Scene, plain: bool) -> tuple[list[int], list[float]]:
        turns: list[tuple[str, str]] = []
        while len(turns) < (8 if plain else 5):
            question = self._question(scene, plain)
            if question is None:
                continue
            if plain:
                turns.append((question.text, question.answer))
            elif question.wrong in (("Yes",), ("No",)):
                turns.append(pose(question, OPEN_STYLES[int(self.rng.integers(len(OPEN_STYLES)))], self.rng))
            else:
                turns.append(pose(question, random_style(question, self.rng), self.rng))
        if not plain and self.rng.random() < 0.1:
            turns[0] = (words.DESCRIBE, caption(scene))
        if not plain and self.rng.random() < 0.1:
            turns[1] = pose(unanswerable(scene, self.rng), "hint", self.rng)
        return self._talk(caption(scene, self.rng if self.rng.random() < 0.5 else None) + "\n", turns)

    def _question(self, scene: Scene, plain: bool) -> Question | None:
        pool = CORE_SKILLS if self.rng.random() < 0.5 else SKILLS
        skill = pool[int(self.rng.integers(len(pool)))]
        if plain or self.rng.random() < 0.7:
            return ask(scene, skill, self.rng)
        return ask_yes_no(scene, skill, bool(self.rng.random() < 0.5), self.rng)

    def _talk(self, context: str, turns: list[tuple[str, str]]) -> tuple[list[int], list[float]]:
        ids = [*self.start, *self.ids(SYSTEM)]
        weights = [UNSUPERVISED] * len(ids)
        for number, (question, answer) in enumerate(turns):
            asked = self.ids(f"USER: {context if number == 0 else ''}{question} ASSISTANT:")
            said = [*self.ids(answer), self.end]
            ids += asked + said
            weights += [UNSUPERVISED] * len(asked) + [1.0] * len(said)
        return ids, weights


_VALUES = tuple(tuple(group) for group in (COLORS, SHAPES, words.PLACES, words.DIGITS, words.FOODS.values(), words.NUMBERS))


def pad(documents: list[tuple[list[int], list[float]]]) -> tuple[torch.Tensor, torch.Tensor]:
    """(documents, length) ids and weights."""
    length = max(len(ids) for ids, _ in documents)
    ids = torch.zeros(len(documents), length, dtype=torch.long)
    weights = torch.zeros(len(documents), length)
    for row, (own, own_weights) in enumerate(documents):
        ids[row, : len(own)] = torch.tensor(own)
        weights[row, : len(own_weights)] = torch.tensor(own_weights)
    return ids, weights


def train(recipe: LanguageModelRecipe, folder: Path, report_every: int = 500) -> dict[str, float]:
    """Train one language model and save it with its tokenizer; returns its accuracy by skill and way of asking."""
    model = new_model(recipe)
    scenes = sample_scenes(recipe.scenes * 2 // 3, "train", recipe.seed)
    scenes += crowded_scenes(recipe.scenes // 3, "train", recipe.seed)
    writer = Writer(recipe.family, scenes, recipe.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    started, recent = time.monotonic(), 0.0
    for step in range(recipe.steps):
        rate = min(1, (step + 1) / 200) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / recipe.steps)))
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * rate
        ids, weights = pad([writer.document(step / recipe.steps) for _ in range(recipe.batch)])
        logits = model(ids).logits[:, :-1]
        counted = weights[:, 1:] > 0
        losses = F.cross_entropy(logits[counted], ids[:, 1:][counted], reduction="none")
        loss = (losses * weights[:, 1:][counted]).sum() / weights[:, 1:][counted].sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        recent = loss.item() if step == 0 else 0.98 * recent + 0.02 * loss.item()
        if (step + 1) % report_every == 0 or step + 1 == recipe.steps:
            accuracy = examine(model, recipe.family)
            log.info("step %d, loss %.3f, %.0f s: %s", step + 1, recent, time.monotonic() - started, json.dumps(accuracy))
    save(model, recipe.family, folder)
    return examine(model, recipe.family, questions=200)


def save(model: Any, family: str, folder: Path) -> None:
    """Half precision on disk; Phi's configuration gets the dropout of Phi-2."""
    if family == "phi":
        model.config.resid_pdrop = 0.1
    copy = type(model)(model.config)
    copy.load_state_dict(model.state_dict())
    copy.half().save_pretrained(folder)
    if family == "phi":
        model.config.resid_pdrop = 0.0
    world_tokenizer.save(family, VOCABULARY[family], folder)


@torch.no_grad()
def examine(model: Any, family: str, questions: int = 60, seed: int = 7) -> dict[str, float]:
    """Share of questions answered rightly from the caption of an unseen scene, by ``skill/style``."""
    model.eval()
    writer = Writer(family, sample_scenes(2000, "test", seed), seed)
    results = {}
    kinds = [(skill, "short") for skill in SKILLS] + [(skill, "yes_no") for skill in ("count", "color", "position", "digit")]
    kinds += [(skill, style) for style in CHOICE_STYLES for skill in ("color", "position", "count", "digit")]
    for skill, style in [*kinds, ("color", "chinese"), ("label", "letter")]:
        asked: list[tuple[list[int], list[int]]] = []
        while len(asked) < questions:
            scene = writer.scenes[int(writer.rng.integers(len(writer.scenes)))]
            truth = bool(writer.rng.random() < 0.5)
            question = ask_yes_no(scene, skill, truth, writer.rng) if style == "yes_no" else ask(scene, skill, writer.rng)
            if question is not None:
                posed, answer = pose(question, "short" if style == "yes_no" else style, writer.rng)
                prompt = writer.ids(f"{SYSTEM} USER: {caption(scene)}\n{posed} ASSISTANT:")
                asked.append(([*writer.start, *prompt], writer.ids(answer)))
        ids, _ = pad([(prompt + answer, []) for prompt, answer in asked])
        best = model(ids).logits.argmax(-1)
        right = [best[i, len(p) - 1 : len(p) - 1 + len(a)].tolist() == a for i, (p, a) in enumerate(asked)]
        results[f"{skill}/{style}"] = round(float(np.mean(right)), 3)
    model.train()
    return results
