"""Conversation -> token ids and labels, for the templates ``plain``, ``vicuna_v1`` and ``phi``.

A conversation is rendered as a list of segments, each either supervised or not, and the labels follow from where a segment
begins and ends. The text between two images is tokenised once, as a whole, and its tokens are assigned to segments by their
character offsets: no substring is ever tokenised a second time, which is what made the original mask whole samples when a
tokenizer changed ("tokenization mismatch", LLaVA issues 1166, 779, 1706).

Labels as in the originals (LLaVA ``preprocess_plain``, ``preprocess_v1``; TinyLLaVA ``phi_template``): ``plain`` trains the
caption and its newline and has no end token; the others train every answer with its end token and with the space before it.
What a model is asked at evaluation ends in "ASSISTANT:", so that space is the first thing that it has to say, and Llama's
tokenizer, which splits digits, makes it a token of its own before "2" (tests/test_original_labels.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from tokenizers.pre_tokenizers import Metaspace

IGNORE_INDEX = -100
IMAGE_INDEX = -200
AUTO_IMAGE_INDEX = -201
"""A trained ``<auto_image>``, before the image of a sample in VDEP mode (``VdepSettings.auto_image``)."""
IMAGE_PLACEHOLDER = "<image>"


class Tokenizer(Protocol):
    """The part of a fast Hugging Face tokenizer that is used."""

    eos_token: str

    def __call__(self, text: str, **kwargs: Any) -> Any: ...


class ConversationDefect(Exception):
    """A conversation that cannot be trained on. ``kind`` is one of the kinds in the report of defects."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Template:
    """A conversation format. ``plain`` (``system is None``) is the caption alone: the human's words are thrown away."""

    name: str
    system: str | None

    @property
    def is_plain(self) -> bool:
        return self.system is None


SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
TEMPLATES = {
    # LLaVA conversation.py: conv_llava_plain, conv_vicuna_v1; TinyLLaVA phi_template.py. The last two differ in the
    # tokenizer's end token and in whether the tokenizer puts a start token first.
    "plain": Template("plain", None),
    "vicuna_v1": Template("vicuna_v1", SYSTEM),
    "phi": Template("phi", SYSTEM),
}


@dataclass(frozen=True)
class Segment:
    """A piece of text; an image when ``is_image``. ``supervised`` text is what the model learns to say."""

    text: str
    supervised: bool = False
    is_image: bool = False


@dataclass(frozen=True)
class Encoded:
    """``input_ids`` (length,) with one ``IMAGE_INDEX`` per image, and ``labels`` (length,) with ``IGNORE_INDEX`` elsewhere.

    Labels stand at the position of their own token (not shifted). ``cut`` counts the tokens that ``max_length`` took away.
    ``masked_by_original`` says that the original code would have trained nothing of this sample.
    """

    input_ids: np.ndarray
    labels: np.ndarray
    cut: int = 0
    masked_by_original: bool = False

    @property
    def images(self) -> int:
        return int(np.count_nonzero(self.input_ids == IMAGE_INDEX))

    @property
    def supervised(self) -> int:
        return int(np.count_nonzero(self.labels != IGNORE_INDEX))


def check_turns(conversation: Any) -> list[tuple[str, str]]:
    """[(speaker, text), ...] that begins with the human and alternates; a first turn of the assistant is skipped.

    Raises:
        ConversationDefect: where there is no question, no answer, or the speakers do not alternate.
    """
    if not isinstance(conversation, Sequence) or isinstance(conversation, str) or not conversation:
        raise ConversationDefect("empty_conversation", "the conversation is empty")
    turns: list[tuple[str, str]] = []
    for turn in conversation:
        if not isinstance(turn, dict) or not isinstance(turn.get("value"), str) or turn.get("from") not in ("human", "gpt"):
            raise ConversationDefect("malformed_turn", 'every turn needs "from" (human or gpt) and a text "value"')
        turns.append((turn["from"], turn["value"]))
    if turns[0][0] != "human":
        turns = turns[1:]
    if not any(speaker == "gpt" for speaker, _ in turns):
        raise ConversationDefect("no_answer", "no turn is answered")
    for i, (speaker, text) in enumerate(turns):
        if speaker != ("human", "gpt")[i % 2]:
            raise ConversationDefect("turns_do_not_alternate", f"turn {i} is spoken by {speaker!r} again")
        if speaker == "gpt" and not text.strip():
            raise ConversationDefect("empty_answer", f"the answer in turn {i} is empty")
    return turns if len(turns) % 2 == 0 else turns[:-1]


