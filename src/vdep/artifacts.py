"""What the steps of the pipeline hand to each other, as types: assets, prepared data, finished stages, answers and scores.

Opened means verified: ``open`` compares every file that a document speaks of with the hash that was recorded, and what was
swapped, edited, cut short or added since ends in one error before anything is computed. ``read`` takes the document alone.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import PrivateAttr, ValidationError

from .errors import AssetError, CheckpointError, DataError, EvaluationError, UserError
from .files import digest_of, sha256, write_json
from .hashes import REMEMBERED, hashes_of
from .study.recipe import canonical_json
from .study.settings import Frozen

MANIFEST = "manifest.json"
LOCAL = "local"
"""In the folder of an asset that was there already: a link to it. No path of a machine is in its manifest, whose hash is in
``done.json``."""
FINAL = "final.json"


class Document(Frozen):
    """A JSON file with hashes of other files. Unknown keys are an error: whoever wrote them knew more than this version."""

    error: ClassVar[type[UserError]]
    what: ClassVar[str]
    _path: Path = PrivateAttr(default=Path())

    @classmethod
    def read(cls, path: Path) -> Self:
        """The document alone, in itself consistent.

        Raises:
            UserError: of the document's kind, naming the file and what to do.
        """
        try:
            document = cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise cls.error(f"{path} cannot be read: {error.strerror}. {cls.remedy(path)}") from None
        except ValidationError as error:
            first = error.errors()[0]
            where = "".join(f"{part}: " for part in first["loc"])
            raise cls.error(f"{path} does not hold {cls.what} ({where}{first['msg']}). {cls.remedy(path)}") from None
        document._path = path
        document.check()
        return document

    @classmethod
    def open(cls, path: Path) -> Self:
        """The document, whose files are all there and unchanged.

        Raises:
            UserError: of the document's kind, naming the first file that is not.
        """
        document = cls.read(path)
        document.verify()
        return document

    @classmethod
    def remedy(cls, path: Path) -> str:
        raise NotImplementedError

    def check(self) -> None:
        """Whether the parts of the document agree."""

    def verify(self) -> None:
        """Whether the files are those that were recorded."""

    @property
    def content(self) -> dict[str, Any]:
        """What stands in the file: the fields that were given."""
        whole = self.model_dump(mode="json")
        return {name: whole[name] for name in type(self).model_fields if name in self.model_fields_set}

    def write(self, path: Path) -> None:
        write_json(path, self.content)

    def complaint(self, path: Path, problem: str) -> UserError:
        return self.error(f"{path} {problem}. {self.remedy(self._path)}")

    def compare(self, folder: Path, expected: Mapping[str, str], remembered: Path) -> None:
        """Files of a folder with their hashes."""
        with hashes_of(remembered) as hashes:
            for name, recorded in expected.items():
                path = folder / name
                try:
                    if not hashes.match(path, recorded):
                        raise self.complaint(path, f"is not the file that {self._path.name} describes (SHA-256)")
                except OSError as error:
                    raise self.complaint(path, f"cannot be read: {error.strerror}") from None


class AssetFile(Frozen):
    path: str
    size: int
    sha256: str


class AssetManifest(Document):
    """Of what was downloaded, or made on the spot: ``manifest.json`` in its folder, written last.

    Rules exchange manifests; archives and weights are never inputs or outputs of a rule. Hashes live here: they are no part of
    a recipe.
    """

    error = AssetError
    what = "the manifest of an asset"

    asset: str
    source: dict[str, Any]
    """``asset_identity``."""
    revision: str | None
    files: tuple[AssetFile, ...]
    size: int

    @classmethod
    def remedy(cls, path: Path) -> str:
        return f"Delete {path.parent} and fetch it again."

    @classmethod
    def record(cls, folder: Path, name: str, source: dict[str, Any], revision: str | None) -> AssetManifest:
        """Hash every file of a folder, or what it links to, and write its manifest."""
        place = _place(folder)
        if not (names := _visible(place)):
            raise AssetError(f"{name}: there is nothing in {place}")
        with hashes_of(folder / REMEMBERED) as hashes:
            files = tuple(
                AssetFile(path=path, size=(place / path).stat().st_size, sha256=hashes.compute(place / path)) for path in names
            )
        if source["kind"] == "local":
            # of one file, its own hash: it may be renamed
            revision = digest_of({f.path: f.sha256 for f in files}) if place != folder else files[0].sha256
            source = {**source, "revision": revision}
        size = sum(file.size for file in files)
        manifest = cls(asset=name, source=source, revision=revision, files=files, size=size)
        manifest.write(folder / MANIFEST)
        manifest._path = folder / MANIFEST
        return manifest

    @property
    def folder(self) -> Path:
        """Where the files lie."""
        return _place(self._path.parent)

    def images(self) -> Path:
        """The one ZIP archive, or the folder where the images are files."""
        return self.only_file(".zip") if any(file.path.endswith(".zip") for file in self.files) else self.folder

    def verify(self) -> None:
        recorded = {file.path: file.sha256 for file in self.files}
        self.compare(self.folder, recorded, self._path.parent / REMEMBERED)
        # a file more can be enough: loaders take what they find
        for name in set(_visible(self.folder)) - set(recorded):
            raise self.complaint(self.folder / name, "is not of this asset")

    def verify_file(self, path: Path) -> None:
        """Whether one of the files is the one that was recorded."""
        name = str(path.relative_to(self.folder))
        recorded = {file.path: file.sha256 for file in self.files if file.path == name}
        if not recorded:
            raise self.complaint(path, "is not of this asset")
        self.compare(self.folder, recorded, self._path.parent / REMEMBERED)

    def member(self, name: str) -> Path | zipfile.Path:
        """A file of the asset, or of its one ZIP archive."""
        path = self.folder / name
        archived = not path.is_file() and any(file.path.endswith(".zip") for file in self.files)
        return zipfile.Path(self.only_file(".zip"), name) if archived else path

    def only_file(self, ending: str) -> Path:
        """The one file with this ending.

        Raises:
            AssetError: where there is none, or more than one.
        """
        names = [file.path for file in self.files if file.path.endswith(ending)]
        if len(names) != 1:
            raise AssetError(
                f"{self.folder} holds {len(names)} files that end in {ending}, where one is wanted; name it in the dataset"
            )
        return self.folder / names[0]


def _place(folder: Path) -> Path:
    link = folder / LOCAL
    return link if link.is_symlink() else folder


def _visible(folder: Path) -> list[str]:
    """The files of an asset: hidden ones are a download's or this module's own."""
    return [
        str(relative)
        for path in sorted(folder.rglob("*"))
        for relative in [path.relative_to(folder)]
        if path.is_file() and path.name != MANIFEST and not path.name.startswith(".") and ".cache" not in relative.parts
    ]


def _check_recipe(document: Document, recipe: dict[str, Any], digest: str) -> None:
    # as it was written, which a later version may have other words for
    if hashlib.sha256(canonical_json(recipe).encode()).hexdigest() != digest:
        raise document.complaint(document._path, "is not what was written: its digest is not that of its recipe")


class PreparedArchive(Frozen):
    path: str
    """Relative to the folder of the prepared data: a ZIP archive, or a folder of images."""


class PreparedManifest(Document):
    """Of a prepared dataset: what ``samples.arrow`` was made of and by, and its hash."""

    error = DataError
    what = "the manifest of prepared data"

    digest: str
    recipe: dict[str, Any]
    samples: int
    dropped: int
    defects: dict[str, int]
    defects_sha256: str
    cut_at_max_length: int
    masked_by_original: int
    with_image: int
    length: dict[str, int | float]
    archives: tuple[PreparedArchive, ...]
    sha256: str

    @classmethod
    def remedy(cls, path: Path) -> str:
        return f"Delete {path.parent} and prepare it again."

    @property
    def folder(self) -> Path:
        return self._path.parent

    def check(self) -> None:
        _check_recipe(self, self.recipe, self.digest)

    def verify(self) -> None:
        self.compare(self.folder, {"samples.arrow": self.sha256}, self.folder / REMEMBERED)

    def image_sources(self) -> list[Path]:
        return [Path(os.path.normpath(self.folder.resolve() / archive.path)) for archive in self.archives]

    def verify_archives(self) -> None:
        """Whether the image archives are those that the samples' positions are of.

        Preparing has hashed them, so that a training looks at their identity (half a millisecond), and hashes one again only
        where another machine or another file stands there (1 GB a second). What is read later is compared once more, picture
        by picture (CRC): for images that are files of their own, by the hundred thousand, that is the only comparison.

        Raises:
            AssetError: naming the archive.
        """
        for path in self.image_sources():
            if path.is_dir():
                continue
            folder = next((folder for folder in path.parents if (folder / MANIFEST).is_file()), path.parent)
            AssetManifest.read(folder / MANIFEST).verify_file(path)


class FinishedStage(Document):
    """Of weights that were trained or imported: ``final.json`` beside them; ``done.json`` adds where they lie (``run``).

    No dates and no paths of a machine, so that the same weights have the same document. ``digest`` is over names and hashes of
    the files: it names the weights in scores, and cannot stay when a file changes.
    """

    error = CheckpointError
    what = "what a finished stage writes"

    recipe: str
    stage: Literal["pretrain", "finetune", "imported"]
    initial_recipe: str | None
    steps: int
    versions: dict[str, str]
    files: dict[str, str]
    digest: str
    input_tower: str | None = None
    input_language_model: str | None = None
    input_data: str | None = None
    input_initial: str | None = None
    input_checkpoint: str | None = None
    """SHA-256 of the documents that it was made from."""
    run: str | None = None

    @classmethod
    def remedy(cls, path: Path) -> str:
        return f"Delete {path.parent.parent if path.name == FINAL else path.parent} and train (or import) again."

    @classmethod
    def seal(cls, folder: Path, **fields: Any) -> None:
        """Hash the files of a folder, and write its ``final.json``."""
        files = {path.name: sha256(path) for path in sorted(folder.iterdir())}
        cls(**fields, versions=versions(), files=files, digest=digest_of(files)).write(folder / FINAL)

    @classmethod
    def publish(cls, folder: Path, done: Path) -> None:
        """Write ``done.json`` for the weights in a folder."""
        final = cls.read(folder / FINAL)
        cls(**final.content, run=os.path.relpath(folder, done.parent)).write(done)

    @property
    def weights(self) -> Path:
        """The folder with the weights."""
        return (self._path.parent / (self.run or "")).resolve()

    def check(self) -> None:
        if digest_of(self.files) != self.digest:
            raise self.complaint(self._path, "is not what was written: its digest is not that of its files")

    def check_final(self) -> None:
        """Whether ``done.json`` is of the weights that it names, without looking at these."""
        if self.run is not None:
            final = type(self).read(self.weights / FINAL)
            if final.content != {name: value for name, value in self.content.items() if name != "run"}:
                raise self.complaint(self._path, f"is not of the weights that it names: {self.weights / FINAL} says otherwise")

    def verify(self) -> None:
        self.check_final()
        self.compare(self.weights, self.files, self.weights.parent / REMEMBERED)
        for path in self.weights.iterdir():
            if path.name not in {FINAL, *self.files} and not path.name.startswith("."):
                raise self.complaint(path, "was not written by this stage")


def versions() -> dict[str, str]:
    """Of what computed the weights, without the build's suffix."""
    return {name: version(name).partition("+")[0] for name in ("torch", "transformers", "accelerate", "deepspeed")}


