"""The objective against a few lines of float64 written out by hand."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vdep.model.objective import image_losses, text_losses

LOSSES, POSITIONS, DISTANCES, REDUCTIONS, NORMS = (
    ("l2", "sigmoid_l2", "inverse_l2"),
    ("same", "next"),
    ("squared", "root"),
    ("mean", "sum_dims"),
    ("none", "layer_norm"),
)
FLOOR = 1e-3


def by_hand(
    h: np.ndarray, x: np.ndarray, mask: np.ndarray, loss: str, position: str, distance: str, reduction: str, norm: str
) -> float:
    """The image loss as one would write it on paper: loops, float64, no library."""

    def normalised(v: np.ndarray) -> np.ndarray:
        return (v - v.mean()) / math.sqrt(v.var() + 1e-5) if norm == "layer_norm" else v

    total = 0.0
    for b, p in itertools.product(range(h.shape[0]), range(h.shape[1])):
        if not mask[b, p] or (position == "next" and p == 0):
            continue
        state, target = normalised(h[b, p - (position == "next")]), normalised(x[b, p])
        d = float(((state - target) ** 2).sum())
        if reduction == "mean":
            d /= h.shape[2]
        if distance == "root":
            d = math.sqrt(d)
        total += {"l2": d, "sigmoid_l2": 1 / (1 + math.exp(-d)), "inverse_l2": 1 / (d + FLOOR)}[loss]
    return total


@pytest.mark.parametrize(
    ("loss", "position", "distance", "reduction", "norm"), itertools.product(LOSSES, POSITIONS, DISTANCES, REDUCTIONS, NORMS)
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6), (torch.bfloat16, 0.05)])
def test_every_image_loss_and_target_option(
    loss: Any, position: Any, distance: Any, reduction: Any, norm: Any, dtype: torch.dtype, tolerance: float
) -> None:
    rng = np.random.default_rng(3)
    h, x = rng.normal(size=(2, 2, 7, 5))
    mask = rng.random((2, 7)) < 0.6
    mask[0, 0] = True
    value = image_losses(
        torch.tensor(h, dtype=dtype), torch.tensor(x, dtype=dtype), torch.tensor(mask),
        loss=loss, position=position, distance=distance, reduction=reduction, normalize=norm, inverse_floor=FLOOR,
    ).sum()  # fmt: skip
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert float(value) == pytest.approx(by_hand(h, x, mask, loss, position, distance, reduction, norm), rel=tolerance)


@pytest.mark.parametrize("detach", [True, False])
def test_detaching_the_target_cuts_the_gradient_through_it_and_nothing_else(detach: bool) -> None:
    h = torch.randn(1, 4, 3, requires_grad=True)
    x = torch.randn(1, 4, 3, requires_grad=True)
    image_losses(h, x, torch.ones(1, 4, dtype=torch.bool), detach_target=detach).sum().backward()
    assert h.grad is not None
    assert torch.allclose(h.grad, 2 * (h - x).detach() / 3)
    if detach:
        assert x.grad is None
    else:
        assert x.grad is not None
        assert torch.allclose(x.grad, -h.grad)


def test_a_perfect_copy_stays_finite_in_every_loss() -> None:
    x = torch.randn(1, 3, 4)
    for loss, distance in itertools.product(LOSSES, DISTANCES):
        h = x.clone().requires_grad_()
        supervised = torch.ones(1, 3, dtype=torch.bool)
        value = image_losses(h, x, supervised, loss=loss, distance=distance).sum()  # type: ignore[arg-type]
        value.backward()
        assert torch.isfinite(value)
        assert h.grad is not None
        assert torch.isfinite(h.grad).all()


def test_the_inverse_loss_rewards_distance() -> None:
    x = torch.zeros(1, 1, 4)
    near, far = (
        image_losses(torch.full((1, 1, 4), v), x, torch.ones(1, 1, dtype=torch.bool), loss="inverse_l2") for v in (1.0, 2.0)
    )
    assert far < near, "1/L2 read literally is minimised by moving away: it is reported as what it is"


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(2, 9), st.integers(0, 10**6))
def test_text_loss_by_hand(batch: int, length: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(batch, length, 6, generator=generator, dtype=torch.float64)
    head = torch.nn.Linear(6, 11).double()
    labels = torch.randint(0, 11, (batch, length), generator=generator)
    labels[torch.rand(batch, length, generator=generator) < 0.5] = -100
    expected = 0.0
    for b, p in itertools.product(range(batch), range(1, length)):
        if labels[b, p] >= 0:
            logits = head(hidden[b, p - 1]).detach()
            expected += float(torch.logsumexp(logits, 0) - logits[labels[b, p]])
    assert float(text_losses(hidden, labels, head).sum()) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_nothing_supervised_is_a_loss_of_zero_with_a_gradient_of_zero() -> None:
    hidden = torch.randn(2, 5, 6, requires_grad=True)
    loss = text_losses(hidden, torch.full((2, 5), -100), torch.nn.Linear(6, 11)).sum()
    loss.backward()
    assert float(loss) == 0
    assert hidden.grad is not None
    assert not hidden.grad.any()


def test_the_head_is_computed_at_supervised_positions_only() -> None:
    seen = []
    head = torch.nn.Linear(6, 11)
    head.register_forward_hook(lambda m, inputs, output: seen.append(tuple(inputs[0].shape)))
    labels = torch.full((3, 50), -100)
    labels[0, 10:14] = 1
    text_losses(torch.randn(3, 50, 6), labels, head)
    assert seen == [(4, 6)]