def check_images(turns: list[tuple[str, str]], has_image: bool) -> None:
    """One placeholder, in a human turn, where the sample names an image, and none where it does not.

    Raises:
        ConversationDefect: otherwise. The original goes on, with the wrong picture or with none.
    """
    in_human = sum(text.count(IMAGE_PLACEHOLDER) for speaker, text in turns if speaker == "human")
    in_answers = sum(text.count(IMAGE_PLACEHOLDER) for speaker, text in turns if speaker == "gpt")
    if in_answers:
        raise ConversationDefect("image_in_answer", f"an answer contains {IMAGE_PLACEHOLDER}")
    if has_image and in_human == 0:
        raise ConversationDefect("image_without_placeholder", f"names an image but no turn contains {IMAGE_PLACEHOLDER}")
    if not has_image and in_human:
        raise ConversationDefect("placeholder_without_image", f"contains {IMAGE_PLACEHOLDER} but names no image")
    if in_human > 1:
        raise ConversationDefect("several_placeholders", f"contains {IMAGE_PLACEHOLDER} {in_human} times for one image")


def question_segments(text: str) -> list[Segment]:
    """A human turn: the image moves to the front of its turn (LLaVA ``preprocess_multimodal``)."""
    if IMAGE_PLACEHOLDER not in text:
        return [Segment(text)]
    rest = text.replace(IMAGE_PLACEHOLDER, "").strip()
    return [Segment("", is_image=True), Segment(f"\n{rest}" if rest else "")]


def training_segments(turns: list[tuple[str, str]], template: Template, end: str) -> list[Segment]:
    """The segments of a conversation; ``end`` is the tokenizer's end token, as text."""
    if template.is_plain:
        image = [Segment("", is_image=True)] if IMAGE_PLACEHOLDER in turns[0][1] else []
        return [*image, Segment(turns[1][1], supervised=True), Segment("\n", supervised=True)]
    segments = [Segment(f"{template.system} ")]
    for (_, question), (_, answer) in zip(turns[0::2], turns[1::2], strict=True):
        segments += [Segment("USER: "), *question_segments(question), Segment(" ASSISTANT:")]
        segments += [Segment(f" {answer}", supervised=True), Segment(end, supervised=True)]
    return segments


def masked_by_original(turns: list[tuple[str, str]], template: Template, tokenizer: Tokenizer, unanswered: bool) -> bool:
    """Whether LLaVA's ``preprocess_v1`` loses count of a conversation, and so masks all of it ("tokenization mismatch").

    It cuts the finished text at every end token and then at every " ASSISTANT: ", wherever they stand, and wants one of these
    in each part. It pads with the unknown token, and so takes one in the text for padding. It writes nothing for a question
    without a character, not even the space before "ASSISTANT: ". A last question that is ``unanswered`` (not in ``turns``) has
    nothing to cut at; on that the Factory stops.
    """
    if template.is_plain:
        return False
    end, unknown = tokenizer.eos_token, getattr(tokenizer, "unk_token", None)
    segments = training_segments(turns, template, end)
    text = "".join(IMAGE_PLACEHOLDER if segment.is_image else segment.text for segment in segments)
    parts = text.removesuffix(end).split(end)
    counted = all(part.count(" ASSISTANT: ") == 1 for part in parts)
    # the Factory's end token is the unknown one, and it counts those
    padded = unknown is not None and unknown != end and unknown in text
    nothing_asked = template.name == "vicuna_v1" and any(not question for _, question in turns[0::2])
    return unanswered or nothing_asked or padded or not counted


def prompt_segments(question: str, template: Template) -> list[Segment]:
    """What a model is asked at evaluation: one human turn, with ``<image>`` wherever the benchmark put it.

    ``phi`` treats a question as its training does: the Factory moves the image to the front and strips blanks at both ends.
    It would lose all images but one, so a question with several stays as it is. LLaVA's evaluation strips nothing.
    """
    parts: list[Segment] = [Segment(f"{template.system or SYSTEM} "), Segment("USER: ")]
    if template.name == "phi" and question.count(IMAGE_PLACEHOLDER) == 1:
        return [*parts, *question_segments(question), Segment(" ASSISTANT:")]
    for i, piece in enumerate(question.split(IMAGE_PLACEHOLDER)):
        if i:
            parts.append(Segment("", is_image=True))
        parts.append(Segment(piece))
    return [*parts, Segment(" ASSISTANT:")]


