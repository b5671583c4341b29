"""Normalisation groups: over what the losses of a step are averaged, and that nothing else changes it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_gradients import Bench, close

from vdep.data.collate import Batch
from vdep.data.conversation import AUTO_IMAGE_INDEX
from vdep.data.loader import MicroBatches
from vdep.data.plan import GlobalBatch, Hybrid
from vdep.data.step import weighed_step
from vdep.data.weights import weigh
from vdep.study.settings import VdepSettings

counts = st.lists(st.tuples(st.integers(0, 40), st.sampled_from([0, 9])), min_size=1, max_size=30)


@given(counts, st.integers(1, 40) | st.none())
@settings(max_examples=200, deadline=None)
def test_a_step_is_the_mean_over_groups_of_their_means(samples: list[tuple[int, int]], size: int | None) -> None:
    tokens, positions = np.array(samples).T
    weights = weigh(tokens, positions, size)
    rng = np.random.default_rng(len(samples))
    # the loss of every token of every sample, and the mean of means written out
    losses = [rng.random(n) for n in tokens]
    groups = [losses[i : i + (size or len(losses))] for i in range(0, len(losses), size or len(losses))]
    means = [np.concatenate(group).mean() if sum(map(len, group)) else 0.0 for group in groups]
    assert sum(w * loss.sum() for w, loss in zip(weights.text, losses, strict=True)) == pytest.approx(np.mean(means))
    # an image loss, averaged over positions and summed over those of a sample
    values = [rng.random(n) for n in positions]
    groups = [values[i : i + (size or len(values))] for i in range(0, len(values), size or len(values))]
    means = [np.concatenate(group).mean() if sum(map(len, group)) else 0.0 for group in groups]
    assert sum(w * v.sum() for w, v in zip(weights.image, values, strict=True)) == pytest.approx(np.mean(means))
    sums = [np.mean([v.sum() for v in group if len(v)]) if sum(map(len, group)) else 0.0 for group in groups]
    summed = weigh(tokens, positions, size, "sum")
    assert sum(w * v.sum() for w, v in zip(summed.image, values, strict=True)) == pytest.approx(np.mean(sums))


def test_one_group_weighs_every_token_alike_and_many_do_not() -> None:
    tokens, none = np.array([3, 1, 0, 4]), np.zeros(4)
    assert weigh(tokens, none, None).text.tolist() == [1 / 8] * 4
    assert weigh(tokens, none, 2).text.tolist() == [1 / 8, 1 / 8, 1 / 8, 1 / 8]
    assert weigh(tokens, none, 3).text.tolist() == [1 / 8] * 4
    assert weigh(tokens, none, 1).text.tolist() == [1 / 12, 1 / 4, 0, 1 / 16]
    assert not weigh(tokens, none, None).image.any()


@pytest.mark.parametrize("packed", [False, True])
def test_ranks_packing_and_accumulation_change_no_gradient_of_groups(packed: bool, assets: Path, prepared_root: Path) -> None:
    bench = Bench("phi", VdepSettings(alpha=0.5, ratio=0.8), assets, prepared_root, torch.float64)
    batch = bench.plan(Hybrid(0.8, "interleaved")).batch(1)
    groups = bench.gradient(batch, group_size=4)
    assert close(groups, bench.gradient(batch)) > 1e-3, "the control: groups of four are not one of sixteen"
    for ranks, micro in ((1, 4), (2, 4), (3, 5), (4, 1)):
        size = 30 * micro if packed else micro
        assert close(bench.gradient(batch, ranks, size, packed=packed, group_size=4), groups) < 1e-10


@pytest.mark.parametrize("packed", [False, True])
def test_where_a_groups_mean_is_formed_no_pass_cuts_a_group(packed: bool, assets: Path, prepared_root: Path) -> None:
    vdep = VdepSettings(alpha=0.5, ratio=0.8, loss="sigmoid_l2", form="group")
    bench = Bench("phi", vdep, assets, prepared_root, torch.float64)
    batch = bench.plan(Hybrid(0.8, "interleaved")).batch(1)
    groups = bench.gradient(batch, group_size=4)
    for ranks, micro in ((1, 4), (2, 2), (3, 5)):
        size = 30 * micro if packed else micro
        assert close(bench.gradient(batch, ranks, size, packed=packed, group_size=4), groups) < 1e-10


def test_a_step_of_groups_is_what_accumulating_micro_batches_of_their_own_mean_would_be(
    assets: Path, prepared_root: Path
) -> None:
    """As the originals do it: each micro-batch's own loss, divided by the number of micro-batches."""
    bench = Bench("phi", VdepSettings(alpha=0.5, ratio=0.8), assets, prepared_root, torch.float64)
    batch = bench.plan(Hybrid(0.8, "interleaved")).batch(2)
    # each alone is a global batch, whose losses are means over itself
    alone = [bench.gradient(batch.take(slice(i, i + 4))).clone() for i in range(0, len(batch), 4)]
    assert close(torch.stack(alone).mean(0), bench.gradient(batch, group_size=4)) < 1e-10


