"""The rules by which a difference becomes a verdict (config/verdicts.yaml), and what is compared with what.

Written before any run, and hashed into whatever is concluded by them. Imports no torch.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .settings import Frozen, Name, Removable

Share = Annotated[float, Field(gt=0, lt=1)]
Points = Annotated[float, Field(gt=0)]


class Pair(Frozen):
    """Two ways to train, of which one is a change of the other."""

    treatment: Name
    """The variant that changes something."""
    reference: Name
    """The variant that it is a change of."""

    @model_validator(mode="after")
    def _two(self) -> Pair:
        if self.treatment == self.reference:
            raise ValueError(f"{self.treatment} is compared with itself")
        return self

    @property
    def variants(self) -> tuple[str, str]:
        return self.treatment, self.reference


class ComparedPair(Pair):
    """A pair that is compared whatever is claimed."""

    models: tuple[Name, ...] = ()
    """Models or roles; without, every model that is trained in both variants."""


class Comparison(Frozen):
    """What is compared with what: every variant of a model with ``reference``, the pairs of all claims, and ``pairs``."""

    reference: Name = "baseline"
    """The variant that all others are compared with."""
    pairs: Annotated[dict[Name, ComparedPair], Removable] = Field(default_factory=dict)
    """And these with one another."""
    columns: Annotated[tuple[Name, ...], Field(min_length=1)]
    """A line for each; p values are adjusted (Holm) over the columns of one pair."""


class Endpoint(Frozen):
    """The mean of columns, each on a scale from 0 to 100 by its ``maximum``: one number for a run."""

    label: str
    """As tables call it."""
    columns: Annotated[tuple[Name, ...], Field(min_length=1)]
    """Each counts as much as any other."""


class Claim(Frozen):
    """A sentence that the rules judge: of each pair, the treatment does better than the reference.

    With several pairs, or with ``each``, all have to: a test of each at the full level is then a test of all at that level
    (intersection-union), and nothing is adjusted.
    """

    says: str
    """The sentence."""
    source: str = "not in the paper"
    """Who says so, and where."""
    models: Annotated[tuple[Name, ...], Field(min_length=1)]
    """Models or roles; each is judged by itself."""
    pairs: Annotated[tuple[Pair, ...], Field(min_length=1)]
    """Treatment against reference."""
    endpoints: Annotated[tuple[Name, ...], Field(min_length=1)]
    """The first decides. The others are judged by the same rules and shown beside it."""
    each: bool = False
    """On every column of the endpoint by itself, and not only on their mean."""
    margin: Points | None = None
    """In place of the study's."""


class Assumptions(Frozen):
    """What the power calculation takes for granted where nothing has been measured."""

    seed_spread: Annotated[float, Field(ge=0)]
    """Standard deviation over seeds of a column's score (0-100), beyond what single questions do by chance."""
    seed_correlation: Annotated[float, Field(ge=0, le=1)]
    """Of two columns' scores over seeds."""
    disagreement: Share
    """Of the questions, those that one arm answers rightly and the other wrongly, at the same seed."""
    questions: dict[Name, Annotated[int, Field(ge=2)]] = Field(default_factory=dict)
    """For columns whose score counts something else than single questions: as many equal questions would leave as much to
    chance."""


class Rules(Frozen):
    """How verdicts are reached: two-sided tests at ``level`` over seeds, and one-sided ones at it against the margin."""

    level: Share = 0.05
    """Of every test."""
    power: Share = 0.8
    """With which an effect should be detected."""
    margin: Points = 1.0
    """The smallest difference, in points of an endpoint (0-100), that would matter."""
    minimum_seeds: Annotated[int, Field(ge=2)] = 3
    """With fewer there is no verdict."""
    endpoints: Annotated[dict[Name, Endpoint], Removable]
    """What verdicts are about."""
    claims: Annotated[dict[Name, Claim], Removable]
    """The paper's, and ours."""
    assumed: Assumptions
    """Before anything is measured."""
    seeds: tuple[Annotated[int, Field(ge=1)], ...] = (1, 3, 5, 10)
    """Numbers of seeds whose power is calculated."""


Verdict = Literal["holds", "does not hold", "cannot tell"]
