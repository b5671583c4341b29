"""The batch plan: each sample as often as it should, the modes in proportion, the same on any number of ranks."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import world
from hypothesis import given, settings
from hypothesis import strategies as st

from vdep.data.plan import BatchPlan, GlobalBatch, Hybrid, assign, cumulative_share, even_chunks, permutation
from vdep.data.prepared import PreparedData
from vdep.train.build import build_plan

ratios = st.sampled_from([1.0, 0.8, 0.5, 0.3, 0.01]) | st.floats(0.01, 1.0)
plans = st.builds(
    lambda n, b, seed, ratio, schedule: make(n, b, seed, Hybrid(ratio, schedule)),
    st.integers(1, 300),
    st.integers(1, 40),
    st.integers(0, 2**31),
    ratios,
    st.sampled_from(["interleaved", "fused"]),
)


def make(n: int, batch: int, seed: int = 0, hybrid: Hybrid | None = None, epochs: int = 1) -> BatchPlan:
    rng = np.random.default_rng(n)
    return BatchPlan(rng.integers(10, 80, n), rng.random(n) < 0.8, global_batch=batch, epochs=epochs, seed=seed, hybrid=hybrid)


@pytest.mark.parametrize(("ratio", "steps"), [(None, 2181), (0.5, 3271), (0.8, 3925), (1.0, 4361)])
def test_steps_of_the_paper(ratio: float | None, steps: int) -> None:
    for schedule in ("interleaved", "fused"):
        hybrid = Hybrid(ratio, schedule) if ratio else None  # type: ignore[arg-type]
        n = 558_128
        assert BatchPlan(np.ones(n), np.ones(n), global_batch=256, epochs=1, seed=0, hybrid=hybrid).steps == steps


@settings(max_examples=120, deadline=None)
@given(plans)
def test_an_epoch_trains_every_sample_once_and_the_share_once_more(plan: BatchPlan) -> None:
    text, image = [], []
    for step in range(plan.steps):
        batch = plan.batch(step)
        text.append(batch.samples[batch.text_loss])
        image.append(batch.samples[batch.image_loss])
    in_text, in_image = np.concatenate(text), np.concatenate(image)
    assert sorted(in_text) == list(range(plan.samples))
    assert plan.hybrid is not None
    # half a sample is rounded up, and a float's own value counts: 0.3 * 5 is a little less than 1.5
    due = Fraction(plan.hybrid.ratio) * plan.samples
    assert len(in_image) == int(due + Fraction(1, 2))
    assert len(set(in_image.tolist())) == len(in_image), "VDEP samples are drawn without replacement"


@settings(max_examples=120, deadline=None)
@given(plans)
def test_every_global_batch_holds_the_modes_in_proportion_to_within_one(plan: BatchPlan) -> None:
    assert plan.hybrid is not None
    share = plan.vdep_samples / plan.epoch_items
    for step in range(plan.steps):
        batch = plan.batch(step)
        start, stop = step * plan.global_batch, min((step + 1) * plan.global_batch, plan.epoch_items)
        vdep, llava = int(batch.image_loss.sum()), int(batch.text_loss.sum())
        assert abs(llava - (stop - start) * (1 - share)) <= 1
        assert abs(vdep - (stop - start) * share) <= (1 if plan.hybrid.schedule == "interleaved" else 2)
        if plan.hybrid.schedule == "interleaved":
            assert len(batch) == stop - start
            assert not (batch.text_loss & batch.image_loss).any()


def key(parts: list[GlobalBatch]) -> list[tuple[int, bool, bool]]:
    return sorted(
        (int(s), bool(t), bool(i)) for p in parts for s, t, i in zip(p.samples, p.text_loss, p.image_loss, strict=True)
    )


@settings(max_examples=60, deadline=None)
@given(plans, st.sampled_from([1, 2, 4, 8]), st.integers(1, 16), st.booleans())
def test_the_ranks_divide_every_global_batch_and_change_nothing(plan: BatchPlan, ranks: int, micro: int, packed: bool) -> None:
    for step in {0, plan.steps - 1}:
        batch = plan.batch(step)
        lengths = plan.lengths[batch.samples]
        most = 20 * micro if packed else micro
        shares = assign(lengths, ranks, most, packed)
        assert len({len(share) for share in shares}) == 1, "every rank has the same number of micro-batches"
        for part in (part for share in shares for part in share):
            assert lengths[part].sum() <= max(most, lengths.max()) if packed else len(part) <= most
        assert key([batch.take(part) for share in shares for part in share]) == key([batch])


@st.composite
def grouped(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int, int, bool]:
    lengths = np.array(draw(st.lists(st.integers(0, 300), min_size=1, max_size=60)))
    groups = np.array(draw(st.lists(st.integers(0, 12), min_size=len(lengths), max_size=len(lengths))))
    return lengths, groups, draw(st.integers(1, 8)), draw(st.integers(1, 900)), draw(st.booleans())


@settings(max_examples=150, deadline=None)
@given(grouped())
def test_groups_stay_whole_and_the_largest_of_them_is_the_least_limit(
    drawn: tuple[np.ndarray, np.ndarray, int, int, bool],
) -> None:
    lengths, groups, ranks, most, packed = drawn
    shares = assign(lengths, ranks, most, packed, groups)
    parts = [part for share in shares for part in share]
    assert len({len(share) for share in shares}) == 1
    assert sorted(np.concatenate(parts)) == list(range(len(lengths)))
    whole = [groups == number for number in np.unique(groups)]
    largest = max(int(lengths[rows].sum()) if packed else int(rows.sum()) for rows in whole)
    for part in parts:
        assert len(part) == np.isin(groups, groups[part]).sum(), "no group is cut"
        assert (lengths[part].sum() if packed else len(part)) <= max(most, largest)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(1, 2048), min_size=1, max_size=200), st.integers(1, 9), st.integers(1, 20000))
def test_packed_micro_batches_are_as_full_as_they_can_be_alike(sizes: list[int], ranks: int, most: int) -> None:
    lengths = np.array(sizes)
    shares = assign(lengths, ranks, most, packed=True)
    sums = np.array([[int(lengths[part].sum()) for part in share] for share in shares])
    emptiest = sums.min()
    for part, total in ((part, int(lengths[part].sum())) for share in shares for part in share):
        if len(part):
            assert total - lengths[part].min() <= emptiest, "one sample less, and it would be the emptiest"
    assert (np.diff(sums.max(axis=0)) <= 0).all(), "the fullest round is the first: memory fails there or not at all"
    rounds = sums.shape[1]
    assert rounds == 1 or rounds <= 2 * -(-lengths.sum() // (ranks * max(most, lengths.max()))), "no more rounds than needed"
    again = assign(lengths, ranks, most, packed=True)
    assert all(np.array_equal(a, b) for x, y in zip(shares, again, strict=True) for a, b in zip(x, y, strict=True))


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 200), st.integers(1, 16), st.integers(0, 99))
def test_fused_takes_the_interleaved_steps_and_the_order_of_a_plain_run(n: int, half: int, seed: int) -> None:
    fused = make(n, 2 * half, seed, Hybrid(1.0, "fused"))
    interleaved = make(n, 2 * half, seed, Hybrid(1.0, "interleaved"))
    plain = make(n, half, seed)
    assert fused.steps == interleaved.steps == plain.steps
    for step in range(plain.steps):
        a, b = fused.batch(step), plain.batch(step)
        assert np.array_equal(a.samples, b.samples)
        assert a.text_loss.all()
        assert a.image_loss.all()


def test_the_longest_sample_is_in_the_first_step_and_first_there() -> None:
    rng = np.random.default_rng(3)
    lengths, has_image = rng.integers(5, 900, 200), rng.random(200) < 0.7
    plan = BatchPlan(lengths, has_image, global_batch=16, epochs=2, seed=1, grouping="modality_length")
    whole = [plan.batch(step) for step in range(plan.epoch_steps) if len(set(has_image[plan.batch(step).samples])) == 1]
    longest = max(lengths[batch.samples].max() for batch in whole)
    first = plan.batch(0)
    assert lengths[first.samples].max() == longest
    assert lengths[first.samples[assign(lengths[first.samples], 2, 4)[0][0]]].max() == longest


def test_the_most_tokens_are_in_one_of_the_first_two_steps() -> None:
    for seed in range(20):
        lengths = np.random.default_rng(seed).integers(5, 300, 400)
        plan = BatchPlan(lengths, np.ones(400, bool), global_batch=32, epochs=1, seed=seed, grouping="modality_length")
        tokens = [int(lengths[plan.batch(step).samples].sum()) for step in range(plan.steps)]
        assert max(tokens) in tokens[:2]


def test_a_later_epoch_is_another_order_of_the_same_samples() -> None:
    plan = make(50, 8, epochs=2)
    assert plan.steps == 14
    first, second = (np.concatenate([plan.batch(e * 7 + i).samples for i in range(7)]) for e in range(2))
    assert sorted(first) == sorted(second) == list(range(50))
    assert not np.array_equal(first, second)


def test_the_plan_is_a_pure_function_of_seed_and_step() -> None:
    whole = make(100, 16, 5, Hybrid(0.8, "interleaved"))
    for step in reversed(range(whole.steps)):
        fresh = make(100, 16, 5, Hybrid(0.8, "interleaved"))
        assert np.array_equal(whole.batch(step).samples, fresh.batch(step).samples)
    assert not np.array_equal(whole.batch(0).samples, make(100, 16, 6, Hybrid(0.8, "interleaved")).batch(0).samples)


def test_the_permutation_is_written_down() -> None:
    # a change of these numbers is a change of every training: it needs a new METHOD_VERSION
    assert permutation(10, 42, 0, 1).tolist() == [6, 5, 1, 0, 8, 2, 9, 7, 3, 4]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 250), st.integers(1, 32), st.integers(0, 50))
def test_grouping_keeps_modalities_apart_and_sorts_by_length(n: int, batch: int, seed: int) -> None:
    rng = np.random.default_rng(n)
    lengths, has_image = rng.integers(5, 90, n), rng.random(n) < 0.7
    plan = BatchPlan(lengths, has_image, global_batch=batch, epochs=1, seed=seed, grouping="modality_length")
    batches = [plan.batch(step).samples for step in range(plan.steps)]
    assert sorted(np.concatenate(batches)) == list(range(n))
    mixed = sum(len(set(has_image[b].tolist())) > 1 for b in batches)
    assert mixed <= 2, "only the remainders of both modalities are mixed"
    whole = sum(int(c.sum()) // batch for c in (has_image, ~has_image))
    for b in batches[:whole]:
        assert (np.diff(lengths[b]) <= 0).all()


@given(st.integers(0, 10**9), st.integers(1, 10**6), st.integers(1, 10**6))
def test_cumulative_rounding_is_exact_at_the_end_and_never_off_by_more_than_half(position: int, part: int, whole: int) -> None:
    position = min(position, whole)
    assert cumulative_share(whole, part, whole) == part
    assert abs(Fraction(cumulative_share(position, part, whole)) - Fraction(position * part, whole)) <= Fraction(1, 2)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 40), ratios)
def test_alternating_steps_are_of_one_mode_each_and_spread_over_the_epoch(n: int, size: int, ratio: float) -> None:
    plan = make(n, size, hybrid=Hybrid(ratio, "interleaved", "steps"))
    batches = [plan.batch(step) for step in range(plan.steps)]
    assert all(b.text_loss.all() != b.image_loss.all() for b in batches), "each step has one mode"
    text = np.concatenate([b.samples[b.text_loss] for b in batches])
    image = np.concatenate([b.samples[b.image_loss] for b in batches])
    assert sorted(text) == list(range(n))
    assert len(set(image.tolist())) == len(image) == plan.vdep_samples
    modes = [bool(b.image_loss.all()) for b in batches]
    share = sum(modes) / len(modes)
    assert all(abs(sum(modes[:step]) - share * step) <= 1 for step in range(len(modes))), "never far ahead of its share"


def test_at_ratio_1_whole_steps_take_turns() -> None:
    plan = make(96, 16, hybrid=Hybrid(1.0, "interleaved", "steps"))
    modes = [bool(plan.batch(step).image_loss.all()) for step in range(plan.steps)]
    assert len(modes) == 12
    assert all(a != b for a, b in itertools.pairwise(modes))


def test_normalisation_groups_of_sft_are_filled_as_the_originals_micro_batches() -> None:
    lengths = np.array([97, 60, 44, 31, 30, 22, 15, 9, 8, 5, 3, 2])
    # what LLaVA's split_to_even_chunks makes of them (c121f04); 500 other lists gave the same there as here
    theirs = [0, 7, 10, 11, 1, 4, 6, 9, 2, 3, 5, 8]
    assert even_chunks(lengths, 4).tolist() == theirs


@pytest.mark.parametrize("size", [4, 16, 5])
def test_groups_reorder_a_batch_and_share_its_tokens_out(size: int) -> None:
    rng = np.random.default_rng(1)
    lengths, has_image = rng.lognormal(4, 1, 128).astype(int) + 1, np.ones(128, bool)
    plans = [
        BatchPlan(lengths, has_image, global_batch=64, epochs=1, seed=3, grouping="modality_length", group_size=n)
        for n in (None, size)
    ]
    for step in range(2):
        sorted_batch, grouped = (plan.batch(step).samples for plan in plans)
        assert sorted(sorted_batch) == sorted(grouped), "the same global batch"
        runs = [[lengths[batch[i : i + size]].sum() for i in range(0, 64, size)] for batch in (sorted_batch, grouped)]
        assert np.std(runs[1]) < np.std(runs[0]) / 2, "and its groups alike, where sorted ones are not"


ARMS = (
    None,
    *(Hybrid(ratio, schedule, mixing) for ratio in (1.0, 0.8, 0.5) for schedule, mixing in (
        ("interleaved", "batch"), ("interleaved", "steps"), ("fused", "batch"),
    )),
)  # fmt: skip


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 120), st.integers(1, 20), st.integers(0, 2**31))
def test_arms_of_one_seed_see_one_order_of_samples_in_each_mode(n: int, size: int, seed: int) -> None:
    """To within a global batch, in which the modes are mixed at random: what was trained after any step is the beginning of one
    order, that of the baseline, and in VDEP mode of one order, too, which a smaller ratio leaves earlier."""
    plain = make(n, size, seed, epochs=2)
    in_text = np.concatenate([plain.batch(step).samples for step in range(plain.steps)])
    whole = make(n, 1, seed, Hybrid(1.0, "interleaved"), epochs=2)
    epochs = np.split(np.array([b.samples[0] for s in range(whole.steps) if (b := whole.batch(s)).image_loss[0]]), 2)
    for arm in ARMS:
        plan = make(n, size, seed, arm, epochs=2)
        # a fused step draws its samples in VDEP mode from those that it has in LLaVA mode
        in_image = in_text[:0] if arm and arm.schedule == "fused" else np.concatenate([e[: plan.vdep_samples] for e in epochs])
        for name, order in (("text_loss", in_text), ("image_loss", in_image)):
            at = 0
            for step in range(plan.steps) if len(order) else ():
                batch = plan.batch(step)
                mine = batch.samples[getattr(batch, name)]
                assert sorted(mine) == sorted(order[at : at + len(mine)]), (arm, name, step)
                at += len(mine)
            assert at == len(order)


def batches_of(data: Any, stage: str, vdep: dict[str, Any] | None = None, **stage_settings: Any) -> list[bytes]:
    recipe = world.make_study(vdep=vdep, epochs=2, **stage_settings).recipe("tiny", "run", stage)  # type: ignore[arg-type]
    plan = build_plan(SimpleNamespace(recipe=recipe), data)  # type: ignore[arg-type]
    batches = [plan.batch(step) for step in range(plan.steps)]
    return [b"".join(array.tobytes() for array in (b.samples, b.text_loss, b.image_loss)) for b in batches]


@pytest.mark.parametrize("schedule", [{}, {"schedule": "fused"}, {"mixing": "steps"}])
def test_arms_that_agree_in_seed_schedule_and_ratio_see_the_same_batches(schedule: dict[str, Any], captions: Path) -> None:
    data = PreparedData(captions)
    reference = batches_of(data, "pretrain", {"ratio": 0.5, **schedule})
    others: list[dict[str, Any]] = [
        {"alpha": 0.0}, {"alpha": 0.1}, {"loss": "inverse_l2"}, {"loss": "sigmoid_l2"}, {"position": "next"},
        {"detach_target": False}, {"distance": "root"}, {"reduction": "sum_dims"}, {"normalize": "layer_norm"},
    ]  # fmt: skip
    for other in others:
        assert batches_of(data, "pretrain", {"ratio": 0.5, **schedule, **other}) == reference
    for other in ({"ratio": 0.8, **schedule}, None):
        assert batches_of(data, "pretrain", other) != reference
    assert batches_of(data, "pretrain", {"ratio": 0.5, **schedule}, seed=7) != reference


def test_arms_of_one_seed_see_the_same_batches_in_sft(conversations: Path) -> None:
    data = PreparedData(conversations)
    reference = batches_of(data, "finetune")
    for vdep in ({"ratio": 0.5}, {"schedule": "fused"}, {"mixing": "steps", "auto_image": "token"}):
        assert batches_of(data, "finetune", vdep) == reference
    assert batches_of(data, "finetune", seed=7) != reference