def image_distances_of(bench: Bench, batch: GlobalBatch) -> list[np.ndarray]:
    """The squared distances of every sample of a batch, by a pass of its own for each, without the objective."""
    found = []
    for row in range(len(batch)):
        one = batch.take(slice(row, row + 1))
        micro = micro_batches_of(bench, one)[0]
        embeddings, _ = bench.task.embed(micro)
        hidden = bench.task.model.model.language_model(inputs_embeds=embeddings).last_hidden_state
        errors = (hidden - embeddings)[micro.image_mask].detach().numpy()
        found.append((errors**2).mean(-1) if batch.image_loss[row] else np.empty(0))
    return found


def micro_batches_of(bench: Bench, batch: GlobalBatch, group_size: int | None = None) -> list[Batch]:
    plan = bench.plan(None)
    plan.batch = lambda step: batch  # type: ignore[method-assign]
    return [MicroBatches(bench.data, plan, bench.transform, 0, 1, 100, False, bench.vdep, group_size)[0, 0][2]]


FORMS: dict[str, Callable[[float], float]] = {
    "l2": lambda d: d,
    "sigmoid_l2": lambda d: 1 / (1 + math.exp(-d)),
    "inverse_l2": lambda d: 1 / (d + 1e-6),
}


@pytest.mark.parametrize("form", ["position", "group"])
@pytest.mark.parametrize("positions", ["mean", "sum"])
@pytest.mark.parametrize("loss", FORMS)
def test_readings_of_the_mean_by_hand(form: Any, positions: Any, loss: Any, assets: Path, prepared_root: Path) -> None:
    """Loops over groups, samples and positions, in float64; the objective's own code computes none of it."""
    vdep = VdepSettings(alpha=0.5, ratio=0.8, loss=loss, form=form, positions=positions)
    bench = Bench("phi", vdep, assets, prepared_root, torch.float64)
    batch = bench.plan(Hybrid(0.8, "interleaved")).batch(1)
    distances = image_distances_of(bench, batch)
    expected = []
    for start in range(0, len(batch), 4):
        group = [d for d in distances[start : start + 4] if len(d)]
        each = [d if form == "group" else np.array([FORMS[loss](x) for x in d]) for d in group]
        if not group:
            expected.append(0.0)
            continue
        mean = float(np.concatenate(each).mean() if positions == "mean" else np.mean([d.sum() for d in each]))
        expected.append(FORMS[loss](mean) if form == "group" else mean)
    parts, _ = bench.task.losses(micro_batches_of(bench, batch, 4)[0])
    assert float(parts.image.detach()) == pytest.approx(np.mean(expected), rel=1e-12)
    assert float(parts.total.detach()) == pytest.approx(float((parts.text + 0.5 * parts.image).detach()), rel=1e-14)


def test_a_trained_auto_image_stands_before_the_image_in_vdep_mode_and_learns(assets: Path, prepared_root: Path) -> None:
    bench = Bench("llama", VdepSettings(alpha=0.5, auto_image="token"), assets, prepared_root)
    assert bench.task.auto_image is not None
    batch = bench.plan(Hybrid(1.0, "interleaved")).batch(0)
    (micro,) = micro_batches_of(bench, batch)
    token = micro.input_ids == AUTO_IMAGE_INDEX
    assert token.sum() == batch.image_loss.sum(), "one in each sample in VDEP mode, none in the others"
    rows, places = token.nonzero(as_tuple=True)
    assert micro.image_mask[rows, places + 1].all()
    embeddings, _ = bench.task.embed(micro)
    assert torch.equal(embeddings[token], bench.task.auto_image.expand(len(rows), -1))
    loss, _ = bench.task(micro)
    loss.backward()
    assert bench.task.auto_image.grad is not None
    assert bench.task.auto_image.grad.abs().max() > 0
    # and the state of the token is what the first image position is predicted from, where the one before is
    following = Bench("llama", VdepSettings(alpha=0.5, auto_image="token", position="next"), assets, prepared_root)
    (micro,) = micro_batches_of(following, batch)
    assert int((micro.image_weights > 0).sum()) == 9 * int(batch.image_loss.sum())


def test_counts_are_those_of_the_modes(assets: Path, prepared_root: Path) -> None:
    bench = Bench("llama", VdepSettings(), assets, prepared_root)
    both = GlobalBatch(np.array([0, 1, 0]), np.array([True, True, False]), np.array([False, True, True]))
    step = weighed_step(0, both, bench.data, bench.vdep, None)
    assert step.image_positions.tolist() == [0, 9, 9]
    assert step.text_tokens.tolist() == [*bench.data.supervised_tokens[:2], 0]
    assert step.lengths.tolist() == [*bench.data.lengths[:2], bench.data.image_at[0] + 9], "nothing after the image"
    assert step.weights.text.tolist() == [1 / sum(step.text_tokens)] * 3
