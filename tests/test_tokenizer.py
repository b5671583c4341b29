"""The tokens of the originals: they used the slow SentencePiece tokenizer of Llama (``legacy: false``)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import published
import pytest
import sentencepiece
import toy_tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2

from vdep.data.conversation import IGNORE_INDEX, IMAGE_INDEX, TEMPLATES, Segment, encode_conversation, encode_segments
from vdep.data.tokenizer import load_tokenizer
from vdep.errors import ConfigError

SPACE = "▁"
SPECIAL = ("<s>", "</s>", "<unk>")


@pytest.fixture(scope="module", params=["small", "published"])
def model(request: pytest.FixtureRequest) -> bytes:
    """A ``tokenizer.model``: a small one of Llama's kind, and Llama's own."""
    if request.param == "small":
        return toy_tokenizers.sentencepiece_model()
    return published.llama_model(Path(request.config.cache.mkdir("vocabularies")))


@pytest.fixture(scope="module")
def folder(model: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_tokenizers.write_llama_like(tmp_path_factory.mktemp("vicuna"), model)


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    return load_tokenizer(folder)


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


PARTS = [" ", "  ", " " * 5, "the", " the", "cat", " red", "USER:", "ASSISTANT: ", "\n", "\t", "é", "圖", "😀", "\u3000"]
PARTS += ["</s>", "<unk>", ".", "s", "7", "12", "▁", "<0x0A>"]
texts = st.lists(st.sampled_from(PARTS), max_size=8).map("".join)


@settings(max_examples=300, deadline=None)
@given(text=texts)
def test_any_text_has_the_tokens_of_the_slow_tokenizer(text: str, tokenizer: Any, slow: Any) -> None:
    encoded = encode_segments([Segment(text)], tokenizer)
    assert tokenizer.convert_ids_to_tokens(encoded.input_ids) == ["<s>", *slow(text)]


@settings(max_examples=100, deadline=None)
@given(caption=texts.filter(lambda t: t.strip()))
def test_all_of_a_caption_is_trained_from_its_first_space_on(caption: str, tokenizer: Any, slow: Any) -> None:
    """LLaVA ``preprocess_plain`` masks the start token and the image, and nothing else."""
    turns = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": caption}]
    encoded = encode_conversation(turns, True, TEMPLATES["plain"], tokenizer, 9, 10_000)
    assert encoded.input_ids[:2].tolist() == [1, IMAGE_INDEX]
    assert tokenizer.convert_ids_to_tokens(encoded.input_ids[2:]) == slow(caption + "\n")
    assert np.array_equal(encoded.labels[2:], encoded.input_ids[2:])
    assert (encoded.labels[:2] == IGNORE_INDEX).all()


def test_a_question_that_is_only_an_image(tokenizer: Any, slow: Any) -> None:
    turns = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "a cat"}]
    encoded = encode_conversation(turns, True, TEMPLATES["vicuna_v1"], tokenizer, 9, 10_000)
    after = int(np.flatnonzero(encoded.input_ids == IMAGE_INDEX)[0]) + 1
    assert tokenizer.convert_ids_to_tokens(encoded.input_ids[after:]) == slow(" ASSISTANT: a cat</s>")


@pytest.mark.parametrize("kind", ["alone", "saved", "with an added token"])
def test_the_tokens_do_not_depend_on_how_the_folder_came_about(
    kind: str, model: bytes, tokenizer: Any, slow: Any, tmp_path: Path
) -> None:
    """A SentencePiece model alone; what a checkpoint of ours is evaluated with; a vocabulary that somebody made larger."""
    (tmp_path / "tokenizer.model").write_bytes(model)
    if kind == "saved":
        (tmp_path / "tokenizer.model").unlink()
        tokenizer.save_pretrained(tmp_path)
    elif kind == "with an added token":
        toy_tokenizers.write_llama_like(tmp_path, model)
        (tmp_path / "added_tokens.json").write_text(f'{{"<pad>": {len(tokenizer)}}}')
    loaded = load_tokenizer(tmp_path)
    for text in ("the cat</s>USER: what", " a dog", "\nis it", "a:  The", "     x", "7 <unk> 圖"):
        encoded = encode_segments([Segment(text)], loaded)
        assert loaded.convert_ids_to_tokens(encoded.input_ids) == ["<s>", *slow(text)]
    if kind == "with an added token":
        assert loaded("a<pad>").input_ids[-1] == len(tokenizer)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        load_tokenizer(tmp_path / "nowhere")
