"""Our model for lmms-eval: batched by length, greedy, with the answers of batch size 1; nothing is swallowed.

Prompts and image positions as in LLaVA's own evaluation (the simple ``llava`` class of lmms-eval): the images of a question
go to its front, unless the benchmark wrote ``<image>`` itself. Answers are written down as they come, so that an interrupted
evaluation goes on where it was.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from PIL import Image
from tqdm import tqdm

from ..data.conversation import IMAGE_INDEX, IMAGE_PLACEHOLDER, TEMPLATES, encode_segments, prompt_segments
from ..data.images import ImageTransform, load_processor
from ..errors import EvaluationError
from ..model.llava import load_checkpoint
from ..model.tokenizer import load_tokenizer

log = logging.getLogger(__name__)

DEFAULT_MAX_NEW_TOKENS = 1024


@dataclass(frozen=True)
class _Question:
    """One request, ready for the model: token ids with an image index per image, and what is needed to answer."""

    row: int
    doc: str
    prompt: str
    input_ids: np.ndarray
    images: list[Image.Image]
    settings: dict[str, Any]

    def length(self, image_tokens: int) -> int:
        return len(self.input_ids) + (image_tokens - 1) * len(self.images)


class AnswerLog:
    """Answers by question, in a file that grows while the evaluation runs. The key holds the prompt."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.answers: dict[str, str] = {}
        if path is not None and path.exists():
            for line in path.read_text().splitlines():
                try:
                    row = json.loads(line)
                    self.answers[row["key"]] = row["answer"]
                except (ValueError, KeyError):
                    break

    @staticmethod
    def key(question: _Question) -> str:
        settings = json.dumps(question.settings, sort_keys=True, default=str)
        return hashlib.sha256(f"{question.doc}\0{question.prompt}\0{settings}".encode()).hexdigest()

    def add(self, questions: list[_Question], answers: list[str]) -> None:
        for question, answer in zip(questions, answers, strict=True):
            self.answers[self.key(question)] = answer
        if self.path is not None:
            with open(self.path, "a") as file:
                for question, answer in zip(questions, answers, strict=True):
                    file.write(json.dumps({"key": self.key(question), "answer": answer}, ensure_ascii=False) + "\n")


