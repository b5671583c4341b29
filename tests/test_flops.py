"""The operations that MFU counts are those that torch counts, but for masked attention."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import world
from test_gradients import Bench
from torch.utils.flop_counter import FlopCounterMode

from vdep.data.loader import MicroBatches
from vdep.data.plan import Hybrid
from vdep.model.llava import drop_unused_layers
from vdep.study.settings import VdepSettings
from vdep.train.flops import StepFlops, peak_flops
from vdep.train.logs import Throughput, Work, progress_line


@pytest.mark.parametrize("family", world.FAMILIES)
@pytest.mark.parametrize("whole_model", [False, True])
@pytest.mark.parametrize("schedule", ["interleaved", "fused"])
def test_a_step_is_counted_as_torch_counts_it(
    family: str, whole_model: bool, schedule: str, assets: Path, prepared_root: Path
) -> None:
    bench = Bench(family, VdepSettings(alpha=0.5, schedule=schedule), assets, prepared_root)  # type: ignore[arg-type]
    model = bench.task.model
    drop_unused_layers(model)
    model.set_attn_implementation("eager")  # torch's counter does not know the fused one of a CPU
    model.model.language_model.requires_grad_(whole_model)
    model.lm_head.requires_grad_(whole_model)
    model.model.language_model.embed_tokens.requires_grad_(False)
    # a micro-batch for each length: without padding
    source = MicroBatches(bench.data, bench.plan(Hybrid(1.0, schedule)), bench.transform, 0, 1, 1)  # type: ignore[arg-type]
    with FlopCounterMode(display=False) as counter:
        for number in range(len(source.step(0)[1])):
            step, _, micro = source[0, number]
            loss, _ = bench.task(micro)
            loss.backward()
    flops = StepFlops(model)
    assert step.partners == 0
    # torch counts what is masked too: twice as much
    masked = flops.per_token_pair * float((step.lengths.astype(float) ** 2).sum())
    assert counter.get_total_flops() == pytest.approx(flops(step) + masked, rel=0.001)


def test_partners_pictures_are_counted_too(assets: Path, prepared_root: Path) -> None:
    """Their way through the tower and the projector, beside the same step without them."""
    counted, told = [], []
    for target in ("own", "other_image"):
        bench = Bench("phi", VdepSettings(alpha=0.5, target=target), assets, prepared_root)  # type: ignore[arg-type]
        drop_unused_layers(bench.task.model)
        bench.task.model.set_attn_implementation("eager")
        source = MicroBatches(bench.data, bench.plan(Hybrid(1.0, "interleaved")), bench.transform, 0, 1, 16, False, bench.vdep)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            for number in range(len(source.step(0)[1])):
                step, _, micro = source[0, number]
                bench.task(micro)
        counted.append(counter.get_total_flops())
        told.append(StepFlops(bench.task.model)(step))
    assert step.partners == 8
    assert told[1] - told[0] == pytest.approx(counted[1] - counted[0], rel=0.001)


def test_a_device_that_is_not_known_has_no_peak() -> None:
    assert peak_flops(torch.device("cpu"), "bf16") is None


def test_a_line_tells_what_a_person_wants_to_know() -> None:
    throughput = Throughput(0, 100, peak=1e12)
    throughput.start = throughput.last = throughput.last - 2.0
    throughput.add(Work(samples=32, tokens=4000, flops=1e12, waited=0.5))
    row = {"step": 0, "text_loss": 2.5, "image_loss": 0.1, "gradient_norm": 3.0, "learning_rate": 1e-3, **throughput.look(0)}
    line = progress_line(row, 100)
    assert row["mfu"] == pytest.approx(0.5, rel=0.05)
    told = ("step 1/100", "text 2.5000", "image 0.1", "samples/s", "tokens/s", "MFU ", "GB", "data wait 25%", "left 3:")
    assert [part for part in told if part not in line] == []
