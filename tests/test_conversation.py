"""Labels: for any conversation, what is supervised is what the assistant says, exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from vdep.data.conversation import (
    IGNORE_INDEX,
    IMAGE_INDEX,
    SYSTEM,
    TEMPLATES,
    ConversationDefect,
    encode_conversation,
    encode_segments,
    prompt_segments,
)
from vdep.data.tokenizer import load_tokenizer

CHARACTERS = [chr(c) for c in range(32, 127)] + ["\n", "é", "圖", "😀"]


def byte_tokenizer(bos: bool) -> PreTrainedTokenizerFast:
    """One token per byte, so that any text can be decoded exactly; with or without a start token."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    vocabulary = {"<s>": 0, "</s>": 1} | {c: i + 2 for i, c in enumerate(sorted(alphabet))}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>" if bos else None, eos_token="</s>")


def sentencepiece_like() -> PreTrainedTokenizerFast:
    """Spaces become the first character of the next word, and every text starts with one, as Llama's tokenizer has it."""
    words = ["▁" + w for w in ("A", "USER:", "ASSISTANT:", "What", "is", "it", "a", "cat", "dog")]
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, "▁": 3, "\n": 4} | {w: i + 5 for i, w in enumerate(words)}
    for c in CHARACTERS:
        vocabulary.setdefault(c, len(vocabulary))
    merges: list[tuple[str, str]] = []
    for word in words:
        for i in range(1, len(word)):
            vocabulary.setdefault(word[: i + 1], len(vocabulary))
            if (word[:i], word[i]) not in merges:
                merges.append((word[:i], word[i]))
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


BYTES, BYTES_BOS = byte_tokenizer(False), byte_tokenizer(True)

# Hypothesis tries the strings that it finds in the code, placeholders among them
words = st.text(st.sampled_from(CHARACTERS), min_size=1, max_size=30).filter(lambda t: t.strip() and "<image>" not in t)
turns = st.lists(st.tuples(words, words), min_size=1, max_size=4)


def conversation(pairs: list[tuple[str, str]], image: bool) -> list[dict[str, str]]:
    result = []
    for number, (question, answer) in enumerate(pairs):
        text = f"<image>\n{question}" if image and number == 0 else question
        result += [{"from": "human", "value": text}, {"from": "gpt", "value": answer}]
    return result


def encode(pairs: list[tuple[str, str]], image: bool, template: str, tokenizer: Any, max_length: int = 10_000) -> Any:
    return encode_conversation(conversation(pairs, image), image, TEMPLATES[template], tokenizer, 9, max_length)


@settings(max_examples=150, deadline=None)
@given(turns, st.booleans(), st.sampled_from(["vicuna_v1", "phi"]), st.booleans())
def test_supervised_text_is_the_answers_with_the_space_before_and_the_end_token_after(
    pairs: list[tuple[str, str]], image: bool, template: str, bos: bool
) -> None:
    tokenizer = BYTES_BOS if bos else BYTES
    encoded = encode(pairs, image, template, tokenizer)
    supervised = encoded.labels != IGNORE_INDEX
    assert np.array_equal(encoded.labels[supervised], encoded.input_ids[supervised])
    assert tokenizer.decode(encoded.input_ids[supervised]) == "".join(f" {answer}</s>" for _, answer in pairs)


@settings(max_examples=100, deadline=None)
@given(words, words, st.booleans())
def test_plain_trains_the_caption_and_its_newline_and_no_end_token(question: str, caption: str, bos: bool) -> None:
    tokenizer = BYTES_BOS if bos else BYTES
    encoded = encode([(question, caption)], True, "plain", tokenizer)
    supervised = encoded.labels != IGNORE_INDEX
    assert tokenizer.decode(encoded.input_ids[supervised]) == f"{caption}\n"
    head = [0, IMAGE_INDEX] if bos else [IMAGE_INDEX]
    assert encoded.input_ids[: len(head)].tolist() == head
    assert len(encoded.input_ids) == len(head) + supervised.sum(), "the human's words are thrown away"


