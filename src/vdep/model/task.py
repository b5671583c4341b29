"""A LLaVA and its objective as one module: micro-batch -> (loss, report). Its two modes are two losses of one task."""

from __future__ import annotations

from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration

from ..data.collate import Batch
from ..data.conversation import AUTO_IMAGE_INDEX
from ..study.settings import VdepSettings
from .head import TrainingHead
from .llava import image_features, projector, splice
from .objective import IGNORE_INDEX, Objective, image_distances, image_form, means_of_groups, objective, text_losses
from .packed import packed_arguments
from .targets import mean_of_words, random_sequence, shuffled, with_norm_of


class Report(NamedTuple):
    """What adds up over micro-batches, detached: both losses, and what tells whether the projector drifts (docs/method.md)."""

    text_loss: Tensor
    image_loss: Tensor
    projector_norm_sum: Tensor
    """Sum over images of the mean over image tokens of ||X||."""
    projector_variance_sum: Tensor
    """Sum over images of the mean over dimensions of the variance of X over the image tokens."""
    projector_cosine_sum: Tensor
    """Sum over images of the mean cosine between two different image tokens."""


class AlignmentTask(nn.Module):
    """The model under training. ``vdep`` is None for the baseline and for SFT; ``seed`` draws what ``target: random`` is."""

    random: Tensor | None

    def __init__(self, model: LlavaForConditionalGeneration, vdep: VdepSettings | None, seed: int = 0) -> None:
        super().__init__()
        model.lm_head = TrainingHead(model.lm_head)
        self.model = model
        self.vdep = vdep
        self.alpha = vdep.alpha if vdep is not None and isinstance(vdep.alpha, float) else 0.0
        """What weighs L_i; with a rule, what that says at this step (``train.alpha``)."""
        random = None
        if vdep is not None and vdep.target == "random":
            random = random_sequence(seed, model.config.image_seq_length, model.config.text_config.hidden_size)
        self.register_buffer("random", random, persistent=False)
        self.auto_image: nn.Parameter | None = None
        """(dim,) the embedding of ``<auto_image>``, where that is a token of its own. It begins as the mean of all tokens'."""
        if vdep is not None and vdep.auto_image == "token":
            self.auto_image = nn.Parameter(model.get_input_embeddings().weight.detach().mean(0))

    def train(self, mode: bool = True) -> Self:
        """The frozen tower never drops anything."""
        super().train(mode)
        self.model.model.vision_tower.eval()
        return self

    def forward(self, batch: Batch) -> tuple[Tensor, Report]:
        """The share of a micro-batch in its step's loss (a scalar with a gradient), and what is to be told of it."""
        parts, report = self.losses(batch)
        return parts.total, report

    def losses(self, batch: Batch) -> tuple[Objective, Report]:
        """The share of a micro-batch in L, L_t and L_i; all belong to one forward pass."""
        embeddings, image_embeddings = self.embed(batch)
        packed = {} if batch.sequence_lengths is None else packed_arguments(batch.sequence_lengths, embeddings.device)
        hidden = self.model.model.language_model(inputs_embeds=embeddings, use_cache=False, **packed).last_hidden_state
        # also where nothing is supervised: every rank's backward has to reach every trained parameter
        text = text_losses(hidden, batch.labels, self.model.lm_head)
        text_weights = batch.text_weights[batch.labels != IGNORE_INDEX]
        image = image_weights = text.new_zeros(0)
        if self.vdep is not None:
            supervised = batch.image_weights > 0
            image_weights = batch.image_weights[supervised]
            distances = image_distances(
                hidden,
                self.targets(batch, embeddings, image_embeddings),
                supervised,
                loss=self.vdep.loss,
                pictures=_numbered(batch) if self.vdep.loss == "info_nce" else None,
                temperature=self.vdep.temperature,
                position=self.vdep.position,
                detach_target=self.vdep.detach_target,
                distance=self.vdep.distance,
                reduction=self.vdep.reduction,
                normalize=self.vdep.normalize,
            )
            if batch.groups is not None:
                groups = batch.groups[supervised]
                distances, image_weights = means_of_groups(distances, image_weights, groups, batch.group_count)
            image = image_form(distances, self.vdep.loss, self.vdep.inverse_floor)
        parts = objective(text, text_weights, image, image_weights, self.alpha)
        drift = (each[: batch.images].sum() for each in projector_statistics(image_embeddings))
        return parts, Report(parts.text.detach(), parts.image.detach(), *drift)

    def targets(self, batch: Batch, embeddings: Tensor, image_embeddings: Tensor) -> Tensor:
        """What states are compared with, (batch, length, dim), from what ``embed`` returns. It counts where the image loss
        reads; where it is not X of the same picture, it is detached."""
        assert self.vdep is not None
        kind, made_of = self.vdep.target, batch.target
        if kind == "own":
            return embeddings
        x, others = image_embeddings.detach().split([batch.images, len(image_embeddings) - batch.images])
        # (images,): those whose positions the image loss reads; what their targets are made of has their order
        read = (batch.image_weights[batch.image_mask] > 0).view(x.shape[:2]).any(1)
        if kind == "oracle":
            words = batch.input_ids.new_zeros(0, 1) if made_of is None else made_of
            # also where there are none: every rank has to call the embedding equally often (ZeRO-3)
            there = with_norm_of(x[read], mean_of_words(self.model.get_input_embeddings()(words.clamp(min=0)), words))
        elif kind == "random":
            assert self.random is not None
            there = with_norm_of(x[read], self.random)
        else:
            there = x[read] if made_of is None else others if kind == "other_image" else shuffled(x[read], made_of)
        return splice(embeddings.detach(), batch.image_mask, x.masked_scatter(read[:, None, None], there))

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The language model's input (batch, length, dim), and X (images, image_tokens, dim); behind the images of the samples
        come those that are targets alone (``target: other_image``)."""
        text_embeddings = self.model.get_input_embeddings()(batch.input_ids.clamp(min=0))
        if self.auto_image is not None:
            is_token = (batch.input_ids == AUTO_IMAGE_INDEX).unsqueeze(-1)
            text_embeddings = torch.where(is_token, self.auto_image.to(text_embeddings.dtype), text_embeddings)
        pixels = batch.pixel_values
        if pixels is None:
            # a blank picture that stands nowhere: what is trained is in every pass's graph, and every pass calls every module,
            # so that no rank waits for another's gradients, or under ZeRO-3 for its part of the weights
            side = self.model.config.vision_config.image_size
            pixels = text_embeddings.new_zeros(1, 3, side, side)
        if self.vdep is not None and self.vdep.target == "other_image" and batch.target is not None:
            # with the samples' own, so that every pass calls every module once
            pixels = torch.cat([pixels, batch.target])
        features = image_features(self.model, pixels.to(self.model.model.vision_tower.dtype))
        project = projector(self.model)
        image_embeddings = project(features.to(next(project.parameters()).dtype))
        return splice(text_embeddings, batch.image_mask, image_embeddings), image_embeddings


def _numbered(batch: Batch) -> Tensor:
    """(batch, length): which picture each image position is of."""
    each = int(batch.image_mask.sum()) // max(batch.images, 1)
    numbers = torch.arange(batch.images, device=batch.image_mask.device).repeat_interleave(each)
    return torch.zeros_like(batch.input_ids).masked_scatter(batch.image_mask, numbers)


@torch.no_grad()
def projector_statistics(image_embeddings: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(images,) each: the mean norm, the mean per-dimension variance and the mean cosine between image tokens."""
    x = image_embeddings.float()
    tokens = x.shape[1]
    norm = x.norm(dim=-1).mean(1)
    variance = x.var(dim=1, unbiased=False).mean(-1)
    unit = torch.nn.functional.normalize(x, dim=-1)
    total = unit.sum(1).square().sum(-1) - unit.square().sum(-1).sum(-1)
    cosine = total / max(tokens * (tokens - 1), 1)
    return norm, variance, cosine
