"""How much of an attention map lies on objects: an oracle of loops, and what has to hold whatever the map."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vdep.report.attention_data import MEASURES, choose_head
from vdep.report.attention_measures import SINK, find_sinks, measures


def one(attention: list[float], objects: list[float], inside: list[bool] | None = None, sinks: list[bool] | None = None):
    """The measures of a single head on a single picture, by name."""
    count = len(attention)
    found = measures(
        torch.tensor([[attention]]),
        torch.tensor([objects]),
        torch.tensor([inside or [True] * count]),
        torch.tensor([sinks or [False] * count]),
    )
    return dict(zip(MEASURES, found[0, 0].tolist(), strict=True))


def by_hand(attention: list[float], objects: list[float], inside: list[bool], sinks: list[bool]) -> dict[str, float]:
    """The definitions of ``attention_measures``, in loops."""

    def ratio(above: float, below: float) -> float:
        return above / below if below else math.nan

    def of_objects(where: list[int]) -> float:
        share = ratio(sum(attention[j] * objects[j] for j in where), sum(attention[j] for j in where))
        return ratio(share, ratio(sum(objects[j] for j in where), len(where)))

    def points(where: list[int]) -> float:
        if not where:
            return math.nan
        top = max(attention[j] for j in where)
        most = [j for j in where if attention[j] == top]
        return sum(objects[j] for j in most) / len(most)

    everywhere = range(len(attention))
    picture = [j for j in everywhere if inside[j]]
    unsunk = [j for j in picture if not sinks[j]]
    total = sum(attention[j] for j in picture)
    entropy = math.nan
    if total and len(picture) > 1:
        shares = [attention[j] / total for j in picture]
        entropy = -sum(p * math.log(p) for p in shares if p) / math.log(len(picture))
    return {
        "image": sum(attention),
        "object": of_objects(picture),
        "object_without_sinks": of_objects(unsunk),
        "pointing": points(picture),
        "pointing_without_sinks": points(unsunk),
        "area_without_sinks": ratio(sum(objects[j] for j in unsunk), len(unsunk)),
        "entropy": entropy,
        "sinks": ratio(sum(attention[j] for j in everywhere if sinks[j]), sum(attention)),
    }


@st.composite
def maps(draw: st.DrawFn) -> tuple[list[float], list[float], list[bool], list[bool]]:
    count = draw(st.integers(2, 9))
    sized = lambda element: st.lists(element, min_size=count, max_size=count)  # noqa: E731
    attention = draw(sized(st.sampled_from([0.0, 0.01, 0.03, 0.1, 0.2])))
    objects = draw(sized(st.sampled_from([0.0, 0.25, 0.5, 1.0])))
    return attention, objects, draw(sized(st.booleans())), draw(sized(st.booleans()))


@settings(max_examples=300, deadline=None)
@given(maps())
def test_every_measure_is_what_the_loops_say(drawn: tuple[list[float], list[float], list[bool], list[bool]]) -> None:
    attention, objects, inside, sinks = drawn
    found, wanted = one(attention, objects, inside, sinks), by_hand(*drawn)
    for name in MEASURES:
        if name == "entropy" and sum(inside) < 2:
            continue  # of one patch there is none
        if math.isnan(wanted[name]):
            assert not math.isfinite(found[name]), name
        else:
            assert found[name] == pytest.approx(wanted[name], abs=1e-5), name


def test_uniform_attention_has_no_preference() -> None:
    objects = [0.0, 0.5, 1.0, 0.25, 0.0, 0.0]
    for level in (0.01, 1 / 6):
        found = one([level] * 6, objects, sinks=[True] + [False] * 5)
        assert found["object"] == pytest.approx(1)
        assert found["object_without_sinks"] == pytest.approx(1)
        assert found["pointing"] == pytest.approx(np.mean(objects))
        assert found["pointing_without_sinks"] == pytest.approx(found["area_without_sinks"]) == pytest.approx(1.75 / 5)
        assert found["entropy"] == pytest.approx(1)
        assert found["sinks"] == pytest.approx(1 / 6)


def test_attention_that_lies_on_the_object_alone() -> None:
    """All of it on the one patch of four: four times its share, a hit, no entropy. Off the object: nothing."""
    found = one([0.0, 0.7, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0])
    assert (found["image"], found["object"], found["pointing"]) == (pytest.approx(0.7), pytest.approx(4), 1)
    assert found["entropy"] == pytest.approx(0, abs=1e-6)
    missed = one([0.0, 0.0, 0.7, 0.0], [0.0, 1.0, 0.0, 0.0])
    assert (missed["object"], missed["pointing"]) == (0, 0)


@settings(max_examples=50, deadline=None)
@given(maps(), st.randoms(use_true_random=False))
def test_where_a_patch_lies_does_not_matter(drawn: tuple[list, list, list, list], random) -> None:
    order = list(range(len(drawn[0])))
    random.shuffle(order)
    before = one(*drawn)
    after = one(*([values[j] for j in order] for values in drawn))
    for name in MEASURES:
        assert after[name] == pytest.approx(before[name], abs=1e-5, nan_ok=True), name


def test_a_sink_hides_the_object_until_it_is_left_out() -> None:
    """A planted sink: nine tenths of the attention on an empty patch, the rest on the object."""
    attention, objects, sink = [0.9, 0.09, 0.005, 0.005], [0.0, 1.0, 0.0, 0.0], [True, False, False, False]
    found = one(attention, objects, sinks=sink)
    assert found["pointing"] == 0
    assert found["object"] < 0.5
    assert found["pointing_without_sinks"] == 1
    assert found["object_without_sinks"] == pytest.approx(0.9 * 3)
    assert found["sinks"] == pytest.approx(0.9)


def test_ignoring_what_pads_a_picture_is_no_attention_to_objects() -> None:
    """A model that spreads its attention over the picture and pays none to its margins: a ratio of 1."""
    found = one([0.25] * 4 + [0.0] * 4, [0.0, 0.0, 0.0, 1.0] + [0.0] * 4, inside=[True] * 4 + [False] * 4)
    assert found["object"] == pytest.approx(1)
    assert found["entropy"] == pytest.approx(1)
    # the control: as if the margins were of the picture
    assert one([0.25] * 4 + [0.0] * 4, [0.0, 0.0, 0.0, 1.0] + [0.0] * 4)["object"] == pytest.approx(2)


def test_heads_and_pictures_are_measured_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    attention = torch.rand(3, 4, 9, generator=generator)
    objects = (torch.rand(3, 9, generator=generator) > 0.5).float()
    inside, sinks = torch.rand(3, 9, generator=generator) > 0.2, torch.rand(4, 9, generator=generator) > 0.8
    whole = measures(attention, objects, inside, sinks)
    assert whole.shape == (3, 4, len(MEASURES))
    for picture in range(3):
        for head in range(4):
            alone = one(*(x.tolist() for x in (attention[picture, head], objects[picture], inside[picture], sinks[head])))
            assert np.allclose(whole[picture, head], list(alone.values()), atol=1e-5, equal_nan=True)


def test_a_sink_draws_many_times_its_share_of_blank_pictures() -> None:
    blank = torch.ones(2, 3, 100)
    blank[1, 2, 17] = SINK * 2
    assert find_sinks(blank).nonzero().tolist() == [[1, 2, 17]]
    assert not find_sinks(torch.ones(1, 1, 100)).any()
    # of a mean, of a sum, of attention that is small as a whole
    assert torch.equal(find_sinks(blank * 1e-3), find_sinks(blank))


def test_the_best_head_is_the_one_that_looks_at_objects() -> None:
    values = np.ones((3, 4, len(MEASURES)), np.float32)
    values[2, 1, MEASURES.index("object_without_sinks")] = 3
    values[0, 0, MEASURES.index("image")] = 9
    values[1, 1] = np.nan
    assert choose_head(values).tolist() == [2, 1]
