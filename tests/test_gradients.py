"""Identities between gradients of the projector: two schedules, one mathematics; and nothing depends on how a batch is cut.

Dropout off, float32, relative difference at most 1e-5.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import world

from vdep.data.collate import Batch, Row, collate, in_vdep_mode
from vdep.data.conversation import IMAGE_INDEX
from vdep.data.images import ImageTransform, load_processor
from vdep.data.loader import MicroBatches
from vdep.data.plan import BatchPlan, GlobalBatch, Hybrid
from vdep.data.prepared import PreparedData
from vdep.model.llava import build_model, drop_unused_layers, image_features, projector, set_dropout
from vdep.model.task import AlignmentTask
from vdep.study.settings import VdepSettings

FAMILIES = list(world.FAMILIES)


class Bench:
    """One model with its prepared captions, and the gradient that any global batch has on its projector."""

    def __init__(
        self, family: str, vdep: VdepSettings, assets: Path, prepared_root: Path, dtype: torch.dtype = torch.float32
    ) -> None:
        self.study = world.make_study(family)
        tower = world.FAMILIES[family][0]
        self.data = PreparedData(world.prepare(self.study, assets, prepared_root, "pretrain"))
        model = build_model(assets / tower, assets / family, self.study.models["tiny"].vision_tower, torch.float32, 7)
        set_dropout(model, 0.0)
        model.requires_grad_(False)
        projector(model).requires_grad_(True)
        self.task = AlignmentTask(model.to(dtype), vdep)
        self.vdep = vdep
        stage = self.study.stage("tiny", "run", "pretrain")
        self.transform = ImageTransform(load_processor(assets / tower), stage.image)

    def plan(self, hybrid: Hybrid | None, batch: int = 16) -> BatchPlan:
        return BatchPlan(self.data.lengths, self.data.has_image, global_batch=batch, epochs=1, seed=0, hybrid=hybrid)

    def gradient(
        self,
        batch: GlobalBatch,
        ranks: int = 1,
        micro: int = 100,
        alpha: float | None = None,
        packed: bool = False,
        group_size: int | None = None,
    ) -> torch.Tensor:
        """The gradient of a global batch, added up over micro-batches (of ``micro`` samples, or packed of as many tokens) and
        (simulated) ranks."""
        self.task.model.model.language_model.set_attn_implementation("packed" if packed else "sdpa")
        self.task.alpha = self.vdep.alpha if alpha is None else alpha
        plan = self.plan(None)
        plan.batch = lambda step: batch  # type: ignore[method-assign]
        self.task.zero_grad()
        for rank in range(ranks):
            source = MicroBatches(self.data, plan, self.transform, rank, ranks, micro, packed, self.vdep, group_size)
            for number in range(len(source.step(0)[1])):
                _, _, micro_batch = source[0, number]
                loss, _ = self.task(micro_batch)
                loss.backward()
        return torch.cat([p.grad.flatten() for p in self.task.parameters() if p.grad is not None])


def close(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def both_modes(fused: GlobalBatch) -> GlobalBatch:
    """The interleaved batch made of the same samples: those with an image loss once more, in VDEP mode."""
    again = fused.samples[fused.image_loss]
    text = np.concatenate([np.ones(len(fused), bool), np.zeros(len(again), bool)])
    return GlobalBatch(np.concatenate([fused.samples, again]), text, ~text)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("ratio", [1.0, 0.5])
@pytest.mark.parametrize("options", [{}, {"position": "next"}, {"detach_target": False}, {"loss": "sigmoid_l2"}])
def test_a_fused_step_is_the_interleaved_batch_of_the_same_samples(
    family: str, ratio: float, options: dict[str, Any], assets: Path, prepared_root: Path
) -> None:
    bench = Bench(family, VdepSettings(alpha=0.5, ratio=ratio, **options), assets, prepared_root)
    for step in (0, 3):
        fused = bench.plan(Hybrid(ratio, "fused")).batch(step)
        assert 0 < fused.image_loss.sum() <= len(fused)
        assert close(bench.gradient(fused), bench.gradient(both_modes(fused))) < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("position", ["same", "next"])
def test_a_vdep_pass_that_stops_after_the_image_has_the_same_gradient(
    family: str, position: Any, assets: Path, prepared_root: Path
) -> None:
    bench = Bench(family, VdepSettings(alpha=0.5, position=position), assets, prepared_root)
    samples = [bench.data[i] for i in range(6)]
    pixels = bench.transform([bench_image(bench, s) for s in samples])
    cut = [Row(*in_vdep_mode(s.input_ids, s.labels), image_weight=1.0) for s in samples]
    whole = [Row(s.input_ids, np.full_like(s.labels, -100), 1.0, 1.0) for s in samples]
    assert all(len(a.input_ids) < len(b.input_ids) for a, b in zip(cut, whole, strict=True))
    tokens, before = bench.data.image_tokens, position == "next"
    gradients = [gradient_of(bench, collate(batch, pixels, tokens, predecessor=before)) for batch in (cut, whole)]
    assert close(*gradients) < 1e-5


def bench_image(bench: Bench, sample: Any) -> Any:
    from vdep.data.images import decode_image

    return decode_image(bench.data.read_image(sample), sample.id)


def gradient_of(bench: Bench, batch: Batch) -> torch.Tensor:
    bench.task.zero_grad()
    loss, _ = bench.task(batch)
    loss.backward()
    return torch.cat([p.grad.flatten() for p in projector(bench.task.model).parameters() if p.grad is not None])


@pytest.mark.parametrize("family", FAMILIES)
def test_ranks_and_accumulation_change_nothing(family: str, assets: Path, prepared_root: Path) -> None:
    bench = Bench(family, VdepSettings(alpha=0.5, ratio=0.8), assets, prepared_root)
    plan = bench.plan(Hybrid(0.8, "interleaved"))
    for step in (0, plan.steps - 1):  # the last batch of an epoch is a partial one
        batch = plan.batch(step)
        whole = bench.gradient(batch)
        for ranks, micro in ((1, 4), (2, 4), (4, 1), (3, 5)):
            assert close(bench.gradient(batch, ranks, micro), whole) < 1e-5


@pytest.mark.parametrize("packed", [False, True])
def test_in_float64_the_same_holds_to_a_billionth(packed: bool, assets: Path, prepared_root: Path) -> None:
    """With Phi: Llama's norm computes in float32 whatever it is given."""
    bench = Bench("phi", VdepSettings(alpha=0.5, ratio=0.8), assets, prepared_root, torch.float64)
    batch = bench.plan(Hybrid(0.8, "interleaved")).batch(0)
    whole = bench.gradient(batch)
    assert whole.dtype == torch.float64
    for ranks, micro in ((1, 4), (2, 4), (4, 1), (3, 5)):
        assert close(bench.gradient(batch, ranks, 30 * micro if packed else micro, packed=packed), whole) < 1e-10


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("options", [{}, {"position": "next"}, {"schedule": "fused"}])
def test_packing_changes_nothing(family: str, options: dict[str, Any], assets: Path, prepared_root: Path) -> None:
    vdep = VdepSettings(alpha=0.5, ratio=0.5, **options)
    bench = Bench(family, vdep, assets, prepared_root)
    # the language model too: what one sample did to another would show in its gradient
    bench.task.model.model.language_model.requires_grad_(True)
    bench.task.model.lm_head.requires_grad_(True)
    plan = bench.plan(Hybrid(0.5, vdep.schedule))
    for step in (0, plan.steps - 1):
        batch = plan.batch(step)
        padded = bench.gradient(batch)
        for ranks, tokens in ((1, 10_000), (1, 150), (2, 90)):
            assert close(bench.gradient(batch, ranks, tokens, packed=True), padded) < 1e-5


