"""Checkpoints are whole or not used: by hash, newest first, never of another recipe."""

from __future__ import annotations

import json
import logging
import os
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vdep import files
from vdep.errors import CheckpointError, RunLockedError
from vdep.files import exclusive_lock, write_atomically
from vdep.train import checkpoint
from vdep.train.checkpoint import newest_checkpoint, save_checkpoint, shard_of

IDENTITY = {"recipe": "abc", "input_data": "def"}


class OneRank:
    """As much of an engine as saving needs."""

    rank, ranks = 0, 1

    def __init__(self, value: float = 0.0) -> None:
        self.names = {
            "projector.weight": torch.nn.Parameter(torch.full((4, 3), float(value))),
            "projector.bias": torch.nn.Parameter(torch.ones(4)),
        }
        self.loaded: tuple[dict[str, Any], int] | None = None

    def export_tensors(self) -> Any:
        for name, p in self.names.items():
            yield name, [p.detach(), p.detach() * 2, p.detach() ** 2]

    def load_tensors(self, read: Callable[[str], list[torch.Tensor]], steps: int) -> None:
        self.loaded = {name: read(name) for name in self.names}, steps

    def barrier(self) -> None:
        pass


def save(folder: Path, step: int, keep: int = 3) -> Path:
    return save_checkpoint(folder, OneRank(step), step, IDENTITY, keep)  # type: ignore[arg-type]


def newest(folder: Path, identity: dict[str, Any] = IDENTITY) -> int | None:
    found = newest_checkpoint(folder, identity)
    return None if found is None else found[1]["step"]


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    save(tmp_path, 7)
    folder, manifest = newest_checkpoint(tmp_path, IDENTITY)  # type: ignore[misc]
    engine = OneRank()
    checkpoint.load_checkpoint(folder, manifest, engine)  # type: ignore[arg-type]
    assert engine.loaded is not None
    tensors, steps = engine.loaded
    assert steps == 7
    for name, values in OneRank(7).export_tensors():
        assert all(torch.equal(a, b) for a, b in zip(tensors[name], values, strict=True))


def test_the_newest_is_used_and_the_last_k_are_kept(tmp_path: Path) -> None:
    assert newest(tmp_path) is None
    for step in (2, 4, 6, 8):
        save(tmp_path, step, keep=2)
    assert newest(tmp_path) == 8
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000006", "step-00000008"]


