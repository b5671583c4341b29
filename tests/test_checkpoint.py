"""Checkpoints are whole or not used: by hash, newest first, never of another recipe."""

from __future__ import annotations

import itertools
import json
import logging
import os
import resource
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from vdep import files
from vdep.errors import CheckpointError, RunLockedError
from vdep.files import exclusive_lock, write_atomically
from vdep.train import checkpoint, state
from vdep.train.checkpoint import gap, load_checkpoint, newest_checkpoint, save_checkpoint, write_tensors

IDENTITY = {"recipe": "abc", "input_data": "def"}


class Together:
    """Ranks in threads of one process, and what they give each other."""

    def __init__(self, ranks: int) -> None:
        self.ranks = ranks
        self.meeting = threading.Barrier(ranks)
        self.given: list[Any] = [None] * ranks

    def run(self, what: Callable[[Rank], Any], value: float = 0.0) -> list[Any]:
        """What ``what`` returns on each rank; the first error of any."""
        results: list[Any] = [None] * self.ranks
        errors: list[BaseException] = []

        def one(rank: int) -> None:
            try:
                results[rank] = what(Rank(self, rank, value))
            except threading.BrokenBarrierError:
                pass  # as torchrun ends those that wait for a rank that failed
            except BaseException as error:
                errors.append(error)
                self.meeting.abort()

        self.threads = [threading.Thread(target=one, args=(rank,)) for rank in range(self.ranks)]
        for thread in self.threads:
            thread.start()
        for thread in self.threads:
            thread.join()
        if errors:
            raise errors[0]
        return results


class Rank:
    """As much of an engine as checkpoints need: one rank under DDP."""

    uses_deepspeed = False
    device = torch.device("cpu")

    def __init__(self, together: Together, rank: int, value: float) -> None:
        self.together, self.rank, self.ranks = together, rank, together.ranks
        self.names = {
            "projector.weight": torch.nn.Parameter(torch.full((4, 3), float(value))),
            "projector.bias": torch.nn.Parameter(torch.ones(5) * value + 0.5),
        }
        self.optimizer = torch.optim.AdamW(self.names.values())
        for p in self.names.values():
            self.optimizer.state[p] = {
                "step": torch.tensor(float(value)),
                "exp_avg": p.detach() * 2,
                "exp_avg_sq": p.detach() ** 2,
            }

    def gather(self, value: Any) -> list[Any]:
        self.together.given[self.rank] = value
        self.barrier()
        given = list(self.together.given)
        self.barrier()
        return given

    def barrier(self) -> None:
        self.together.meeting.wait()

    def everything(self) -> list[torch.Tensor]:
        return [t for p in self.names.values() for t in (p.detach(), *self.optimizer.state[p].values())]


def save(folder: Path, step: int, keep: int = 3, ranks: int = 1) -> Path:
    """A checkpoint of ``ranks`` whose values say its step."""
    saved: Path = Together(ranks).run(lambda rank: save_checkpoint(folder, rank, step, IDENTITY, keep), step)[0]  # type: ignore[arg-type]
    return saved


def newest(folder: Path, identity: dict[str, Any] = IDENTITY, ranks: int = 1) -> int | None:
    """The step that all ranks go on from."""
    found = Together(ranks).run(lambda rank: newest_checkpoint(folder, identity, rank))  # type: ignore[arg-type]
    assert found == found[:1] * ranks
    return None if found[0] is None else found[0][1]["step"]


def resumed(folder: Path, ranks: int = 1) -> int:
    """The step that ranks with another state went on from, whose whole state all of them have now."""

    def load(rank: Any) -> int:
        found = newest_checkpoint(folder, IDENTITY, rank)
        assert found is not None
        load_checkpoint(*found, rank)
        step: int = found[1]["step"]
        expected = Rank(rank.together, rank.rank, step).everything()
        assert all(torch.equal(a, b) for a, b in zip(rank.everything(), expected, strict=True))
        return step

    steps = Together(ranks).run(load, -1.0)
    assert steps == steps[:1] * ranks
    return steps[0]


@pytest.mark.parametrize("readers", [1, 2, 3])
@pytest.mark.parametrize("writers", [1, 2, 5, 30])
def test_what_was_saved_is_loaded_on_any_number_of_ranks(tmp_path: Path, writers: int, readers: int) -> None:
    save(tmp_path, 7, ranks=writers)
    assert resumed(tmp_path, readers) == 7


