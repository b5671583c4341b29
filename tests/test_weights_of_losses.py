"""Normalisation groups: over what the losses of a step are averaged, and that nothing else changes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_gradients import Bench, close

from vdep.data.loader import image_positions, text_tokens
from vdep.data.plan import GlobalBatch, Hybrid
from vdep.data.weights import weigh
from vdep.settings import VdepSettings

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
    assert not weights.image[positions.reshape(-1) == 0].any() or (positions > 0).any()


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
        assert close(bench.gradient(batch, ranks, micro, packed=packed, group_size=4), groups) < 1e-10


def test_a_step_of_groups_is_what_accumulating_micro_batches_of_their_own_mean_would_be(
    assets: Path, prepared_root: Path
) -> None:
    """As the originals do it: each micro-batch's own loss, divided by the number of micro-batches."""
    bench = Bench("phi", VdepSettings(alpha=0.5, ratio=0.8), assets, prepared_root, torch.float64)
    batch = bench.plan(Hybrid(0.8, "interleaved")).batch(2)
    # each alone is a global batch, whose losses are means over itself
    alone = [bench.gradient(batch.take(slice(i, i + 4))).clone() for i in range(0, len(batch), 4)]
    assert close(torch.stack(alone).mean(0), bench.gradient(batch, group_size=4)) < 1e-10


def test_counts_are_those_of_the_modes(assets: Path, prepared_root: Path) -> None:
    bench = Bench("llama", VdepSettings(), assets, prepared_root)
    both = GlobalBatch(np.array([0, 1, 0]), np.array([True, True, False]), np.array([False, True, True]))
    assert image_positions(both, bench.data, "same").tolist() == [0, 9, 9]
    assert text_tokens(both, bench.data)[2] == 0
