"""What the benchmarks share: models of a given geometry with random weights, batches, alternating measurement, claims."""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaForConditionalGeneration,
    PhiConfig,
    PhiForCausalLM,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from vdep.data.collate import Batch, Row, collate, in_vdep_mode
from vdep.data.conversation import IGNORE_INDEX, IMAGE_INDEX
from vdep.model import packed
from vdep.model.llava import assemble, count_image_tokens, drop_unused_layers, projector
from vdep.model.task import AlignmentTask
from vdep.study.settings import VdepSettings, VisionTower

PROMPT = 4
"""Text tokens before the image, and after it until the answer."""


@dataclass(frozen=True)
class Geometry:
    """The shape of a model. ``family`` is ``llava`` (CLIP, Llama) or ``tinyllava`` (SigLIP, Phi)."""

    family: str
    vision_layers: int
    vision_width: int
    image_size: int
    patch: int
    layers: int
    width: int
    intermediate: int
    heads: int
    vocabulary: int

    @property
    def head_to_layers(self) -> float:
        """Multiply-adds of the head for each of the language model's layers together, a token."""
        gated = self.family == "llava"
        layer = 4 * self.width**2 + (3 if gated else 2) * self.width * self.intermediate
        return self.vocabulary * self.width / (self.layers * layer)

    def like_7b(self) -> Geometry:
        """The same layers under a head that is as small beside them as 7B's: 0.020 of their operations."""
        return replace(self, vocabulary=round(self.vocabulary * GEOMETRIES["7b"].head_to_layers / self.head_to_layers))


CPU = Geometry("llava", 6, 256, 336, 14, 8, 512, 1408, 8, 32000)
"""What facts for a CPU are measured on: 576 image tokens, 25 M parameters in the language model's layers."""
CPU_SHORT = Geometry("llava", 2, 128, 112, 14, 4, 256, 768, 4, 8000)
"""64 image tokens, so that the length of the text matters."""
GEOMETRIES = {
    "7b": Geometry("llava", 24, 1024, 336, 14, 32, 4096, 11008, 32, 32000),
    "3b": Geometry("tinyllava", 27, 1152, 384, 14, 32, 2560, 10240, 32, 51200),
    "cpu": CPU,
    "short": CPU_SHORT,
    "tiny": Geometry("llava", 2, 32, 56, 14, 2, 64, 128, 4, 576),
}


def language_config(geometry: Geometry) -> LlamaConfig | PhiConfig:
    g = geometry
    text: dict[str, Any] = {
        "vocab_size": g.vocabulary, "hidden_size": g.width, "intermediate_size": g.intermediate,
        "num_hidden_layers": g.layers, "num_attention_heads": g.heads, "max_position_embeddings": 2048,
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None,
    }  # fmt: skip
    # Phi-2 rotates 0.4 of each head, and drops 0.1 of what a layer adds
    return LlamaConfig(**text) if g.family == "llava" else PhiConfig(**text, partial_rotary_factor=0.4, resid_pdrop=0.1)


