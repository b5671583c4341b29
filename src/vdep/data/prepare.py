"""Check a dataset once, tokenise it once, and write it down for training.

Every image is decoded and every conversation is checked before the first step of any training. Defects go into a report
(kind, sample, file, what to do). With ``on_defect: stop`` nothing is trained until they are gone; with ``drop`` exactly the
listed samples are left out.
"""

from __future__ import annotations

import json
import logging
import os
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from ..artifacts import MANIFEST, PreparedArchive, PreparedManifest
from ..errors import DataError
from ..files import sha256, write_json
from ..study.recipe import PreparationRecipe
from .archive import ImageArchive, ImageFolder, Location, open_images
from .conversation import IGNORE_INDEX, TEMPLATES, ConversationDefect, encode_conversation
from .images import decode_image
from .prepared import NO_IMAGE, schema_with

log = logging.getLogger(__name__)

CHUNK = 2048
ADVICE = {
    "empty_conversation": "remove the sample",
    "malformed_turn": "repair the turn in the JSON file",
    "no_answer": "remove the sample or add an answer",
    "empty_answer": "remove the sample or add an answer",
    "turns_do_not_alternate": "merge the turns of one speaker",
    "image_in_answer": "remove the placeholder from the answer",
    "image_without_placeholder": "add <image> to a question, or remove the image from the sample",
    "placeholder_without_image": "name the image, or remove <image> from the text",
    "several_placeholders": "keep one <image> for one image",
    "image_beyond_max_length": "raise max_length",
    "no_supervised_token": "raise max_length, or remove the sample",
    "malformed_oracle": "write words, or leave the key out",
    "missing_image": "complete the archive, or remove the sample",
    "damaged_image": "download the archive again, or remove the sample",
}


@dataclass(frozen=True)
class Defect:
    kind: str
    sample: str
    index: int
    file: str
    message: str
    advice: str


@dataclass(frozen=True)
class ArchiveRoute:
    """Images whose path starts with ``prefix`` are ``folder`` + rest in the ZIP archive or the folder at ``path``."""

    path: Path
    prefix: str
    folder: str


class Checker:
    """Checks and encodes single samples. One per process; archives and the tokenizer are opened on first use."""

    def __init__(self, recipe: PreparationRecipe, tokenizer_folder: Path, routes: Sequence[ArchiveRoute]) -> None:
        self.recipe = recipe
        self.tokenizer_folder = tokenizer_folder
        self.routes = routes
        self._tokenizer: Any = None
        self._archives: dict[int, ImageArchive | ImageFolder] = {}

    def __call__(self, item: tuple[int, Any]) -> dict[str, Any] | Defect:
        index, sample = item
        name = str(sample.get("id", index)) if isinstance(sample, dict) else str(index)
        image = sample.get("image") if isinstance(sample, dict) else None
        try:
            if not isinstance(sample, dict):
                raise ConversationDefect("malformed_turn", "the sample is not a JSON object")
            encoded = encode_conversation(
                sample.get("conversations"),
                image is not None,
                TEMPLATES[self.recipe.template],
                self._load_tokenizer(),
                self.recipe.image_tokens,
                self.recipe.max_length,
            )
            oracle = self._words(sample.get("oracle"))
            archive, location = self._find_image(image) if image is not None else (NO_IMAGE, Location(0, 0, 0, 0, 0))
        except ConversationDefect as defect:
            return Defect(defect.kind, name, index, str(image or ""), str(defect), ADVICE[defect.kind])
        return {
            "id": name,
            "input_ids": encoded.input_ids,
            "supervised": encoded.labels != IGNORE_INDEX,
            "archive": archive,
            "cut": encoded.cut,
            "masked_by_original": encoded.masked_by_original,
            "oracle": oracle,
            **asdict(location),
        }

    def _words(self, words: Any) -> list[int]:
        """The ids of what a sample calls ``oracle``, as it stands within a sentence; none where it has nothing."""
        if words is None:
            return []
        if not isinstance(words, str) or not words.strip():
            raise ConversationDefect("malformed_oracle", "its oracle is not a text")
        before = "a "
        encoding = self._load_tokenizer()(before + words.strip(), return_offsets_mapping=True, add_special_tokens=False)
        return [i for i, (_, stop) in zip(encoding.input_ids, encoding.offset_mapping, strict=True) if stop > len(before)]

    def _load_tokenizer(self) -> Any:
        if self._tokenizer is None:
            from .tokenizer import load_tokenizer

            self._tokenizer = load_tokenizer(self.tokenizer_folder)
        return self._tokenizer

    def _find_image(self, image: Any) -> tuple[int, Location]:
        for number, route in enumerate(self.routes):
            if not isinstance(image, str) or not image.startswith(route.prefix):
                continue
            if number not in self._archives:
                self._archives[number] = open_images(route.path)
            archive = self._archives[number]
            location = archive.locate(route.folder + image.removeprefix(route.prefix))
            if location is None:
                continue
            try:
                decode_image(archive.read(location), image)
            except DataError as error:
                raise ConversationDefect("damaged_image", str(error)) from error
            return number, location
        raise ConversationDefect("missing_image", f"{image!r} is in none of the archives")