class VdepModel(lmms):
    """A saved checkpoint behind lmms-eval's interface.

    Args:
        blind: every picture is replaced by one of the processor's mean colour: what is scored then is what the model
            knows without looking.
    """

    is_simple = True

    def __init__(
        self,
        checkpoint: Path,
        template: str,
        image_path: str,
        *,
        device: str,
        dtype: torch.dtype,
        batch_size: int,
        max_new_tokens: int | None = None,
        answers: Path | None = None,
    ) -> None:
        super().__init__()
        self.template = TEMPLATES[template]
        self._device = torch.device(device)
        self.model = load_checkpoint(checkpoint, dtype).to(self._device).eval()
        self.tokenizer = load_tokenizer(checkpoint)
        self.transform = ImageTransform(load_processor(checkpoint), image_path)
        self.image_tokens: int = self.model.config.image_seq_length
        self.batch_size = batch_size
        self.max_new_tokens = max_new_tokens
        self.answers = answers
        self.blind = False

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def rank(self) -> int:
        return self._rank

    @property
    def world_size(self) -> int:
        return self._world_size

    def clean(self) -> None:
        """lmms-eval would strip the model after a pass; the blind pass needs it again."""

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        raise EvaluationError("no benchmark here asks for likelihoods")

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        raise EvaluationError("no benchmark here asks in several rounds")

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Answers in the order of the requests.

        Raises:
            EvaluationError: where a prompt has another number of ``<image>`` than the document has images.
        """
        known = AnswerLog(self.answers.with_suffix(".blind.jsonl" if self.blind else ".seen.jsonl") if self.answers else None)
        questions = [self._question(row, request) for row, request in enumerate(requests)]
        todo = [q for q in questions if known.key(q) not in known.answers]
        todo.sort(key=lambda q: (json.dumps(q.settings, sort_keys=True, default=str), -q.length(self.image_tokens), q.row))
        progress = tqdm(total=len(todo), desc="blind" if self.blind else "seen", mininterval=10)
        for batch in self._batches(todo):
            known.add(batch, self._answer(batch))
            progress.update(len(batch))
        progress.close()
        return [known.answers[known.key(q)] for q in questions]

    def _batches(self, questions: list[_Question]) -> list[list[_Question]]:
        batches: list[list[_Question]] = []
        for question in questions:
            if batches and len(batches[-1]) < self.batch_size and batches[-1][0].settings == question.settings:
                batches[-1].append(question)
            else:
                batches.append([question])
        return batches

    def _question(self, row: int, request: Instance) -> _Question:
        context, generation, doc_to_visual, doc_id, task, split = request.args
        images = doc_to_visual(self.task_dict[task][split][doc_id]) or []
        written = context.count(IMAGE_PLACEHOLDER)
        if written == 0 and images:
            context = f"{' '.join([IMAGE_PLACEHOLDER] * len(images))}\n{context}"
        elif written != len(images):
            raise EvaluationError(
                f"{task}, document {doc_id}: the prompt has {written} {IMAGE_PLACEHOLDER} for {len(images)} images"
            )
        encoded = encode_segments(prompt_segments(context, self.template), self.tokenizer)
        settings = copy.deepcopy(dict(generation))
        if self.max_new_tokens is not None:
            settings["max_new_tokens"] = min(self.max_new_tokens, settings.get("max_new_tokens", self.max_new_tokens))
        return _Question(row, f"{task}/{split}/{doc_id}", context, encoded.input_ids, list(images), settings)

    def _pixels(self, questions: list[_Question]) -> torch.Tensor | None:
        images = [image for question in questions for image in question.images]
        if not images:
            return None
        if self.blind:
            images = [Image.new("RGB", image.size, self.transform.background) for image in images]
        return torch.from_numpy(self.transform(images)).to(self._device, self.model.dtype)

    def _inputs(self, questions: list[_Question]) -> dict[str, torch.Tensor | None]:
        width = max(q.length(self.image_tokens) for q in questions)
        input_ids = torch.full((len(questions), width), int(self.tokenizer.pad_token_id), dtype=torch.long)
        attention = torch.zeros((len(questions), width), dtype=torch.long)
        for row, question in enumerate(questions):
            is_image = question.input_ids == IMAGE_INDEX
            ids = np.where(is_image, self.model.config.image_token_index, question.input_ids)
            ids = np.repeat(ids, np.where(is_image, self.image_tokens, 1))
            input_ids[row, width - len(ids) :] = torch.from_numpy(ids.astype(np.int64))
            attention[row, width - len(ids) :] = 1
        return {
            "input_ids": input_ids.to(self._device),
            "attention_mask": attention.to(self._device),
            "pixel_values": self._pixels(questions),
        }

    @torch.inference_mode()
    def _answer(self, questions: list[_Question]) -> list[str]:
        settings = questions[0].settings
        inputs = self._inputs(questions)
        sample = bool(settings.get("do_sample", False)) and float(settings.get("temperature") or 0) > 0
        sampling = {key: settings[key] for key in ("temperature", "top_p") if sample and settings.get(key) is not None}
        output = self.model.generate(
            **{key: value for key, value in inputs.items() if value is not None},
            do_sample=sample,
            num_beams=int(settings.get("num_beams", 1) or 1),
            max_new_tokens=int(settings.get("max_new_tokens", DEFAULT_MAX_NEW_TOKENS)),
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
            use_cache=True,
            **sampling,
        )
        new_tokens = output[:, inputs["input_ids"].shape[1] :]  # type: ignore[union-attr]
        until = settings.get("until") or []
        texts = self.tokenizer.batch_decode(new_tokens, skip_special_tokens=True)
        return [_cut(text, [until] if isinstance(until, str) else until) for text in texts]


def _cut(text: str, until: list[str]) -> str:
    for stop in until:
        text = text.split(stop)[0]
    return text.strip()
