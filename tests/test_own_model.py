"""docs/own-model.md: the lines work, and compute what this repository's own step computes."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import world
from test_gradients import Bench
from transformers import TrainingArguments

from vdep.data.loader import MicroBatches
from vdep.data.plan import Hybrid
from vdep.model.export import export_checkpoint
from vdep.model.llava import projector
from vdep.study.settings import VdepSettings

ALPHA = 0.5
CODE = "\n".join(re.findall(r"```python\n(.*?)```", (world.ROOT / "docs" / "own-model.md").read_text(), re.DOTALL))


def load_page() -> dict[str, Any]:
    """What the page's lines define."""
    names: dict[str, Any] = {}
    exec(compile(CODE, "own-model.md", "exec"), names)
    names["VdepTrainer"].alpha = ALPHA
    return names


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    return load_page()


@pytest.fixture(scope="module")
def bench(assets: Path, prepared_root: Path) -> Bench:
    return Bench("llama", VdepSettings(alpha=ALPHA, schedule="fused"), assets, prepared_root)


@pytest.fixture(scope="module")
def stock(bench: Bench, assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of ``bench`` as a stock checkpoint. Exporting adds a row for ``<image>`` to a copy."""
    folder = tmp_path_factory.mktemp("stock")
    export_checkpoint(copy.deepcopy(bench.task.model), assets / "clip", assets / "llama", "crop", folder)
    return folder


def rows(bench: Bench, image_id: int) -> list[dict[str, torch.Tensor]]:
    """The samples of the first step, as a dataset of the Trainer would yield them."""
    plan = bench.plan(Hybrid(1.0, "fused"))
    found = []
    for number in range(8):
        _, _, micro = MicroBatches(bench.data, plan, bench.transform, 0, 1, 1)[0, number]
        assert micro is not None
        assert micro.pixel_values is not None
        found.append(
            {
                "input_ids": micro.input_ids[0].masked_fill(micro.image_mask[0], image_id),
                "labels": micro.labels[0],
                "pixel_values": micro.pixel_values[0],
            }
        )
    return found


def collate(samples: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    def padded(name: str, fill: int) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence([s[name] for s in samples], batch_first=True, padding_value=fill)

    return {
        "input_ids": padded("input_ids", 0),
        "labels": padded("labels", -100),
        "attention_mask": padded("input_ids", -1) != -1,
        "pixel_values": torch.stack([s["pixel_values"] for s in samples]),
    }


def gradient_of_a_step(
    trainer_class: type, model: Any, samples: list[dict[str, torch.Tensor]], folder: Path, **arguments: Any
) -> torch.Tensor:
    """The projector's gradient after the backward passes of one step on all ``samples``."""
    settings = TrainingArguments(
        output_dir=str(folder), use_cpu=True, report_to=[], max_steps=1, learning_rate=0.0, max_grad_norm=0.0,
        save_strategy="no", remove_unused_columns=False, disable_tqdm=True, train_sampling_strategy="sequential", **arguments,
    )  # fmt: skip
    trainer = trainer_class(model=model, args=settings, train_dataset=samples, data_collator=collate)
    seen: list[torch.Tensor] = []
    step = trainer.training_step

    def recorded(*arguments: Any, **keywords: Any) -> torch.Tensor:
        loss: torch.Tensor = step(*arguments, **keywords)
        seen[:] = [torch.cat([p.grad.flatten() for p in projector(model).parameters() if p.grad is not None])]
        return loss

    trainer.training_step = recorded
    trainer.train()
    return seen[0]


@pytest.mark.parametrize("accumulation", [1, 4])
def test_a_step_of_the_trainer_is_a_step_of_ours(
    page: dict[str, Any], bench: Bench, stock: Path, accumulation: int, tmp_path: Path
) -> None:
    model = page["stage_1"](str(stock), torch.float32)
    samples = rows(bench, model.config.image_token_id)
    found = gradient_of_a_step(
        page["VdepTrainer"], model, samples, tmp_path,
        per_device_train_batch_size=len(samples) // accumulation, gradient_accumulation_steps=accumulation,
    )  # fmt: skip
    assert all(p.grad is None for n, p in model.named_parameters() if "multi_modal_projector" not in n)

    batch = bench.plan(Hybrid(1.0, "fused")).batch(0)
    expected = bench.gradient(batch)
    assert float((found - expected).norm() / expected.norm()) < 1e-4
    without = bench.gradient(batch, alpha=0.0)
    assert float((found - without).norm() / without.norm()) > 1e-2, "the image loss is in it"


@pytest.mark.slow
def test_on_two_ranks_too() -> None:
    assert float(world.on_two_ranks("two_ranks_trainer.py").split("difference ")[1]) < 1e-4
