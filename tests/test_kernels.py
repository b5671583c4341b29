"""Fused kernels are a way to run a training: the losses and gradients stay, to rounding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import world
from test_gradients import Bench
from test_scale import assert_same_training
from test_training import Runs, finish
from torch._dynamo.utils import counters

from vdep.data.loader import MicroBatches
from vdep.errors import ConfigError
from vdep.model.kernels import use_kernels
from vdep.run.job import Job
from vdep.study.settings import VdepSettings
from vdep.train.build import build_task


@pytest.mark.long
@pytest.mark.parametrize(("family", "recomputed"), [("llama", False), ("phi", True)])
def test_compiled_layers_have_the_gradients_of_the_others(
    family: str, recomputed: bool, assets: Path, prepared_root: Path
) -> None:
    """Rows of many lengths, packed and padded, and no compilation but the first of each kind."""
    gradients: dict[str, list[torch.Tensor]] = {}
    for kernels in ("none", "compile"):
        torch._dynamo.reset()
        counters.clear()
        bench = Bench(family, VdepSettings(), assets, prepared_root)
        language = bench.task.model.model.language_model
        language.requires_grad_(True)
        bench.task.train()
        if recomputed:
            language.gradient_checkpointing_enable({"use_reentrant": False})
        use_kernels(language, kernels)  # type: ignore[arg-type]
        found = gradients.setdefault(kernels, [])
        for packed in (True, False):
            language.set_attn_implementation("packed" if packed else "sdpa")
            for rows, size in enumerate((200, 120, 90, 60) if packed else (7, 5, 3)):
                _, _, batch = MicroBatches(bench.data, bench.plan(None), bench.transform, 0, 1, size, packed)[rows, 0]
                bench.task.zero_grad()
                bench.task(batch)[0].backward()
                found.append(torch.cat([p.grad.flatten() for p in bench.task.parameters() if p.grad is not None]))
        # packed, what comes before attention and what comes after it; padded, the whole layer; one row, and several
        assert counters["stats"]["unique_graphs"] == 0 if kernels == "none" else 0 < counters["stats"]["unique_graphs"] <= 6
    for a, b in zip(gradients["compile"], gradients["none"], strict=True):
        assert float((a - b).norm() / b.norm()) < 1e-5


@pytest.mark.long
def test_a_training_with_compiled_layers_has_the_same_losses(assets: Path, conversations: Path, tmp_path: Path) -> None:
    study = world.make_study(vdep={"alpha": 0.5, "ratio": 0.5})
    world.untrained_projector(study, assets, tmp_path / "initial")
    runs = Runs(study, "finetune", assets, conversations, tmp_path, tmp_path / "initial")
    packed = {"packing": True, "micro_batch_tokens": 300}
    finish(runs.command("plain", **packed))
    finish(runs.command("compiled", kernels="compile", **packed))
    assert_same_training(runs.folder("plain"), runs.folder("compiled"), loss=1e-4, norm=1e-3)


def built(assets: Path, prepared: Path, folder: Path, family: str = "llama", **execution: Any) -> None:
    study = world.make_study(family)
    recipe = study.recipe("tiny", "run", "pretrain")
    how = study.execution.pretrain.model_copy(update=execution)
    build_task(
        Job(
            recipe=recipe, execution=how, device="cpu", tower=assets / recipe.vision_tower.weights,
            language_model=assets / recipe.language_model, data=prepared, initial=None, deepspeed=world.engines(),
            run=folder, inputs={},
        )
    )  # fmt: skip


def test_kernels_that_cannot_be_had_are_refused_with_a_way_out(
    assets: Path, captions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"not for zero3.*Take zero2 or ddp"):
        built(assets, captions, tmp_path, kernels="compile", engine="zero3")
    with pytest.raises(ConfigError, match="is of type 'phi': take kernels: compile"):
        built(assets, captions, tmp_path, family="phi", kernels="liger")
    monkeypatch.setattr("vdep.model.kernels.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install --no-deps liger-kernel=="):
        built(assets, captions, tmp_path, kernels="liger")


@pytest.mark.long
def test_compiled_layers_let_both_losses_be_probed(assets: Path, captions: Path, tmp_path: Path) -> None:
    runs = Runs(world.make_study(vdep={"alpha": 0.5, "ratio": 0.5}), "pretrain", assets, captions, tmp_path)
    finish(runs.command("probed", kernels="compile", packing=True, micro_batch_tokens=300, probe_every=4))


@pytest.mark.gpu
def test_ligers_layers_have_the_gradients_of_the_others(assets: Path, prepared_root: Path) -> None:
    gradients = []
    for kernels in ("none", "liger"):
        bench = Bench("llama", VdepSettings(), assets, prepared_root)
        bench.task.model.model.language_model.requires_grad_(True)
        use_kernels(bench.task.model.model.language_model, kernels)  # type: ignore[arg-type]
        bench.task.cuda()
        _, _, batch = MicroBatches(bench.data, bench.plan(None), bench.transform, 0, 1, 8)[0, 0]
        bench.task(batch.to(torch.device("cuda")))[0].backward()
        gradients.append(torch.cat([p.grad.flatten() for p in bench.task.parameters() if p.grad is not None]))
    assert float((gradients[1] - gradients[0]).norm() / gradients[0].norm()) < 1e-4
