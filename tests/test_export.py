"""An exported checkpoint is a stock LLaVA: same answers, with its saved processor, in stock transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toy_tokenizers
import world
from PIL import Image
from transformers import AutoModelForCausalLM, AutoProcessor, LlavaForConditionalGeneration

from vdep.data.conversation import TEMPLATES, encode_segments, prompt_segments
from vdep.data.images import load_processor
from vdep.data.tokenizer import load_tokenizer
from vdep.errors import ConfigError
from vdep.model.export import export_checkpoint
from vdep.model.llava import LlavaWithHeadBias, build_model, load_checkpoint
from vdep.study.settings import VisionTower
from vdep_demo.world.scenes import render, sample_scenes

QUESTIONS = ("What color is the circle?", "Where is the red square?\nAnswer the question using a single word or phrase.")


@pytest.fixture(scope="module")
def checkpoints(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both families, untrained, exported as SFT does."""
    folders = {}
    for family, (tower, template) in world.FAMILIES.items():
        study = world.make_study(family)
        model = build_model(assets / tower, assets / family, study.models["tiny"].vision_tower, torch.float32, 3)
        folders[family] = tmp_path_factory.mktemp(family)
        image = study.stage("tiny", "run", "finetune").image
        export_checkpoint(model, assets / tower, assets / family, image, folders[family])
        assert template in TEMPLATES
    return folders


def pictures(count: int) -> list[Image.Image]:
    drawn = [render(scene) for scene in sample_scenes(count, "test", 9)]
    # wide and tall ones too: padding has to be the same in both processors
    return [
        image.crop((0, 0, 48, 30)) if i % 3 == 1 else image.crop((0, 0, 20, 48)) if i % 3 == 2 else image
        for i, image in enumerate(drawn)
    ]


def ours(checkpoint: Path, family: str, questions: list[str], images: list[Image.Image], batch_size: int) -> list[str]:
    from vdep.evaluation.lmms_model import VdepModel

    image_fit = world.make_study(family).stage("tiny", "run", "finetune").image
    model = VdepModel(
        checkpoint, world.FAMILIES[family][1], image_fit,
        device="cpu", dtype=torch.float32, batch_size=batch_size, max_new_tokens=6,
    )  # fmt: skip
    model.task_dict = {"t": {"s": [{"image": image} for image in images]}}

    class Request:
        def __init__(self, row: int, text: str) -> None:
            self.args = (text, {"max_new_tokens": 6}, lambda doc: [doc["image"]], row, "t", "s")

    return model.generate_until([Request(i, q) for i, q in enumerate(questions)])  # type: ignore[misc]


def asked(count: int) -> list[str]:
    return [QUESTIONS[i % 2] for i in range(count)]


def test_stock_transformers_gives_the_same_answers(checkpoints: dict[str, Path]) -> None:
    folder = checkpoints["llama"]
    model = LlavaForConditionalGeneration.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    images, questions = pictures(6), asked(6)
    stock = []
    for image, question in zip(images, questions, strict=True):
        content: list[dict[str, Any]] = [{"type": "image"}, {"type": "text", "text": question}]
        prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        inputs = processor(images=image, text=prompt, return_tensors="pt")
        with torch.inference_mode():
            output = model.generate(**inputs, max_new_tokens=6, do_sample=False)
        stock.append(processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip())
    assert stock == ours(folder, "llama", questions, images, 1)
    assert len(set(stock)) > 1, "an untrained model still answers different pictures differently"


def test_the_stock_processor_makes_our_tokens_and_pixels(checkpoints: dict[str, Path]) -> None:
    from vdep.data.images import ImageTransform

    for family, folder in checkpoints.items():
        processor, tokenizer = AutoProcessor.from_pretrained(folder), load_tokenizer(folder)
        image_fit = world.make_study(family).stage("tiny", "run", "finetune").image
        content: list[dict[str, Any]] = [{"type": "image"}, {"type": "text", "text": QUESTIONS[1]}]
        prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        segments = prompt_segments(f"<image>\n{QUESTIONS[1]}", TEMPLATES[world.FAMILIES[family][1]])
        encoded = encode_segments(segments, tokenizer)
        for image in pictures(3):
            inputs = processor(images=image, text=prompt, return_tensors="pt")
            ids = inputs["input_ids"][0].numpy()
            assert int((ids == processor.image_token_id).sum()) == world.IMAGE_TOKENS
            assert ids[ids != processor.image_token_id].tolist() == encoded.input_ids[encoded.input_ids >= 0].tolist()
            own = ImageTransform(load_processor(folder), image_fit)([image])
            assert np.allclose(inputs["pixel_values"].numpy(), own, atol=2e-2), "padding in numpy and in PIL"


