"""The tokenizers of the demo world: real tokenizer files, loaded by ``transformers.AutoTokenizer``.

They treat spaces, digits and the unknown as those of the big models do, but know the words of the demo world whole, and
words that always come together as one token: the miniature models would otherwise spend their few layers on spelling.

``llama``, like SentencePiece's: a text begins with ``<s>`` and a space; a space belongs to the word behind it (``▁red``),
but digits are alone, so the space before one is a token of its own (``▁ 2``); what is unknown falls apart into bytes, as
a newline always does. ``phi``, like GPT-2's in so far as ``2`` is one token with its space, and nothing comes first; it
splits at spaces and drops them.
"""

from __future__ import annotations

import re
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors

from ..world import language as words
from ..world.scenes import COLORS, COLUMNS, ROWS, SHAPES, SIZES

SPACE = "▁"
EXTRA_WORDS = (
    "USER: ASSISTANT: Question: Context: , . ? digit label "
    "What What color is the shape size of Where Which food has Is there a an in image How many things are Has the left above "
    "Are Yes No thing There written number shown picture this "
)
VOCABULARY = {"words": 256, "llama": 576, "phi": 288}
"""How many ids a model with one of the tokenizers has room for."""


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


def pieces() -> list[str]:
    """The same words as SentencePiece's would write them: with the space before them, and where a line can begin with them,
    without it."""
    found = [SPACE, *words.DIGITS]
    for word in vocabulary():
        if word == "\n" or re.search(r"\d", word):
            continue
        spaced = word.replace(" ", SPACE)
        found.append(f"{SPACE}{spaced}")
        if re.match(r"[A-Z\W]", word) or not word.isascii():
            found.append(spaced)
    return list(dict.fromkeys(found))


def build(name: str) -> Tokenizer:
    """The tokenizer of ``llama`` or ``phi``, or ``words``: Llama's special tokens and whole words, for lessons alone.

    Ids beyond its tokens, up to ``VOCABULARY[name]``, stay unused.
    """
    if name == "llama":
        return _like_llama()
    return _word_level(["<|endoftext|>"] if name == "phi" else ["<unk>", "<s>", "</s>"])


def words_of(piece: str) -> str:
    """The words of a token of ``llama``, as they are written in ``vocabulary()``."""
    return "\n" if piece == "<0x0A>" else piece.replace(SPACE, " ").strip()


def _word_level(special: list[str]) -> Tokenizer:
    """One token a word, without its space; the first special token stands for unknown ones."""
    entries = [*special, *vocabulary()]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(entries)}, unk_token=special[0]))
    whole = sorted((w for w in vocabulary() if not re.fullmatch(r"\w+|\s", w, re.ASCII)), key=len, reverse=True)
    pattern = "|".join([*map(re.escape, whole), r"\n", r"[A-Za-z]+", r"[0-9]", r"[^\s]"])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True)
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    return tokenizer


def _like_llama() -> Tokenizer:
    """Llama's order of ids: three special tokens, the bytes, the pieces. A text is cut into as few pieces as possible."""
    special = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0)]
    in_bytes = [(f"<0x{byte:02X}>", 0.0) for byte in range(256)]
    known = [(piece, -1.0) for piece in pieces()]
    tokenizer = Tokenizer(models.Unigram([*special, *in_bytes, *known], unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    return tokenizer


def save(family: str, folder: Path) -> None:
    """Write ``tokenizer.json`` and its configuration as a Hugging Face tokenizer."""
    from transformers import PreTrainedTokenizerFast

    tokens = (
        {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<unk>"}
        if family == "llama"
        else dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), "<|endoftext|>")
    )
    PreTrainedTokenizerFast(
        tokenizer_object=build(family),
        clean_up_tokenization_spaces=False,
        model_max_length=512,
        **tokens,
    ).save_pretrained(folder)
