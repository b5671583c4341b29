"""What published numbers can be: config/audit.yaml, typed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError, model_validator

from ..errors import ConfigError
from ..study.messages import describe_validation_error
from ..study.settings import Frozen, Name
from ..study.tables import Protocol
from .audit_lattice import Lattice

NUMBER = r"[+-]?\d+(\.\d+)?"


def _a_number(text: str) -> str:
    if not re.fullmatch(NUMBER, text):
        raise ValueError("should be a number as it is printed")
    return text


Text = Annotated[str, AfterValidator(_a_number)]
"""A number as it is printed: its decimals count."""
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Columns = Annotated[tuple[Name, ...], Field(min_length=1)]


class PrintedColumn(Frozen):
    """How the numbers of a published column come about."""

    questions: Count | None = None
    """The share of so many questions that are answered rightly, in percent."""
    points: Count | None = None
    """A count, up to so many."""
    pictures: Count | None = None
    """A category of MME: accuracy and accuracy+ over so many pictures with two questions each."""
    sum_of: tuple[Name, ...] = ()
    """The sum of other columns."""
    mean_of: tuple[Name, ...] = ()
    """The mean of other columns."""
    any: str | None = None
    """Why any number up to ``up_to`` may be one."""
    up_to: Count | None = None
    """The highest score, where any number may be one."""
    source: str
    """Where this is known from."""

    @model_validator(mode="after")
    def _one_kind(self) -> PrintedColumn:
        kinds = (self.questions, self.points, self.pictures, self.sum_of, self.mean_of, self.any)
        if sum(bool(kind) for kind in kinds) != 1:
            raise ValueError("give exactly one of questions, points, pictures, sum_of, mean_of, any")
        if (self.up_to is None) != (self.any is None):
            raise ValueError("up_to belongs to any, and any needs it")
        return self

    @property
    def lattice(self) -> Lattice | None:
        if self.questions is not None:
            return Lattice.of_questions(self.questions)
        if self.points is not None:
            return Lattice.of_points(self.points)
        return Lattice.of_pictures(self.pictures) if self.pictures is not None else None

    @property
    def counted(self) -> str:
        """What its scores are counted in, in words."""
        if self.questions is not None:
            return f"{self.questions:,} questions"
        if self.points is not None:
            return f"{self.points:,} points"
        return f"{self.pictures} pictures with two questions each" if self.pictures is not None else ""


class DenominatorSearch(Frozen):
    """Columns of one benchmark whose number of questions is in doubt."""

    columns: Columns
    """They have the same number of questions."""
    low: Count
    """The smallest that is tried."""
    high: Count
    """The largest."""


class Reference(Frozen):
    """Numbers that others printed for a checkpoint that a row may have been taken from."""

    name: str
    """Whose."""
    model: Name
    """The row's."""
    run: Name
    """The row's."""
    table: str | None = None
    """Of config/published.csv."""
    more: dict[Name, Text] = Field(default_factory=dict)
    """Column -> number."""
    source: str
    """Where they can be read."""


class Everywhere(Frozen):
    """That the method is better in every column."""

    tables: Annotated[tuple[str, ...], Field(min_length=1)]
    """Of config/published.csv, whose CHANGE rows are meant."""
    where: str
    """Where the text says so."""


class Gain(Frozen):
    """A gain that the text gives in percent of the baseline's score."""

    model: Name
    column: Name
    printed: Text
    where: str
    """Where the text says so."""


class Claims(Frozen):
    """What the text says of the tables."""

    better_everywhere: Everywhere | None = None
    gains: tuple[Gain, ...] = ()


class Expectations(Frozen):
    """The whole of config/audit.yaml."""

    columns: dict[Name, PrintedColumn]
    denominators: dict[Name, DenominatorSearch] = Field(default_factory=dict)
    references: tuple[Reference, ...] = ()
    claims: Claims = Claims()

    @model_validator(mode="after")
    def _known(self) -> Expectations:
        named: dict[str, tuple[str, ...]] = {}
        for name, column in self.columns.items():
            named[f"columns.{name}"] = (*column.sum_of, *column.mean_of)
        for name, search in self.denominators.items():
            named[f"denominators.{name}"] = search.columns
            counts = {self.columns[c].questions for c in search.columns if c in self.columns}
            if None in counts or len(counts) > 1:
                raise ValueError(f"denominators.{name}: its columns should have `questions`, and as many of them each")
            if search.low > search.high:
                raise ValueError(f"denominators.{name}: low is above high")
        named |= {f"references.{r.name}": tuple(r.more) for r in self.references}
        named["claims.gains"] = tuple(gain.column for gain in self.claims.gains)
        for where, names in named.items():
            for name in names:
                if name not in self.columns:
                    raise ValueError(f"{where}: {name} is no column (known: {', '.join(sorted(self.columns))})")
        return self


def read_expectations(path: Path) -> Expectations:
    """
    Raises:
        ConfigError: naming the file, the key and what is wrong.
    """
    try:
        return Expectations.model_validate(_content(path))
    except ValidationError as error:
        raise ConfigError(f"{path}: {describe_validation_error(error)}") from error


def read_protocols(path: Path) -> dict[str, Protocol]:
    """Of config/protocols.yaml, for whoever has no study at hand.

    Raises:
        ConfigError: naming the file, the key and what is wrong.
    """
    try:
        return TypeAdapter(dict[str, dict[str, Protocol]]).validate_python(_content(path)).get("protocols", {})
    except ValidationError as error:
        raise ConfigError(f"{path}: {describe_validation_error(error)}") from error


def _content(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text()) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
