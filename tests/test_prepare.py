"""Data is checked once, before any training: every defect is named, and nothing is lost silently."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import world
from PIL import Image

from vdep.artifacts import AssetManifest, PreparedManifest
from vdep.data.archive import ImageArchive
from vdep.data.conversation import IGNORE_INDEX
from vdep.data.images import ImageTransform, decode_image, load_processor, pad_to_square
from vdep.data.prepare import ArchiveRoute, prepare, read_conversations
from vdep.data.prepared import PreparedData
from vdep.data.tokenizer import load_tokenizer
from vdep.errors import DataError


def png() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((40, 30), 80).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def talk(question: str = "<image>\nWhat color is it?", answer: str | None = "red") -> list[dict[str, str]]:
    turns = [{"from": "human", "value": question}]
    return turns if answer is None else [*turns, {"from": "gpt", "value": answer}]


GOOD = {"id": "good", "image": "a/good.png", "conversations": talk()}
DEFECTIVE = {
    "missing_image": {"image": "a/absent.png", "conversations": talk()},
    "damaged_image": {"image": "a/truncated.png", "conversations": talk()},
    "no_answer": {"image": "a/good.png", "conversations": talk(answer=None)},
    "placeholder_without_image": {"conversations": talk()},
    "image_without_placeholder": {"image": "a/good.png", "conversations": talk("What?")},
    "empty_conversation": {"conversations": []},
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("root/good.png", png())
        archive.writestr("root/truncated.png", png()[:600])
    return tmp_path


def run(source: Path, assets: Path, samples: list[Any], on_defect: str = "stop", workers: int = 1) -> PreparedManifest:
    (source / "data.json").write_text(json.dumps(samples))
    config = world.study_config()
    config["datasets"]["conversations"]["on_defect"] = on_defect
    recipe = world.load_study(config).preparation_recipe("tiny", "run", "finetune")
    routes = [ArchiveRoute(source / "images.zip", "a/", "root/")]
    return prepare(recipe, source / "data.json", assets / "llama", routes, source / "out", workers)


@pytest.mark.parametrize("kind", DEFECTIVE)
def test_a_defect_stops_the_preparation_and_says_which_sample_and_what_to_do(source: Path, assets: Path, kind: str) -> None:
    bad = {"id": "culprit", **DEFECTIVE[kind]}
    with pytest.raises(DataError, match=rf"1 of 2 samples cannot be trained on(.|\n)*{kind}: sample culprit") as caught:
        run(source, assets, [GOOD, bad])
    assert "on_defect" in str(caught.value)
    assert not (source / "out" / "manifest.json").exists()


def test_dropping_leaves_out_exactly_the_listed_samples(source: Path, assets: Path) -> None:
    bad = [{"id": kind, **sample} for kind, sample in DEFECTIVE.items()]
    manifest = run(source, assets, [GOOD, *bad, GOOD], on_defect="drop")
    assert manifest.samples == 2
    assert manifest.dropped == len(bad)
    report = json.loads((source / "out" / "defects.json").read_text())
    assert {d["sample"]: d["kind"] for d in report} == {kind: kind for kind in DEFECTIVE}
    assert all(d["message"] and d["advice"] for d in report)
    assert [PreparedData(source / "out")[i].id for i in range(2)] == ["good", "good"]


def test_several_processes_find_the_same_as_one(source: Path, assets: Path) -> None:
    samples = [GOOD | {"id": str(i)} if i % 5 else {"id": str(i), **DEFECTIVE["missing_image"]} for i in range(40)]
    one = run(source, assets, samples, on_defect="drop")
    shutil.rmtree(source / "out")
    assert run(source, assets, samples, on_defect="drop", workers=2) == one


def test_a_file_that_is_no_list_of_conversations_is_refused(source: Path, assets: Path) -> None:
    for content, message in (("{", "cannot be read as JSON"), ("{}", "does not hold a list"), ("[]", "does not hold a list")):
        (source / "data.json").write_text(content)
        recipe = world.make_study().preparation_recipe("tiny", "run", "finetune")
        with pytest.raises(DataError, match=message):
            prepare(recipe, source / "data.json", assets / "llama", [], source / "out")


def test_what_was_prepared_reads_back(assets: Path, conversations: Path) -> None:
    data = PreparedData(conversations)
    raw = json.loads((assets / "conversations" / "conversations.json").read_text())
    tokenizer = load_tokenizer(assets / "llama")
    assert len(data) == len(raw)
    assert data.has_image.tolist() == ["image" in sample for sample in raw]
    archive = ImageArchive(assets / "conversations" / "images.zip")
    for index in (0, 5, len(raw) - 1):
        sample, source = data[index], raw[index]
        answers = [t["value"] for t in source["conversations"] if t["from"] == "gpt"]
        supervised = sample.input_ids[sample.labels != IGNORE_INDEX]
        expected = [tokenizer(a + "</s>", add_special_tokens=False).input_ids for a in answers]
        assert supervised.tolist() == [i for ids in expected for i in ids]
        assert data.supervised_tokens[index] == len(supervised)
        assert data.lengths[index] == len(sample.input_ids) + (world.IMAGE_TOKENS - 1) * data.has_image[index]
        if data.has_image[index]:
            location = archive.locate(source["image"])
            assert location is not None
            assert data.read_image(sample) == archive.read(location)


def test_a_changed_file_is_not_trained_on(conversations: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(conversations, copy)
    content = bytearray((copy / "samples.arrow").read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "samples.arrow").write_bytes(content)
    with pytest.raises(DataError, match=r"samples\.arrow is not the file that manifest\.json describes"):
        PreparedData(copy)


def test_the_three_ways_to_fit_an_image(assets: Path) -> None:
    wide = Image.new("RGB", (96, 48), (255, 0, 0))
    clip = load_processor(assets / "clip")
    for path, shape in (("crop", (1, 3, 48, 48)), ("pad", (1, 3, 48, 48)), ("warp", (1, 3, 48, 48))):
        processor = load_processor(assets / "siglip") if path == "warp" else clip
        assert ImageTransform(processor, path)([wide]).shape == shape
    cropped, padded = ImageTransform(clip, "crop")([wide]), ImageTransform(clip, "pad")([wide])
    assert np.ptp(cropped[0, 0]) < 1e-5, "the crop is all red"
    assert np.ptp(padded[0, 0]) > 1, "the padding is not"
    assert abs(padded[0, :, 0, 0]).max() < 0.02, "the padding is the mean colour, so it is almost 0 after normalisation"


def test_padding_centres_the_image_as_the_original_does() -> None:
    square = pad_to_square(Image.new("RGB", (4, 7), (9, 9, 9)), (1, 2, 3))
    pixels = np.asarray(square)
    assert pixels.shape == (7, 7, 3)
    assert (pixels[:, 1:5] == 9).all()
    assert (pixels[:, 0] == (1, 2, 3)).all()
    assert (pixels[:, 5:] == (1, 2, 3)).all()


def test_the_processors_are_the_pil_ones(assets: Path) -> None:
    assert type(load_processor(assets / "clip")).__name__ == "CLIPImageProcessorPil"
    assert type(load_processor(assets / "siglip")).__name__ == "SiglipImageProcessorPil"
    assert decode_image(png(), "x").mode == "RGB"


def test_cocos_captions_are_conversations_from_inside_their_archive(tmp_path: Path) -> None:
    captions = {
        "images": [{"id": 7, "file_name": "000000000007.jpg"}, {"id": 8, "file_name": "000000000008.jpg"}],
        "annotations": [
            {"id": 2, "image_id": 7, "caption": "The second."},
            {"id": 1, "image_id": 7, "caption": "The first. "},
        ],
    }
    with zipfile.ZipFile(tmp_path / "annotations.zip", "w") as archive:
        archive.writestr("annotations/captions_val2017.json", json.dumps(captions))
    manifest = AssetManifest.record(tmp_path, "coco", {"kind": "url"}, None)
    (sample,) = read_conversations(manifest.member("annotations/captions_val2017.json"))
    assert (sample["id"], sample["image"]) == ("7", "000000000007.jpg")
    question, answer = (turn["value"] for turn in sample["conversations"])
    assert question.startswith("<image>")
    assert answer == "The first."
    with pytest.raises(DataError, match=r"captions_val2018\.json cannot be read"):
        read_conversations(manifest.member("annotations/captions_val2018.json"))
