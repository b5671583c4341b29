"""The tokens of the originals: they used the slow SentencePiece tokenizer of Llama (``legacy: false``)."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2

from vdep.data.conversation import IGNORE_INDEX, IMAGE_INDEX, TEMPLATES, Segment, encode_conversation, encode_segments
from vdep.errors import ConfigError
from vdep.model.tokenizer import load_tokenizer

SPACE = "▁"
SPECIAL = ("<s>", "</s>", "<unk>")
TEXT = ["the cat saw a dog on the red mat", "USER: what is it ? ASSISTANT: a cat", "two  spaces   and more", "a\nb"] * 200


@pytest.fixture(scope="module")
def model() -> bytes:
    """A SentencePiece model as Llama's: BPE, byte fallback, no normalisation, spaces kept."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT),
        model_writer=written,
        vocab_size=310,
        model_type="bpe",
        byte_fallback=True,
        pad_id=-1,
        allow_whitespace_only_pieces=True,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        minloglevel=2,
    )
    return written.getvalue()


@pytest.fixture(scope="module")
def folder(model: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As lmsys/vicuna-7b-v1.5 ships it: ``tokenizer.model`` and no ``tokenizer.json``."""
    folder = tmp_path_factory.mktemp("vicuna")
    (folder / "tokenizer.model").write_bytes(model)
    special = dict(zip(("bos_token", "eos_token", "unk_token"), SPECIAL, strict=True))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "LlamaTokenizer", "legacy": False, "add_bos_token": True, **special})
    )
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder


@pytest.fixture(scope="module")
def slow(model: bytes) -> Any:
    """(text) -> the tokens of transformers 4.37's ``LlamaTokenizer`` with ``legacy: false``, without the start token."""
    changed = sentencepiece_model_pb2.ModelProto()
    changed.ParseFromString(model)
    changed.normalizer_spec.add_dummy_prefix = False
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(changed.SerializeToString())
    unknown = len(processor.encode("<unk>", out_type=str))

    def pieces(text: str) -> list[str]:
        if not text.startswith((SPACE, " ")):
            return list(processor.encode(text, out_type=str))
        return list(processor.encode("<unk>" + text, out_type=str)[unknown:])

    def tokenize(text: str) -> list[str]:
        parts = re.split(f"({'|'.join(map(re.escape, SPECIAL))})", SPACE + text.replace(SPACE, " ") if text else "")
        tokens = [token for part in parts if part for token in ([part] if part in SPECIAL else pieces(part))]
        return tokens[1:] if len(tokens) > 1 and tokens[0] == SPACE and tokens[1] in SPECIAL else tokens

    return tokenize


texts = st.lists(
    st.sampled_from([" ", "  ", "the", " the", "cat", " red", "USER:", "\n", "é", "圖", "</s>", "ASSISTANT: ", ".", "s", "7"]),
    max_size=8,
).map("".join)


@settings(max_examples=300, deadline=None)
@given(text=texts)
def test_any_text_has_the_tokens_of_the_slow_tokenizer(text: str, folder: Path, slow: Any) -> None:
    tokenizer = load_tokenizer(folder)
    encoded = encode_segments([Segment(text)], tokenizer)
    assert tokenizer.convert_ids_to_tokens(encoded.input_ids) == ["<s>", *slow(text)]


@settings(max_examples=100, deadline=None)
@given(caption=texts.filter(lambda t: t.strip()))
def test_all_of_a_caption_is_trained_from_its_first_space_on(caption: str, folder: Path, slow: Any) -> None:
    """LLaVA ``preprocess_plain`` masks the start token and the image, and nothing else."""
    tokenizer = load_tokenizer(folder)
    turns = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": caption}]
    encoded = encode_conversation(turns, True, TEMPLATES["plain"], tokenizer, 9, 10_000)
    assert encoded.input_ids[:2].tolist() == [1, IMAGE_INDEX]
    assert tokenizer.convert_ids_to_tokens(encoded.input_ids[2:]) == slow(caption + "\n")
    assert np.array_equal(encoded.labels[2:], encoded.input_ids[2:])
    assert (encoded.labels[:2] == IGNORE_INDEX).all()


def test_a_question_that_is_only_an_image(folder: Path, slow: Any) -> None:
    tokenizer = load_tokenizer(folder)
    turns = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "a cat"}]
    encoded = encode_conversation(turns, True, TEMPLATES["vicuna_v1"], tokenizer, 9, 10_000)
    after = int(np.flatnonzero(encoded.input_ids == IMAGE_INDEX)[0]) + 1
    assert tokenizer.convert_ids_to_tokens(encoded.input_ids[after:]) == slow(" ASSISTANT: a cat</s>")


def test_a_sentencepiece_model_alone(model: bytes, folder: Path, slow: Any, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(model)
    alone = load_tokenizer(tmp_path)
    for text in ("the cat</s>USER: what", " a dog", "\nis it"):
        encoded = encode_segments([Segment(text)], alone)
        assert alone.convert_ids_to_tokens(encoded.input_ids) == ["<s>", *slow(text)]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        load_tokenizer(tmp_path / "nowhere")
