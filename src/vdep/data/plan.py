"""Which samples are trained at which step, in which mode: a pure function of the data's lengths, the recipe and the step.

The plan knows nothing of ranks: the same global batches come out on any number of GPUs, and resuming is "start at step k".
``assign`` divides one global batch among ranks and micro-batches, which changes no result.

The hybrid schedule of VDEP (paper, section 3.3): an epoch is every sample once in LLaVA mode plus round(ratio * N) samples,
drawn without replacement, once in VDEP mode. ``interleaved`` puts VDEP and LLaVA samples into every global batch as
ratio : 1, to within one sample by cumulative rounding and exactly over the epoch. ``fused`` takes the same number of steps
with the LLaVA samples alone, and trains both losses of a sample in one pass. ``mixing: steps`` is another reading of the paper:
every step of one mode, and the steps of both spread evenly over the epoch.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

_STREAMS = {"llava": 1, "vdep": 2, "mix": 3, "modality": 4, "megabatch": 5}


@dataclass(frozen=True)
class Hybrid:
    """The stage-1 schedule of VDEP."""

    ratio: float
    schedule: Literal["interleaved", "fused"]
    mixing: Literal["batch", "steps"] = "batch"


@dataclass(frozen=True)
class GlobalBatch:
    """One step. Three arrays of equal length: row numbers, and which losses each sample contributes to.

    A sample in LLaVA mode has only ``text_loss``, one in VDEP mode only ``image_loss``; a fused one may have both.
    """

    samples: np.ndarray
    text_loss: np.ndarray
    image_loss: np.ndarray

    def __len__(self) -> int:
        return len(self.samples)

    def take(self, rows: np.ndarray | slice) -> GlobalBatch:
        return GlobalBatch(self.samples[rows], self.text_loss[rows], self.image_loss[rows])


def _mix64(values: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64: spreads 64-bit integers evenly. Written out so that no library version changes it."""
    with np.errstate(over="ignore"):
        z = (values + np.uint64(0x9E3779B97F4A7C15)).astype(np.uint64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def hashed(*key: int) -> np.uint64:
    """64 bits that depend on ``key`` alone."""
    state = np.uint64(0)
    for part in key:
        state = _mix64(np.array([state ^ np.uint64(part & 0xFFFFFFFFFFFFFFFF)], np.uint64))[0]
    return np.uint64(state)


def permutation(count: int, *key: int) -> np.ndarray:
    """A permutation of ``range(count)`` that depends on ``key`` alone."""
    return np.argsort(_mix64(np.arange(count, dtype=np.uint64) ^ hashed(*key)), kind="stable")


def cumulative_share(position: int, part: int, whole: int) -> int:
    """round(position * part / whole), halves up, in integers: how much of ``part`` is due after ``position`` of ``whole``."""
    return (2 * position * part + whole) // (2 * whole)


class BatchPlan:
    """The global batches of one training.

    Args:
        lengths: tokens of each sample, an image counted as its image tokens; (samples,).
        has_image: (samples,) bool.
        global_batch: samples per step; the last step of an epoch may hold fewer.
        grouping: ``modality_length`` makes every global batch of one modality and of similar length, as in LLaVA's SFT, but
            by tokens instead of words.
        group_size: samples of a normalisation group, where there are groups (``data.weights``): with ``modality_length`` each
            gets long and short samples, as the originals' micro-batches do.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        has_image: np.ndarray,
        *,
        global_batch: int,
        epochs: int,
        seed: int,
        grouping: Literal["none", "modality_length"] = "none",
        hybrid: Hybrid | None = None,
        group_size: int | None = None,
    ) -> None:
        if hybrid is not None and grouping != "none":
            raise ValueError("the hybrid schedule mixes modes in every batch and cannot be grouped by length")
        self.lengths = np.asarray(lengths)
        self.has_image = np.asarray(has_image, bool)
        self.global_batch = global_batch
        self.epochs = epochs
        self.seed = seed
        self.grouping = grouping
        self.hybrid = hybrid
        self.group_size = group_size
        self._orders: dict[tuple[int, str], np.ndarray] = {}

    @property
    def samples(self) -> int:
        return len(self.lengths)

    @cached_property
    def vdep_samples(self) -> int:
        """round(ratio * N): how many samples an epoch trains in VDEP mode."""
        if self.hybrid is None:
            return 0
        numerator, denominator = float(self.hybrid.ratio).as_integer_ratio()
        return (2 * numerator * self.samples + denominator) // (2 * denominator)

    @cached_property
    def epoch_items(self) -> int:
        return self.samples + self.vdep_samples

    @property
    def _alternates(self) -> bool:
        return self.hybrid is not None and self.hybrid.mixing == "steps"

    @cached_property
    def epoch_steps(self) -> int:
        if self._alternates:
            return -(-self.samples // self.global_batch) + self._vdep_steps
        return -(-self.epoch_items // self.global_batch)

    @cached_property
    def _vdep_steps(self) -> int:
        return -(-self.vdep_samples // self.global_batch)

    @property
    def steps(self) -> int:
        return self.epochs * self.epoch_steps

    def batch(self, step: int) -> GlobalBatch:
        """The global batch of step ``step``, counted from 0."""
        if not 0 <= step < self.steps:
            raise IndexError(f"step {step} of {self.steps}")
        epoch, step = divmod(step, self.epoch_steps)
        if self._alternates:
            return self._alternating(epoch, step)
        start = step * self.global_batch
        stop = min(start + self.global_batch, self.epoch_items)
        if self.hybrid is None:
            samples = self._order(epoch)[start:stop]
            return GlobalBatch(samples, np.ones(len(samples), bool), np.zeros(len(samples), bool))
        if self.hybrid.schedule == "fused":
            return self._fused(epoch, start, stop)
        return self._interleaved(epoch, step, start, stop)

    def _vdep_range(self, start: int, stop: int) -> tuple[int, int]:
        return (
            cumulative_share(start, self.vdep_samples, self.epoch_items),
            cumulative_share(stop, self.vdep_samples, self.epoch_items),
        )

    def _interleaved(self, epoch: int, step: int, start: int, stop: int) -> GlobalBatch:
        vdep_start, vdep_stop = self._vdep_range(start, stop)
        llava = self._stream(epoch, "llava")[start - vdep_start : stop - vdep_stop]
        vdep = self._stream(epoch, "vdep")[vdep_start:vdep_stop]
        samples = np.concatenate([llava, vdep])
        text_loss = np.arange(len(samples)) < len(llava)
        order = permutation(len(samples), self.seed, epoch, _STREAMS["mix"], step)
        return GlobalBatch(samples[order], text_loss[order], ~text_loss[order])

    def _alternating(self, epoch: int, step: int) -> GlobalBatch:
        before, after = (cumulative_share(s, self._vdep_steps, self.epoch_steps) for s in (step, step + 1))
        vdep = after > before
        number = before if vdep else step - before
        stream = self._stream(epoch, "vdep")[: self.vdep_samples] if vdep else self._stream(epoch, "llava")
        samples = stream[number * self.global_batch : (number + 1) * self.global_batch]
        return GlobalBatch(samples, np.full(len(samples), not vdep), np.full(len(samples), vdep))

    def _fused(self, epoch: int, start: int, stop: int) -> GlobalBatch:
        vdep_start, vdep_stop = self._vdep_range(start, stop)
        positions = np.arange(start - vdep_start, stop - vdep_stop)
        samples = self._stream(epoch, "llava")[positions]
        due = [cumulative_share(int(p), self.vdep_samples, self.samples) for p in (*positions, stop - vdep_stop)]
        return GlobalBatch(samples, np.ones(len(samples), bool), np.diff(due).astype(bool))

    def _stream(self, epoch: int, name: str) -> np.ndarray:
        if (epoch, name) not in self._orders:
            self._orders[epoch, name] = permutation(self.samples, self.seed, epoch, _STREAMS[name])
        return self._orders[epoch, name]

    def _order(self, epoch: int) -> np.ndarray:
        if self.grouping == "none":
            return self._stream(epoch, "llava")
        if (epoch, "grouped") not in self._orders:
            self._orders[epoch, "grouped"] = self._grouped(epoch)
        return self._orders[epoch, "grouped"]

    def _grouped(self, epoch: int) -> np.ndarray:
        """LLaVA ``get_modality_length_grouped_indices``: shuffle each modality, cut it into global batches sorted by
        length, shuffle the batches; what is left of both modalities makes the last batches."""
        whole, rest = [], []
        for number, chosen in enumerate((self.has_image, ~self.has_image)):
            rows = np.flatnonzero(chosen)
            rows = rows[permutation(len(rows), self.seed, epoch, _STREAMS["modality"], number)]
            batches = [rows[i : i + self.global_batch] for i in range(0, len(rows), self.global_batch)]
            if batches and len(batches[-1]) < self.global_batch:
                rest.append(batches.pop())
            whole += batches
        order = permutation(len(whole), self.seed, epoch, _STREAMS["megabatch"])
        chosen_batches = [whole[i] for i in order]
        if rest:
            chosen_batches.append(np.concatenate(rest))
        if chosen_batches:
            # if memory does not suffice, that shows in the first steps and not after a day: the longest sample fills it when
            # padded, the most tokens when packed
            compared = len(whole) or len(chosen_batches)
            _bring_forward(chosen_batches, 0, [int(self.lengths[b].max()) for b in chosen_batches[:compared]])
            _bring_forward(chosen_batches, 1, [int(self.lengths[b].sum()) for b in chosen_batches[:compared]])
        by_length = [batch[np.argsort(-self.lengths[batch], kind="stable")] for batch in chosen_batches]
        if self.group_size:
            by_length = [batch[even_chunks(self.lengths[batch], self.group_size)] for batch in by_length]
        return np.concatenate(by_length) if by_length else np.empty(0, np.int64)


def even_chunks(lengths: np.ndarray, size: int) -> np.ndarray:
    """An order of samples, given with the longest first, in which runs of ``size`` hold about the same number of tokens: each
    sample goes to the run with the fewest that is not full (as LLaVA's ``split_to_even_chunks`` fills micro-batches). Where
    ``size`` does not divide them, they are dealt out in turn, as there.
    """
    count = -(-len(lengths) // size)
    if len(lengths) % size:
        run = np.arange(len(lengths)) % count
    else:
        run = np.empty(len(lengths), np.int64)
        tokens, left = np.zeros(count), np.full(count, size)
        for place, length in enumerate(lengths):
            run[place] = target = int(np.where(left > 0, tokens, np.inf).argmin())
            tokens[target] += length
            left[target] -= 1
    return np.argsort(run, kind="stable")


def _bring_forward(batches: list[np.ndarray], place: int, weights: list[int]) -> None:
    """Swap the heaviest of ``batches[place:len(weights)]`` to ``place``."""
    if place < len(weights):
        heaviest = max(range(place, len(weights)), key=weights.__getitem__)
        batches[place], batches[heaviest] = batches[heaviest], batches[place]


def assign(
    lengths: np.ndarray, ranks: int, micro_batch: int, packed: bool = False, groups: np.ndarray | None = None
) -> list[list[np.ndarray]]:
    """Divide a global batch: for each rank a list of micro-batches, as row numbers, of the same number on every rank.

    Padded, samples of similar length share a micro-batch, the longest first. Packed, all micro-batches get about the same
    number of tokens, and those of one round nearly the same: all ranks are done with a round when its fullest is. Either way
    the fullest micro-batch of a step comes first, and where samples are too few the last ones are empty.

    Args:
        lengths: (samples of the batch,) tokens of each.
        micro_batch: at most so many samples in a micro-batch; packed, so many tokens. Never fewer than what cannot be
            divided: the largest group, and packed the longest sample.
        groups: (samples of the batch,) or None. Samples of the same number come into the same micro-batch.
    """
    number = np.arange(len(lengths)) if groups is None else np.unique(groups, return_inverse=True)[1]
    # by group, and in each the longest first
    members = np.lexsort((-lengths, number))
    items = np.split(members, np.flatnonzero(np.diff(number[members])) + 1) if len(lengths) else []
    if packed:
        shares = _equal_sums(np.array([lengths[item].sum() for item in items]), ranks, micro_batch)
    else:
        most = max(map(len, items), default=1)
        shares = _by_length(np.array([lengths[item].max() for item in items]), ranks, max(1, micro_batch // most))

    def rows(micro: np.ndarray) -> np.ndarray:
        """Those of its items, the longest first: packed attention takes runs of one length together."""
        samples = np.concatenate([np.empty(0, np.int64), *(items[i] for i in micro)])
        return samples[np.lexsort((samples, -lengths[samples]))]

    return [[rows(micro) for micro in share] for share in shares]


def _by_length(lengths: np.ndarray, ranks: int, micro_batch: int) -> list[list[np.ndarray]]:
    """Sorted, and dealt to the ranks in turn: for each rank and round which items."""
    order = np.argsort(-lengths, kind="stable")
    width = ranks * micro_batch
    rounds = [order[start : start + width] for start in range(0, len(order), width)]
    return [[chunk[rank::ranks] for chunk in rounds] for rank in range(ranks)]


def _equal_sums(sizes: np.ndarray, ranks: int, most: int) -> list[list[np.ndarray]]:
    """For each rank and round which items, so that no sum of sizes is above ``most`` where that is possible, in the fewest
    rounds that the greedy rule finds: the largest item first, always to the micro-batch that is emptiest.

    Attention costs the square of a sample's length, but is a few percent of the operations: tokens are the measure.
    """
    order = np.argsort(-sizes, kind="stable")
    limit = max(most, int(sizes.max(initial=0)))
    rounds = max(1, -(-int(sizes.sum()) // (ranks * limit))) if len(sizes) else 0
    while True:
        # (sum of sizes, number) of each micro-batch; equal sums in the order of their numbers
        heap = [(0, i) for i in range(ranks * rounds)]
        filled: list[list[int]] = [[] for _ in heap]
        for item in order:
            total, target = heap[0]
            heapq.heapreplace(heap, (total + int(sizes[item]), target))
            filled[target].append(int(item))
        if max(heap, default=(0, 0))[0] <= limit:
            break
        rounds += 1
    fullest_first = [target for _, target in sorted(heap, key=lambda entry: (-entry[0], entry[1]))]
    shares: list[list[np.ndarray]] = [[] for _ in range(ranks)]
    for i in range(rounds):
        # there and back again, so that the ranks' sums over the whole step are alike as well
        chunk = fullest_first[i * ranks : (i + 1) * ranks]
        for rank, target in enumerate(chunk if i % 2 == 0 else reversed(chunk)):
            shares[rank].append(np.array(filled[target], np.int64))
    return shares