def test_without_image_loss_the_image_half_of_a_batch_has_no_gradient(assets: Path, prepared_root: Path) -> None:
    bench = Bench("llama", VdepSettings(alpha=0.0), assets, prepared_root)
    batch = bench.plan(Hybrid(1.0, "interleaved")).batch(0)
    alone = batch.take(np.flatnonzero(batch.text_loss))
    assert close(bench.gradient(batch), bench.gradient(alone)) < 1e-5
    assert close(bench.gradient(batch, alpha=0.5), bench.gradient(alone)) > 1e-3, "the control of this test"


def test_a_batch_of_text_alone_trains_without_hanging_on_the_projector(assets: Path, prepared_root: Path) -> None:
    bench = Bench("llama", VdepSettings(), assets, prepared_root)
    ids, labels = np.arange(4, 10, dtype=np.int32), np.full(6, -100, np.int32)
    labels[3:] = ids[3:]
    gradient = gradient_of(bench, collate([Row(ids, labels)], None, 9))
    assert gradient.numel() > 0, "the projector has a gradient, so that no other rank waits for it"
    assert not gradient.any()


def test_a_sample_without_image_has_nothing_to_do_in_vdep_mode(assets: Path, prepared_root: Path) -> None:
    bench = Bench("llama", VdepSettings(alpha=0.5), assets, prepared_root)
    without = np.flatnonzero(~bench.data.has_image)
    data = bench.data if len(without) else _without_image(bench.data, 3)
    row = int(np.flatnonzero(~data.has_image)[0])
    for packed in (False, True):
        for samples in ([row], [row, 5]):
            alone = GlobalBatch(np.array(samples), np.zeros(len(samples), bool), np.ones(len(samples), bool))
            plan = bench.plan(None)
            plan.batch = lambda step, batch=alone: batch  # type: ignore[method-assign, misc]
            _, _, micro = MicroBatches(data, plan, bench.transform, 0, 1, 1000, packed)[0, 0]
            assert int(micro.image_mask.sum()) == data.image_tokens * (len(samples) - 1)


