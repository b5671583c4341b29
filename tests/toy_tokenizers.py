"""Small tokenizers with what the real ones have: Llama's digits alone and byte fallback, GPT-2's words with their space."""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from vdep.data.conversation import SYSTEM

TEXT = [
    "the cat saw a dog on the red mat",
    "What is it? Yes",
    "two  spaces   and more",
    "a\nb 12",
    f"{SYSTEM} USER: ASSISTANT:",
] * 200
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


@cache
def sentencepiece_model() -> bytes:
    """A SentencePiece model as Llama's: BPE, split digits, byte fallback, no normalisation, spaces kept.

    Its pieces that are only spaces have the lowest score of all, as in Llama's file, where they were added by hand.
    """
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT),
        model_writer=written,
        vocab_size=400,
        model_type="bpe",
        byte_fallback=True,
        split_digits=True,
        pad_id=-1,
        allow_whitespace_only_pieces=True,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        minloglevel=2,
    )
    model = sentencepiece_model_pb2.ModelProto.FromString(written.getvalue())
    for piece in model.pieces:
        if set(piece.piece) == {"▁"}:
            piece.score = -1e9
    return bytes(model.SerializeToString())


def write_llama_like(folder: Path, model: bytes | None = None) -> Path:
    """As lmsys/vicuna-7b-v1.5 ships it: ``tokenizer.model`` and no ``tokenizer.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(model or sentencepiece_model())
    config = {"tokenizer_class": "LlamaTokenizer", "legacy": False, "add_bos_token": True, **SPECIAL}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder


def write_gpt2_like(folder: Path, trim_offsets: bool = False) -> Path:
    """As microsoft/phi-2: no start token, runs of spaces as added tokens, the end token is the unknown one too.

    With ``trim_offsets`` (RoBERTa's habit) the offsets of a token leave out its spaces.
    """
    folder.mkdir(parents=True, exist_ok=True)
    end = "<|endoftext|>"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim_offsets)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=400, special_tokens=[end], initial_alphabet=alphabet))
    tokenizer.add_tokens(["   ", "  "])
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"bos_token": end, "eos_token": end, "unk_token": end}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "config.json").write_text('{"model_type": "phi"}')
    return folder
