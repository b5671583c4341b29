"""Checkpoints that are whole or not there, written and read by each rank in its own part.

A checkpoint is a folder ``step-<number>``: a safetensors file of each rank that wrote it, and a manifest with the recipe's
digest, each file's SHA-256, and which elements of which parameter it holds. It is written aside, synced, and renamed; the
newest one whose hashes hold is used, and a damaged one is said and passed over. The state is float32 master weights and Adam
moments by ranges of parameters (see ``state``), so any number of ranks can resume it, under any engine: each looks up where the
ranges lie that it needs, and reads nothing else.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
from collections import defaultdict
from collections.abc import Iterable
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from ..errors import CheckpointError
from ..files import read_json, sha256, sync_folder, write_json
from . import state
from .engine import Engine

log = logging.getLogger(__name__)

FORMAT = 2


def save_checkpoint(
    folder: Path, engine: Engine, step: int, identity: dict[str, Any], keep: int, alpha: dict[str, float] | None = None
) -> Path:
    """Write ``step-<step>`` after ``step`` optimizer steps, and remove all but the ``keep`` newest. All ranks together.

    Args:
        alpha: the state of its rule, which the manifest keeps.

    Raises:
        CheckpointError: where it cannot be written; those before it are as they were.
    """
    try:
        return _save(folder, engine, step, {**identity, **({"alpha": alpha} if alpha else {})}, keep)
    except OSError as error:
        raise CheckpointError(
            f"the checkpoint of step {step} cannot be written to {folder}: {error}. The last one is intact: "
            "make room, and the same command goes on from it."
        ) from error


def _save(folder: Path, engine: Engine, step: int, said: dict[str, Any], keep: int) -> Path:
    target = folder / f"step-{step:08d}"
    aside = folder / f".{target.name}.tmp"
    if engine.rank == 0:
        for stale in folder.glob(".step-*.tmp"):
            shutil.rmtree(stale, ignore_errors=True)
        aside.mkdir(parents=True)
    engine.barrier()
    parts = state.written(engine)
    state.check_layout(parts)
    path = aside / f"part-{engine.rank:05d}-of-{engine.ranks:05d}.safetensors"
    digest = write_tensors(
        path, [(f"{kind}/{part.name}", t) for part in parts for kind, t in zip(state.KINDS, part.state, strict=True)]
    )
    slices = {part.name: [part.start, part.stop] for part in parts}
    files = engine.gather({"name": path.name, "sha256": digest, "size": path.stat().st_size, "slices": slices})
    parameters = state.shapes(engine)
    if problem := gap(parameters, files):
        raise CheckpointError(f"the ranks do not hold each parameter once: {problem}. The last checkpoint is intact.")
    if engine.rank == 0:
        manifest = {"format": FORMAT, "step": step, **said, "parameters": parameters, "files": files}
        write_json(aside / "checkpoint.json", manifest)
        if target.exists():
            shutil.rmtree(target)
        aside.replace(target)
        sync_folder(folder)
        _remove_old(folder, target, keep)
    engine.barrier()
    return target


def _remove_old(folder: Path, last: Path, keep: int) -> None:
    """Those that are newer than the last one were passed over, or it would not have been written."""
    found = sorted(folder.glob("step-*"))
    kept = [path for path in found if path.name <= last.name][-keep:]
    for path in found:
        if path not in kept:
            shutil.rmtree(path, ignore_errors=True)


def write_tensors(path: Path, tensors: list[tuple[str, Tensor]]) -> str:
    """Write flat tensors as float32 to a safetensors file, chunk by chunk, and sync it; returns the SHA-256 of its bytes.

    The library's own writer wants all of them in the memory of the CPU at once, and the digest would read the file again.
    """
    header, end = {}, 0
    for key, tensor in tensors:
        start, end = end, end + 4 * tensor.numel()
        header[key] = {"dtype": "F32", "shape": [tensor.numel()], "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with open(path, "wb") as file:

        def put(data: Any) -> None:
            file.write(data)
            digest.update(data)

        put(len(text).to_bytes(8, "little") + text)
        for _, tensor in tensors:
            for chunk in tensor.split(state.CHUNK):
                put(chunk.to("cpu", torch.float32).numpy())
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def gap(parameters: dict[str, list[int]], files: list[dict[str, Any]]) -> str | None:
    """What is missing where files are to hold every element of every parameter once; None where nothing is."""
    found = _slices(files)
    if unknown := found.keys() - parameters.keys():
        return f"{min(unknown)} is no parameter"
    for name, shape in parameters.items():
        at = 0
        for start, stop, _ in found.get(name, []):
            if start != at or stop <= start:
                return f"{name} after element {at}"
            at = stop
        if at != math.prod(shape):
            return f"{name} after element {at}"
    return None


def _slices(files: list[dict[str, Any]]) -> dict[str, list[tuple[int, int, str]]]:
    """By parameter: (start, stop, name of the file that holds these elements), in order."""
    found = defaultdict(list)
    for file in files:
        for name, (start, stop) in file["slices"].items():
            found[name].append((start, stop, file["name"]))
    return {name: sorted(slices) for name, slices in found.items()}


def newest_checkpoint(folder: Path, identity: dict[str, Any], engine: Engine) -> tuple[Path, dict[str, Any]] | None:
    """The newest intact checkpoint and its manifest, or None where none was ever written. All ranks together.

    Raises:
        CheckpointError: where there are checkpoints but not one that can be used.
    """
    names = engine.gather(sorted((path.name for path in folder.glob("step-*")), reverse=True))[0]
    problems = []
    for name in names:
        try:
            manifest = check(folder / name, identity, engine)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        if engine.rank == 0:
            for problem in problems:
                log.warning("checkpoint passed over: %s", problem)
        return folder / name, manifest
    if problems:
        raise CheckpointError(
            "no checkpoint can be used: " + "; ".join(problems) + f". Delete {folder} to start this run from the beginning."
        )
    return None


def check(folder: Path, identity: dict[str, Any], engine: Engine) -> dict[str, Any]:
    """The manifest of a checkpoint whose files are all there and unchanged. All ranks together: each takes its share.

    Raises:
        CheckpointError: on all ranks, saying what is damaged, or that it belongs to another recipe.
    """
    manifest, problem = engine.gather(_manifest(folder, identity) if engine.rank == 0 else None)[0]
    if problem is None:
        mine = manifest["files"][engine.rank :: engine.ranks]
        problems = engine.gather(next(filter(None, (_damage(folder, file) for file in mine)), None))
        problem = next(filter(None, problems), None)
    if problem is not None:
        raise CheckpointError(problem)
    return dict(manifest)


def _manifest(folder: Path, identity: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    """(a manifest, what is wrong with it)."""
    try:
        manifest = read_json(folder / "checkpoint.json")
        if manifest["format"] != FORMAT:
            return {}, f"{folder} has format {manifest['format']}, and this version reads {FORMAT}"
        for key, value in identity.items():
            if manifest.get(key) != value:
                return {}, f"{folder} was written with another {key}: {manifest.get(key)} instead of {value}"
        if f"step-{manifest['step']:08d}" != folder.name or gap(manifest["parameters"], manifest["files"]):
            return {}, f"{folder}: the manifest is not that of this checkpoint"
        if any(not file.keys() >= {"sha256", "size"} for file in manifest["files"]):
            return {}, f"{folder}: the manifest is incomplete"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return {}, f"{folder}: the manifest cannot be read ({error})"
    return manifest, None


def _damage(folder: Path, file: dict[str, Any]) -> str | None:
    path = folder / file["name"]
    try:
        intact = path.is_file() and path.stat().st_size == file["size"] and sha256(path) == file["sha256"]
    except OSError as error:
        return f"{path} cannot be read ({error})"
    return None if intact else f"{path} is damaged or missing"


def load_checkpoint(folder: Path, manifest: dict[str, Any], engine: Engine) -> None:
    """Put the state of a checked checkpoint into the engine. All ranks together.

    Raises:
        CheckpointError: where other parameters are trained than it holds.
    """
    saved, trained = manifest["parameters"], state.shapes(engine)
    if saved != trained:
        difference = sorted(n for n in saved.keys() | trained.keys() if saved.get(n) != trained.get(n))
        raise CheckpointError(f"{folder} holds other parameters than are trained: {', '.join(difference[:5])}")
    slices = _slices(manifest["files"])
    state.begin(engine, manifest["step"])
    with ExitStack() as opened:
        opened_once = cache(lambda name: opened.enter_context(safe_open(folder / name, framework="pt")))
        for part in state.held(engine):
            for start, stop, name in slices[part.name]:
                for first, last in _chunks(max(start, part.start), min(stop, part.stop)):
                    piece = part.cut(first, last)
                    for kind, tensor in zip(state.KINDS, piece.state, strict=True):
                        stored = opened_once(name).get_slice(f"{kind}/{part.name}")
                        tensor.copy_(stored[first - start : last - start])
    state.publish(engine)
    state.check_layout(state.held(engine))
    engine.barrier()


def _chunks(start: int, stop: int) -> Iterable[tuple[int, int]]:
    return ((at, min(at + state.CHUNK, stop)) for at in range(start, stop, state.CHUNK))
