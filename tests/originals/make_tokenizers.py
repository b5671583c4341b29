"""Make the two small tokenizers of the fixtures: ``python tests/originals/make_tokenizers.py`` (environment: README.md here).

As the real ones are: Llama's is SentencePiece BPE with split digits and byte fallback, and comes as lmsys/vicuna-7b-v1.5 has
it, ``tokenizer.model`` with ``legacy: false`` in its configuration and no ``tokenizer.json``. Phi-2's is GPT-2's byte-level
BPE, as ``vocab.json`` and ``merges.txt``.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import material
import sentencepiece
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. USER: ASSISTANT: "
)


def corpus() -> list[str]:
    samples = [*material.captions(60, 5), *material.conversations(60, 6)]
    return [SYSTEM] * 20 + [turn["value"] for sample in samples for turn in sample["conversations"]]


def make_llama(folder: Path) -> None:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()),
        model_writer=model,
        model_type="bpe",
        vocab_size=material.LLAMA_VOCABULARY,
        split_digits=True,
        byte_fallback=True,
        normalization_rule_name="identity",
        add_dummy_prefix=True,
        remove_extra_whitespaces=False,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
    )
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "legacy": False,
        "add_bos_token": True,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config) + "\n")


def make_phi(folder: Path) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=material.PHI_VOCABULARY, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *model["merges"]]) + "\n")
    special = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    config = {"tokenizer_class": "CodeGenTokenizer", "model_max_length": 2048, "add_prefix_space": False, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(config) + "\n")


def main() -> None:
    for name, make in (("llama", make_llama), ("phi", make_phi)):
        folder = material.FIXTURES / name
        folder.mkdir(parents=True, exist_ok=True)
        make(folder)


if __name__ == "__main__":
    main()
