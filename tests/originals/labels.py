"""Golden ids and labels, made by running the originals: writes ``labels.json`` beside this file.

Not a test, and not run by one: it needs the originals, whose code is no part of this project.

* haotian-liu/LLaVA at c121f04: ``preprocess_multimodal``, ``preprocess_v1``, ``preprocess_plain``, ``tokenizer_image_token``;
* TinyLLaVA/TinyLLaVA_Factory at 53f12c7: the templates ``phi`` and ``pretrain``;
* Python 3.11 with torch 2.13.0, transformers 4.37.2, tokenizers 0.15.1, accelerate 0.21.0, peft 0.8.2, sentencepiece 0.1.99,
  numpy 1.26.4, slow tokenizers.

What the Factory imports and does not use here (deepspeed, names of newer models of transformers) may be stubs. Its templates
have dataclass defaults that Python 3.11 refuses to take; ``hashable_defaults`` lets it.

    python tests/published.py FOLDER                                  # in this project's environment: the two tokenizers
    PYTHONPATH=LLaVA:STUBS          python tests/originals/labels.py FOLDER llava       # in the originals' environment
    PYTHONPATH=TinyLLaVA_Factory:STUBS python tests/originals/labels.py FOLDER factory
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import io
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from conversations import digest, make_conversations, make_prompts

OUTPUT = Path(__file__).with_name("labels.json")
LONG = 1_000_000
"""No sample is cut: cutting is tested elsewhere, and the originals stop counting beyond their maximal length."""

EXAMPLES = 4
"""How many of each set are kept whole, to look at."""


def row(ids: list[int], labels: list[int]) -> list[str] | None:
    """The digests of ids and labels, or None where nothing would be trained: a sample that the original loses."""
    return [digest(ids), digest(labels)] if any(label != -100 for label in labels) else None


def llava(folder: Path) -> dict[str, Any]:
    from llava import conversation as conversation_lib
    from llava.mm_utils import tokenizer_image_token
    from llava.train.train import preprocess, preprocess_multimodal
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "vicuna", model_max_length=LONG, padding_side="right", use_fast=False)
    tokenizer.pad_token = tokenizer.unk_token
    arguments = SimpleNamespace(is_multimodal=True, mm_use_im_start_end=False)

    def encode(sample: dict[str, Any]) -> tuple[list[int], list[int]]:
        sources, has_image = copy.deepcopy([sample["conversations"]]), "image" in sample
        if has_image:
            sources = preprocess_multimodal(sources, arguments)
        encoded = preprocess(sources, tokenizer, has_image=has_image)
        return encoded["input_ids"][0].tolist(), encoded["labels"][0].tolist()

    def ask(question: str) -> list[int]:
        conversation = conversation_lib.conv_templates["vicuna_v1"].copy()
        conversation.append_message(conversation.roles[0], question)
        conversation.append_message(conversation.roles[1], None)
        return list(tokenizer_image_token(conversation.get_prompt(), tokenizer))

    sets = {}
    for name, version in (("plain", "plain"), ("vicuna_v1", "v1")):
        conversation_lib.default_conversation = conversation_lib.conv_templates[version]
        sets[f"{name}/vicuna"] = collect(name, encode, ask if name == "vicuna_v1" else None)
    return sets


def factory(folder: Path) -> dict[str, Any]:
    hashable_defaults()
    from tinyllava.data.template import TemplateFactory
    from transformers import AutoTokenizer

    time.sleep = lambda seconds: None  # the Factory waits five seconds on every sample that it loses
    tokenizer = AutoTokenizer.from_pretrained(folder / "phi", model_max_length=LONG, padding_side="right", use_fast=False)
    tokenizer.pad_token = tokenizer.unk_token

    def encoder(template: Any) -> Any:
        def encode(sample: dict[str, Any]) -> tuple[list[int], list[int]]:
            try:
                encoded = template.encode(copy.deepcopy(sample["conversations"]), tokenizer)
            except AssertionError:  # an unanswered question ends its training
                return [], []
            return encoded["input_ids"].tolist(), encoded["labels"].tolist()

        return encode

    def ask(question: str) -> list[int]:
        messages = [{"from": "human", "value": question}, {"from": "gpt", "value": None}]
        return list(TemplateFactory("phi")().encode(messages, tokenizer, mode="eval")["input_ids"].tolist())

    return {
        "plain/phi": collect("plain", encoder(TemplateFactory("pretrain")()), None),
        "phi/phi": collect("phi", encoder(TemplateFactory("phi")()), ask),
    }


def hashable_defaults() -> None:
    """Python 3.11 refuses an unhashable default, and a dataclass with ``eq`` has no hash: give the Factory's formatters one."""
    original = dataclasses.dataclass

    def dataclass(cls: Any = None, /, **options: Any) -> Any:
        def wrap(cls: Any) -> Any:
            made = original(cls, **options)
            if made.__module__.endswith("template.formatter"):
                made.__hash__ = object.__hash__
            return made

        return wrap if cls is None else wrap(cls)

    dataclasses.dataclass = dataclass


def collect(template: str, encode: Any, ask: Any) -> dict[str, Any]:
    with contextlib.redirect_stdout(io.StringIO()):
        encoded = [encode(sample) for sample in make_conversations(template)]
        asked = [ask(question) for question in make_prompts(template)] if ask else []
    return {
        "conversations": [row(ids, labels) for ids, labels in encoded],
        "prompts": [digest(ids) for ids in asked],
        "examples": [{"input_ids": ids, "labels": labels} for ids, labels in encoded[:EXAMPLES]],
    }


def main() -> None:
    folder, which = Path(sys.argv[1]), sys.argv[2]
    made = {"llava": llava, "factory": factory}[which](folder)
    known = json.loads(OUTPUT.read_text()) if OUTPUT.exists() else {}
    OUTPUT.write_text(json.dumps(known | made, sort_keys=True, separators=(",", ":")) + "\n")
    for name, content in made.items():
        rows = content["conversations"]
        sys.stdout.write(f"{name}: {len(rows)} conversations, {rows.count(None)} lost, {len(content['prompts'])} prompts\n")


if __name__ == "__main__":
    main()