@pytest.mark.parametrize("ranks", [1, 2, 5])
def test_ranks_write_equal_parts(tmp_path: Path, ranks: int) -> None:
    folder = save(tmp_path, 7, ranks=ranks)
    held = [sum(t.numel() for t in load_file(path).values()) for path in folder.glob("*.safetensors")]
    assert sum(held) == 3 * 17
    assert max(held) - min(held) <= 3


def test_a_part_can_be_read_by_the_library_alone(tmp_path: Path) -> None:
    folder = save(tmp_path, 7, ranks=2)
    (weight,) = (load_file(path)["exp_avg/projector.bias"] for path in folder.glob("part-00001-*"))
    assert weight.tolist() == [15.0] * 5


@given(st.lists(st.integers(1, 9), max_size=6), st.integers(1, 5))
def test_a_file_has_what_was_given_whatever_the_size_of_a_chunk(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], chunk: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    tensors = [(f"é{number}", torch.randn(size)) for number, size in enumerate(sizes)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state, "CHUNK", chunk)
        digest = write_tensors(path, tensors)
    assert digest == files.sha256(path)
    found = load_file(path)
    assert list(found) == [key for key, _ in tensors]
    assert all(torch.equal(found[key], tensor) for key, tensor in tensors)


def test_the_newest_is_used_and_the_last_k_are_kept(tmp_path: Path) -> None:
    assert newest(tmp_path) is None
    for step in (2, 4, 6, 8):
        save(tmp_path, step, keep=2)
    assert newest(tmp_path) == 8
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000006", "step-00000008"]


def test_a_damaged_one_does_not_push_out_what_is_written_after_it_was_passed_over(tmp_path: Path) -> None:
    for step in (2, 4):
        save(tmp_path, step, keep=2)
    DAMAGE["a flipped byte"](next((tmp_path / "step-00000004").glob("*.safetensors")))
    assert newest(tmp_path) == 2
    save(tmp_path, 3, keep=1)
    assert newest(tmp_path) == 3
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000003"]


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


@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_said_and_the_one_before_is_used(
    tmp_path: Path, damage: str, part: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Whichever part it is, and whichever rank looks at it."""
    save(tmp_path, 2, ranks=3)
    path = save(tmp_path, 4, ranks=3) / f"part-0000{part}-of-00003.safetensors"
    DAMAGE[damage](path)
    for ranks in (1, 2, 3):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert newest(tmp_path, ranks=ranks) == 2
        assert caplog.text.count("passed over") == 1
        assert str(path.parent if "manifest" in damage else path) in caplog.text


def test_each_file_is_hashed_by_one_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 2, ranks=4)
    hashed = []
    monkeypatch.setattr(checkpoint, "sha256", lambda path: hashed.append(path.name) or files.sha256(path))
    for ranks in (1, 2, 3):
        hashed.clear()
        newest(tmp_path, ranks=ranks)
        assert sorted(hashed) == [f"part-0000{part}-of-00004.safetensors" for part in range(4)]


def test_a_checkpoint_of_an_older_format_is_said(tmp_path: Path) -> None:
    manifest = save(tmp_path, 2) / "checkpoint.json"
    manifest.write_text(manifest.read_text().replace('"format": 2', '"format": 1'))
    with pytest.raises(CheckpointError, match="step-00000002 has format 1, and this version reads 2"):
        newest(tmp_path)


def test_other_parameters_than_are_trained_are_refused(tmp_path: Path) -> None:
    save(tmp_path, 2)

    def load(rank: Any) -> None:
        found = newest_checkpoint(tmp_path, IDENTITY, rank)
        assert found is not None
        rank.names["projector.bias"] = torch.nn.Parameter(torch.ones(6))
        load_checkpoint(*found, rank)

    with pytest.raises(CheckpointError, match=r"other parameters than are trained: projector.bias$"):
        Together(1).run(load)


def test_a_master_that_is_not_what_the_model_computes_with_is_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if another DeepSpeed kept its parts in another order."""
    save(tmp_path, 2)
    held = state.held

    def shifted(rank: Any) -> list[state.Part]:
        return [state.Part(p.name, p.start, p.stop, p.state, p.weight.bfloat16() + (p.start < 3)) for p in held(rank)]

    monkeypatch.setattr(state, "held", shifted)
    with pytest.raises(CheckpointError, match=r"elements 0 to 12 of projector.weight have other master weights. Install"):
        save(tmp_path, 4)
    monkeypatch.undo()
    assert resumed(tmp_path) == 2


@pytest.mark.parametrize("lost", [0, 1])
def test_ranks_that_together_do_not_hold_everything_save_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    save(tmp_path, 2)
    written = state.written
    monkeypatch.setattr(state, "written", lambda rank: written(rank)[rank.rank == lost :])
    with pytest.raises(CheckpointError, match=r"the ranks do not hold each parameter once: projector.weight after element"):
        save(tmp_path, 4, ranks=2)
    monkeypatch.undo()
    assert resumed(tmp_path) == 2


SIZES = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 12), min_size=1)


