"""Every engine on any number of ranks saves its state and loads what each other one saved: ``python tests/layouts.py FOLDER``.

One process pays the imports and forks every rank. What the state is, DeepSpeed's own functions say, which gather it whole; they
know nothing of checkpoints. Prints one line of JSON: for each way to load, what came out of each checkpoint.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import world
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vdep.train import checkpoint, state
from vdep.train.engine import Engine

WAYS = [
    ("ddp", 1), ("ddp", 2), ("zero2", 1), ("zero2", 2), ("zero2", 3), ("zero3", 1), ("zero3", 2), ("zero3", 3),
    ("zero3-gathered", 2),
]  # fmt: skip
"""``zero3-gathered`` keeps small parameters whole between steps, as config/deepspeed says; these are all small."""
IDENTITY = {"recipe": "any"}
STEPS = 2


class Odd(nn.Module):
    """Sizes that no number of ranks divides, biases of one element, and a frozen layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.frozen = nn.Linear(3, 3).requires_grad_(False)
        self.first = nn.Linear(3, 71)
        self.norm = nn.LayerNorm(71)
        self.second = nn.Linear(71, 53)
        self.last = nn.Linear(53, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.frozen(x.to(self.frozen.weight.dtype))
        return self.last(self.second(self.norm(self.first(x))).tanh()).float().pow(2).mean()


def name_of(way: tuple[str, int]) -> str:
    return f"{way[0]}-on-{way[1]}"


def build(engine: str) -> Engine:
    settings = world.make_study(precision="bf16", weight_decay=0.1).recipe("tiny", "run", "finetune").settings
    folder = world.ROOT / "config" / "deepspeed" if engine == "zero3-gathered" else world.engines()
    return Engine(Odd(), settings, engine.partition("-")[0], folder, 4, cpu=True)  # type: ignore[arg-type]


def train(engine: Engine, step: int) -> None:
    generator = torch.Generator().manual_seed(100 * step + engine.rank)
    loss = engine.model(torch.randn(4, 3, generator=generator))
    if engine.uses_deepspeed:
        engine.model.set_gradient_accumulation_boundary(True)
        engine.model.backward(loss)
    else:
        engine.accelerator.backward(loss)
    engine.apply()


def whole(engine: Engine) -> dict[str, Tensor]:
    """The whole state, as it is kept: {kind/parameter: full tensor}."""
    if not engine.uses_deepspeed:
        found = {f"{key}/{name}": engine.optimizer.state[p][key] for name, p in engine.names.items() for key in state.MOMENTS}
        return {k: v.clone() for k, v in (found | {f"master/{name}": p.detach() for name, p in engine.names.items()}).items()}
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    zero = engine.model.optimizer
    if hasattr(zero, "_hp_optimizer_states_linked"):
        zero._hp_optimizer_states_linked = False
        zero._lazy_init_hp_params_optimizer_state()
    found = {f"master/{name}": safe_get_full_fp32_param(p) for name, p in engine.names.items()}
    for key in state.MOMENTS:
        found |= {f"{key}/{name}": safe_get_full_optimizer_state(p, key) for name, p in engine.names.items()}
    return {k: v.detach().clone() for k, v in found.items()}


def weights(engine: Engine) -> dict[str, Tensor]:
    """What the model computes with, whole."""
    import deepspeed

    with deepspeed.zero.GatheredParameters([p for p in engine.names.values() if hasattr(p, "ds_id")]):
        return {name: p.detach().clone() for name, p in engine.names.items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def save(folder: Path, way: tuple[str, int]) -> None:
    engine = build(way[0])
    for step in range(STEPS):
        train(engine, step)
    states = {"saved": whole(engine)}
    checkpoint.save_checkpoint(folder / name_of(way), engine, STEPS, IDENTITY, keep=1)
    train(engine, STEPS)
    states["next"] = whole(engine)
    if engine.rank == 0:
        for what, tensors in states.items():
            save_file(tensors, folder / f"{name_of(way)}.{what}")
    engine.close()


def load(folder: Path, way: tuple[str, int]) -> None:
    engine = build(way[0])
    count = Count()
    results = {}
    for source in (*(w for w in WAYS if w != way), way):
        saved = load_file(folder / f"{name_of(source)}.saved")
        count.hashed = count.read = 0
        newest = checkpoint.newest_checkpoint(folder / name_of(source), IDENTITY, engine)
        assert newest is not None
        checkpoint.load_checkpoint(*newest, engine)
        computed = weights(engine)
        results[name_of(source)] = {
            "state": same(whole(engine), saved),
            "weights": same(computed, {name: saved[f"master/{name}"].to(w.dtype) for name, w in computed.items()}),
            "hashed": engine.gather(count.hashed),
            "read": engine.gather(count.read),
            "files": sum(path.stat().st_size for path in newest[0].glob("*.safetensors")),
            "elements": sum(t.numel() for t in saved.values()),
        }
    train(engine, STEPS)
    results["next"] = {"state": same(whole(engine), load_file(folder / f"{name_of(way)}.next"))}
    if engine.rank == 0:
        (folder / f"{name_of(way)}.json").write_text(json.dumps(results))
    engine.close()


class Count:
    """Bytes that ``checkpoint`` hashes and reads in this process."""

    def __init__(self) -> None:
        self.hashed = self.read = 0
        sha256, safe_open = checkpoint.sha256, checkpoint.safe_open
        count = self

        def hashed(path: Path) -> str:
            count.hashed += path.stat().st_size
            return sha256(path)

        class Opened:
            def __init__(self, *arguments: Any, **keywords: Any) -> None:
                self.file = safe_open(*arguments, **keywords)

            def __enter__(self) -> Opened:
                self.file.__enter__()
                return self

            def __exit__(self, *error: Any) -> None:
                self.file.__exit__(*error)

            def get_slice(self, key: str) -> Slice:
                return Slice(self.file.get_slice(key))

        class Slice:
            def __init__(self, stored: Any) -> None:
                self.stored = stored

            def __getitem__(self, where: slice) -> Tensor:
                found: Tensor = self.stored[where]
                count.read += found.nbytes
                return found

        checkpoint.sha256, checkpoint.safe_open = hashed, Opened


def on_ranks(what: Callable[[Path, tuple[str, int]], None], folder: Path, way: tuple[str, int]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = []
    for rank in range(way[1]):
        child = os.fork()
        if not child:
            code = 1
            try:
                os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(way[1])}
                os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(way[1])}
                os.dup2(2, 1)
                what(folder, way)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    if any(codes):
        sys.exit(f"{what.__name__} under {name_of(way)}: {codes}")


def main() -> None:
    torch.set_num_threads(1)
    # what DeepSpeed imports when it needs it, torch.compile among it, takes seconds
    for module in ("deepspeed.runtime.zero.muon.muon_optimizer", "deepspeed.runtime.zero.stage3", "torch.utils.cpp_extension"):
        importlib.import_module(module)
    folder = Path(sys.argv[1])
    for what in (save, load):
        for way in WAYS:
            on_ranks(what, folder, way)
    print(json.dumps({name_of(way): json.loads((folder / f"{name_of(way)}.json").read_text()) for way in WAYS}))


if __name__ == "__main__":
    main()
