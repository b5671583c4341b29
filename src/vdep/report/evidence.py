"""What is concluded from the scores, as types: differences of two arms, verdicts, and the document that holds them.

``results/tables/comparison.json`` is a ``Comparison``; the CSV, Markdown and LaTeX beside it are printed from the same object.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationError

from ..errors import ReportError
from ..study.settings import Frozen
from ..study.tables import Column
from ..study.verdicts import Endpoint, Rules, Verdict

Basis = Literal["two checkpoints, no training noise", "over seeds"]
TWO_CHECKPOINTS: Basis = "two checkpoints, no training noise"
OVER_SEEDS: Basis = "over seeds"


class Definition(Frozen):
    """What is compared, by which rules (``study.evidence.comparison_definition``)."""

    pairs: tuple[tuple[str, str, str], ...]
    """(model, treatment, reference)."""
    family: tuple[str, ...]
    """The columns over which p values of a pair are adjusted."""
    columns: dict[str, Column]
    """Those, those of endpoints, and the columns that they are made of."""
    questions: dict[str, int | None] = Field(default_factory=dict)
    """Of each benchmark, where that is known before anything is evaluated."""
    left_out: dict[str, str] = Field(default_factory=dict)
    """Columns that need a judge, where none is configured, with their labels."""
    roles: dict[str, str] = Field(default_factory=dict)
    only_model: str | None = None
    rules: Rules | None = None
    rules_sha256: str | None = None
    """Of ``rules`` as canonical JSON."""
    rules_file_sha256: str | None = None
    """Of config/verdicts.yaml as it was shipped, before overlays."""
    seeds: tuple[str, ...] = ()
    """Those that were fixed before any run: a claim is judged once, when both arms have them all. Empty: there is no such
    rule, as of two checkpoints that are laid side by side."""
    note: str | None = None

    @property
    def endpoints(self) -> dict[str, Endpoint]:
        """Those whose columns are all there."""
        known = self.rules.endpoints if self.rules else {}
        return {name: e for name, e in known.items() if set(e.columns) <= set(self.columns)}

    def absent_seeds(self, there: Iterable[str]) -> list[str]:
        """Of the configured ones."""
        known = set(there)
        return [seed for seed in self.seeds if seed not in known]

    @property
    def level(self) -> float:
        return self.rules.level if self.rules else 0.05


class SeedPair(Frozen):
    """The scores of both arms at one seed."""

    seed: str
    treatment: float
    reference: float

    @property
    def difference(self) -> float:
        return self.treatment - self.reference


class PublishedChange(Frozen):
    """The same difference as the paper prints it."""

    treatment: str
    reference: str
    """As printed, or as far as it follows from what is printed."""
    change: float
    tables: tuple[str, ...]
    """Where both stand: of config/published.csv."""


class Difference(Frozen):
    """Treatment minus reference, of one model in one quantity."""

    model: str
    treatment: str
    reference: str
    quantity: str
    """A column, or an endpoint."""
    pooled: bool
    """Whether it is an endpoint."""
    label: str
    maximum: float
    """The highest possible score."""
    by_seed: tuple[SeedPair, ...]
    difference: float
    low: float
    high: float
    """Its interval: over seeds with several, over clusters of questions with one (``basis``)."""
    basis: Basis
    p: float | None = None
    """Of the t test over seeds; None with one seed, and where all seeds differ by exactly the same."""
    p_adjusted: float | None = None
    """Holm, over the columns of the pair."""
    crossed_low: float | None = None
    crossed_high: float | None = None
    """Interval with seeds and pictures both drawn, as a check."""
    questions: int
    clusters: int
    gained: float
    lost: float
    """Questions that the treatment answers better, and worse: of one seed, or the mean over seeds."""
    question_error: float
    """Standard error of one seed's difference over clusters of questions; root mean square over seeds."""
    published: PublishedChange | None = None

    @property
    def pair(self) -> tuple[str, str, str]:
        return self.model, self.treatment, self.reference

    @property
    def n(self) -> int:
        return len(self.by_seed)

    @property
    def differences(self) -> list[float]:
        """Of each seed."""
        return [seed.difference for seed in self.by_seed]

    @property
    def treatment_mean(self) -> float:
        return sum(seed.treatment for seed in self.by_seed) / self.n

    @property
    def reference_mean(self) -> float:
        return sum(seed.reference for seed in self.by_seed) / self.n

    @property
    def disagreement(self) -> float:
        """Share of the questions that one arm answers better than the other."""
        return (self.gained + self.lost) / self.questions

    @property
    def scale(self) -> float:
        """What makes points of 100 of it."""
        return 100 / self.maximum


class JudgedPart(Frozen):
    """One of the comparisons that a verdict rests on."""

    treatment: str
    reference: str
    quantity: str
    label: str
    n: int
    difference: float
    low: float
    high: float
    margin: float
    """In the unit of the difference."""
    p: float | None
    p_below_margin: float | None
    """One-sided: of an effect as large as the margin, were there one."""
    verdict: Verdict
    published: float | None = None
    """The paper's difference, in the same unit."""
    needed: int | None = None
    """About how many seeds a new study would need to tell."""


class JudgedClaim(Frozen):
    """A claim, for one model and in one version of its endpoint."""

    claim: str
    says: str
    source: str
    model: str
    endpoint: str
    endpoint_label: str
    deciding: bool
    """Whether this version of the endpoint decides."""
    verdict: Verdict | None
    """None where there are no evaluations to judge by."""
    why: str
    """In a sentence."""
    n: int
    needed: int | None = None
    parts: tuple[JudgedPart, ...] = ()


class Comparison(Frozen):
    """Everything that is concluded: ``comparison.json``."""

    definition: Definition
    differences: tuple[Difference, ...]
    verdicts: tuple[JudgedClaim, ...]
    missing: tuple[str, ...]
    """What could not be compared, a line each."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises: ReportError, naming the file."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise ReportError(f"{path} is no comparison of this version ({error}): delete it and build it again") from None

    def of(self, pair: tuple[str, str, str], quantity: str, pooled: bool = False) -> Difference | None:
        """In a column or, ``pooled``, an endpoint, which may have a column's name."""
        return next((d for d in self.differences if (d.pair, d.quantity, d.pooled) == (pair, quantity, pooled)), None)