@given(SIZES, st.data())
def test_slices_that_hold_each_element_once_have_no_gap_and_any_change_of_one_makes_one(
    sizes: dict[str, int], data: st.DataObject
) -> None:
    parameters = {name: [1, size] for name, size in sizes.items()}
    parts: list[dict[str, Any]] = [{"name": str(number), "slices": {}} for number in range(4)]
    for name, size in sizes.items():
        bounds = sorted({0, size, *data.draw(st.lists(st.integers(0, size), max_size=3))})
        for part, ends in zip(data.draw(st.permutations(parts)), itertools.pairwise(bounds), strict=False):
            part["slices"][name] = list(ends)
    assert gap(parameters, parts) is None
    held = [(part["slices"], name) for part in parts for name in part["slices"]]
    if held:
        slices, name = data.draw(st.sampled_from(held))
        slices[name][data.draw(st.integers(0, 1))] += data.draw(st.sampled_from([-2, -1, 1, 2]))
        assert str(gap(parameters, parts)).startswith(f"{name} after element")


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
    assert set(json.loads(text)) == {"format", "step", "parameters", "files", *IDENTITY}


WRITES = (
    (os, "fsync"), (shutil, "rmtree"), (Path, "replace"), (Path, "mkdir"), (Path, "unlink"),
    (checkpoint, "open"), (files, "open"),
)  # fmt: skip
"""Everything that a save does to the disk."""


def crash_before(number: int, folder: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> bool:
    """Fork a process whose two ranks save step 4, and end it before its ``number``-th change of the disk, or half-way in it,
    or let only the rank die whose change it is, and the other go on until it waits; whether they got to the end."""
    child = os.fork()
    if not child:
        done = itertools.count()
        together = Together(2)

        def dying(original: Any) -> Any:
            def call(*arguments: Any, **keywords: Any) -> Any:
                if next(done) != number:
                    return original(*arguments, **keywords)
                if how == "one rank dies":
                    together.meeting.abort()
                    for thread in together.threads:
                        if thread is not threading.current_thread():
                            thread.join()
                if how == "half written" and original is open and "w" in "".join(arguments[1:]):
                    Path(arguments[0]).write_bytes(b"half")
                os._exit(9)

            return call

        for owner, name in WRITES:
            monkeypatch.setattr(owner, name, dying(getattr(owner, name, open)), raising=False)
        code = 9
        try:
            together.run(lambda rank: save_checkpoint(folder, rank, 4, IDENTITY, 2), 4.0)  # type: ignore[arg-type]
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) in (0, 9)
    return status == 0


@pytest.mark.slow
@pytest.mark.parametrize("how", ["all die", "half written", "one rank dies"])
def test_a_crash_before_any_change_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """The newest whole checkpoint is found, never a mixed one, and the next save works as if nothing had been."""
    found = []
    for number in range(100):
        folder = tmp_path / str(number)
        save(folder, 1, ranks=2)
        save(folder, 2, ranks=3)
        finished = crash_before(number, folder, monkeypatch, how)
        found.append(resumed(folder, ranks=2))
        save(folder, 6, keep=2)
        assert resumed(folder) == 6
        assert len(list(folder.iterdir())) == 2, "nothing is left lying about"
        if finished:
            break
    assert finished
    assert sorted(found) == found, "once the new one is there, it stays"
    assert set(found) == {2, 4}
    assert len(found) > 10


@pytest.mark.parametrize("how", ["file too large", "no space left"])
def test_a_full_disk_leaves_the_last_checkpoint_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    save(tmp_path, 2)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        if how == "file too large":
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        else:
            monkeypatch.setattr(checkpoint, "open", lambda path, mode: open("/dev/full", mode), raising=False)
        with pytest.raises(CheckpointError, match=r"step 4 cannot be written .* The last one is intact"):
            save(tmp_path, 4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert newest(tmp_path) == 2
    monkeypatch.undo()
    save(tmp_path, 4)
    assert newest(tmp_path) == 4


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
