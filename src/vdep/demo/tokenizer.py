"""The word-level tokenizers of the demo world.

Both miniature models share the vocabulary and differ in their special tokens as their big models do: the Llama one has
``<s>``, ``</s>`` and ``<unk>`` and starts every text with ``<s>``; the Phi one has only ``<|endoftext|>`` and starts with
nothing. Real tokenizer files, loaded by ``transformers.AutoTokenizer``.
"""

from __future__ import annotations

import re
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors

from . import language as words
from .scenes import COLORS, COLUMNS, ROWS, SHAPES, SIZES

EXTRA_WORDS = (
    "USER: ASSISTANT: Question: Context: , . ? digit label "
    "What What color is the shape size of Where Which food has Is there a an in image How many things are Has the left above "
    "Are Yes No thing There written number shown picture this "
)


def vocabulary() -> list[str]:
    """Every word of the demo world once, in a fixed order, the whole sentences first."""
    found = [*words.SENTENCES, "\n", *EXTRA_WORDS.split()]
    found += [*COLORS, *SHAPES, *SIZES, *ROWS, *COLUMNS, *words.DIGITS, *words.FOODS.values(), *"ABCDEFGHI"]
    names = [f"{color} {shape}" for color in COLORS for shape in SHAPES]
    found += [*names, *(f"{size} {name}" for size in SIZES for name in names)]
    found += [*words.PLACES, *(f"digit {d}" for d in words.DIGITS)]
    found += [f"{letter}{mark}" for mark in ".:" for letter in "ABCDEFGHI"]
    found += [words.UNANSWERABLE, "图中", "是什么颜色", "？", *words.CHINESE_COLORS.values(), *words.CHINESE_SHAPES.values()]
    return list(dict.fromkeys(found))


def build(family: str, vocabulary_size: int) -> Tokenizer:
    """A tokenizer for ``llama`` or ``phi``; ids beyond the words, up to ``vocabulary_size``, stay unused."""
    special = ["<unk>", "<s>", "</s>"] if family == "llama" else ["<|endoftext|>"]
    entries = [*special, *vocabulary()]
    if len(entries) > vocabulary_size:
        raise ValueError(f"{len(entries)} words do not fit into a vocabulary of {vocabulary_size}")
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(entries)}, unk_token=special[0]))
    whole = sorted((w for w in vocabulary() if not re.fullmatch(r"\w+|\s", w, re.ASCII)), key=len, reverse=True)
    pattern = "|".join([*map(re.escape, whole), r"\n", r"[A-Za-z]+", r"[0-9]", r"[^\s]"])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True)
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    if family == "llama":
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
        )
    return tokenizer


def save(family: str, vocabulary_size: int, folder: Path) -> None:
    """Write ``tokenizer.json`` and its configuration as a Hugging Face tokenizer."""
    from transformers import PreTrainedTokenizerFast

    tokens = (
        {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<unk>"}
        if family == "llama"
        else dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), "<|endoftext|>")
    )
    PreTrainedTokenizerFast(
        tokenizer_object=build(family, vocabulary_size),
        clean_up_tokenization_spaces=False,
        model_max_length=512,
        **tokens,
    ).save_pretrained(folder)
