"""Opened means verified: what was swapped or changed after it was recorded ends in one error, whoever opens it."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import answering
import pytest
import world
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vdep import files, hashes
from vdep.__main__ import run
from vdep.artifacts import FINAL, MANIFEST, AssetManifest, FinishedStage, PreparedManifest, Scores
from vdep.assets.fetch import fetch
from vdep.assets.lock import write_lock
from vdep.data.archive import ImageFolder
from vdep.data.prepared import PreparedData
from vdep.errors import AssetError, CheckpointError, DataError, EvaluationError, UserError
from vdep.files import digest_of, folder_digest, read_json, sha256, write_json
from vdep.hashes import REMEMBERED, Hashes
from vdep.model.original import export_original
from vdep.run.job import Job
from vdep.run.launch import finished
from vdep.study.recipe import ImportRecipe
from vdep.study.settings import Asset, HubAsset, LocalAsset, MadeAsset, ShippedAsset, UrlAsset, asset_identity


@pytest.fixture(autouse=True)
def _remembered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes are remembered of files that were written this very moment, too: what is tested is what notices a change later."""
    monkeypatch.setattr(hashes, "SETTLED", 0)


# -- every command that opens something, and everything that it opens


@dataclass(frozen=True)
class World:
    """What a study leaves on disk, and what each command would be called with."""

    root: Path
    commands: dict[str, list[str]]


