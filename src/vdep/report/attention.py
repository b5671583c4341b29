"""Visual-to-instruction information flow, layer by layer (paper, Figure 1), and how much of it lies on objects.

For image token j, head h and layer l,

    F[l, h, j] = mean over instruction tokens i of A[l, h, i, j],

the attention that the words of the question pay to that part of the picture. Maps and curves show its mean over heads. The
paper shows the figure without a definition; this is the one of CCA-LLaVA (arXiv 2410.15926), whose wording it uses. Attention
is not an explanation: what a token attends to need not be what it uses.

Only the rows of the instruction tokens are computed, after the rotary embedding and beside the model's own attention: a full
attention matrix is never made. Each layer's rows are handed on as soon as they are there, and of the pictures that are
measured nothing but a few numbers a head is kept.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from ..data.collate import Row, collate
from ..data.conversation import TEMPLATES, Segment, encode_segments, prompt_segments
from ..data.images import ImageTransform, decode_image, load_processor
from ..data.tokenizer import load_tokenizer
from ..errors import ReportError
from ..model.llava import DTYPES, image_features, load_checkpoint, projector, splice
from .attention_data import MEASURES, Flow, choose_head
from .attention_measures import find_sinks, measures
from .masks import Masked, Patches

log = logging.getLogger(__name__)

IMPLEMENTATION = "vdep_rows"
AREA = (0.01, 0.6)
"""Objects that cover less of a picture are a patch or two, and where they cover more, everything lies on them."""
BLANKS = (*product((0, 255), repeat=3), (127, 127, 127))
"""The colours of the pictures that show nothing: the corners of the cube, and grey."""

Consume = Callable[[int, Tensor], None]
"""Takes (layer, attention (batch, heads, length)), the mean over the rows that are looked at."""


@dataclass
class _Rows:
    positions: Tensor
    consume: Consume


_watched: list[_Rows] = []


def attention_rows(query: Tensor, key: Tensor, positions: Tensor, scaling: float) -> Tensor:
    """Causal attention weights of some rows.

    Args:
        query: (batch, heads, length, head_dim), after the rotary embedding.
        key: (batch, key_value_heads, length, head_dim).
        positions: (rows,).

    Returns:
        (batch, heads, rows, length), float32; each row sums to 1.
    """
    groups = query.shape[1] // key.shape[1]
    keys = key.repeat_interleave(groups, dim=1)
    scores = (query[:, :, positions].float() @ keys.float().transpose(-1, -2)) * scaling
    future = torch.arange(key.shape[2], device=key.device)[None, :] > positions[:, None]
    return scores.masked_fill(future, float("-inf")).softmax(-1)


def _forward(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    scaling = kwargs.get("scaling") or query.shape[-1] ** -0.5
    for rows in _watched:
        rows.consume(module.layer_idx, attention_rows(query, key, rows.positions, scaling).mean(2))
    return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)


AttentionInterface.register(IMPLEMENTATION, _forward)
AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)


@contextmanager
def _watching(language_model: Any, positions: Tensor, consume: Consume) -> Iterator[None]:
    before = language_model.config._attn_implementation
    rows = _Rows(positions, consume)
    _watched.append(rows)
    language_model.config._attn_implementation = IMPLEMENTATION
    try:
        yield
    finally:
        language_model.config._attn_implementation = before
        _watched.remove(rows)


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


class Seen(NamedTuple):
    """A picture as the tower sees it, and which of its patches show objects."""

    name: str
    pixels: np.ndarray
    """(3, height, width)."""
    objects: np.ndarray
    """(image_tokens,): the share of each patch that objects cover."""
    inside: np.ndarray
    """(image_tokens,) bool: patches of the picture, not of what pads it."""
    area: float
    """Share of the picture that objects cover."""


class Watcher:
    """A checkpoint and one question, asked of any picture.

    Args:
        checkpoint: folder of an SFT.
        question: asked after the picture.
        image_fit: how pictures are brought to the tower's size.
    """

    def __init__(self, checkpoint: Path, template: str, image_fit: str, question: str, device: str, precision: str) -> None:
        self.model = load_checkpoint(checkpoint, DTYPES[precision]).to(device).eval()
        self.device = torch.device(device)
        tokenizer, processor = load_tokenizer(checkpoint), load_processor(checkpoint)
        self.transform = ImageTransform(processor, image_fit)
        self.patches = Patches(processor, image_fit, self.model.config)
        self.image_tokens = self.model.config.image_seq_length
        segments = prompt_segments(f"<image>\n{question}", TEMPLATES[template])
        self.encoded = encode_segments(segments, tokenizer)
        self.positions = instruction_positions(segments, tokenizer, self.image_tokens)
        text = self.model.config.text_config
        self.layers, self.heads = text.num_hidden_layers, text.num_attention_heads

    @property
    def uniform(self) -> float:
        """Attention to the image where every position attends alike to itself and all before it."""
        return float(np.mean(self.image_tokens / (self.positions + 1)))

    @torch.inference_mode()
    def watch(self, pixels: np.ndarray, consume: Consume) -> None:
        """Ask of pictures (batch, 3, height, width); ``consume`` gets (layer, attention (batch, heads + 1, image_tokens)).

        The last of the heads is the mean over all of them.
        """
        row = Row(self.encoded.input_ids, self.encoded.labels)
        batch = collate([row] * len(pixels), pixels, self.image_tokens).to(self.device)
        assert batch.pixel_values is not None
        embeddings = self.model.get_input_embeddings()(batch.input_ids)
        projected = projector(self.model)(image_features(self.model, batch.pixel_values.to(self.model.dtype)))
        language_model = self.model.model.language_model
        columns = batch.image_mask[0]

        def of_the_image(layer: int, attention: Tensor) -> None:
            heads = attention[..., columns]
            consume(layer, torch.cat([heads, heads.mean(1, keepdim=True)], 1))

        with _watching(language_model, torch.from_numpy(self.positions).to(self.device), of_the_image):
            language_model(inputs_embeds=splice(embeddings, batch.image_mask, projected), use_cache=False)

    def maps(self, pixels: np.ndarray) -> np.ndarray:
        """(batch, layers, heads + 1, image_tokens), whole: for a few pictures."""
        found: dict[int, Tensor] = {}
        self.watch(pixels, found.__setitem__)
        return torch.stack([found[layer] for layer in range(self.layers)], 1).cpu().numpy().astype(np.float32)

    def sinks(self) -> Tensor:
        """(layers, heads + 1, image_tokens) bool: what attracts attention where there is nothing to see."""
        total = torch.zeros(self.layers, self.heads + 1, self.image_tokens, device=self.device)

        def add(layer: int, attention: Tensor) -> None:
            total[layer] += attention[0]

        for color in BLANKS:
            blank = self.transform([Image.new("RGB", self.transform.size[::-1], color)])
            self.watch(blank, add)
        return find_sinks(total)

    def see(self, picture: Masked) -> Seen:
        objects, inside = self.patches.shares(picture.mask), self.patches.inside(picture.mask)
        area = float(objects[inside].mean()) if inside.any() else 0.0
        return Seen(picture.name, self.transform([picture.image])[0], objects, inside, area)

    def measure(self, pictures: Sequence[Seen], sinks: Tensor) -> np.ndarray:
        """(pictures, layers, heads + 1, measures), reduced layer by layer."""
        objects = torch.from_numpy(np.stack([seen.objects for seen in pictures])).to(self.device)
        inside = torch.from_numpy(np.stack([seen.inside for seen in pictures])).to(self.device)
        found = torch.empty(len(pictures), self.layers, self.heads + 1, len(MEASURES), device=self.device)

        def reduce(layer: int, attention: Tensor) -> None:
            found[:, layer] = measures(attention, objects, inside, sinks[layer])

        self.watch(np.stack([seen.pixels for seen in pictures]), reduce)
        return found.cpu().numpy()

    def shown(self, values: np.ndarray) -> np.ndarray:
        """A picture as the tower sees it: (height, width, 3) uint8."""
        processor = self.transform.processor
        mean, deviation = (np.asarray(x, np.float32)[:, None, None] for x in (processor.image_mean, processor.image_std))
        return np.clip((values * deviation + mean) * 255 + 0.5, 0, 255).astype(np.uint8).transpose(1, 2, 0)


def flow(watcher: Watcher, shown: Sequence[Path], measured: Iterable[Masked], pictures: int, batch_size: int) -> Flow:
    """Maps of the pictures that are shown, and measures of the first ``pictures`` of ``measured`` with objects to look at.

    Raises:
        ReportError: where there are not so many.
    """
    pixels = [watcher.transform([decode_image(path.read_bytes(), str(path))]) for path in shown]
    maps = np.concatenate([watcher.maps(each) for each in pixels])
    sinks = watcher.sinks()
    names: list[str] = []
    areas: list[float] = []
    values: list[np.ndarray] = []
    found = _with_objects(watcher, measured)
    while batch := list(islice(found, min(batch_size, pictures - len(names)))):
        names += [seen.name for seen in batch]
        areas += [seen.area for seen in batch]
        values.append(watcher.measure(batch, sinks))
        log.info("%d of %d pictures", len(names), pictures)
    if len(names) < pictures:
        raise ReportError(
            f"{len(names)} pictures have objects that cover {AREA[0]:.0%} to {AREA[1]:.0%} of them, where {pictures} are to be "
            "measured: give more pictures, or a smaller figures.*.measured.pictures"
        )
    whole = np.concatenate(values)
    heads, mean = whole[:, :, :-1], whole[:, :, -1]
    by_head = np.stack([_mean(heads[half::2]) for half in (0, 1)])
    best = choose_head(by_head[0])
    return Flow(
        maps=maps[:, :, -1],
        head_maps=maps[:, :, :-1].astype(np.float16),
        pixels=np.stack([watcher.shown(each[0]) for each in pixels]),
        cells=watcher.patches.cells,
        side=watcher.patches.side,
        uniform=watcher.uniform,
        names=np.array(names),
        areas=np.array(areas, np.float32),
        by_layer=mean,
        by_head=by_head,
        best=best,
        best_values=heads[1::2, best[0], best[1]],
        sinks=sinks[:, -1].cpu().numpy(),
    )


def _with_objects(watcher: Watcher, measured: Iterable[Masked]) -> Iterator[Seen]:
    for picture in measured:
        seen = watcher.see(picture)
        if AREA[0] <= seen.area <= AREA[1]:
            yield seen


def _mean(values: np.ndarray) -> np.ndarray:
    """Over the first axis, without what is undefined; nan where all is."""
    defined = np.isfinite(values)
    total = np.where(defined, values, 0).sum(0, dtype=np.float64)
    return np.divide(total, defined.sum(0), out=np.full(total.shape, np.nan), where=defined.any(0)).astype(np.float32)
