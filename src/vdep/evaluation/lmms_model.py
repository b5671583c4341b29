"""Our model for lmms-eval: batched by length, greedy, with the answers of batch size 1; nothing is swallowed.

Prompts and image positions as in LLaVA's own evaluation (the simple ``llava`` class of lmms-eval): the images of a question
go to its front, unless the benchmark wrote ``<image>`` itself. Answers are written down as they come, so that an interrupted
evaluation goes on where it was; weights are loaded when the first question needs them, which is never where all is answered.
"""

from __future__ import annotations

import copy
import json
import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lmms_eval.api.instance import Instance
from PIL import Image
from tqdm import tqdm
from transformers import AutoConfig

from ..data.conversation import IMAGE_INDEX, IMAGE_PLACEHOLDER, TEMPLATES, encode_segments, prompt_segments
from ..data.images import ImageTransform, load_processor
from ..data.tokenizer import load_tokenizer
from ..errors import EvaluationError
from ..model.llava import load_checkpoint
from .answerer import Answerer
from .answers import AnswerLog, answer_key
from .pictures import decoded, identity, prefetched, requested

log = logging.getLogger(__name__)

DEFAULT_MAX_NEW_TOKENS = 1024
BLIND = "blind"


@dataclass(frozen=True)
class Question:
    """One request, ready for the model, but without its pictures.

    ``input_ids`` hold an image index per picture that is shown; ``pictures`` are their identities; ``unused`` counts those
    that the prompt has no place for. ``length`` is the number of positions that the prompt takes. Questions of the same ``key``
    have the same answer.
    """

    request: Instance
    prompt: str
    input_ids: np.ndarray
    pictures: tuple[str, ...]
    unused: int
    settings: dict[str, Any]
    length: int
    key: str

    @property
    def max_new_tokens(self) -> int:
        return int(self.settings.get("max_new_tokens", DEFAULT_MAX_NEW_TOKENS))


