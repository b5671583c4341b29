"""The demo's Llama tokenizer meets digits, spaces and unknown characters as Llama's does, and keeps the world's words whole."""

from __future__ import annotations

import re

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vdep_demo.base_weights import tokenizer
from vdep_demo.world import language

LLAMA, PHI = tokenizer.build("llama"), tokenizer.build("phi")


def tokens(text: str) -> list[str]:
    return list(LLAMA.encode(text, add_special_tokens=False).tokens)


@given(st.integers(0, 10**9), st.sampled_from(["", "%", ".5"]))
def test_a_number_falls_apart_and_the_space_before_it_is_a_token(number: int, unit: str) -> None:
    answer = f"{number}{unit}"
    found = tokens(f"USER: How many things are in the image? ASSISTANT: {answer}")
    at = found.index("▁ASSISTANT:")
    assert found[at + 1 : at + 2 + len(str(number))] == ["▁", *str(number)]
    assert tokens(answer)[:2] == ["▁", answer[0]], "as at the beginning of a text"
    assert not any(re.search(r"\d", piece) and len(piece) > 1 for piece in tokenizer.pieces())


def test_words_that_always_come_together_are_one_token_with_their_space() -> None:
    assert tokens("ASSISTANT: top left") == ["▁ASSISTANT:", "▁top▁left"]
    assert tokens("a small red circle?") == ["▁a", "▁small▁red▁circle", "?"]
    for sentence in language.SENTENCES:
        assert len(tokens(sentence)) == len(tokens(f"What\n{sentence}")) - 2 == 1


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_every_text_comes_back_in_bytes_where_it_is_unknown(text: str) -> None:
    assume(not text.startswith(" ") and "▁" not in text and not re.search(r"<0x|<unk>|</?s>", text))
    found = LLAMA.encode(text, add_special_tokens=False)
    assert LLAMA.decode(found.ids) == text
    assert 0 not in found.ids


def test_a_newline_an_emoji_and_chinese_are_bytes_as_in_llamas() -> None:
    assert tokens("red\nred") == ["▁red", "<0x0A>", *(f"<0x{byte:02X}>" for byte in b"red")]
    for text in ("漢字", "\U0001f600", "\t"):
        assert tokens(f"ASSISTANT: {text}")[1:] == ["▁", *(f"<0x{byte:02X}>" for byte in text.encode())]


def test_phis_tokenizer_has_no_token_that_is_only_a_space() -> None:
    assert PHI.encode("ASSISTANT: 2").tokens == ["ASSISTANT:", "2"]
    assert not any(piece.isspace() and piece != "\n" for piece in PHI.get_vocab())