class AnsweredPass(Frozen):
    """``rows``, in the order of the documents: ``answer``, ``rest`` of the judge's prompt, ``pictures``; graded, ``grade``."""

    rows: tuple[dict[str, Any], ...]
    summary: dict[str, Any]


class Answers(Document):
    """Every answer of a checkpoint to a benchmark that a server grades: by ``vdep record-answers``, with ``vdep grade``'s."""

    error = EvaluationError
    what = "recorded answers: it should be what `vdep record-answers` or `vdep grade` wrote"

    benchmark: str
    recipe: str
    weights: str
    lmms_eval: str
    instructions: str
    passes: dict[str, AnsweredPass]
    judge: dict[str, Any] | None = None
    reported_model: dict[str, int] | None = None
    graded: dict[str, str] | None = None

    @classmethod
    def remedy(cls, path: Path) -> str:
        return "Remove it, and start again."


class ScoredCheckpoint(Frozen):
    recipe: str
    initial_recipe: str | None
    weights: str
    versions: dict[str, str]


class SamplesFile(Frozen):
    file: str
    sha256: str


class Scores(Document):
    """What ``vdep evaluate`` writes of one checkpoint and one benchmark."""

    error = EvaluationError
    what = "scores"

    benchmark: str
    recipe: dict[str, Any]
    digest: str
    checkpoint: ScoredCheckpoint
    judge: str | None
    grading: dict[str, Any] | None = None
    lmms_eval: str
    seen: dict[str, Any]
    blind: dict[str, Any] | None = None
    samples: SamplesFile

    @classmethod
    def remedy(cls, path: Path) -> str:
        return f"Delete {path} and evaluate again."

    @property
    def samples_path(self) -> Path:
        return self._path.parent / self.samples.file

    def check(self) -> None:
        _check_recipe(self, self.recipe, self.digest)

    def verify(self) -> None:
        self.compare(self._path.parent, {self.samples.file: self.samples.sha256}, self._path.parent / REMEMBERED)
