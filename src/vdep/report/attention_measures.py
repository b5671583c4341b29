"""How much of an attention map lies on objects: pure functions of maps, masks and sinks.

All of them read attention *within* the picture, so that their level under uniform attention is known, whatever the layer pays
to the image as a whole. Patches that only pad a picture to a square belong neither to the picture nor to its area: a model
that ignores them would otherwise seem to look at objects.

* ``image``: attention to all image tokens; what the words pay to the picture at all.
* ``object``: share of the attention that lies on the object, over the object's share of the picture's area. Uniform: 1.
* ``object_without_sinks``: the same without sinks, in attention and area. A sink is an image token that attracts attention
  whatever the picture shows; which ones they are is decided on blank pictures (``sinks``).
* ``pointing``: the pointing game (Zhang et al., arXiv 1608.00507): whether the most attended patch is on the object; of a
  patch on its edge, the share that the object covers. Uniform: the area.
* ``pointing_without_sinks``: the same among the patches that are no sinks. Uniform: ``area_without_sinks``.
* ``area_without_sinks``: what share of these patches objects cover.
* ``entropy``: of attention over the picture's patches, over its greatest value. Uniform: 1; all on one patch: 0.
* ``sinks``: share of the attention to the image that lies on sinks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .attention_data import MEASURES

SINK = 5.0
"""A sink draws at least so many times its share of the attention to blank pictures. A choice (docs/decisions.md)."""


def measures(attention: Tensor, objects: Tensor, inside: Tensor, sinks: Tensor) -> Tensor:
    """Every one of ``MEASURES`` of every picture and head.

    Args:
        attention: (pictures, heads, image_tokens), not negative.
        objects: (pictures, image_tokens), the share of each patch that objects cover.
        inside: (pictures, image_tokens) bool, patches of the picture rather than of what pads it.
        sinks: (heads, image_tokens) bool.

    Returns:
        (pictures, heads, len(MEASURES)), float32; nan where a measure is undefined: no attention or no object among the
        patches that it reads.
    """
    whole = attention.sum(-1)
    picture = inside[:, None].expand_as(attention)
    unsunk = picture & ~sinks
    covered = objects[:, None].expand_as(attention)
    found = {
        "image": whole,
        "object": _object(attention, covered, picture),
        "object_without_sinks": _object(attention, covered, unsunk),
        "pointing": _pointing(attention, covered, picture),
        "pointing_without_sinks": _pointing(attention, covered, unsunk),
        "area_without_sinks": _area(covered, unsunk),
        "entropy": _entropy(attention, picture),
        "sinks": (attention * sinks).sum(-1) / whole,
    }
    return torch.stack([found[name] for name in MEASURES], -1)


def _object(attention: Tensor, covered: Tensor, where: Tensor) -> Tensor:
    attention = attention * where
    # nothing to look at: 0 / 0
    return (attention * covered).sum(-1) / attention.sum(-1) / _area(covered, where)


def _area(covered: Tensor, where: Tensor) -> Tensor:
    return (covered * where).sum(-1) / where.sum(-1)


def _pointing(attention: Tensor, covered: Tensor, where: Tensor) -> Tensor:
    attention = attention.masked_fill(~where, -1.0)
    most = (attention == attention.amax(-1, keepdim=True)) & where
    return (covered * most).sum(-1) / most.sum(-1)


def _entropy(attention: Tensor, where: Tensor) -> Tensor:
    share = attention * where
    share = share / share.sum(-1, keepdim=True)
    return -torch.special.xlogy(share, share).sum(-1) / where.sum(-1).log()


def find_sinks(blank: Tensor) -> Tensor:
    """Which image tokens are sinks: (..., image_tokens) bool.

    Args:
        blank: (..., image_tokens), mean attention on blank pictures, or a sum.
    """
    return blank * blank.shape[-1] >= SINK * blank.sum(-1, keepdim=True)
