"""Which numbers a printed score can stand for: exact arithmetic on whole numbers, for many cells at once.

A share of N questions moves in steps of 100/N, so most numbers with two decimals are no share of a small N: the GRIM test
(Brown and Heathers 2017, doi:10.1177/1948550616673876). Nothing here says how a number came to be printed; only what it
cannot be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

import numpy as np

Whole = np.ndarray
"""Of int64. All products below stay under 2^63 for up to a million questions and six decimals."""


@dataclass(frozen=True)
class Printed:
    """Cells as they are printed: the number is ``units`` / 10^``decimals``, both (cells,)."""

    units: Whole
    decimals: Whole

    @classmethod
    def of(cls, texts: Sequence[str]) -> Printed:
        parts = [Decimal(text).as_tuple() for text in texts]
        decimals = np.array([-int(part.exponent) for part in parts], dtype=np.int64)
        return cls(np.array([int(Decimal(t).scaleb(int(d))) for t, d in zip(texts, decimals, strict=True)], np.int64), decimals)

    @property
    def scale(self) -> Whole:
        return 10**self.decimals

    def without_a_zero(self) -> Printed:
        """With one decimal less, where the last one is a zero: as it stands before it is padded."""
        zero = (self.units % 10 == 0) & (self.decimals > 0)
        return Printed(np.where(zero, self.units // 10, self.units), np.where(zero, self.decimals - 1, self.decimals))


@dataclass(frozen=True)
class Lattice:
    """All values that a score can have, in the unit in which it is printed: ``numerators`` (sorted) / ``denominator``."""

    numerators: Whole
    denominator: int

    @classmethod
    def of_questions(cls, questions: int) -> Lattice:
        """Percent of so many questions."""
        return cls(100 * np.arange(questions + 1, dtype=np.int64), questions)

    @classmethod
    def of_points(cls, points: int) -> Lattice:
        return cls(np.arange(points + 1, dtype=np.int64), 1)

    @classmethod
    def of_pictures(cls, pictures: int) -> Lattice:
        """A category of MME: the percentage of its questions, two a picture, that are answered rightly, and the percentage of
        pictures of which both are.

        With b pictures of which both are right, from 2b to b + ``pictures`` questions are.
        """
        both = np.arange(pictures + 1)
        right = np.arange(2 * pictures + 1)
        possible = (right >= 2 * both[:, None]) & (right <= both[:, None] + pictures)
        return cls(100 * np.unique((right + 2 * both[:, None])[possible]).astype(np.int64), 2 * pictures)

    def _between(self, low: Whole, high: Whole) -> tuple[Whole, Whole]:
        """Numerators from ``low`` to ``high``, as a range of indices for each cell."""
        return np.searchsorted(self.numerators, low, "left"), np.searchsorted(self.numerators, high, "right")

    def _rounded(self, cells: Printed) -> tuple[Whole, Whole]:
        """The values that are rounded to the cells: half a unit away at most, for a half goes up here and to even there."""
        low = -((1 - 2 * cells.units) * self.denominator // (2 * cells.scale))
        return self._between(low, (2 * cells.units + 1) * self.denominator // (2 * cells.scale))

    def _cut(self, cells: Printed) -> tuple[Whole, Whole]:
        """The values that become the cells when further decimals are dropped."""
        low = -(-cells.units * self.denominator // cells.scale)
        return self._between(low, -(-(cells.units + 1) * self.denominator // cells.scale) - 1)

    def rounded(self, cells: Printed) -> np.ndarray:
        """(cells,) bool: whether any value, rounded, is what is printed."""
        low, high = self._rounded(cells)
        return low < high

    def cut(self, cells: Printed) -> np.ndarray:
        """(cells,) bool: whether any value, cut, is what is printed."""
        low, high = self._cut(cells)
        return low < high

    def fits(self, cells: Printed) -> np.ndarray:
        return self.rounded(cells) | self.cut(cells)

    def fitting_decimals(self, cells: Printed) -> Whole:
        """(cells,) with how many decimals a cell fits, of those printed or fewer where the rest are zeros; -1: with none."""
        found = np.full(len(cells.units), -1)
        while True:
            found = np.where((found < 0) & self.fits(cells), cells.decimals, found)
            shorter = cells.without_a_zero()
            if (shorter.decimals == cells.decimals).all():
                return found
            cells = shorter

    def candidates(self, cells: Printed) -> list[tuple[Fraction, ...]]:
        """For each cell the values that it can stand for, with as many decimals as ``fitting_decimals`` says."""
        wanted = self.fitting_decimals(cells)
        kept = np.where(wanted < 0, cells.decimals, wanted)
        cells = Printed(cells.units // 10 ** (cells.decimals - kept), kept)
        (r_low, r_high), (c_low, c_high) = self._rounded(cells), self._cut(cells)
        ranges = zip(wanted, r_low, r_high, c_low, c_high, strict=True)
        return [
            tuple(self._value(i) for i in sorted({*range(a, b), *range(c, d)})) if fits >= 0 else ()
            for fits, a, b, c, d in ranges
        ]

    def neighbours(self, cells: Printed) -> list[tuple[Fraction, ...]]:
        """For each cell the nearest value below it and the nearest above, where there are such."""
        above = np.searchsorted(self.numerators, -(-cells.units * self.denominator // cells.scale), "left")
        return [tuple(self._value(i) for i in (a - 1, a) if 0 <= i < len(self.numerators)) for a in above]

    def share_that_fits(self, decimals: int) -> float:
        """Of all numbers with so many decimals in the lattice's range, those that it fits: how often chance would."""
        top = int(self.numerators[-1]) * 10**decimals // self.denominator
        cells = Printed(np.arange(top + 1, dtype=np.int64), np.full(top + 1, decimals, dtype=np.int64))
        return float(self.fits(cells).mean())

    def _value(self, index: int) -> Fraction:
        return Fraction(int(self.numerators[index]), self.denominator)


def fitting_denominators(cells: Printed, low: int, high: int) -> tuple[Whole, np.ndarray, np.ndarray]:
    """Every number of questions from ``low`` to ``high`` tried on every cell, as a percentage.

    Returns the numbers (n,), and whether some count of each is what is printed: rounded (n, cells), cut (n, cells).
    """
    n = np.arange(low, high + 1, dtype=np.int64)[:, None]
    units, full = cells.units, 100 * cells.scale

    def some(lowest: Whole, highest: Whole) -> np.ndarray:
        return np.maximum(lowest, 0) <= np.minimum(highest, n)

    rounded = some(-((1 - 2 * units) * n // (2 * full)), (2 * units + 1) * n // (2 * full))
    return n[:, 0], rounded, some(-(-units * n // full), -(-(units + 1) * n // full) - 1)


def is_printed_as(value: Fraction, text: str) -> bool:
    """Whether a value, rounded or cut towards zero, is what is printed."""
    printed = Decimal(text)
    unit = Fraction(1, 10 ** max(0, -int(printed.as_tuple().exponent)))
    target = Fraction(printed)
    cut = Fraction(int(abs(value) / unit)) * unit * (1 if value >= 0 else -1)
    return cut == target or abs(value - target) <= unit / 2


def two_decimals(value: Fraction) -> str:
    """Rounded half away from zero, for people."""
    hundredths = int(abs(value) * 100 + Fraction(1, 2))
    return f"{'-' if value < 0 and hundredths else ''}{hundredths // 100}.{hundredths % 100:02}"
