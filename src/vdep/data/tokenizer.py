"""The tokenizer of a language model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import ConfigError


def load_tokenizer(folder: Path) -> Any:
    """The fast tokenizer, with a pad token (the unknown or the end token) where it has none.

    A folder with a ``tokenizer.model`` and no ``tokenizer.json`` (lmsys/vicuna-7b-v1.5) gets the ids of SentencePiece, as the
    originals had them. What is saved from it holds the same merges and gives the same ids.

    Raises:
        ConfigError: where there is no such folder; nothing is looked up on a hub.
    """
    from transformers import AutoTokenizer, LlamaTokenizer

    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder with a tokenizer")

    sentencepiece, converted = folder / "tokenizer.model", folder / "tokenizer.json"
    described = converted.is_file() or (folder / "tokenizer_config.json").is_file()
    if not described and sentencepiece.is_file():
        # a SentencePiece model alone: Llama's, as the originals used it
        tokenizer = LlamaTokenizer.from_pretrained(folder, local_files_only=True, legacy=False, add_bos_token=True)
    else:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if sentencepiece.is_file() and not converted.is_file():
        _merge_by_score(tokenizer, sentencepiece)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    return tokenizer


def _merge_by_score(tokenizer: Any, sentencepiece: Path) -> None:
    """Give the converted tokenizer SentencePiece's order of merges.

    transformers 5.23 orders them by id. SentencePiece merges whatever has the highest score, and Llama's pieces that are only
    spaces have the lowest of all: "  A" is "▁", "▁A" and not "▁▁", "A".
    """
    from sentencepiece import sentencepiece_model_pb2
    from tokenizers.models import BPE
    from transformers.tokenization_utils_base import generate_merges

    model = sentencepiece_model_pb2.ModelProto.FromString(sentencepiece.read_bytes())  # type: ignore[attr-defined]
    if model.trainer_spec.model_type != model.trainer_spec.BPE:
        return
    backend = tokenizer.backend_tokenizer
    vocabulary = backend.get_vocab(with_added_tokens=False)
    scores = {piece.piece: piece.score for piece in model.pieces if piece.type == piece.NORMAL}
    # control tokens, the unknown token, single bytes and user-defined pieces neither come out of a merge nor go into one
    merges = generate_merges(vocabulary, scores, skip_tokens=vocabulary.keys() - scores.keys())
    backend.model = BPE(vocab=vocabulary, merges=merges, fuse_unk=True, byte_fallback=True, unk_token=backend.model.unk_token)
