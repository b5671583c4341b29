"""The cross-entropy in chunks is the plain one, in its value and in every gradient: with a frozen head as in stage 1, and with
one that is trained as in SFT."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from vdep.model.head import TrainingHead, token_losses

WORDS, DIM = 50, 12
DTYPES = {"float64": 1e-12, "float32": 2e-6}


def parts(
    tokens: int, dtype: torch.dtype, bias: bool, trained: bool, seed: int = 0
) -> tuple[Tensor, Tensor, nn.Linear, Tensor]:
    """States, targets, a head, and a gradient for each token's loss."""
    generator = torch.Generator().manual_seed(seed)
    head = nn.Linear(DIM, WORDS, bias=bias)
    for parameter in head.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    states = (3 * torch.randn(tokens, DIM, generator=generator)).to(dtype).requires_grad_()
    targets = torch.randint(WORDS, (tokens,), generator=generator)
    upstream = torch.randn(tokens, generator=generator, dtype=torch.float64)
    return states, targets, head.to(dtype).requires_grad_(trained), upstream


def gradients(losses: Tensor, upstream: Tensor, states: Tensor, head: nn.Linear) -> list[Tensor]:
    wanted = [states, *(p for p in head.parameters() if p.requires_grad)]
    return [g.double() for g in torch.autograd.grad(losses, wanted, upstream.to(losses.dtype))]


def distance(found: list[Tensor], expected: list[Tensor]) -> float:
    pairs = [(a, b) for a, b in zip(found, expected, strict=True) if b.numel()]
    return max((float((a - b).norm() / b.norm().clamp(min=1e-30)) for a, b in pairs), default=0.0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 40), st.integers(1, 41), st.booleans(), st.booleans(), st.sampled_from(sorted(DTYPES)))
def test_loss_and_every_gradient_are_those_of_the_plain_one(
    tokens: int, chunk: int, bias: bool, trained: bool, name: str
) -> None:
    states, targets, head, upstream = parts(tokens, getattr(torch, name), bias, trained)
    plain = F.cross_entropy(head(states), targets, reduction="none")
    found = token_losses(states, targets, head.weight, head.bias, chunk)
    assert found.dtype == plain.dtype
    torch.testing.assert_close(found, plain, rtol=DTYPES[name], atol=DTYPES[name])
    there, here = (gradients(losses, upstream, states, head) for losses in (plain, found))
    assert [g.shape for g in here] == [g.shape for g in there]
    assert len(here) == 1 + trained * (1 + bias)
    assert distance(here, there) < 5 * DTYPES[name]


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("autocast", [False, True])
def test_in_bf16_it_is_as_near_to_the_exact_gradient_as_the_plain_one(trained: bool, autocast: bool) -> None:
    """As ZeRO trains (weights in bf16), and as DDP does (float32 weights, autocast)."""
    states, targets, exact_head, upstream = parts(300, torch.float64, True, trained)
    exact = gradients(F.cross_entropy(exact_head(states), targets, reduction="none"), upstream, states, exact_head)
    dtype = torch.float32 if autocast else torch.bfloat16
    states, _, head, _ = parts(300, dtype, True, trained)
    how: Any = torch.autocast("cpu", torch.bfloat16) if autocast else contextlib.nullcontext()
    off = {}
    for name, chunk in (("plain", 1000), ("in chunks", 7)):
        with how:
            losses = token_losses(states, targets, head.weight, head.bias, chunk)
        assert losses.dtype == torch.float32
        found = torch.autograd.grad(
            losses, [states, *(p for p in head.parameters() if p.requires_grad)], upstream.float()
        )  # fmt: skip
        assert [g.dtype for g in found] == [dtype] * len(found)
        off[name] = [distance([g.double()], [e]) for g, e in zip(found, exact, strict=True)]
    assert all(here < 1.2 * there for here, there in zip(off["in chunks"], off["plain"], strict=True)), off
    assert max(off["plain"]) < 0.02


def test_no_more_logits_than_those_of_a_chunk_are_ever_kept() -> None:
    states, targets, head, _ = parts(40, torch.float32, False, True)
    kept: dict[int, list[int]] = {}
    for chunk in (1000, 8):
        sizes = kept.setdefault(chunk, [])
        with torch.autograd.graph.saved_tensors_hooks(lambda t, sizes=sizes: sizes.append(t.numel()) or t, lambda t: t):
            token_losses(states, targets, head.weight, head.bias, chunk).sum().backward()
    assert max(kept[1000]) == 40 * WORDS, "the plain one keeps them all: the control of this test"
    assert max(kept[8]) == DIM * WORDS, "nothing larger than the weights"


def test_a_training_head_is_the_head_it_was_made_of() -> None:
    states, targets, head, _ = parts(20, torch.float32, True, True)
    training = TrainingHead(head, chunk=8)
    assert training.weight is head.weight
    assert training.bias is head.bias
    assert training.state_dict().keys() == head.state_dict().keys()
    assert torch.equal(training(states), head(states))
    assert torch.equal(training(states, targets), token_losses(states, targets, head.weight, head.bias, 8))
