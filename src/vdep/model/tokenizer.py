"""The tokenizer of a language model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import ConfigError


def load_tokenizer(folder: Path) -> Any:
    """The fast tokenizer, with a pad token (the unknown or the end token) where it has none.

    Raises:
        ConfigError: where there is no such folder; nothing is looked up on a hub.
    """
    from transformers import AutoTokenizer, LlamaTokenizer

    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder with a tokenizer")

    described = any((folder / name).is_file() for name in ("tokenizer_config.json", "tokenizer.json"))
    if not described and (folder / "tokenizer.model").is_file():
        # a SentencePiece model alone: Llama's, as the originals used it
        tokenizer = LlamaTokenizer.from_pretrained(folder, local_files_only=True, legacy=False, add_bos_token=True)
    else:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    return tokenizer