@pytest.fixture(scope="module")
def everything(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("everything")
    own = shutil.copytree(assets, root / "assets")
    study = world.make_study()
    captions = world.prepare(study, own, root / "prepared", "pretrain")
    conversations = world.prepare(study, own, root / "prepared", "finetune")
    world.untrained_projector(study, own, root / "stage-1")
    done = answering.export(own, root / "sft")
    export_original(root / "sft" / "run", own / "llama", "clip", own / "theirs")
    for name in ("theirs", "pope", "mmvet", "pictures"):
        if name in ("pope", "mmvet"):
            answering.make(own / name, name, 4)
        if name == "pictures":
            for folder in ("shown", "masks"):
                (own / name / folder).mkdir(parents=True)
                Image.new("RGB", (48, 48), (255, 0, 0)).save(own / name / folder / "red.png")
        world.write_manifest(own / name)
    execution = json.dumps({"threads": 1, "batch_size": 4, "device": "cpu", "cache": str(root / "cache")})

    def evaluation(command: str, benchmark: str, output: str) -> list[str]:
        recipe = answering.job(done, own / benchmark, benchmark, root / "out").recipe
        inputs = ["--checkpoint", str(done), "--data", str(own / benchmark / MANIFEST)]
        return [command, "--recipe", recipe.canonical, "--execution", execution, *inputs, output, str(root / "out" / command)]

    preparation = study.preparation_recipe("tiny", "run", "finetune")
    tower = study.models["tiny"].vision_tower
    imported = ImportRecipe(vision_tower=tower, tower_source={}, checkpoint="theirs", checkpoint_source={}, image="pad")
    pictures, measured = {"folder": "shown", "pictures": 1}, {"folder": "shown", "objects": "masks", "pictures": 1}
    shown = {"shown": pictures, "measured": measured, "question": "What?", "template": "vicuna_v1"}
    shown |= {"image_fit": "pad", "precision": "float32"}
    return World(
        root,
        {
            "prepare": [
                "prepare", "--recipe", preparation.canonical, "--manifest", str(root / "out" / "prepared" / MANIFEST),
                "--inputs", *(str(own / name / MANIFEST) for name in ("llama", "conversations")),
            ],
            "pretrain": world.train_command(study, own, captions, root / "out", "pretrain"),
            "finetune": world.train_command(study, own, conversations, root / "out", "finetune", root / "stage-1"),
            "evaluate": evaluation("evaluate", "pope", "--scores"),
            "record-answers": evaluation("record-answers", "mmvet", "--answers"),
            "attention": [
                "attention", "--settings", json.dumps(shown), "--execution", execution, "--checkpoint", str(done),
                *(word for of in ("images", "measured", "masks") for word in (f"--{of}", str(own / "pictures" / MANIFEST))),
                "--output", str(root / "out" / "flow.npz"),
            ],
            "import-checkpoint": [
                "import-checkpoint", "--recipe", imported.canonical, "--tower", str(own / "clip" / MANIFEST),
                "--checkpoint", str(own / "theirs" / MANIFEST), "--done", str(root / "out" / "done.json"),
            ],
            "export-llava": [
                "export-llava", "--checkpoint", str(root / "sft" / "run"), "--language-model", str(own / "llama"),
                "--tower-name", "clip", "--output", str(root / "out" / "original"),
            ],
            "export-llava of a projector": [
                "export-llava", "--checkpoint", str(root / "stage-1" / "final" / "projector.safetensors"),
                "--output", str(root / "out" / "mm_projector.bin"),
            ],
        },
    )  # fmt: skip


WEIGHTS, PROJECTOR = "sft/run/model.safetensors", "stage-1/final/projector.safetensors"
OPENED = {
    "prepare": ("assets/conversations/conversations.json", "assets/conversations/images.zip", "assets/llama/tokenizer.json"),
    "pretrain": (
        "assets/clip/model.safetensors",
        "assets/clip/preprocessor_config.json",
        "assets/llama/model.safetensors",
        "assets/llama/tokenizer.json",
        "assets/captions/images.zip",
        "prepared/captions-*/samples.arrow",
    ),
    "finetune": ("assets/llama/model.safetensors", "prepared/conversations-*/samples.arrow", PROJECTOR),
    "evaluate": (WEIGHTS, "sft/run/config.json", "sft/run/tokenizer.json", "assets/pope/*.parquet"),
    "record-answers": (WEIGHTS, "assets/mmvet/*.parquet"),
    "attention": (WEIGHTS, "sft/run/processor_config.json", "assets/pictures/shown/red.png"),
    "import-checkpoint": ("assets/theirs/model.safetensors", "assets/theirs/config.json", "assets/clip/model.safetensors"),
    "export-llava": (WEIGHTS,),
    "export-llava of a projector": (PROJECTOR,),
}
CASES = [(command, path) for command, paths in OPENED.items() for path in paths]


class Reached(UserError):
    """The command has opened everything, and would start now."""


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows the opening is not what is tested."""

    def reached(*_: object, **__: object) -> None:
        raise Reached("everything was opened")

    for name in (
        "data.prepare.prepare", "run.launch.launch", "evaluation.run._lmms_eval", "report.attention.flow",
        "model.imported.import_original", "model.original.export_original", "model.original.projector_to_original",
    ):  # fmt: skip
        monkeypatch.setattr(f"vdep.{name}", reached)


def refused(everything: World, command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Has a command fail, without a trace; returns its error."""

    def published() -> dict[Path, int]:
        there = [path for path in (everything.root / "out").rglob("*") if path.is_file() and path.suffix != ".lock"]
        return {path: path.stat().st_mtime_ns for path in there}

    before = published()
    capsys.readouterr()
    assert run(everything.commands[command]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert published() == before
    return error


def one_byte(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


def one_byte_and_the_time_set_back(path: Path) -> None:
    status = path.stat()
    one_byte(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_mtime_ns == status.st_mtime_ns


def cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


DAMAGES: tuple[Callable[[Path], None], ...] = (one_byte, one_byte_and_the_time_set_back, cut_short, Path.unlink)


@pytest.mark.usefixtures("stopped")
@pytest.mark.parametrize(("command", "pattern"), CASES)
def test_what_changed_is_not_opened(
    command: str, pattern: str, everything: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = (p for p in everything.root.glob(pattern) if not p.name.startswith("images-"))
    assert refused(everything, command, capsys) == "error: everything was opened", "as it was recorded"
    for damage in DAMAGES:
        shutil.copy2(path, tmp_path / "kept")
        damage(path)
        error = refused(everything, command, capsys)
        shutil.copy2(tmp_path / "kept", path)
        assert error.startswith(f"error: {path} ")
        assert "is not the file that" in error or "cannot be read: No such file" in error
        assert "Delete " in error, "what to do"
    assert refused(everything, command, capsys) == "error: everything was opened"


@pytest.mark.usefixtures("stopped")
@pytest.mark.parametrize(("command", "added"), [("evaluate", "sft/run/adapter_config.json"), ("pretrain", "assets/clip/a.bin")])
def test_a_file_more_is_noticed_as_well(
    command: str, added: str, everything: World, capsys: pytest.CaptureFixture[str]
) -> None:
    path = everything.root / added
    path.write_text("{}")
    error = refused(everything, command, capsys)
    path.unlink()
    assert error.startswith(f"error: {path} ")


@pytest.mark.usefixtures("stopped")
@pytest.mark.parametrize("command", ["evaluate", "record-answers", "attention"])
def test_done_json_is_bound_to_the_weights(
    command: str, everything: World, assets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = everything.root / "sft" / "done.json"
    kept = done.read_text()
    document = json.loads(kept)
    others = answering.export(assets, everything.root / "others", change=lambda model: model.lm_head.weight.data.add_(1))
    edits = {
        "the weights of others": document | {"run": "../others/run"},
        "another digest": document | {"digest": read_json(others)["digest"]},
        "another hash": document | {"files": document["files"] | {"config.json": "0" * 64}},
        "another digest that fits": {**read_json(others), "run": "run"},
        "another recipe": document | {"recipe": "0" * 64},
        "a folder that is not there": document | {"run": "nowhere"},
        "less": {key: value for key, value in document.items() if key != "digest"},
    }
    for what, edited in edits.items():
        write_json(done, edited)
        error = refused(everything, command, capsys)
        assert str(done) in error or FINAL in error, what
        assert error.endswith("and train (or import) again."), what
    final = everything.root / "sft" / "run" / FINAL
    beside = final.read_text()
    for path, edited in ((done, document), (final, read_json(final))):
        write_json(path, edited | {"digest": read_json(others)["digest"]})
    assert "its digest is not that of its files" in refused(everything, command, capsys), "both say so"
    final.write_text(beside)
    for text in ("", kept[:100], "[]", "\x00\x01"):
        done.write_text(text)
        assert "does not hold what a finished stage writes" in refused(everything, command, capsys)
    done.write_text(kept)
    assert refused(everything, command, capsys) == "error: everything was opened"


@pytest.mark.usefixtures("stopped")
def test_sft_starts_from_its_own_stage_1(everything: World, assets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The projector of another variant, whole and with a document of its own, as the baseline's is for VDEP."""
    study = world.make_study(vdep={"alpha": 0.5})
    world.untrained_projector(study, assets, everything.root / "vdep")
    command = everything.commands["finetune"]
    other = [*command[:-1], str(everything.root / "vdep" / "done.json")]
    everything.commands["another"] = other
    error = refused(everything, "another", capsys)
    own, wanted = (each.recipe("tiny", "run", "pretrain").digest for each in (study, world.make_study()))
    assert f"has the recipe {own}, and this finetune starts from {wanted}" in error
    everything.commands["another"] = command[:-2]
    assert "name the done.json of its own stage 1" in refused(everything, "another", capsys)
    everything.commands["another"] = [*everything.commands["pretrain"], *command[-2:]]
    assert "name the done.json of its own stage 1" in refused(everything, "another", capsys)


@pytest.mark.usefixtures("stopped")
def test_training_takes_the_data_of_its_recipe(everything: World, capsys: pytest.CaptureFixture[str]) -> None:
    command = list(everything.commands["pretrain"])
    (other,) = everything.root.glob("prepared/conversations-*/manifest.json")
    command[command.index("--data") + 1] = str(other)
    everything.commands["other data"] = command
    assert "is of another preparation than the recipe's" in refused(everything, "other data", capsys)


def test_a_finished_run_is_finished_only_with_its_own_weights(everything: World, tmp_path: Path) -> None:
    study = world.make_study()
    recipe = study.recipe("tiny", "run", "pretrain")
    job = Job(
        recipe=recipe, execution=study.execution.pretrain, device="cpu", tower=tmp_path, language_model=tmp_path, data=tmp_path,
        initial=None, deepspeed=tmp_path, run=tmp_path / "run", inputs={"tower": "t" * 64},
    )  # fmt: skip
    assert not finished(job)
    shutil.copytree(everything.root / "stage-1" / "final", job.final)
    (job.final / FINAL).unlink()
    FinishedStage.seal(job.final, **job.identity, stage="pretrain", initial_recipe=None, steps=1)
    assert finished(job)
    with pytest.raises(CheckpointError, match="was trained with another input_tower"):
        finished(job.model_copy(update={"inputs": {"tower": "u" * 64}}))
    one_byte(job.final / "projector.safetensors")
    with pytest.raises(CheckpointError, match=rf"is not the file that final\.json describes .* Delete {job.run} and train"):
        finished(job)


# -- what is remembered


def test_a_file_is_hashed_once(everything: World, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = []
    monkeypatch.setattr(hashes, "sha256", lambda path: hashed.append(path.name) or files.sha256(path))
    done = everything.root / "sft" / "done.json"
    (everything.root / "sft" / REMEMBERED).unlink(missing_ok=True)
    FinishedStage.open(done)
    assert "model.safetensors" in hashed
    hashed.clear()
    FinishedStage.open(done)
    FinishedStage.open(done)
    assert not hashed
    os.utime(everything.root / WEIGHTS)
    FinishedStage.open(done)
    assert hashed == ["model.safetensors"], "it could be another"


@pytest.mark.parametrize("text", ["", "[1]", '{"a": 1}', "{", "\x00"])
def test_a_damaged_memory_is_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("content")
    (tmp_path / REMEMBERED).write_text(text)
    assert Hashes(tmp_path / REMEMBERED).match(tmp_path / "data", sha256(tmp_path / "data"))
    assert not Hashes(tmp_path / REMEMBERED).match(tmp_path / "data", "0" * 64)


def test_a_wrong_memory_accuses_nobody(tmp_path: Path) -> None:
    path, memory = tmp_path / "data", tmp_path / REMEMBERED
    path.write_text("content")
    remembered = Hashes(memory)
    remembered.compute(path)
    remembered.save()
    write_json(memory, dict.fromkeys(read_json(memory), "0" * 64))
    assert Hashes(memory).match(path, sha256(path))


def test_a_folder_that_cannot_be_written_has_no_memory(everything: World, monkeypatch: pytest.MonkeyPatch) -> None:
    (everything.root / "sft" / REMEMBERED).unlink(missing_ok=True)

    def read_only(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(hashes, "write_json", read_only)
    FinishedStage.open(everything.root / "sft" / "done.json")
    assert not (everything.root / "sft" / REMEMBERED).exists()


def test_what_was_written_this_moment_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two writes in one tick of the clock can leave the same times behind."""
    monkeypatch.setattr(hashes, "SETTLED", 2_000_000_000)
    (tmp_path / "data").write_text("content")
    remembered = Hashes(tmp_path / REMEMBERED)
    remembered.compute(tmp_path / "data")
    remembered.save()
    assert not (tmp_path / REMEMBERED).exists()


@given(st.dictionaries(st.text(min_size=1), st.text("0123456789abcdef", min_size=64, max_size=64), min_size=1))
def test_a_digest_is_of_names_and_hashes_in_any_order(recorded: dict[str, str]) -> None:
    assert digest_of(recorded) == digest_of(dict(reversed(recorded.items())))
    name = next(iter(recorded))
    assert digest_of(recorded) != digest_of(recorded | {name: "f" * 63 + ("0" if recorded[name][-1] == "f" else "f")})


def test_scores_are_of_their_samples(everything: World, tmp_path: Path) -> None:
    recipe = answering.job(tmp_path, tmp_path, "pope", tmp_path).recipe
    (tmp_path / "pope.samples.jsonl.gz").write_bytes(b"rows")
    content = {
        "benchmark": "pope", "recipe": recipe.model_dump(mode="json"), "digest": recipe.digest, "judge": None, "grading": None,
        "checkpoint": {"recipe": "r", "initial_recipe": None, "weights": "w", "versions": {}}, "lmms_eval": "0.7.3",
        "seen": {"n": 4}, "samples": {"file": "pope.samples.jsonl.gz", "sha256": sha256(tmp_path / "pope.samples.jsonl.gz")},
    }  # fmt: skip
    write_json(tmp_path / "pope.json", content)
    assert Scores.open(tmp_path / "pope.json").content == content, "what is written is what was read"
    one_byte(tmp_path / "pope.samples.jsonl.gz")
    with pytest.raises(EvaluationError, match=r"pope\.samples\.jsonl\.gz is not the file that pope\.json describes"):
        Scores.open(tmp_path / "pope.json")
    write_json(tmp_path / "pope.json", content | {"digest": "0" * 64})
    with pytest.raises(EvaluationError, match="its digest is not that of its recipe"):
        Scores.read(tmp_path / "pope.json")


# -- assets that are there already, mirrors, and images that are files


def linked(path: Path, folder: Path, revision: str | None = None) -> AssetManifest:
    return fetch("mine", LocalAsset(kind="local", path=str(path), revision=revision), folder, Path.cwd())


def test_a_local_asset_is_taken_from_where_it_is(assets: Path, tmp_path: Path) -> None:
    theirs = shutil.copytree(assets / "clip", tmp_path / "theirs", ignore=shutil.ignore_patterns(MANIFEST, REMEMBERED))
    manifest = linked(theirs, tmp_path / "assets" / "mine")
    assert manifest.folder.resolve() == theirs
    assert manifest.revision == folder_digest(theirs)
    assert {path.name for path in (tmp_path / "assets" / "mine").iterdir() if not path.is_symlink()} <= {MANIFEST, REMEMBERED}
    assert AssetManifest.open(tmp_path / "assets" / "mine" / MANIFEST).content == manifest.content
    assert linked(theirs, tmp_path / "assets" / "mine", manifest.revision).content == manifest.content, "locked, the same"
    one_byte_and_the_time_set_back(theirs / "model.safetensors")
    with pytest.raises(AssetError, match=r"model\.safetensors is not the file that manifest\.json describes"):
        AssetManifest.open(tmp_path / "assets" / "mine" / MANIFEST)
    with pytest.raises(AssetError, match=r"has the digest .*, the configuration says .* trains other weights"):
        linked(theirs, tmp_path / "assets" / "mine", manifest.revision)
    assert not (tmp_path / "assets" / "mine" / MANIFEST).exists()
    with pytest.raises(AssetError, match=r"nowhere is not there\. assets\.mine\.path names a file or a folder"):
        linked(tmp_path / "nowhere", tmp_path / "assets" / "mine")


def test_a_local_file_is_known_by_its_hash(tmp_path: Path) -> None:
    (tmp_path / "images.zip").write_bytes(b"zip")
    manifest = linked(tmp_path / "images.zip", tmp_path / "mine")
    assert manifest.revision == sha256(tmp_path / "images.zip")
    assert AssetManifest.open(tmp_path / "mine" / MANIFEST).images().read_bytes() == b"zip"
    (tmp_path / "images.zip").rename(tmp_path / "renamed.zip")
    with pytest.raises(AssetError, match="cannot be read: No such file"):
        AssetManifest.open(tmp_path / "mine" / MANIFEST)
    (tmp_path / "mine" / "images.zip").unlink()
    assert linked(tmp_path / "renamed.zip", tmp_path / "mine", manifest.revision).revision == manifest.revision


def test_neither_a_place_nor_a_mirror_is_in_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("x")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    manifests = [linked(tmp_path / name, tmp_path / "assets" / name) for name in "ab"]
    texts = [(tmp_path / "assets" / name / MANIFEST).read_text() for name in "ab"]
    assert texts[0] == texts[1], "nor in the manifest, whose hash is in done.json"
    assets: list[tuple[Asset, Asset]] = [
        tuple(LocalAsset(kind="local", path=path, revision=manifests[0].revision) for path in ("/a", "/b")),  # type: ignore[list-item]
        (HubAsset(kind="hub", repo="a/b"), HubAsset(kind="hub", repo="a/b", mirror="https://mirror.org")),
        (UrlAsset(kind="url", url="https://a/b"), UrlAsset(kind="url", url="https://a/b", mirror="https://mirror.org/b")),
    ]
    for one, other in assets:
        assert asset_identity(one) == asset_identity(other)
    assert asset_identity(assets[0][0]) == {"kind": "local", "revision": manifests[0].revision}
    assert asset_identity(assets[1][1]) == {"kind": "hub", "repo": "a/b", "type": "model", "revision": None, "files": []}
    assert asset_identity(assets[2][1]) == {"kind": "url", "url": "https://a/b"}
    for asset in (MadeAsset(kind="made", maker="a:b"), ShippedAsset(kind="shipped", path="x", revision="y")):
        assert asset_identity(asset) == asset.model_dump(mode="json"), "as before"


def test_the_lock_records_a_local_digest(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "x").write_text("x")
    manifest = linked(tmp_path / "there", tmp_path / "assets" / "mine")
    assert write_lock(tmp_path, tmp_path / "lock.yaml") == {"mine": {"revision": manifest.revision}}
    assert str(tmp_path) not in (tmp_path / "lock.yaml").read_text()


@pytest.fixture
def from_a_folder(everything: World, tmp_path: Path) -> Path:
    """The conversations of the tiny world, prepared by the command line from images that are files of this machine."""
    zipped = everything.root / "assets" / "conversations"
    with zipfile.ZipFile(zipped / "images.zip") as archive:
        for name in archive.namelist():
            (tmp_path / "there" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "there" / name).write_bytes(archive.read(name))
    linked(tmp_path / "there", tmp_path / "assets" / "mine")
    config = world.study_config()
    config["assets"]["mine"] = {"kind": "local", "path": str(tmp_path / "there")}
    config["datasets"]["conversations"]["images"] = [{"asset": "mine"}]
    recipe = world.load_study(config).preparation_recipe("tiny", "run", "finetune")
    assert str(tmp_path) not in recipe.canonical
    inputs = [zipped / MANIFEST, everything.root / "assets" / "llama" / MANIFEST, tmp_path / "assets" / "mine" / MANIFEST]
    command = ["prepare", "--recipe", recipe.canonical, "--manifest", str(tmp_path / "prepared" / "mine" / MANIFEST)]
    assert run([*command, "--inputs", *map(str, inputs)]) == 0
    return tmp_path


def test_images_in_a_folder_are_prepared_like_those_in_a_zip(everything: World, from_a_folder: Path) -> None:
    (zipped,) = everything.root.glob("prepared/conversations-*")
    one, other = PreparedData(zipped), PreparedData(from_a_folder / "prepared" / "mine")
    assert len(one) == len(other) > 60
    assert 0 < one.has_image.sum() < len(one)
    for index in range(len(one)):
        a, b = one[index], other[index]
        assert a.id == b.id
        assert (a.input_ids == b.input_ids).all()
        assert (a.labels == b.labels).all()
        assert (a.location is None) == (b.location is None)
        if a.location is not None:
            assert one.read_image(a) == other.read_image(b)
    manifest = PreparedManifest.open(from_a_folder / "prepared" / "mine" / MANIFEST)
    manifest.verify_archives()
    assert [archive.path for archive in manifest.archives] == ["../../assets/mine/local"], "not where it lies"


def test_an_image_file_that_changed_after_preparation_is_noticed(from_a_folder: Path) -> None:
    data = PreparedData(from_a_folder / "prepared" / "mine")
    sample = data[int(data.has_image.argmax())]
    assert sample.location is not None
    path = from_a_folder / "there" / sample.location.member
    one_byte_and_the_time_set_back(path)
    with pytest.raises(DataError, match=rf"sample {sample.id}: .*{path.name} is not the image that was prepared"):
        data.read_image(sample)
    path.unlink()
    with pytest.raises(DataError, match=rf"{path.name} cannot be read: No such file"):
        data.read_image(sample)


def test_an_image_folder_holds_what_is_within_it(tmp_path: Path) -> None:
    (tmp_path / "images" / "a").mkdir(parents=True)
    (tmp_path / "images" / "a" / "x.png").write_bytes(b"x")
    (tmp_path / "secret.png").write_bytes(b"s")
    folder = ImageFolder(tmp_path / "images")
    assert folder.locate("a/x.png") is not None
    assert all(folder.locate(name) is None for name in ("a", "a/y.png", "../secret.png", "a/../../secret.png", "a\0b"))


def test_errors_of_a_document_name_the_key(tmp_path: Path) -> None:
    write_json(tmp_path / "done.json", {"recipe": 1})
    with pytest.raises(CheckpointError, match=r"done\.json does not hold what a finished stage writes \(recipe: Input should"):
        FinishedStage.read(tmp_path / "done.json")
    with pytest.raises(AssetError, match=r"manifest\.json cannot be read: No such file or directory\. Delete .* and fetch it"):
        AssetManifest.read(tmp_path / "manifest.json")
