"""Attention over packed sequences: several samples in one row, none of which sees another.

Registered with transformers under the name ``packed``. On a GPU it is torch's own variable-length attention; elsewhere (and in
float32, or with dropout, which that one does not have) one call for each run of equally long sequences. No mask is made: a
dense one would cost the square of the whole row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

NAME = "packed"


@dataclass(frozen=True)
class PackedRow:
    """Which sequences make up a row. One object, so that a compiled layer hands it on without looking: numbers among its
    arguments would have it compiled anew for each row."""

    lengths: tuple[int, ...]
    ends: Tensor
    """(sequences + 1,) int32: where each begins, and the length of the row."""


def packed_arguments(lengths: Sequence[int], device: torch.device) -> dict[str, Any]:
    """What a language model is called with beside a row (1, tokens, dim) of sequences of these ``lengths``."""
    ends = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    return {
        "position_ids": torch.cat([torch.arange(length) for length in lengths])[None].to(device, non_blocking=True),
        "packed_row": PackedRow(tuple(lengths), ends.to(device, non_blocking=True)),
    }


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    packed_row: PackedRow | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each sequence.

    Args:
        query: (1, heads, tokens, dim); ``key`` and ``value`` may have fewer heads, that divide those of the query.
        packed_row: the sequences that make up the row; None where the batch is not packed.

    Returns:
        (1, tokens, heads, dim), and no weights.
    """
    if packed_row is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)
    return _within_sequences(query, key, value, packed_row, dropout, scaling), None


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _within_sequences(
    query: Tensor, key: Tensor, value: Tensor, row: PackedRow, dropout: float, scaling: float | None
) -> Tensor:
    # under autocast the rotary embedding leaves float32 queries and keys beside bf16 values
    query, key = query.to(value.dtype), key.to(value.dtype)
    grouped = query.shape[1] != key.shape[1]
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16) and dropout == 0.0:
        q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
        ends, longest = row.ends, max(row.lengths)
        output = varlen_attn(q, k, v, ends, ends, longest, longest, scale=scaling, window_size=(-1, 0), enable_gqa=grouped)
        assert isinstance(output, Tensor)
        return output.unsqueeze(0)
    outputs, start = [], 0
    for length, run in groupby(row.lengths):
        stop = start + length * len(list(run))
        # (1, heads, sequences * length, dim) -> (sequences, heads, length, dim)
        q, k, v = (x[0, :, start:stop].unflatten(1, (-1, length)).transpose(0, 1) for x in (query, key, value))
        found = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=grouped)
        outputs.append(found.transpose(1, 2).flatten(0, 1))
        start = stop
    return torch.cat(outputs).unsqueeze(0)


def _no_mask(*_: Any, **__: Any) -> None:
    """Right-padded and packed batches need none: attention is causal, within each sequence."""
    return


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, _no_mask)
