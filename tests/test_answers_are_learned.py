"""What a model must say at evaluation it was trained to say: from the prompt's "ASSISTANT:" on, the space included.

With tokenizers that split digits, fall back to bytes, or put a space into the word behind it; and, as the proof, with a
language model of 18,000 parameters that learns eight answers by heart and is then asked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toy_tokenizers
import world
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vdep.data.collate import Row, collate
from vdep.data.conversation import IGNORE_INDEX, TEMPLATES, encode_conversation, encode_segments, prompt_segments
from vdep.data.images import ImageTransform, load_processor
from vdep.data.tokenizer import load_tokenizer
from vdep.model.export import export_checkpoint
from vdep.model.llava import build_model
from vdep.model.task import AlignmentTask

KINDS = {"llama": "vicuna_v1", "gpt2": "phi", "gpt2 with trimmed offsets": "phi"}


@pytest.fixture(scope="module", params=list(KINDS))
def speaker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any]:
    """(template, tokenizer)"""
    folder, kind = tmp_path_factory.mktemp("tokenizer"), request.param
    if kind == "llama":
        toy_tokenizers.write_llama_like(folder)
    else:
        toy_tokenizers.write_gpt2_like(folder, trim_offsets="trimmed" in kind)
    return KINDS[kind], load_tokenizer(folder)


pieces = [
    "2",
    "1999",
    "45%",
    "Yes",
    "a cat",
    " ",
    "  ",
    "   ",
    "\n",
    "\t",
    "漢字",
    "😀",
    "é",
    "(b)",
    ".",
    "the",
    "USER",
    "\u3000",
]
texts = st.lists(st.sampled_from(pieces), min_size=1, max_size=6).map("".join).filter(lambda text: text.strip())
turns = st.lists(st.tuples(texts, texts), min_size=1, max_size=3)


def conversation(pairs: list[tuple[str, str]], image: bool) -> list[dict[str, str]]:
    talk = []
    for number, (question, answer) in enumerate(pairs):
        question = f"<image>\n{question}" if image and number == 0 else question
        talk += [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return talk


@settings(max_examples=200, deadline=None)
@given(turns, st.booleans())
def test_what_is_supervised_reads_as_the_answers_and_their_ends(
    speaker: tuple[str, Any], pairs: list[tuple[str, str]], image: bool
) -> None:
    template, tokenizer = speaker
    encoded = encode_conversation(conversation(pairs, image), image, TEMPLATES[template], tokenizer, 9, 10_000)
    supervised = encoded.labels != IGNORE_INDEX
    assert np.array_equal(encoded.labels[supervised], encoded.input_ids[supervised])
    said = tokenizer.decode(encoded.input_ids[supervised])
    # SentencePiece's decoder drops the first space of all
    expected = "".join(f" {answer}{tokenizer.eos_token}" for _, answer in pairs)
    assert said == (expected[1:] if template == "vicuna_v1" else expected)


@settings(max_examples=200, deadline=None)
@given(texts, texts, st.booleans())
def test_training_is_the_evaluations_prompt_and_then_the_answer(
    speaker: tuple[str, Any], question: str, answer: str, image: bool
) -> None:
    template, tokenizer = speaker
    # training strips a question that has an image; LLaVA's evaluation does not
    asked = f"<image>\n{question.strip()}" if image else question
    encoded = encode_conversation(conversation([(question, answer)], image), image, TEMPLATES[template], tokenizer, 9, 10_000)
    prompt = encode_segments(prompt_segments(asked, TEMPLATES[template]), tokenizer).input_ids
    assert encoded.input_ids[: len(prompt)].tolist() == prompt.tolist()
    assert (encoded.labels[: len(prompt)] == IGNORE_INDEX).all()
    assert (encoded.labels[len(prompt) :] != IGNORE_INDEX).all(), "from there on everything is the model's to say"


ANSWERS = {
    "How many cats?": "2",
    "How many dogs?": "7",
    "Which year is it?": "1999",
    "How much is it?": "45%",
    "What is written?": "漢字",
    "What is the mood?": "😀",
    "Is it a cat?": "Yes",
    "What is it?": "the red mat",
}


def masked_as_before(tokenizer: Any, labels: np.ndarray) -> np.ndarray:
    """The labels of method version 3: a token that is only the space before an answer is the prompt's."""
    space = tokenizer.convert_tokens_to_ids("▁")
    return np.where(labels == space, IGNORE_INDEX, labels)


def learn(assets: Path, folder: Path, old_labels: bool) -> tuple[float, list[str]]:
    """Teach a LLaVA with a small Llama all of ``ANSWERS`` until it knows them by heart, export it, and ask it.

    Returns the last loss and the answers.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    from vdep.evaluation.lmms_model import VdepModel

    language = toy_tokenizers.write_llama_like(folder / "language")
    tokenizer = load_tokenizer(language)
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=512, initializer_range=0.2, **size)
    LlamaForCausalLM(config).save_pretrained(language)
    study = world.make_study("llama")
    model = build_model(assets / "clip", language, study.models["tiny"].vision_tower, torch.float32, 3)
    model.model.vision_tower.requires_grad_(False)
    task, template = AlignmentTask(model, None), TEMPLATES["vicuna_v1"]
    samples = []
    for question, answer in ANSWERS.items():
        encoded = encode_conversation(conversation([(question, answer)], True), True, template, tokenizer, 9, 512)
        samples.append((encoded.input_ids, masked_as_before(tokenizer, encoded.labels) if old_labels else encoded.labels))
    supervised = sum(int((labels != IGNORE_INDEX).sum()) for _, labels in samples)
    picture = Image.new("RGB", (48, 48), (120, 90, 60))
    pixels = np.concatenate([ImageTransform(load_processor(assets / "clip"), "pad")([picture])] * len(samples))
    batch = collate([Row(*sample, text_weight=1 / supervised) for sample in samples], pixels, world.IMAGE_TOKENS)
    optimizer = torch.optim.AdamW([p for p in task.parameters() if p.requires_grad], lr=2e-2, weight_decay=0.0)
    value = float("inf")
    for _ in range(400):
        loss, _ = task(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        value = float(loss)
        if value < 2e-3:
            break
    export_checkpoint(model, assets / "clip", language, "pad", folder / "trained")
    asked = VdepModel(
        folder / "trained", "vicuna_v1", "pad",
        device="cpu", dtype=torch.float32, batch_size=len(ANSWERS), max_new_tokens=12,
    )  # fmt: skip
    asked.task_dict = {"t": {"s": [{"image": picture}] * len(ANSWERS)}}

    class Request:
        def __init__(self, row: int, text: str) -> None:
            self.args = (text, {"max_new_tokens": 12}, lambda doc: [doc["image"]], row, "t", "s")

    return value, asked.generate_until([Request(i, q) for i, q in enumerate(ANSWERS)])  # type: ignore[misc]


def test_a_model_that_knows_its_answers_by_heart_gives_them(assets: Path, tmp_path: Path) -> None:
    loss, answers = learn(assets, tmp_path, old_labels=False)
    assert loss < 2e-3
    assert dict(zip(ANSWERS, answers, strict=True)) == ANSWERS


def test_without_the_space_it_knows_them_as_well_and_cannot_begin(assets: Path, tmp_path: Path) -> None:
    """The control: labels as they were. The loss is as small; every answer that begins with a space alone is wrong."""
    loss, answers = learn(assets, tmp_path, old_labels=True)
    assert loss < 2e-3
    right = {question for question, answer in zip(ANSWERS, answers, strict=True) if answer == ANSWERS[question]}
    assert right == {"Is it a cat?", "What is it?"}
