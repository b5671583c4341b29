"""A conversation with a checkpoint about a picture, asked as an evaluation asks: same prompt, same pixels, greedy.

The first answer is the one that ``lmms_model.VdepModel`` gives to a benchmark with this picture and this question.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..data.conversation import IMAGE_INDEX, IMAGE_PLACEHOLDER, TEMPLATES, chat_segments, encode_segments
from ..data.images import ImageTransform, load_processor
from ..data.tokenizer import load_tokenizer
from ..errors import EvaluationError
from ..model.llava import DTYPES, load_checkpoint
from .pictures import Picture


def open_picture(path: Path) -> Image.Image:
    """In RGB, as benchmarks' pictures are decoded.

    Raises:
        EvaluationError: for a file that is not there, is no picture, or is damaged beyond showing.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EvaluationError(f"{path} cannot be read: {error.strerror}") from None
    return Picture(data, str(path)).open()


class Chat:
    """Weights in memory, the picture that is talked about, and the rounds so far.

    Args:
        weights: folder of an SFT.
        template, image_fit: as in its SFT.
        precision: ``float32`` or ``bf16``.
    """

    def __init__(
        self, weights: Path, template: str, image_fit: str, *, device: str, precision: str, max_new_tokens: int
    ) -> None:
        self.template = TEMPLATES[template]
        self.tokenizer = load_tokenizer(weights)
        self.transform = ImageTransform(load_processor(weights), image_fit)
        self.model: Any = load_checkpoint(weights, DTYPES[precision]).to(device).eval()
        self.max_new_tokens = max_new_tokens
        self.picture: Image.Image | None = None
        self.rounds: list[tuple[str, str]] = []

    def show(self, picture: Image.Image | None) -> None:
        """Begin anew, with this picture or with none."""
        self.picture = picture
        self.rounds = []

    def prompt(self, question: str) -> np.ndarray:
        """Token ids of the whole conversation, (length,), with every image position in it.

        Raises:
            EvaluationError: where it leaves no room for an answer.
        """
        config = self.model.config
        if IMAGE_PLACEHOLDER in question:
            raise EvaluationError(
                f"the question has {IMAGE_PLACEHOLDER} in it: leave it out, the picture goes to the front by itself"
            )
        if self.picture is not None and not self.rounds:
            question = f"{IMAGE_PLACEHOLDER}\n{question}"
        segments = chat_segments(self.rounds, question, self.template, self.tokenizer.eos_token)
        found = encode_segments(segments, self.tokenizer).input_ids
        is_image = found == IMAGE_INDEX
        ids = np.where(is_image, config.image_token_index, found).astype(np.int64)
        ids = np.repeat(ids, np.where(is_image, config.image_seq_length, 1))
        positions = config.text_config.max_position_embeddings
        if len(ids) >= positions:
            raise EvaluationError(
                f"the conversation has {len(ids)} tokens, and the model {positions} positions: begin a new one"
            )
        return ids

    @torch.inference_mode()
    def ask(self, question: str, streamer: Any = None) -> str:
        """The answer, which becomes part of the conversation; ``streamer`` gets the tokens as they come (transformers)."""
        ids = torch.from_numpy(self.prompt(question))[None].to(self.model.device)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if self.picture is not None:
            pixels = torch.from_numpy(self.transform([self.picture]))
            inputs["pixel_values"] = pixels.to(self.model.device, self.model.dtype)
        room = self.model.config.text_config.max_position_embeddings - ids.shape[1]
        output = self.model.generate(
            **inputs,
            do_sample=False,
            num_beams=1,
            max_new_tokens=min(self.max_new_tokens, room),
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
            use_cache=True,
            streamer=streamer,
        )
        answer = str(self.tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)).strip()
        shown = f"{IMAGE_PLACEHOLDER}\n{question}" if self.picture is not None and not self.rounds else question
        self.rounds.append((shown, answer))
        return answer