def vision_config(geometry: Geometry) -> CLIPVisionConfig | SiglipVisionConfig:
    g = geometry
    vision: dict[str, Any] = {
        "hidden_size": g.vision_width, "intermediate_size": 4 * g.vision_width, "num_hidden_layers": g.vision_layers,
        "num_attention_heads": max(1, g.vision_width // 64), "image_size": g.image_size, "patch_size": g.patch,
    }  # fmt: skip
    if g.family == "llava":
        return CLIPVisionConfig(**vision)
    siglip = {"intermediate_size": 4304 if g.vision_width == 1152 else 4 * g.vision_width, "num_attention_heads": 16}
    return SiglipVisionConfig(**vision | siglip)


def parts(geometry: Geometry, device: torch.device, dtype: torch.dtype) -> tuple[Any, Any]:
    """A vision tower and a language model with random weights, made where they are used."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            if geometry.family == "llava":
                return CLIPVisionModel(vision_config(geometry)), LlamaForCausalLM(language_config(geometry))
            return SiglipVisionModel(vision_config(geometry)), PhiForCausalLM(language_config(geometry))
    finally:
        torch.set_default_dtype(before)


def tower_settings(geometry: Geometry) -> VisionTower:
    select = "default" if geometry.family == "llava" else "full"
    tokens = count_image_tokens(vision_config(geometry), select)
    return VisionTower(weights="random", image_tokens=tokens, feature_select=select)


def build(geometry: Geometry, device: torch.device, dtype: torch.dtype) -> LlavaForConditionalGeneration:
    """A model with random weights of which the projector is trained: nothing is downloaded, nothing touches the disk."""
    tower, language = parts(geometry, device, dtype)
    with device:
        model = assemble(tower, language, tower_settings(geometry), projector_seed=0)
    model.to(device)
    model.requires_grad_(False)
    projector(model).requires_grad_(True)
    return model.train()


def build_task(model: LlavaForConditionalGeneration, vdep: VdepSettings | None, packing: bool = False) -> AlignmentTask:
    """The model as this repository trains it."""
    drop_unused_layers(model)
    model.model.language_model.set_attn_implementation(packed.NAME if packing else "sdpa")
    return AlignmentTask(model, vdep)


def samples(
    texts: Sequence[int], vocabulary: int, has_image: Sequence[bool] | None = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """(input_ids, labels) with an image after ``PROMPT`` tokens, and ``texts`` further tokens, all but ``PROMPT`` trained."""
    rng = np.random.default_rng(0)
    found = []
    for length, image in zip(texts, has_image or [True] * len(texts), strict=True):
        ids = rng.integers(3, vocabulary - 1, PROMPT + length).astype(np.int32)
        labels = ids.copy()
        labels[: 2 * PROMPT] = IGNORE_INDEX
        if image:
            ids, labels = np.insert(ids, PROMPT, IMAGE_INDEX), np.insert(labels, PROMPT, IGNORE_INDEX)
        found.append((ids, labels))
    return found


def batch_of(
    model: LlavaForConditionalGeneration,
    chosen: Sequence[tuple[np.ndarray, np.ndarray]],
    vdep_mode: bool = False,
    image_loss: bool = False,
    packing: bool = False,
) -> Batch:
    """A micro-batch of random pictures on the model's device, whose losses are means over it."""
    if vdep_mode:
        chosen = [in_vdep_mode(*sample) for sample in chosen]
    images, tokens = sum(bool((ids < 0).any()) for ids, _ in chosen), model.config.image_seq_length
    text = 1 / max(sum(int((labels != IGNORE_INDEX).sum()) for _, labels in chosen), 1)
    rows = [Row(*sample, text, image_loss / max(images * tokens, 1)) for sample in chosen]
    side = model.config.vision_config.image_size
    pixels = np.random.default_rng(1).standard_normal((images, 3, side, side), np.float32) if images else None
    return collate(rows, pixels, tokens, packed=packing).to(model.device)


def stock_inputs(model: LlavaForConditionalGeneration, batch: Batch) -> dict[str, torch.Tensor]:
    """A padded batch as the stock class takes it."""
    assert batch.pixel_values is not None
    model.config.image_token_id = model.config.text_config.vocab_size - 1
    ids = batch.input_ids.masked_fill(batch.image_mask, model.config.image_token_id)
    return {"input_ids": ids, "labels": batch.labels, "pixel_values": batch.pixel_values.to(model.dtype)}


def optimizer_of(model: torch.nn.Module) -> torch.optim.Optimizer:
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(trained, lr=1e-6, fused=trained[0].is_cuda)


@dataclass(frozen=True)
class Timing:
    """Seconds of each side, a turn after the other: on a GPU by the clock, on a CPU of the processor, which other processes
    do not add to."""

    turns: dict[str, list[float]]
    clock: dict[str, list[float]]

    def __getitem__(self, side: str) -> float:
        return statistics.median(self.turns[side])

    def ratio(self, side: str, other: str) -> float:
        """The median of each turn's ratio: what slows the machine for a minute slows both sides of a turn."""
        return statistics.median(a / b for a, b in zip(self.turns[side], self.turns[other], strict=True))

    def rounded(self) -> dict[str, float]:
        return {side: round(self[side], 4) for side in self.turns}

    def by_the_clock(self) -> dict[str, float]:
        return {side: round(statistics.median(seconds), 4) for side, seconds in self.clock.items()}


def alternate(sides: dict[str, Callable[[], object]], repeats: int) -> Timing:
    """Take turns, after one to warm up."""
    timing = Timing({name: [] for name in sides}, {name: [] for name in sides})
    for turn in range(repeats + 1):
        for name, side in sides.items():
            _settle()
            started, used = time.perf_counter(), time.process_time()
            side()
            _settle()
            if turn:
                timing.clock[name].append(time.perf_counter() - started)
                timing.turns[name].append(timing.clock[name][-1] if torch.cuda.is_available() else time.process_time() - used)
    return timing


def _settle() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory(make: Callable[[], Callable[[], object]]) -> int:
    """Bytes that one call adds to what was there before it: on a GPU as allocated, else in a process of its own."""
    if torch.cuda.is_available():
        work = make()
        work()
        gc.collect()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return torch.cuda.max_memory_allocated() - before
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        work = make()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        work()
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        os.write(writer, str((after - before) * 1024).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as file:
        return int(file.read())


@dataclass(frozen=True)
class Claim:
    """A ratio that was measured, and what it should be."""

    name: str
    ratio: float
    target: float
    at_least: bool = True

    @property
    def holds(self) -> bool:
        return self.ratio >= self.target if self.at_least else self.ratio <= self.target

    def line(self) -> str:
        bound = ">=" if self.at_least else "<="
        return f"claim: {self.name:<58} {self.ratio:6.2f}  {bound} {self.target:<5g} {'ok' if self.holds else 'short'}"


def report(claims: Sequence[Claim], **figures: object) -> None:
    """Print the figures behind the claims, the machine, and a line a claim."""
    say(json.dumps({"machine": machine(), **figures}))
    for claim in claims:
        say(claim.line())


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def machine() -> str:
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    with open("/proc/cpuinfo") as file:
        names = {line.partition(":")[2].strip() for line in file if line.startswith("model name")}
    return f"{', '.join(sorted(names)) or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def arguments(description: str | None) -> tuple[torch.device, torch.dtype, int]:
    """--device and --repeats of every benchmark: (device, dtype, repeats)."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=9)
    parsed = parser.parse_args()
    return torch.device(parsed.device), torch.bfloat16 if parsed.device == "cuda" else torch.float32, parsed.repeats
