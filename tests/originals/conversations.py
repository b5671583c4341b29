"""Made-up conversations and questions, by seed: what a tokenizer or a template may trip over. Standard library only.

``tests/originals/labels.py`` runs the originals' code on them, ``tests/test_original_labels.py`` runs ours.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable
from typing import Any

N_CONVERSATIONS, N_PROMPTS = 1200, 200


def _words(text: str) -> list[str]:
    return text.split()


SHORT = _words("Yes No 2 7 1999 45% 3.14 10:45 -1 $5 A B. red 漢字 二 😀 é ß . \u200b (a)")
WORDS = _words(
    "a the cat dog red left right on two 2 12 1999 45% 3.5 USER ASSISTANT, picture: shows. What color is it? 猫 が います "
    "漢字 圖片 한국어 العربية русский naïve Zürich 👍🏽 👩\u200d👩\u200d👧 🇨🇭 x=1; {} {{content}} <b> [INST] \\n # ▁ <0x0A> "
    "e\u0301 \u202eabc ½ ² ١٢ ⅷ 1,000,000 0.5e-3 http://a.b/c?d=1 C++ it's I'm we'll"
)
BLANKS = [" ", " ", " ", "  ", "   ", "\n", "\n\n", "\t", "\t\t", " \n ", "\r\n", "\u00a0", "\u3000", ""]
BLANKS += [" " * 4, " " * 17, " " * 33, "\t" * 10]
LEADS = ["", "", "", "", " ", "  ", "\n", "\n\n", "\t", " \t", "\u3000", "▁", " " * 5, "\r\n"]
SPECIAL = ["</s>", "<s>", "<unk>", "<|endoftext|>", " ASSISTANT: ", "ASSISTANT:", " ASSISTANT:", "USER: ", "</s>USER: "]
SPECIAL.append("<0x41>")


def _text(rng: random.Random, longest: int) -> str:
    parts: list[str] = []
    for _ in range(rng.randint(1, longest)):
        parts += [rng.choice(WORDS), rng.choice(BLANKS) if rng.random() < 0.3 else " "]
    if rng.random() < 0.03:
        parts.insert(rng.randrange(len(parts) + 1), rng.choice(SPECIAL))
    return "".join(parts if rng.random() < 0.2 else parts[:-1])


def _answer(rng: random.Random) -> str:
    body = rng.choice(SHORT) if rng.random() < 0.5 else _text(rng, 12)
    text = rng.choice(LEADS) + body + rng.choice(("", "", "", " ", "\n", "."))
    # an answer of blanks alone is a defect here; the originals train its end token
    return text if text.strip() else body + "."


def _question(rng: random.Random) -> str:
    if rng.random() < 0.03:
        return rng.choice(("", " ", "\n", "?"))
    return rng.choice(("", "", " ", "\n")) + _text(rng, 10) + (" ASSISTANT:" if rng.random() < 0.005 else "")


def _with_image(rng: random.Random, text: str) -> str:
    return rng.choice((f"<image>\n{text}", f"<image>\n{text}", f"{text}\n<image>", f"<image>{text}", f"{text} <image> {text}"))


def make_conversations(template: str, seed: int = 9, count: int = N_CONVERSATIONS) -> list[dict[str, Any]]:
    """Samples as in LLaVA's JSON. ``plain`` has a caption each; the others up to four turns, with an image in most."""
    rng = random.Random(f"{template}/{seed}")
    samples: list[dict[str, Any]] = []
    for _ in range(count):
        turns: list[tuple[str, str]] = []
        has_image = template == "plain" or rng.random() < 0.7
        pairs = 1 if template == "plain" else rng.choice((1, 1, 1, 2, 3, 4))
        image_turn = rng.randrange(pairs) if rng.random() < 0.1 else 0
        for number in range(pairs):
            question = _question(rng)
            turns.append(("human", _with_image(rng, question) if has_image and number == image_turn else question))
            turns.append(("gpt", _answer(rng)))
        if template != "plain":
            if rng.random() < 0.03:
                turns.insert(0, ("gpt", _answer(rng)))
            if rng.random() < 0.02:
                turns.append(("human", _question(rng)))
        sample: dict[str, Any] = {"conversations": [{"from": speaker, "value": text} for speaker, text in turns]}
        samples.append(({"image": "picture.jpg"} if has_image else {}) | sample)
    return samples


def make_prompts(template: str, seed: int = 9, count: int = N_PROMPTS) -> list[str]:
    """Questions as a benchmark asks them, with ``<image>`` where the picture stands.

    ``phi`` gets one picture at most: of several the Factory would keep one placeholder.
    """
    rng = random.Random(f"prompt/{template}/{seed}")
    prompts = []
    for _ in range(count):
        text = _question(rng).replace("<|endoftext|>", "") + rng.choice(("", "", " ", "\n", "\nAnswer with 1 word."))
        kind = rng.random()
        if kind < 0.2:
            prompts.append(text)
        elif kind < 0.9 or template == "phi":
            prompts.append(_with_image(rng, text))
        else:
            prompts.append(f"<image> <image>\n{text}")
    return prompts


def digest(numbers: Iterable[int]) -> str:
    """48 bits of a row of ids or labels."""
    return hashlib.sha256(json.dumps([int(n) for n in numbers]).encode()).hexdigest()[:12]
