"""Which part of the training state a rank holds: float32 master weights and Adam moments, by ranges of flattened parameters.

This is the one place that knows how DeepSpeed (0.19.8) lays them out:

* DDP: every rank holds everything.
* ZeRO-1 and 2: the parameters of an optimizer group lie one after the other in a flat tensor, each rank holds one stretch of
  it, and ``_hp_mapping`` of a parameter says which of its elements are in this rank's stretch, and where.
* ZeRO-3: each parameter is cut into as many equal parts as there are ranks, the last one padded; ``grad_position`` says where a
  rank's parts lie in its flat tensors.

None of this is a public interface. What it says is compared with what the model computes with (``check_layout``) whenever a
checkpoint is written or read, and by ``checkpoint`` with the sizes of the parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError
from .engine import Engine

MOMENTS = ("exp_avg", "exp_avg_sq")
KINDS = ("master", *MOMENTS)
CHUNK = 1 << 22
"""Elements that are copied at one time (16 MiB): a rank's part may be 10 GB."""


@dataclass(frozen=True)
class Part:
    """Elements ``start`` to ``stop`` of a flattened parameter, as this rank keeps them.

    Attributes:
        state: master, exp_avg and exp_avg_sq, each (stop - start,); views, so that writing into them is loading.
        weight: the same elements of what the model computes with, in its precision.
    """

    name: str
    start: int
    stop: int
    state: tuple[Tensor, ...]
    weight: Tensor

    def cut(self, start: int, stop: int) -> Part:
        """Its elements from ``start`` to ``stop``, counted in the whole parameter."""
        here = slice(start - self.start, stop - self.start)
        return Part(self.name, start, stop, tuple(t[here] for t in self.state), self.weight[here])


def shapes(engine: Engine) -> dict[str, list[int]]:
    """The full shape of every trainable parameter; under ZeRO-3 its own is that of nothing while it is partitioned."""
    return {name: list(getattr(p, "ds_shape", p.shape)) for name, p in engine.names.items()}


def held(engine: Engine) -> list[Part]:
    """Everything that this rank holds, parameter by parameter in the order of the model."""
    if not engine.uses_deepspeed:
        parts = [
            Part(name, 0, p.numel(), _flat_state(engine.optimizer, p), p.detach().view(-1)) for name, p in engine.names.items()
        ]
    else:
        zero = engine.model.optimizer
        part_of = _zero3_part if hasattr(zero, "fp32_partitioned_groups_flat") else _zero2_part
        parts = [part for name, p in engine.names.items() if (part := part_of(zero, name, p, engine.rank))]
    return [part for part in parts if part.start < part.stop]


def written(engine: Engine) -> list[Part]:
    """What this rank writes: under ZeRO what it holds, under DDP an equal share of what all of them hold."""
    parts = held(engine)
    if engine.uses_deepspeed:
        return parts
    total = sum(part.stop for part in parts)
    first, last = (total * rank // engine.ranks for rank in (engine.rank, engine.rank + 1))
    mine, offset = [], 0
    for part in parts:
        start, stop = max(first - offset, 0), min(last - offset, part.stop)
        if start < stop:
            mine.append(part.cut(start, stop))
        offset += part.stop
    return mine


def begin(engine: Engine, steps: int) -> None:
    """Make room for a state to be loaded, as it is after ``steps`` optimizer steps: all of it zero."""
    if not engine.uses_deepspeed:
        optimizer, tensors = engine.optimizer, list(engine.names.values())
    else:
        zero = engine.model.optimizer
        optimizer = zero.optimizer
        if hasattr(zero, "fp32_partitioned_groups_flat"):
            # nothing that is gathered at this moment may keep the old weights
            zero._partition_all_parameters()
            tensors = zero.fp32_partitioned_groups_flat
        else:
            tensors = [flat for group in optimizer.param_groups for flat in group["params"]]
    for tensor in tensors:
        tensor.data.zero_()  # no part reaches the padding
        step = torch.tensor(float(steps), device=tensor.device if engine.device.type == "cuda" else "cpu")
        optimizer.state[tensor] = {"step": step} | {key: torch.zeros_like(tensor, dtype=torch.float32) for key in MOMENTS}


def publish(engine: Engine) -> None:
    """After the masters were loaded: let the model compute with them, on all ranks, as after a step. All ranks together."""
    if not engine.uses_deepspeed:
        return
    zero = engine.model.optimizer
    if not hasattr(zero, "fp32_partitioned_groups_flat"):
        zero.update_lp_params()
        return
    for compute, master in zip(zero.fp16_partitioned_groups_flat, zero.fp32_partitioned_groups_flat, strict=True):
        compute.data.copy_(master.data)
    if zero.persistent_parameters:
        # small ones stay gathered between steps
        zero.persistent_parameters[0].all_gather(zero.persistent_parameters)


def check_layout(parts: list[Part]) -> None:
    """Compare masters with what the model computes with, bit by bit.

    Raises:
        CheckpointError: where a master is that of other elements than it is taken for.
    """
    for part in parts:
        for master, weight in zip(part.state[0].split(CHUNK), part.weight.split(CHUNK), strict=True):
            expected = master.to(weight.device, weight.dtype)
            if not torch.equal(expected.view(torch.uint8), weight.view(torch.uint8)):
                raise _unknown_layout(f"elements {part.start} to {part.stop} of {part.name} have other master weights")


def _zero2_part(zero: Any, name: str, parameter: Any, rank: int) -> Part | None:
    mapping = parameter._hp_mapping
    if mapping is None:
        return None
    (flat,) = zero.optimizer.param_groups[mapping.param_group_index]["params"]
    here, there = mapping.lp_fragment_address, mapping.hp_fragment_address
    state = tuple(t.narrow(0, there.start, there.numel) for t in _flat_state(zero.optimizer, flat))
    if state[0].data_ptr() != mapping.hp_fragment.data_ptr() or here.numel != there.numel:
        raise _unknown_layout(f"{name} is not where _hp_mapping says")
    weight = parameter.detach().view(-1).narrow(0, here.start, here.numel)
    return Part(name, here.start, here.start + here.numel, state, weight)


def _zero3_part(zero: Any, name: str, parameter: Any, rank: int) -> Part | None:
    group, offset, size = zero.grad_position[zero.get_param_id(parameter)]
    flat = zero.fp32_partitioned_groups_flat[group]
    if size != parameter.ds_tensor.numel() or flat.numel() < offset + size:
        # what is offloaded to NVMe has an empty tensor here
        raise _unknown_layout(f"{name} is not where grad_position says")
    start, stop = size * rank, min(size * (rank + 1), parameter.ds_numel)
    if start >= stop:
        return None
    state = tuple(t.narrow(0, offset, stop - start) for t in _flat_state(zero.optimizer, flat))
    return Part(name, start, stop, state, parameter.ds_tensor.detach().view(-1)[: stop - start])


def _flat_state(optimizer: Any, tensor: Tensor) -> tuple[Tensor, ...]:
    """Master and moments of a tensor that an optimizer steps, flattened; moments are zeros before the first step."""
    kept = optimizer.state.get(tensor, {})
    moments = [kept[key] if key in kept else torch.zeros_like(tensor, dtype=torch.float32) for key in MOMENTS]
    return tuple(t.detach().view(-1) for t in (tensor, *moments))


def _unknown_layout(what: str) -> CheckpointError:
    return CheckpointError(
        f"this DeepSpeed keeps the training state in another way than is known here: {what}. Install the version in "
        "envs/requirements.lock, and use no offload to NVMe; checkpoints that were written before are intact."
    )