@settings(max_examples=60, deadline=None)
@given(turns, st.booleans())
def test_the_whole_text_is_the_originals_prompt(pairs: list[tuple[str, str]], bos: bool) -> None:
    tokenizer = BYTES_BOS if bos else BYTES
    encoded = encode(pairs, False, "vicuna_v1", tokenizer)
    prompt = f"{SYSTEM} " + "".join(f"USER: {q} ASSISTANT: {a}</s>" for q, a in pairs)
    assert encoded.input_ids.tolist() == tokenizer(prompt).input_ids


def test_the_image_moves_to_the_front_of_its_turn() -> None:
    for text in ("<image>\nWhat is it", "What is it\n<image>", "What <image> is it"):
        turn = [{"from": "human", "value": text}, {"from": "gpt", "value": "a cat"}]
        encoded = encode_conversation(turn, True, TEMPLATES["vicuna_v1"], BYTES, 9, 1000)
        at = int(np.flatnonzero(encoded.input_ids == IMAGE_INDEX)[0])
        assert BYTES.decode(encoded.input_ids[:at]) == f"{SYSTEM} USER: "
        rest = text.replace("<image>", "").strip()
        assert BYTES.decode(encoded.input_ids[at + 1 :]) == f"\n{rest} ASSISTANT: a cat</s>"


def test_a_space_that_belongs_to_the_first_word_of_an_answer_is_trained_with_it() -> None:
    tokenizer = sentencepiece_like()
    encoded = encode([("What is it", "a cat")], True, "vicuna_v1", tokenizer)
    supervised = tokenizer.convert_ids_to_tokens(encoded.input_ids[encoded.labels != IGNORE_INDEX])
    assert supervised == ["▁a", "▁cat", "</s>"]
    at = int(np.flatnonzero(encoded.input_ids == IMAGE_INDEX)[0])
    assert tokenizer.convert_ids_to_tokens([encoded.input_ids[at + 1]]) == ["▁"], "each piece starts as a text of its own"
    assert encoded.input_ids.tolist().count(1) == 1, "one start token, at the very beginning"


def test_the_first_turn_of_the_assistant_is_skipped_and_an_unanswered_question_dropped() -> None:
    talk = [
        {"from": "gpt", "value": "Hello"},
        {"from": "human", "value": "Q"},
        {"from": "gpt", "value": "A"},
        {"from": "human", "value": "unanswered"},
    ]
    encoded = encode_conversation(talk, False, TEMPLATES["vicuna_v1"], BYTES, 9, 1000)
    assert BYTES.decode(encoded.input_ids) == f"{SYSTEM} USER: Q ASSISTANT: A</s>"