@pytest.mark.parametrize("question", [*QUESTIONS, "2 or 7?", " two  spaces ", "\n漢字"])
def test_the_stock_processor_makes_our_tokens_where_sentencepiece_puts_a_space_before_every_text(
    question: str, assets: Path, tmp_path: Path
) -> None:
    """Llama's tokens behind the image are ``▁``, ``<0x0A>``; lmms-eval gives its prompt as text, others as parts."""
    from vdep.model.export import add_image_token, processor_for

    tokenizer = load_tokenizer(toy_tokenizers.write_llama_like(tmp_path / "language"))
    encoded = encode_segments(prompt_segments(f"<image>\n{question}", TEMPLATES["vicuna_v1"]), tokenizer).input_ids
    model = build_model(assets / "clip", assets / "llama", world.make_study().models["tiny"].vision_tower, torch.float32, 3)
    add_image_token(model, tokenizer)
    processor_for(model, tokenizer, assets / "clip", "pad").save_pretrained(tmp_path / "saved")
    processor = AutoProcessor.from_pretrained(tmp_path / "saved")
    expected = np.repeat(encoded, np.where(encoded < 0, world.IMAGE_TOKENS, 1))
    parts: list[dict[str, Any]] = [{"type": "image"}, {"type": "text", "text": question}]
    for content in (parts, f"<image>\n{question}"):
        prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        ids = processor(images=pictures(1)[0], text=prompt, return_tensors="pt")["input_ids"][0].numpy()
        assert np.where(ids == processor.image_token_id, -200, ids).tolist() == expected.tolist()


def test_batched_answers_are_those_of_batch_size_1(checkpoints: dict[str, Path]) -> None:
    for family, folder in checkpoints.items():
        images, questions = pictures(9), asked(9)
        one = ours(folder, family, questions, images, 1)
        assert one == ours(folder, family, questions, images, 4) == ours(folder, family, questions, images, 64)


def test_the_head_bias_of_phi_is_kept(checkpoints: dict[str, Path], assets: Path) -> None:
    saved = load_checkpoint(checkpoints["phi"], torch.float32)
    assert isinstance(saved, LlavaWithHeadBias)
    original = AutoModelForCausalLM.from_pretrained(assets / "phi", dtype=torch.float32)
    rows = original.lm_head.bias.shape[0]
    assert torch.equal(saved.lm_head.bias[:rows], original.lm_head.bias)
    assert saved.lm_head.bias.abs().max() > 1, "the control: it is not a bias of zeros"


def test_the_image_tokens_row_is_never_preferred(checkpoints: dict[str, Path]) -> None:
    for folder in checkpoints.values():
        model, tokenizer = load_checkpoint(folder, torch.float32), load_tokenizer(folder)
        image_id = model.config.image_token_index
        assert tokenizer.convert_tokens_to_ids("<image>") == image_id
        assert "<auto_image>" not in tokenizer.get_vocab()
        logits = model.lm_head(torch.randn(200, world.WIDTH))
        assert not (logits.argmax(-1) == image_id).any()
    llama = load_checkpoint(checkpoints["llama"], torch.float32)
    assert llama.lm_head.weight.shape[0] % 64 == 0
    assert llama.config.text_config.vocab_size == llama.lm_head.weight.shape[0]


def test_the_export_holds_no_path_and_is_the_same_twice(checkpoints: dict[str, Path], assets: Path, tmp_path: Path) -> None:
    study = world.make_study("llama")
    model = build_model(assets / "clip", assets / "llama", study.models["tiny"].vision_tower, torch.float32, 3)
    export_checkpoint(model, assets / "clip", assets / "llama", "pad", tmp_path)
    for path in checkpoints["llama"].iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name
        if path.suffix == ".json":
            assert str(assets) not in path.read_text()


def test_another_number_of_image_tokens_is_refused(assets: Path) -> None:
    tower = VisionTower(weights="clip", image_tokens=10)
    with pytest.raises(
        ConfigError, match=r"yields 9 image tokens with feature_select 'default', but the model's image_tokens is 10"
    ):
        build_model(assets / "clip", assets / "llama", tower, torch.float32, 0)


def test_siglip_with_default_selection_drops_the_first_patch(assets: Path) -> None:
    # the 728-token behaviour of the TinyLLaVA Factory, one switch away
    tower = VisionTower(weights="siglip", image_tokens=8, feature_select="default")
    model = build_model(assets / "siglip", assets / "phi", tower, torch.float32, 0)
    assert model.config.image_seq_length == 8
