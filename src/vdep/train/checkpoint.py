"""Checkpoints that are whole or not there.

A checkpoint is a folder ``step-<number>`` of safetensors shards and a manifest with the recipe's digest and each shard's
SHA-256. It is written aside, synced, and renamed; the newest one whose hashes hold is used, and a damaged one is said and
passed over. The state is full float32 tensors by parameter name (see ``engine``), so any number of ranks can resume it.
"""

from __future__ import annotations

import logging
import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import CheckpointError
from ..files import read_json, sha256, sync_folder, write_json
from .engine import MOMENTS, Engine

log = logging.getLogger(__name__)

PARTS = ("master", *MOMENTS)
FORMAT = 1


def shard_of(sizes: dict[str, int], shards: int) -> dict[str, int]:
    """Which shard each parameter goes to: the largest first, always to the shard that is smallest so far."""
    load = [0] * shards
    chosen = {}
    for name in sorted(sizes, key=lambda n: (-sizes[n], n)):
        target = load.index(min(load))
        chosen[name] = target
        load[target] += sizes[name]
    return chosen


def save_checkpoint(folder: Path, engine: Engine, step: int, identity: dict[str, Any], keep: int) -> Path:
    """Write ``step-<step>`` after ``step`` optimizer steps, and remove all but the ``keep`` newest. All ranks together.

    Raises:
        CheckpointError: where it cannot be written; those before it are as they were.
    """
    try:
        return _save(folder, engine, step, identity, keep)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"the checkpoint of step {step} cannot be written to {folder}: {error}. The last one is intact: "
            "make room, and the same command goes on from it."
        ) from error


def _save(folder: Path, engine: Engine, step: int, identity: dict[str, Any], keep: int) -> Path:
    target = folder / f"step-{step:08d}"
    aside = folder / f".{target.name}.tmp"
    if engine.rank == 0:
        for stale in folder.glob(".step-*.tmp"):
            shutil.rmtree(stale, ignore_errors=True)
        aside.mkdir(parents=True)
    engine.barrier()
    # under ZeRO-3 a parameter's own size is 0 while it is partitioned
    sizes = {name: getattr(p, "ds_numel", p.numel()) for name, p in engine.names.items()}
    placement = shard_of(sizes, engine.ranks)
    mine: dict[str, Tensor] = {}
    for name, tensors in engine.export_tensors():
        if placement[name] == engine.rank:
            mine |= {f"{part}/{name}": t.to("cpu").contiguous().clone() for part, t in zip(PARTS, tensors, strict=True)}
    shard = aside / f"shard-{engine.rank:05d}-of-{engine.ranks:05d}.safetensors"
    save_file(mine, shard)
    _sync(shard)
    record = {"name": shard.name, "sha256": sha256(shard), "size": shard.stat().st_size}
    records: list[Any] = [None] * engine.ranks
    if engine.ranks > 1:
        torch.distributed.all_gather_object(records, record)
    else:
        records = [record]
    if engine.rank == 0:
        write_json(aside / "checkpoint.json", {"format": FORMAT, "step": step, **identity, "shards": records})
        sync_folder(aside)
        if target.exists():
            shutil.rmtree(target)
        aside.replace(target)
        sync_folder(folder)
        for old in sorted(folder.glob("step-*"))[:-keep]:
            shutil.rmtree(old, ignore_errors=True)
    engine.barrier()
    return target


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check(folder: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """The manifest of a checkpoint whose shards are all there and unchanged.

    Raises:
        CheckpointError: saying what is damaged, or that it belongs to another recipe.
    """
    try:
        manifest = read_json(folder / "checkpoint.json")
        shards = [(folder / s["name"], s["sha256"], s["size"]) for s in manifest["shards"]]
        step, form = manifest["step"], manifest["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder}: the manifest cannot be read ({error})") from error
    if form != FORMAT or f"step-{step:08d}" != folder.name:
        raise CheckpointError(f"{folder}: the manifest is not that of this checkpoint")
    for key, value in identity.items():
        if manifest.get(key) != value:
            raise CheckpointError(f"{folder} was written with another {key}: {manifest.get(key)} instead of {value}")
    for path, digest, size in shards:
        if not path.is_file() or path.stat().st_size != size or sha256(path) != digest:
            raise CheckpointError(f"{path} is damaged or missing")
    return manifest


def newest_checkpoint(folder: Path, identity: dict[str, Any]) -> tuple[Path, dict[str, Any]] | None:
    """The newest intact checkpoint, or None where none was ever written.

    Raises:
        CheckpointError: where there are checkpoints but not one that can be used.
    """
    found = sorted(folder.glob("step-*"), reverse=True)
    problems = []
    for candidate in found:
        try:
            manifest = check(candidate, identity)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            log.warning("checkpoint passed over: %s", problem)
        return candidate, manifest
    if problems:
        raise CheckpointError(
            "no checkpoint can be used: " + "; ".join(problems) + f". Delete {folder} to start this run from the beginning."
        )
    return None


def load_checkpoint(folder: Path, manifest: dict[str, Any], engine: Engine) -> None:
    """Put the state of a checked checkpoint into the engine. All ranks together."""
    with ExitStack() as opened:
        found: dict[str, Any] = {}
        for shard in manifest["shards"]:
            file = opened.enter_context(safe_open(folder / shard["name"], framework="pt"))
            found |= dict.fromkeys(file.keys(), file)
        names = {key.partition("/")[2] for key in found}
        if names != set(engine.names) or len(found) != len(PARTS) * len(names):
            difference = sorted(names ^ set(engine.names))
            raise CheckpointError(f"{folder} holds other parameters than are trained: {', '.join(difference[:5])}")
        engine.load_tensors(
            lambda name: [found[key].get_tensor(key) for key in (f"{part}/{name}" for part in PARTS)], manifest["step"]
        )
    engine.barrier()
