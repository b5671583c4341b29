"""Visual-to-instruction information flow, layer by layer (paper, Figure 1).

For image token j and layer l,

    F[l, j] = mean over instruction tokens i and heads h of A[l, h, i, j],

the attention that the words of the question pay to that part of the picture; its sum over j is the layer's total. The paper
shows the figure without a definition; this is the one of CCA-LLaVA (arXiv 2410.15926), whose wording it uses. Attention is
not an explanation: what a token attends to need not be what it uses.

Only the rows of the instruction tokens are computed, after the rotary embedding and beside the model's own attention: a full
attention matrix is never made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AttentionInterface, LlavaForConditionalGeneration
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from ..data.collate import Batch, Row, collate
from ..data.conversation import TEMPLATES, Segment, encode_segments, prompt_segments
from ..data.images import ImageTransform, load_processor
from ..data.tokenizer import load_tokenizer
from ..errors import ReportError
from ..model.llava import DTYPES, image_features, load_checkpoint, projector, splice
from .attention_data import Flow

IMPLEMENTATION = "vdep_rows"
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")


@dataclass
class _Rows:
    """Which positions are looked at, and what was found: one (rows, length) array per layer, heads averaged."""

    positions: Tensor
    found: dict[int, Tensor]


_watched: list[_Rows] = []


def attention_rows(query: Tensor, key: Tensor, positions: Tensor, scaling: float) -> Tensor:
    """Causal attention weights of some rows, averaged over heads.

    Args:
        query: (1, heads, length, head_dim), after the rotary embedding.
        key: (1, key_value_heads, length, head_dim).
        positions: (rows,).

    Returns:
        (rows, length), float32; each row sums to 1.
    """
    groups = query.shape[1] // key.shape[1]
    keys = key.repeat_interleave(groups, dim=1)
    scores = (query[:, :, positions].float() @ keys.float().transpose(-1, -2)) * scaling
    future = torch.arange(key.shape[2], device=key.device)[None, :] > positions[:, None]
    return scores.masked_fill(future, float("-inf")).softmax(-1).mean(1)[0]


def _forward(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    scaling = kwargs.get("scaling") or query.shape[-1] ** -0.5
    for rows in _watched:
        rows.found[module.layer_idx] = attention_rows(query, key, rows.positions, scaling)
    return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)


AttentionInterface.register(IMPLEMENTATION, _forward)
AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)


@contextmanager
def _watching(language_model: Any, positions: Tensor) -> Iterator[_Rows]:
    before = language_model.config._attn_implementation
    rows = _Rows(positions, {})
    _watched.append(rows)
    language_model.config._attn_implementation = IMPLEMENTATION
    try:
        yield rows
    finally:
        language_model.config._attn_implementation = before
        _watched.remove(rows)


def list_images(folder: Path) -> list[Path]:
    """The pictures of a folder, in the order of their names.

    Raises:
        ReportError: where there is none.
    """
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_ENDINGS)
    if not found:
        raise ReportError(f"{folder} holds no pictures for the attention figure")
    return found


def instruction_positions(segments: Sequence[Segment], tokenizer: Any, image_tokens: int) -> np.ndarray:
    """Where the words of the question stand in the expanded prompt: what follows the image, up to the answer's cue."""
    after_image = False
    marked = []
    for segment in segments:
        is_word = after_image and segment.text.strip() not in ("", "ASSISTANT:")
        marked.append(Segment(segment.text, supervised=is_word, is_image=segment.is_image))
        after_image = after_image or segment.is_image
    encoded = encode_segments(marked, tokenizer)
    at_image = int(np.flatnonzero(encoded.input_ids < 0)[0])
    positions = np.flatnonzero(encoded.labels >= 0)
    if not len(positions):
        raise ReportError("the question of the attention figure has no words after the image")
    return np.where(positions > at_image, positions + image_tokens - 1, positions)


@torch.inference_mode()
def flow(
    checkpoint: Path,
    template: str,
    image_fit: str,
    images: Sequence[Path],
    question: str,
    samples: int,
    device: str,
    precision: str,
) -> Flow:
    """F and the totals of one checkpoint on some pictures; the maps of the first ``samples`` of them are kept."""
    model = load_checkpoint(checkpoint, DTYPES[precision]).to(device).eval()
    tokenizer = load_tokenizer(checkpoint)
    transform = ImageTransform(load_processor(checkpoint), image_fit)
    image_tokens = model.config.image_seq_length
    segments = prompt_segments(f"<image>\n{question}", TEMPLATES[template])
    encoded = encode_segments(segments, tokenizer)
    positions = torch.from_numpy(instruction_positions(segments, tokenizer, image_tokens)).to(device)
    maps, totals, pixels = [], [], []
    for number, path in enumerate(images):
        with Image.open(path) as image:
            values = transform([image.convert("RGB")])
        batch = collate([Row(encoded.input_ids, encoded.labels)], values, image_tokens).to(torch.device(device))
        found = _one(model, batch, positions)
        totals.append(found.sum(-1))
        if number < samples:
            maps.append(found)
            pixels.append(_shown(values[0], transform.processor))
    return Flow(np.stack(maps), np.stack(totals), np.stack(pixels))


def _one(model: LlavaForConditionalGeneration, batch: Batch, positions: Tensor) -> np.ndarray:
    """F of one picture: (layers, image_tokens)."""
    assert batch.pixel_values is not None
    embeddings = model.get_input_embeddings()(batch.input_ids)
    projected = projector(model)(image_features(model, batch.pixel_values.to(model.dtype)))
    language_model = model.model.language_model
    with _watching(language_model, positions) as rows:
        language_model(inputs_embeds=splice(embeddings, batch.image_mask, projected), use_cache=False)
    columns = batch.image_mask[0]
    layers = [rows.found[layer].mean(0)[columns].cpu().numpy() for layer in sorted(rows.found)]
    return np.stack(layers).astype(np.float32)


def _shown(values: np.ndarray, processor: Any) -> np.ndarray:
    """The picture as the tower sees it: (H, W, 3) uint8."""
    mean, deviation = (np.asarray(x, np.float32)[:, None, None] for x in (processor.image_mean, processor.image_std))
    return np.clip((values * deviation + mean) * 255 + 0.5, 0, 255).astype(np.uint8).transpose(1, 2, 0)
