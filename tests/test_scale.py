"""Ranks, accumulation, packing and engines are ways to run a training, and no part of what it computes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import world
from accelerate.state import AcceleratorState
from test_training import Runs, checkpoints, finish, kill_trainer, start, weights
from torch.utils._python_dispatch import TorchDispatchMode

from vdep.data.images import ImageTransform, load_processor
from vdep.data.loader import MicroBatches
from vdep.data.prepared import PreparedData
from vdep.run.job import Job
from vdep.train.build import build_plan, build_task
from vdep.train.engine import Engine


def losses(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "losses.jsonl").read_text().splitlines()]


def assert_same_training(one: Path, other: Path, loss: float, norm: float) -> None:
    """The same samples in the same order, and the same losses and norms to a relative tolerance."""
    a, b = losses(one), losses(other)
    assert [row["samples"] for row in a] == [row["samples"] for row in b]
    for x, y in zip(a, b, strict=True):
        assert y["text_loss"] == pytest.approx(x["text_loss"], rel=loss)
        assert y["image_loss"] == (x["image_loss"] if x["image_loss"] is None else pytest.approx(x["image_loss"], rel=loss))
        assert y["gradient_norm"] == pytest.approx(x["gradient_norm"], rel=norm)


def kill_once_written(runs: Runs, name: str, step: int, **execution: Any) -> None:
    """Start a run, or go on with it, and kill it once it has written the checkpoint of ``step``."""
    process = start(runs.command(name, **execution))

    def written() -> bool:
        assert process.poll() is None, process.communicate()[0][-3000:]
        return any(found >= f"step-{step:08d}" for found in checkpoints(runs.folder(name)))

    world.wait_for(written)
    kill_trainer(process.pid)
    process.communicate(timeout=60)


@pytest.mark.long
def test_one_rank_then_two_then_four_then_one_with_accumulation_and_packing(
    assets: Path, captions: Path, tmp_path: Path
) -> None:
    study = world.make_study(vdep={"alpha": 0.5, "ratio": 0.5}, epochs=8)
    runs = Runs(study, "pretrain", assets, captions, tmp_path)
    finish(runs.command("undisturbed"))
    for ranks, at in ((1, 10), (2, 26), (4, 44)):
        kill_once_written(runs, "elastic", at, processes=ranks, packing=True, micro_batch_tokens=60)
    finish(runs.command("elastic", packing=True, micro_batch_tokens=60))
    assert_same_training(runs.folder("undisturbed"), runs.folder("elastic"), loss=1e-4, norm=1e-3)


@pytest.mark.long
def test_engines_train_the_same_model(assets: Path, conversations: Path, tmp_path: Path) -> None:
    study = world.make_study(vdep={"alpha": 0.5, "ratio": 0.5})
    world.untrained_projector(study, assets, tmp_path / "initial")
    initial = tmp_path / "initial"
    runs = Runs(study, "finetune", assets, conversations, tmp_path, initial)
    ways: dict[str, dict[str, Any]] = {
        "ddp": {"engine": "ddp"},
        "zero2": {"engine": "zero2"},
        "zero3": {"engine": "zero3"},
        "zero3-two-ranks": {"engine": "zero3", "processes": 2, "micro_batch": 4},
        "packed": {"engine": "ddp", "packing": True, "micro_batch_tokens": 300},
        "recomputed": {"engine": "ddp", "activation_checkpointing": True},
        "recomputed-zero3": {"engine": "zero3", "activation_checkpointing": True, "processes": 2, "micro_batch": 4},
    }
    for name, execution in ways.items():
        finish(runs.command(name, **execution))
    reference = weights(runs.folder("ddp"))
    for name in list(ways)[1:]:
        assert_same_training(runs.folder("ddp"), runs.folder(name), loss=1e-4, norm=1e-3)
        for key, value in weights(runs.folder(name)).items():
            assert torch.allclose(value, reference[key], atol=2e-4), (name, key)


@pytest.mark.long
def test_a_run_goes_on_under_another_engine(assets: Path, conversations: Path, tmp_path: Path) -> None:
    study = world.make_study(epochs=6)
    world.untrained_projector(study, assets, tmp_path / "initial")
    runs = Runs(study, "finetune", assets, conversations, tmp_path, tmp_path / "initial")
    finish(runs.command("undisturbed", engine="ddp"))
    ways: tuple[dict[str, Any], ...] = (
        {"engine": "ddp"},
        {"engine": "zero3", "processes": 2, "micro_batch": 4},
        {"engine": "zero2", "packing": True, "micro_batch_tokens": 300},
    )
    for number, execution in enumerate(ways, 1):
        kill_once_written(runs, "changing", 4 * number, **execution)
    finish(runs.command("changing", engine="ddp"))
    assert_same_training(runs.folder("undisturbed"), runs.folder("changing"), loss=1e-4, norm=1e-3)
    reference = weights(runs.folder("undisturbed"))
    for key, value in weights(runs.folder("changing")).items():
        assert torch.allclose(value, reference[key], atol=2e-4), key


@pytest.mark.slow
def test_ranks_with_and_without_pictures_do_not_wait_for_each_other() -> None:
    # engine: tokens in a chunk of the cross-entropy. With 3, one rank has many chunks where the other has none
    ways = {"ddp": 1000, "zero2": 3, "zero3": 3}
    norms = {
        engine: float(world.on_two_ranks("two_ranks_mixed.py", engine, str(chunk)).split("norm ")[1])
        for engine, chunk in ways.items()
    }
    assert norms == pytest.approx(dict.fromkeys(ways, norms["ddp"]), rel=1e-5)


@pytest.mark.slow
def test_two_real_ranks_have_the_single_processs_gradient_in_float64() -> None:
    assert float(world.on_two_ranks("two_ranks.py", "own").split("difference ")[1]) < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "phi"])
def test_bf16_is_really_used_in_the_matrix_products(
    family: str, assets: Path, prepared_root: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Under DDP the trained weights are float32 and autocast computes in bf16; what is frozen is bf16."""
    # accelerate keeps one precision for a whole process, which other tests have set
    AcceleratorState._reset_state(reset_partial_state=True)
    request.addfinalizer(lambda: AcceleratorState._reset_state(reset_partial_state=True))
    study = world.make_study(family, precision="bf16")
    recipe = study.recipe("tiny", "run", "pretrain")
    job = Job(
        recipe=recipe, execution=study.execution.pretrain, device="cpu", tower=assets / recipe.vision_tower.weights,
        language_model=assets / recipe.language_model, data=world.prepare(study, assets, prepared_root, "pretrain"),
        initial=None, deepspeed=world.engines(), run=tmp_path, inputs={},
    )  # fmt: skip
    data = PreparedData(job.data)
    engine = Engine(build_task(job), recipe.settings, "ddp", job.deepspeed, 4, cpu=True)
    transform = ImageTransform(load_processor(job.tower), recipe.settings.image)
    _, _, batch = MicroBatches(data, build_plan(job, data), transform, 0, 1, 4)[0, 0]
    with MatrixProducts() as seen:
        engine.micro_step(batch, last=True)
    assert sum(seen.dtypes.values()) > 20
    assert seen.dtypes.pop(torch.float32) == 2, "positions times frequencies, of the rotary embedding"
    assert set(seen.dtypes) == {torch.bfloat16}
    assert all(p.grad.dtype == torch.float32 for p in engine.names.values() if p.grad is not None)


class MatrixProducts(TorchDispatchMode):
    """Counts the dtypes of what matrix products are computed from."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: Counter[torch.dtype] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(name in str(function) for name in ("mm", "convolution", "scaled_dot_product")):
            self.dtypes.update(x.dtype for x in args if isinstance(x, torch.Tensor) and x.is_floating_point() and x.ndim > 1)
        return function(*args, **(kwargs or {}))
