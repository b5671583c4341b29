"""What is claimed of speed and memory without a clock: tokens by the code that assigns them, and the memory of the paper's
plan."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import torch
import world
import yaml
from test_recipe import paper_config

sys.path.insert(0, str(world.ROOT / "benchmarks"))

from common import GEOMETRIES, build
from packed_sft import GLOBAL_BATCH, MICRO_BATCH_TOKENS, RANKS, stated_lengths, tokens_computed

from vdep.files import read_json
from vdep.study.check import load_study
from vdep.train.memory import Memory, activations_per_token, training_memory

A100 = 85e9
"""Bytes of an A100 of 80 GB, as its driver tells them."""


def test_the_benchmark_is_of_the_papers_configuration() -> None:
    study = load_study(paper_config())
    execution = study.execution.finetune
    assert (execution.processes, execution.packing, execution.micro_batch_tokens) == (RANKS, True, MICRO_BATCH_TOKENS)
    assert study.stage("llava-7b", "baseline", "finetune").global_batch == GLOBAL_BATCH


@pytest.mark.parametrize("long", [False, True])
def test_the_papers_sft_computes_its_tokens_and_hardly_any_rank_waits(long: bool) -> None:
    lengths, has_image = stated_lengths(60 * GLOBAL_BATCH, long)
    everybody, slowest = tokens_computed(lengths, has_image, packed=True)
    assert everybody <= 1.05
    assert slowest <= 1.08
    padded, slowest_padded = tokens_computed(lengths, has_image, packed=False)
    assert padded > 1.4, "the control: padded it is another matter"
    assert slowest_padded > 1.6


def memory_of(geometry: str, stage: str) -> Memory:
    """What config/config.yaml asks of one GPU."""
    execution = getattr(load_study(paper_config()).execution, stage)
    assert execution.packing
    model = build(GEOMETRIES[geometry], torch.device("meta"), torch.bfloat16)
    if stage == "finetune":
        model.model.language_model.requires_grad_(True)
        model.lm_head.requires_grad_(True)
    deepspeed: dict[str, Any] | None = None
    if execution.engine != "ddp":
        deepspeed = read_json(world.ROOT / "config" / "deepspeed" / f"{execution.engine}.json")
    how = execution.micro_batch_tokens, execution.processes, deepspeed, execution.activation_checkpointing
    return training_memory(model, *how)


@pytest.mark.parametrize("geometry", ["7b", "3b"])
@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_the_papers_plan_fits_a_gpu_of_80_gb_without_recomputing(geometry: str, stage: str) -> None:
    memory = memory_of(geometry, stage)
    assert memory.total < A100
    # and the table of the documentation is this arithmetic
    row = " | ".join(f"{value / 1e9:.0f}" for value in (memory.state, memory.activations, memory.total))
    name = {"pretrain": "stage 1", "finetune": "SFT"}[stage]
    assert f"| {geometry.upper()} {name} | " in (text := (world.ROOT / "docs" / "training.md").read_text())
    assert row in next(line for line in text.splitlines() if line.startswith(f"| {geometry.upper()} {name} |")), row


def test_the_activations_are_what_a_layer_keeps() -> None:
    """Measured on real tensors: a small layer in bf16, its saved tensors counted."""
    geometry = GEOMETRIES["tiny"]
    model = build(geometry, torch.device("cpu"), torch.bfloat16)
    language = model.model.language_model.requires_grad_(True)
    language.set_attn_implementation("sdpa")
    tokens = 128
    row = torch.randn(1, tokens, geometry.width, dtype=torch.bfloat16, requires_grad=True)
    own = {p.untyped_storage().data_ptr() for p in language.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hold = language(inputs_embeds=row, use_cache=False).last_hidden_state
    assert hold.requires_grad
    # the final norm, the angles and the rounding of attention's numbers come on top
    assert sum(kept.values()) / tokens == pytest.approx(activations_per_token(language, True), rel=0.15)


@pytest.mark.long
def test_mfu_runs_the_trainer() -> None:
    command = [sys.executable, str(world.ROOT / "benchmarks" / "mfu.py"), "--geometry", "tiny", "--steps", "4"]
    done = subprocess.run(command, env=world.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    figures = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    configured = yaml.safe_load((world.ROOT / "config" / "config.yaml").read_text())["execution"]
    for case, stage in (("stage 1", "pretrain"), ("SFT", "finetune")):
        assert figures[case]["tokens_per_second"] > 0
        assert figures[case]["execution"]["engine"] == configured[stage]["engine"]
        assert figures[case]["execution"]["packing"]