def chat_segments(rounds: Sequence[tuple[str, str]], question: str, template: Template, end: str) -> list[Segment]:
    """What a model is asked after some rounds of (question, answer): the first as at evaluation, the others as in training.

    ``end`` is the tokenizer's end token, as text.
    """
    segments: list[Segment] = []
    for asked, answer in rounds:
        segments += [*_turn(asked, template, bool(segments)), Segment(f" {answer}"), Segment(end)]
    return [*segments, *_turn(question, template, bool(segments))]


def _turn(question: str, template: Template, later: bool) -> list[Segment]:
    return prompt_segments(question, template)[1 if later else 0 :]


def encode_segments(segments: list[Segment], tokenizer: Tokenizer) -> Encoded:
    """Tokenise the text between images as one piece each and label every token by the segment it ends in.

    A start token is kept only at the very beginning, as in LLaVA's ``tokenizer_image_token``.
    """
    ids: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    pieces: list[list[Segment]] = [[]]
    for segment in segments:
        if segment.is_image:
            pieces.append([])
        else:
            pieces[-1].append(segment)
    for number, piece in enumerate(pieces):
        if number:
            ids.append(np.array([IMAGE_INDEX], np.int32))
            labels.append(np.array([IGNORE_INDEX], np.int32))
        piece_ids, piece_labels = _encode_piece(piece, tokenizer, at_start=number == 0)
        ids.append(piece_ids)
        labels.append(piece_labels)
    return Encoded(np.concatenate(ids), np.concatenate(labels))


def _encode_piece(piece: list[Segment], tokenizer: Tokenizer, at_start: bool) -> tuple[np.ndarray, np.ndarray]:
    piece = [segment for segment in piece if segment.text]
    if piece and piece[0].text.startswith((" ", "▁")) and swallows_a_first_space(tokenizer):
        piece = [replace(piece[0], text=f" {piece[0].text}"), *piece[1:]]
    text = "".join(segment.text for segment in piece)
    encoding = tokenizer(text, return_offsets_mapping=True, add_special_tokens=at_start)
    ids = np.asarray(encoding["input_ids"], np.int32)
    labels = np.full(len(ids), IGNORE_INDEX, np.int32)
    supervised = np.zeros(len(text) + 1, bool)
    position = 0
    for segment in piece:
        supervised[position : position + len(segment.text)] = segment.supervised
        position += len(segment.text)
    for i, (_, stop) in enumerate(encoding["offset_mapping"]):
        # a token belongs to the segment that holds its last character: a run of spaces straddles a question and its answer.
        # A start token ends at 0; where offsets leave spaces out, a token of spaces alone still ends where it ended
        if stop > 0 and supervised[stop - 1]:
            labels[i] = ids[i]
    return ids, labels


def swallows_a_first_space(tokenizer: Tokenizer) -> bool:
    """Whether a text "x" and a text " x" have the same tokens.

    SentencePiece puts a space before every text, and so did the slow tokenizer of the originals; today's fast one leaves it
    out where there is one already.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    before = backend.pre_tokenizer if backend is not None else None
    return isinstance(before, Metaspace) and before.prepend_scheme != "never"


def encode_conversation(
    conversation: Any,
    has_image: bool,
    template: Template,
    tokenizer: Tokenizer,
    image_tokens: int,
    max_length: int,
) -> Encoded:
    """Check, render and tokenise one conversation of LLaVA's JSON.

    ``max_length`` counts an image as its ``image_tokens``; what goes beyond is cut off at the end.

    Raises:
        ConversationDefect: where the sample cannot be trained on; nothing is masked silently.
    """
    turns = check_turns(conversation)
    check_images(turns, has_image)
    encoded = encode_segments(training_segments(turns, template, tokenizer.eos_token), tokenizer)
    unanswered = conversation[-1]["from"] == "human"
    encoded = replace(encoded, masked_by_original=masked_by_original(turns, template, tokenizer, unanswered))
    expanded = len(encoded.input_ids) + encoded.images * (image_tokens - 1)
    if expanded > max_length:
        keep = len(encoded.input_ids) - (expanded - max_length)
        image_at = np.flatnonzero(encoded.input_ids == IMAGE_INDEX)
        if len(image_at) and keep <= image_at[-1]:
            raise ConversationDefect("image_beyond_max_length", f"max_length {max_length} leaves no room for the image")
        encoded = replace(encoded, input_ids=encoded.input_ids[:keep], labels=encoded.labels[:keep], cut=expanded - max_length)
    if encoded.supervised == 0:
        raise ConversationDefect("no_supervised_token", f"max_length {max_length} leaves no token of an answer")
    return encoded