def _without_image(data: Any, row: int) -> Any:
    """The same data, but for one sample that has lost its image."""
    import copy
    from dataclasses import replace as changed

    class Changed(type(data)):  # type: ignore[misc]
        def __getitem__(self, index: int) -> Any:
            sample = super().__getitem__(index)
            if index != row:
                return sample
            keep = sample.input_ids != IMAGE_INDEX
            return changed(sample, input_ids=sample.input_ids[keep], labels=sample.labels[keep], location=None)

    other = copy.copy(data)
    other.__class__ = Changed
    has_image = data.has_image.copy()
    has_image[row] = False
    other.__dict__["has_image"] = has_image
    return other


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layer", [-1, -2, 1])
def test_dropping_unused_layers_changes_no_feature(family: str, layer: int, assets: Path, prepared_root: Path) -> None:
    bench = Bench(family, VdepSettings(), assets, prepared_root)
    model = bench.task.model
    model.config.vision_feature_layer = layer
    pixels = torch.from_numpy(bench.transform([bench_image(bench, bench.data[0])]))
    before, layers = image_features(model, pixels), len(model.model.vision_tower.encoder.layers)
    drop_unused_layers(model)
    assert torch.equal(image_features(model, pixels), before)
    assert len(model.model.vision_tower.encoder.layers) == (layer if layer > 0 else layers + 1 + layer)


def test_the_language_model_and_the_tower_stay_frozen(assets: Path, prepared_root: Path) -> None:
    bench = Bench("phi", VdepSettings(alpha=0.5), assets, prepared_root)
    bench.gradient(bench.plan(Hybrid(1.0, "fused")).batch(0))
    frozen = [p for n, p in bench.task.named_parameters() if "multi_modal_projector" not in n]
    assert all(p.grad is None for p in frozen)