DAMAGE = {
    "a flipped byte": lambda shard: shard.write_bytes(shard.read_bytes()[:-1] + bytes([shard.read_bytes()[-1] ^ 1])),
    "a truncated shard": lambda shard: shard.write_bytes(shard.read_bytes()[:-5]),
    "an empty shard": lambda shard: shard.write_bytes(b""),
    "a deleted shard": lambda shard: shard.unlink(),
    "another step's shard": lambda shard: shutil.copy(shard.parent.parent / "step-00000002" / shard.name, shard),
    "a broken manifest": lambda shard: (shard.parent / "checkpoint.json").write_text("{"),
    "a deleted manifest": lambda shard: (shard.parent / "checkpoint.json").unlink(),
    "another step's manifest": lambda shard: shutil.copy(
        shard.parent.parent / "step-00000002" / "checkpoint.json", shard.parent / "checkpoint.json"
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_said_and_the_one_before_is_used(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, 2)
    DAMAGE[damage](next(save(tmp_path, 4).glob("*.safetensors")))
    with caplog.at_level(logging.WARNING):
        assert newest(tmp_path) == 2
    assert "passed over" in caplog.text
    assert "step-00000004" in caplog.text


def test_with_none_intact_the_run_is_refused_instead_of_started_anew(tmp_path: Path) -> None:
    for step in (2, 4):
        DAMAGE["a flipped byte"](next(save(tmp_path, step).glob("*.safetensors")))
    with pytest.raises(CheckpointError, match=r"no checkpoint can be used: .*step-00000004.*step-00000002.*Delete"):
        newest(tmp_path)


@pytest.mark.parametrize("key", IDENTITY)
def test_a_checkpoint_of_another_recipe_is_refused(tmp_path: Path, key: str) -> None:
    save(tmp_path, 2)
    with pytest.raises(CheckpointError, match=f"written with another {key}"):
        newest(tmp_path, {**IDENTITY, key: "other"})


def test_what_a_crash_left_aside_is_never_used(tmp_path: Path) -> None:
    save(tmp_path, 2)
    shutil.copytree(tmp_path / "step-00000002", tmp_path / ".step-00000004.tmp")
    assert newest(tmp_path) == 2
    save(tmp_path, 4)
    assert newest(tmp_path) == 4
    assert not (tmp_path / ".step-00000004.tmp").exists()


def test_the_manifest_holds_no_machine(tmp_path: Path) -> None:
    text = (save(tmp_path, 2) / "checkpoint.json").read_text()
    assert str(tmp_path) not in text
    assert set(json.loads(text)) == {"format", "step", "shards", *IDENTITY}


WRITES = (
    (os, "fsync"), (shutil, "rmtree"), (Path, "replace"), (Path, "mkdir"), (Path, "unlink"), (checkpoint, "save_file"),
    (files, "open"),
)  # fmt: skip
"""Everything that a save does to the disk."""


def crash_before(number: int, folder: Path, monkeypatch: pytest.MonkeyPatch, half_written: bool = False) -> bool:
    """Fork a process that saves step 4 and dies before its ``number``-th change of the disk; whether it got to the end."""
    child = os.fork()
    if not child:
        done = 0

        def dying(original: Any) -> Any:
            def call(*arguments: Any, **keywords: Any) -> Any:
                nonlocal done
                if done == number:
                    if half_written and original is real_save_file:
                        original(*arguments, **keywords)
                        os.truncate(arguments[1], 70)
                    os._exit(9)
                done += 1
                return original(*arguments, **keywords)

            return call

        real_save_file = checkpoint.save_file
        for owner, name in WRITES:
            monkeypatch.setattr(owner, name, dying(getattr(owner, name, open)), raising=False)
        save(folder, 4, keep=2)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) in (0, 9)
    return status == 0


@pytest.mark.parametrize("half_written", [False, True])
def test_a_crash_before_any_change_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, half_written: bool) -> None:
    """The newest whole checkpoint is found, never a mixed one, and the next save works as if nothing had been."""
    found = []
    for number in range(100):
        folder = tmp_path / str(number)
        save(folder, 1)
        save(folder, 2)
        finished = crash_before(number, folder, monkeypatch, half_written)
        latest = newest_checkpoint(folder, IDENTITY)
        assert latest is not None
        path, manifest = latest
        engine = OneRank()
        checkpoint.load_checkpoint(path, manifest, engine)  # type: ignore[arg-type]
        assert engine.loaded is not None
        assert engine.loaded[1] == manifest["step"]
        assert torch.equal(engine.loaded[0]["projector.weight"][0], OneRank(manifest["step"]).names["projector.weight"])
        found.append(manifest["step"])
        save(folder, 6, keep=2)
        assert newest(folder) == 6
        assert len(list(folder.iterdir())) == 2, "nothing is left lying about"
        if finished:
            break
    assert finished
    assert sorted(found) == found, "once the new one is there, it stays"
    assert set(found) == {2, 4}
    assert len(found) > 8


@pytest.mark.parametrize("how", ["file too large", "no space left"])
def test_a_full_disk_leaves_the_last_checkpoint_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    save(tmp_path, 2)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        if how == "file too large":
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        else:
            real = checkpoint.save_file
            monkeypatch.setattr(checkpoint, "save_file", lambda tensors, path: real(tensors, "/dev/full"))
        with pytest.raises(CheckpointError, match=r"step 4 cannot be written .* The last one is intact"):
            save(tmp_path, 4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert newest(tmp_path) == 2
    monkeypatch.undo()
    save(tmp_path, 4)
    assert newest(tmp_path) == 4


@given(st.dictionaries(st.text(min_size=1, max_size=4), st.integers(1, 1000), min_size=1, max_size=20), st.integers(1, 8))
def test_every_parameter_has_one_shard_and_the_shards_are_even(sizes: dict[str, int], shards: int) -> None:
    placed = shard_of(sizes, shards)
    assert set(placed) == set(sizes)
    load = [sum(size for name, size in sizes.items() if placed[name] == s) for s in range(shards)]
    assert max(load) - min(load) <= max(sizes.values())


def test_a_second_writer_is_refused_and_told_who_is_first(tmp_path: Path) -> None:
    lock = tmp_path / "run.lock"
    with exclusive_lock(lock, "the run X"):
        with pytest.raises(RunLockedError, match=rf"the run X is being written by process {os.getpid()} on "):
            with exclusive_lock(lock, "the run X"):
                pass
    with exclusive_lock(lock, "the run X"):
        pass


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "done.json"
    write_atomically(target, "old")

    def broken(descriptor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="no space"):
        write_atomically(target, "new")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
