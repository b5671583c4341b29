"""What a sample becomes: ``vdep inspect`` shows its tokens, and which of them are trained in which mode.

With a question in the place of data: what a model is asked at evaluation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import DataError
from .conversation import (
    IGNORE_INDEX,
    IMAGE_INDEX,
    IMAGE_PLACEHOLDER,
    TEMPLATES,
    ConversationDefect,
    Encoded,
    encode_conversation,
    encode_segments,
    prompt_segments,
)
from .prepare import read_conversations


@dataclass(frozen=True)
class Inspected:
    """A sample, encoded, or the reason why it cannot be (then ``encoded`` is None)."""

    index: int
    id: str
    image: str | None
    encoded: Encoded | None
    defect: dict[str, str] | None = None

    def as_json(self) -> str:
        """One line: ``input_ids`` with one -200 for the image, ``labels`` with -100 where no text is trained."""
        row = {key: value for key, value in asdict(self).items() if key != "encoded" and value is not None}
        if self.encoded is not None:
            row |= {"input_ids": self.encoded.input_ids.tolist(), "labels": self.encoded.labels.tolist()}
        return json.dumps(row, ensure_ascii=False)


def inspect(
    data: Path, template: str, tokenizer: Any, image_tokens: int, max_length: int, index: int | None = None
) -> Iterator[Inspected]:
    """The samples of a file of LLaVA's JSON, or the one at ``index`` (from 0). No image is opened.

    Raises:
        DataError: where the file holds no list of samples, or none at ``index``.
    """
    samples = read_conversations(data)
    if index is not None and not 0 <= index < len(samples):
        raise DataError(f"{data} has no sample {index}: it holds {len(samples)}, counted from 0")
    for number in range(len(samples)) if index is None else [index]:
        sample = samples[number] if isinstance(samples[number], dict) else {}
        image = sample.get("image")
        name = str(sample.get("id", number))
        try:
            encoded = encode_conversation(
                sample.get("conversations"), image is not None, TEMPLATES[template], tokenizer, image_tokens, max_length
            )
        except ConversationDefect as defect:
            yield Inspected(number, name, image, None, {"kind": defect.kind, "message": str(defect)})
        else:
            yield Inspected(number, name, image, encoded)


def print_table(shown: Inspected, template: str, tokenizer: Any, image_tokens: int, console: Console) -> None:
    """A row for each token: text, id, label, and the mode in which it is trained. Stage 1 alone (``plain``) has a VDEP mode."""
    encoded = shown.encoded
    assert encoded is not None
    title = f"sample {shown.index}, id {shown.id}" + (f", image {shown.image}" if shown.image else ", text only")
    table = Table(title=Text(title), title_justify="left", show_edge=False, pad_edge=False)
    for name in ("position", "token", "id", "label", "mode"):
        table.add_column(name, justify="left" if name in ("token", "mode") else "right")
    for position, (token, label) in enumerate(zip(encoded.input_ids.tolist(), encoded.labels.tolist(), strict=True)):
        if token == IMAGE_INDEX:
            text, mode, style = (
                f"{IMAGE_PLACEHOLDER} x {image_tokens}",
                "VDEP" if template == "plain" else "",
                "bold magenta",
            )
        else:
            text = readable(token, tokenizer)
            mode, style = ("LLaVA", "bold green") if label != IGNORE_INDEX else ("", "dim")
        table.add_row(*(Text(str(cell)) for cell in (position, text, token, label, mode)), style=style)
    console.print(table)
    total = len(encoded.input_ids) + encoded.images * (image_tokens - 1)
    parts = [f"{total} tokens", f"{encoded.supervised} of text trained in LLaVA mode"]
    if encoded.images and template == "plain":
        parts.append(f"{image_tokens * encoded.images} of the image trained in VDEP mode")
    if encoded.cut:
        parts.append(f"{encoded.cut} cut off at the end")
    if encoded.masked_by_original:
        parts.append("the original code would have trained nothing of it")
    console.print(Text(", ".join(parts)))


@dataclass(frozen=True)
class InspectedQuestion:
    """The prompt of a question. The first token of the answer comes after the last one here."""

    question: str
    template: str
    encoded: Encoded

    def as_json(self) -> str:
        """One line: ``input_ids`` with one -200 for each image."""
        row = {"question": self.question, "template": self.template, "input_ids": self.encoded.input_ids.tolist()}
        return json.dumps(row, ensure_ascii=False)


def inspect_question(question: str, template: str, tokenizer: Any) -> InspectedQuestion:
    """What a model is asked, with ``<image>`` where the question has it: lmms-eval's questions begin with it and a newline."""
    return InspectedQuestion(question, template, encode_segments(prompt_segments(question, TEMPLATES[template]), tokenizer))


def print_question(shown: InspectedQuestion, tokenizer: Any, image_tokens: int, console: Console) -> None:
    """A row for each token of the prompt: text and id."""
    encoded = shown.encoded
    table = Table(title=f"a question, template {shown.template}", title_justify="left", show_edge=False, pad_edge=False)
    for name in ("position", "token", "id"):
        table.add_column(name, justify="left" if name == "token" else "right")
    for position, token in enumerate(encoded.input_ids.tolist()):
        is_image = token == IMAGE_INDEX
        text = f"{IMAGE_PLACEHOLDER} x {image_tokens}" if is_image else readable(token, tokenizer)
        table.add_row(*(Text(str(cell)) for cell in (position, text, token)), style="bold magenta" if is_image else None)
    console.print(table)
    total = len(encoded.input_ids) + encoded.images * (image_tokens - 1)
    console.print(Text(f"{total} tokens, and then the model's answer"))


def readable(token: int, tokenizer: Any) -> str:
    """A token as it can be read: a space as U+2423, a line end as \\n."""
    entry = tokenizer.convert_ids_to_tokens(token)
    text = tokenizer.decode([token])
    # SentencePiece's decoder drops a leading space; a part of a character decodes to nothing that can be read
    shown = entry if entry.startswith("▁") or not text or "\ufffd" in text else text
    return shown.replace("▁", "␣").replace(" ", "␣").replace("\n", "\\n").replace("\t", "\\t")