class VdepModel(Answerer):
    """A saved checkpoint behind lmms-eval's interface.

    Args:
        answers: the answers of the two passes are kept in files whose names begin so.
        decoders: threads that decode pictures ahead of the model; 0 decodes them when their batch is due.

    Attributes:
        blind: every picture is replaced by one of the processor's mean colour: what is scored then is what the model
            knows without looking.
        questions: the questions of the last pass, in lmms-eval's order.
        pictures: what tells the pictures of each document from others, the SHA-256 of their files; from the pass that sees.
    """

    def __init__(
        self,
        checkpoint: Path,
        template: str,
        image_fit: str,
        *,
        device: str,
        dtype: torch.dtype,
        batch_size: int,
        max_new_tokens: int | None = None,
        answers: Path | None = None,
        decoders: int = 0,
    ) -> None:
        super().__init__(device)
        self.checkpoint = checkpoint
        self.template = TEMPLATES[template]
        self.dtype = dtype
        self.tokenizer = load_tokenizer(checkpoint)
        self.transform = ImageTransform(load_processor(checkpoint), image_fit)
        config = AutoConfig.from_pretrained(checkpoint)
        self.image_tokens: int = config.image_seq_length
        self.image_token_id: int = config.image_token_index
        self.positions: int = config.text_config.max_position_embeddings
        self.batch_size = batch_size
        self.max_new_tokens = max_new_tokens
        self.answers = answers
        self.decoders = decoders
        self.questions: list[Question] = []
        self.pictures: dict[int, str] = {}

    @cached_property
    def model(self) -> Any:
        return load_checkpoint(self.checkpoint, self.dtype).to(self._device).eval()

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Answers in the order of the requests. Equal questions are asked once.

        Raises:
            EvaluationError: where a prompt has more ``<image>`` than the document has pictures, or a picture is damaged.
        """
        known = AnswerLog(self.answers.with_suffix(".blind.jsonl" if self.blind else ".seen.jsonl") if self.answers else None)
        self.questions = [self._question(request) for request in requests]
        self._warn()
        open_questions: dict[str, Question] = {}
        for question in self.questions:
            if question.key not in known:
                open_questions.setdefault(question.key, question)
        # the longest first: what does not fit into memory fails at the start
        todo = sorted(open_questions.values(), key=lambda q: (json.dumps(q.settings, sort_keys=True, default=str), -q.length))
        progress = tqdm(total=len(todo), desc="blind" if self.blind else "seen", mininterval=10)
        for batch, pixels in prefetched(self._batches(todo), self._pixels, 0 if self.blind else self.decoders):
            known.add({q.key: answer for q, answer in zip(batch, self._answer(batch, pixels), strict=True)})
            progress.update(len(batch))
        progress.close()
        return [known[q.key] for q in self.questions]

    def summary(self) -> dict[str, Any]:
        """What there is to say about the questions of the last pass: how many differ, and what did not fit.

        ``too_long`` counts prompts that alone take more than the model's ``positions``, and those that do with the longest
        answer that they may have. They are answered all the same, beyond the positions that the model was trained on.
        """
        return {
            "distinct": len({q.key for q in self.questions}),
            "positions": self.positions,
            "too_long": {
                "prompt": sum(q.length > self.positions for q in self.questions),
                "with_answer": sum(q.length + q.max_new_tokens > self.positions for q in self.questions),
            },
            "unused_pictures": sum(q.unused for q in self.questions),
        }

    def _warn(self) -> None:
        summary = self.summary()
        if summary["too_long"]["with_answer"]:
            log.warning(
                "%d prompts are longer than the model's %d positions, and %d are with the longest answer; they are answered "
                "without being cut",
                summary["too_long"]["prompt"], self.positions, summary["too_long"]["with_answer"],
            )  # fmt: skip
        for question in self.questions:
            if question.unused:
                log.warning("%s has %d pictures more than %s in its prompt", _place(question.request, self.task_dict),
                            question.unused, IMAGE_PLACEHOLDER)  # fmt: skip

    def _batches(self, questions: list[Question]) -> list[list[Question]]:
        batches: list[list[Question]] = []
        for question in questions:
            if batches and len(batches[-1]) < self.batch_size and batches[-1][0].settings == question.settings:
                batches[-1].append(question)
            else:
                batches.append([question])
        return batches

    def _question(self, request: Instance) -> Question:
        context, generation, _, document = request.args[:4]
        visuals = requested(request, self.task_dict)
        written = context.count(IMAGE_PLACEHOLDER)
        if written == 0 and visuals:
            written = len(visuals)
            context = f"{' '.join([IMAGE_PLACEHOLDER] * written)}\n{context}"
        if written > len(visuals):
            raise EvaluationError(
                f"{_place(request, self.task_dict)}: the prompt has {written} {IMAGE_PLACEHOLDER} for {len(visuals)} pictures"
            )
        # LLaVA gives the first pictures to what is written, and leaves the others out
        if self.blind:
            shown: tuple[str, ...] = (BLIND,) * written
        else:
            shown = tuple(identity(picture) for picture in visuals[:written])
            self.pictures[document] = " ".join(shown)
        encoded = encode_segments(prompt_segments(context, self.template), self.tokenizer)
        settings = copy.deepcopy(dict(generation))
        if self.max_new_tokens is not None:
            settings["max_new_tokens"] = min(self.max_new_tokens, settings.get("max_new_tokens", self.max_new_tokens))
        return Question(
            request, context, encoded.input_ids, shown, len(visuals) - written, settings,
            length=len(encoded.input_ids) + (self.image_tokens - 1) * written,
            key=answer_key(context, shown, settings),
        )  # fmt: skip

    def _pixels(self, question: Question) -> np.ndarray:
        """(pictures, 3, height, width) of one question; its pictures are read and decoded here, and nowhere kept."""
        if not question.pictures:
            return np.zeros((0, 3, *self.transform.size), np.float32)
        if self.blind:
            height, width = self.transform.size
            images = [Image.new("RGB", (width, height), self.transform.background)] * len(question.pictures)
        else:
            pictures = requested(question.request, self.task_dict)
            images = [decoded(picture) for picture in pictures[: len(question.pictures)]]
        return self.transform(images)

    def _inputs(self, questions: list[Question], pixels: list[np.ndarray]) -> dict[str, torch.Tensor]:
        width = max(q.length for q in questions)
        input_ids = torch.full((len(questions), width), int(self.tokenizer.pad_token_id), dtype=torch.long)
        attention = torch.zeros((len(questions), width), dtype=torch.long)
        for row, question in enumerate(questions):
            is_image = question.input_ids == IMAGE_INDEX
            ids = np.where(is_image, self.image_token_id, question.input_ids)
            ids = np.repeat(ids, np.where(is_image, self.image_tokens, 1))
            input_ids[row, width - len(ids) :] = torch.from_numpy(ids.astype(np.int64))
            attention[row, width - len(ids) :] = 1
        inputs = {"input_ids": input_ids.to(self._device), "attention_mask": attention.to(self._device)}
        images = np.concatenate(pixels)
        if len(images):
            inputs["pixel_values"] = torch.from_numpy(images).to(self._device, self.dtype)
        return inputs

    @torch.inference_mode()
    def _answer(self, questions: list[Question], pixels: list[np.ndarray]) -> list[str]:
        settings = questions[0].settings
        inputs = self._inputs(questions, pixels)
        # a temperature without do_sample means nothing to `generate`; lmms-eval's LLaVA classes sample then (docs/decisions.md)
        sample = bool(settings.get("do_sample", False)) and float(settings.get("temperature") or 0) > 0
        sampling = {key: settings[key] for key in ("temperature", "top_p") if sample and settings.get(key) is not None}
        output = self.model.generate(
            **inputs,
            do_sample=sample,
            num_beams=int(settings.get("num_beams", 1) or 1),
            max_new_tokens=questions[0].max_new_tokens,
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
            use_cache=True,
            **sampling,
        )
        new_tokens = output[:, inputs["input_ids"].shape[1] :]
        until = settings.get("until") or []
        texts = self.tokenizer.batch_decode(new_tokens, skip_special_tokens=True)
        return [_cut(text, [until] if isinstance(until, str) else until) for text in texts]


def _place(request: Instance, task_dict: Any) -> str:
    """Which row of which file a question is, where its documents know."""
    _, _, _, doc_id, task, split = request.args
    return str(getattr(task_dict[task][split][doc_id], "place", f"{task}, document {doc_id}"))


def _cut(text: str, until: list[str]) -> str:
    for stop in until:
        text = text.split(stop)[0]
    return text.strip()
