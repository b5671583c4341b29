"""Ids and labels are the originals' own, with the published vocabularies, on made-up conversations that are hard on both.

``tests/originals/labels.json`` holds what LLaVA's and TinyLLaVA Factory's code made of them (``tests/originals/labels.py``
tells with which versions): a digest of each row of ids and of labels, or null where the original trains nothing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import published
import pytest

from vdep.data.conversation import TEMPLATES, Encoded, encode_conversation, encode_segments, prompt_segments
from vdep.data.tokenizer import load_tokenizer

ORIGINALS = Path(__file__).with_name("originals")
sys.path.insert(0, str(ORIGINALS))

from conversations import digest, make_conversations, make_prompts  # noqa: E402

GOLDEN: dict[str, Any] = json.loads((ORIGINALS / "labels.json").read_text())
NO_CUT = 1_000_000
Load = Callable[[str], Any]


@pytest.fixture(scope="module")
def load(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Load:
    """(name of a folder) -> its tokenizer: ``vicuna`` and ``phi`` as they are published, and what is saved from them."""
    cache = Path(request.config.cache.mkdir("vocabularies"))
    folder = tmp_path_factory.mktemp("published")
    published.write_vicuna(folder / "vicuna", cache)
    published.write_phi(folder / "phi", cache)
    published.write_phi(folder / "phi-slow", cache)
    (folder / "phi-slow" / "tokenizer.json").unlink()
    loaded: dict[str, Any] = {}

    def load(name: str) -> Any:
        if name not in loaded:
            if name.endswith("-saved"):
                load(name.removesuffix("-saved")).save_pretrained(folder / name)
            loaded[name] = load_tokenizer(folder / name)
        return loaded[name]

    return load


def encoded(sample: dict[str, Any], template: str, tokenizer: Any) -> Encoded:
    return encode_conversation(sample["conversations"], "image" in sample, TEMPLATES[template], tokenizer, 1, NO_CUT)


def is_misread(sample: dict[str, Any]) -> bool:
    """Whether a question ends in " ASSISTANT:" itself. The originals cut there, and train what follows: "ASSISTANT: answer"."""
    questions = [turn["value"] for turn in sample["conversations"] if turn["from"] == "human"]
    rendered = [f"\n{q.replace('<image>', '').strip()}" if "<image>" in q else q for q in questions]
    return any(f"USER: {question}".endswith(" ASSISTANT:") for question in rendered)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("golden", "folder"),
    [
        ("plain/vicuna", "vicuna"),
        ("plain/phi", "phi"),
        ("vicuna_v1/vicuna", "vicuna"),
        ("vicuna_v1/vicuna", "vicuna-saved"),
        ("phi/phi", "phi"),
        ("phi/phi", "phi-slow"),
        ("phi/phi", "phi-saved"),
    ],
)
def test_ids_and_labels_are_the_originals(golden: str, folder: str, load: Load) -> None:
    template, expected = golden.split("/")[0], GOLDEN[golden]["conversations"]
    tokenizer, equal, misread = load(folder), 0, 0
    samples = make_conversations(template)
    assert len(samples) == len(expected)
    for number, (sample, theirs) in enumerate(zip(samples, expected, strict=True)):
        ours = encoded(sample, template, tokenizer)
        where = f"{golden} {number}: {sample!a}"
        assert ours.masked_by_original == (theirs is None), where
        if theirs is None:
            assert ours.supervised > 0, where
            continue
        ids, labels = digest(ours.input_ids), digest(ours.labels)
        assert ids == theirs[0], where
        if template != "plain" and is_misread(sample):
            misread += 1
            assert labels != theirs[1], where
        else:
            equal += 1
            assert labels == theirs[1], where
    assert equal >= 1000
    assert equal + misread + expected.count(None) == len(samples)
    assert (misread == 0) == (template == "plain"), "the control: the odd case is among the samples"


@pytest.mark.parametrize(
    ("golden", "folder"),
    [
        ("vicuna_v1/vicuna", "vicuna"),
        ("vicuna_v1/vicuna", "vicuna-saved"),
        ("phi/phi", "phi"),
        ("phi/phi", "phi-slow"),
        ("phi/phi", "phi-saved"),
    ],
)
def test_evaluation_prompts_are_the_originals(golden: str, folder: str, load: Load) -> None:
    """``plain`` is no format for questions: stage 1 is not evaluated."""
    template, tokenizer = golden.split("/")[0], load(folder)
    prompts = make_prompts(template)
    assert len(prompts) == len(GOLDEN[golden]["prompts"]) == 200
    for question, expected in zip(prompts, GOLDEN[golden]["prompts"], strict=True):
        ours = encode_segments(prompt_segments(question, TEMPLATES[template]), tokenizer)
        assert digest(ours.input_ids) == expected, ascii(question)


def test_some_samples_are_kept_whole(load: Load) -> None:
    for golden, content in GOLDEN.items():
        template, folder = golden.split("/")
        for sample, example in zip(make_conversations(template), content["examples"], strict=False):
            ours = encoded(sample, template, load(folder))
            if any(label != -100 for label in example["labels"]) and not is_misread(sample):
                assert ours.input_ids.tolist() == example["input_ids"]
                assert ours.labels.tolist() == example["labels"]


@pytest.mark.parametrize(
    ("answer", "tokens"),
    [
        ("2", ["▁", "2"]),
        ("1999", ["▁", "1", "9", "9", "9"]),
        ("45%", ["▁", "4", "5", "%"]),
        ("漢字", ["▁", "漢", "字"]),
        ("\nYes", ["▁", "<0x0A>", "Yes"]),
        ("😀", ["▁", "<0xF0>", "<0x9F>", "<0x98>", "<0x80>"]),
        (" Yes", ["▁", "▁Yes"]),
        ("Yes", ["▁Yes"]),
    ],
)
def test_llama_learns_to_say_the_space_before_an_answer(answer: str, tokens: list[str], load: Load) -> None:
    """What the prompt "ASSISTANT:" is followed by; it was masked where it is a token of its own."""
    tokenizer = load("vicuna")
    sample = {"conversations": [{"from": "human", "value": "How many?"}, {"from": "gpt", "value": answer}]}
    ours = encoded(sample, "vicuna_v1", tokenizer)
    assert tokenizer.convert_ids_to_tokens(ours.labels[ours.labels != -100]) == [*tokens, "</s>"]