def _check_all(checker: Checker, samples: list[Any], workers: int) -> Iterator[dict[str, Any] | Defect]:
    items = list(enumerate(samples))
    if workers <= 1:
        yield from map(checker, items)
        return
    chunks = [items[i : i + CHUNK] for i in range(0, len(items), CHUNK)]
    with ProcessPoolExecutor(workers) as pool:
        yield from chain.from_iterable(pool.map(partial(_check_chunk, checker), chunks))


def _check_chunk(checker: Checker, items: list[tuple[int, Any]]) -> list[dict[str, Any] | Defect]:
    return [checker(item) for item in items]


def read_conversations(path: Path | zipfile.Path) -> list[Any]:
    """The samples of a file of LLaVA's JSON, or of COCO's captions, unchecked. It may lie in a ZIP archive.

    Raises:
        DataError: where it cannot be read, or holds no list of samples.
    """
    try:
        samples = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from error
    if isinstance(samples, dict) and samples.keys() >= {"images", "annotations"}:
        samples = _captioned(samples)
    if not isinstance(samples, list) or not samples:
        raise DataError(f"{path} does not hold a list of conversations")
    return samples


def _captioned(coco: dict[str, Any]) -> list[dict[str, Any]]:
    """COCO's captions as conversations of stage 1: each picture with the first of its five."""
    first = {a["image_id"]: a["caption"].strip() for a in sorted(coco["annotations"], key=lambda a: -a["id"])}
    question = {"from": "human", "value": "<image>\nGive a brief description of the image."}
    return [
        {"id": str(image["id"]), "image": image["file_name"], "conversations": [question, {"from": "gpt", "value": caption}]}
        for image in coco["images"]
        if (caption := first.get(image["id"]))
    ]


def prepare(
    recipe: PreparationRecipe,
    conversations: Path | zipfile.Path,
    tokenizer_folder: Path,
    routes: Sequence[ArchiveRoute],
    folder: Path,
    workers: int = 1,
) -> PreparedManifest:
    """Write ``samples.arrow``, ``defects.json`` and, last, ``manifest.json`` into ``folder``; returns the manifest.

    Raises:
        DataError: where the JSON cannot be read, or there are defects and the dataset says ``stop``.
    """
    samples = read_conversations(conversations)
    checker = Checker(recipe, tokenizer_folder, routes)
    results = list(tqdm(_check_all(checker, samples, workers), total=len(samples), desc=f"check {recipe.name}", mininterval=5))
    rows = [result for result in results if not isinstance(result, Defect)]
    defects = [result for result in results if isinstance(result, Defect)]
    folder.mkdir(parents=True, exist_ok=True)
    report = folder / "defects.json"
    write_json(report, [asdict(defect) for defect in defects])
    if defects and recipe.dataset.on_defect == "stop":
        shown = "\n".join(
            f"  {d.kind}: sample {d.sample} ({d.file or 'no image'}): {d.message}; {d.advice}" for d in defects[:5]
        )
        raise DataError(
            f"{recipe.name}: {len(defects)} of {len(samples)} samples cannot be trained on. The first:\n{shown}\n"
            f"All of them: {report}. Repair them, or set datasets.{recipe.name}.on_defect to drop."
        )
    if not rows:
        raise DataError(f"{recipe.name}: not one of {len(samples)} samples can be trained on. Report: {report}")
    write_samples(folder / "samples.arrow", rows)
    lengths = np.array([len(row["input_ids"]) + (row["archive"] != NO_IMAGE) * (recipe.image_tokens - 1) for row in rows])
    manifest = PreparedManifest(
        digest=recipe.digest,
        recipe=recipe.model_dump(mode="json"),
        samples=len(rows),
        dropped=len(defects),
        defects=dict(Counter(defect.kind for defect in defects)),
        defects_sha256=sha256(report),
        cut_at_max_length=sum(row["cut"] > 0 for row in rows),
        masked_by_original=sum(row["masked_by_original"] for row in rows),
        with_image=sum(row["archive"] != NO_IMAGE for row in rows),
        length={"mean": round(float(lengths.mean()), 2), "longest": int(lengths.max())},
        archives=tuple(PreparedArchive(path=_relative(route.path, folder)) for route in routes),
        sha256=sha256(folder / "samples.arrow"),
    )
    manifest.write(folder / MANIFEST)
    log.info("%s: %d samples, %d dropped, longest %d tokens", recipe.name, len(rows), len(defects), int(lengths.max()))
    return manifest


def _relative(path: Path, folder: Path) -> str:
    # an asset of this machine is named by its link: what was prepared does not say where it lies
    through_links = os.path.relpath(path.absolute(), folder.absolute())
    if (folder / through_links).resolve() == path.resolve():
        return through_links
    return os.path.relpath(path.parent.resolve() / path.name, folder.resolve())


def write_samples(path: Path, rows: list[dict[str, Any]]) -> None:
    aside = path.with_name(f".{path.name}.tmp")
    schema = schema_with(any(row["member"] for row in rows), any(row["oracle"] for row in rows))
    with pa.OSFile(str(aside), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for start in range(0, len(rows), CHUNK):
            part = rows[start : start + CHUNK]
            columns = [pa.array([row[field.name] for row in part], field.type) for field in schema]
            writer.write_batch(pa.record_batch(columns, schema=schema))
    aside.replace(path)