@pytest.mark.parametrize(
    ("talk", "image", "kind"),
    [
        ([], False, "empty_conversation"),
        (None, False, "empty_conversation"),
        ([{"from": "human", "value": "Q"}], False, "no_answer"),
        ([{"from": "human", "value": "Q"}, {"from": "gpt", "value": "  "}], False, "empty_answer"),
        (
            [{"from": "human", "value": "Q"}, {"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}],
            False,
            "turns_do_not_alternate",
        ),
        ([{"from": "system", "value": "S"}, {"from": "gpt", "value": "A"}], False, "malformed_turn"),
        ([{"from": "human", "value": "<image> Q"}, {"from": "gpt", "value": "A"}], False, "placeholder_without_image"),
        ([{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}], True, "image_without_placeholder"),
        ([{"from": "human", "value": "<image><image>"}, {"from": "gpt", "value": "A"}], True, "several_placeholders"),
        ([{"from": "human", "value": "<image> Q"}, {"from": "gpt", "value": "see <image>"}], True, "image_in_answer"),
    ],
)
def test_a_conversation_that_cannot_be_trained_on_is_named(talk: Any, image: bool, kind: str) -> None:
    with pytest.raises(ConversationDefect) as caught:
        encode_conversation(talk, image, TEMPLATES["vicuna_v1"], BYTES, 9, 1000)
    assert caught.value.kind == kind


@settings(max_examples=60, deadline=None)
@given(turns, st.integers(20, 400))
def test_cutting_at_max_length_keeps_the_beginning_and_never_all_masked_samples(
    pairs: list[tuple[str, str]], limit: int
) -> None:
    whole = encode(pairs, True, "vicuna_v1", BYTES)
    try:
        cut = encode(pairs, True, "vicuna_v1", BYTES, limit)
    except ConversationDefect as defect:
        assert defect.kind in ("image_beyond_max_length", "no_supervised_token")
        return
    assert len(cut.input_ids) + 8 == min(limit, len(whole.input_ids) + 8)
    assert np.array_equal(cut.input_ids, whole.input_ids[: len(cut.input_ids)])
    assert np.array_equal(cut.labels, whole.labels[: len(cut.labels)])
    assert cut.supervised > 0


def test_a_prompt_ends_where_the_answer_begins() -> None:
    encoded = encode_segments(prompt_segments("<image>\nWhat is it", TEMPLATES["vicuna_v1"]), BYTES)
    at = int(np.flatnonzero(encoded.input_ids == IMAGE_INDEX)[0])
    assert BYTES.decode(encoded.input_ids[at + 1 :]) == "\nWhat is it ASSISTANT:"
    trained = encode([("What is it", "x")], True, "vicuna_v1", BYTES)
    assert trained.input_ids[: len(encoded.input_ids)].tolist() == encoded.input_ids.tolist()


def test_the_demo_tokenizers_supervise_what_they_should(assets: Path) -> None:
    for family, template, end in (("llama", "vicuna_v1", "</s>"), ("phi", "phi", "<|endoftext|>")):
        tokenizer = load_tokenizer(assets / family)
        encoded = encode([("What color is the circle?", "red"), ("Where is it?", "top left")], True, template, tokenizer)
        tokens = tokenizer.convert_ids_to_tokens(encoded.input_ids[encoded.labels != IGNORE_INDEX])
        assert tokens == (["▁red", end, "▁top▁left", end] if family == "llama" else ["red", end, "top left", end])
        starts_with_bos = tokenizer.convert_ids_to_tokens([encoded.input_ids[0]]) == ["<s>"]
        assert starts_with_bos == (family == "llama")


@pytest.mark.parametrize(
    ("question", "answer", "masked"),
    [
        ("Q", "a cat", False),
        ("Q", "say </s> twice", True),
        ("Q", "USER: x ASSISTANT: y", True),
        ("Q", "a cat </s>USER: x ASSISTANT: y", False),
        ("ASSISTANT: Q", "a cat", True),
        ("Q ASSISTANT:", "a cat", False),
        ("<unk> Q", "a cat", True),
        ("", "a cat", True),
        (" ", "a cat", False),
    ],
)
def test_samples_that_the_original_masks_whole_are_trained_and_counted(question: str, answer: str, masked: bool) -> None:
    """LLaVA ``preprocess_v1`` cuts at every end token and every " ASSISTANT: "."""
    tokenizer = sentencepiece_like()
    encoded = encode([(question, answer)], False, "vicuna_v1", tokenizer)
    assert encoded.masked_by_original == masked
    assert encoded.supervised > 0
    assert not encode([(question, answer)], True, "plain", BYTES).masked_by_original


def test_a_conversation_whose_last_question_is_unanswered_is_masked_whole_by_the_original() -> None:
    talk = [*conversation([("Q", "A")], False), {"from": "human", "value": "And?"}]
    for template, masked in (("vicuna_v1", True), ("phi", True), ("plain", False)):
        assert encode_conversation(talk, False, TEMPLATES[template], BYTES, 9, 1000).masked_by_original == masked
