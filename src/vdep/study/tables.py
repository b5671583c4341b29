"""What is shown of the scores: columns, tables, figures, and which of them a target builds."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import Field, model_validator

from .settings import Frozen, Name


class Column(Frozen):
    """A column of a table: a part of one benchmark, or the mean or the sum of other columns."""

    label: str
    benchmark: Name | None = None
    part: str = "score"
    mean_of: tuple[Name, ...] = ()
    sum_of: tuple[Name, ...] = ()
    maximum: Annotated[float, Field(gt=0)] = 100.0
    """The highest possible number, by which endpoints put columns on one scale."""

    @model_validator(mode="after")
    def _one_source(self) -> Column:
        if sum(bool(source) for source in (self.benchmark, self.mean_of, self.sum_of)) != 1:
            raise ValueError("give exactly one of benchmark, mean_of, sum_of")
        return self


class Protocol(Frozen):
    """Published cells that come from another protocol than the numbers they stand beside, or may do so.

    A cell of config/published.csv is meant where its column, its table (``tables`` may hold ``*``) and its model are listed;
    without ``models`` any model. ``comparable`` says that a difference can still be judged: the same questions, prompt and
    metric, with a reservation. ``source`` is where the note's facts can be read.
    """

    columns: Annotated[tuple[Name, ...], Field(min_length=1)]
    tables: Annotated[tuple[str, ...], Field(min_length=1)]
    models: tuple[Name, ...] = ()
    comparable: bool = False
    note: str
    source: str

    def covers(self, table: str, model: str, column: str) -> bool:
        return (
            column in self.columns
            and any(fnmatchcase(table, pattern) for pattern in self.tables)
            and (not self.models or model in self.models)
        )


class Calibration(Frozen):
    """A table of checkpoints that others have evaluated too: is this evaluation to be trusted?

    ``references`` are tables of config/published.csv. A cell is judged by the first of them with a comparable number, within
    the tolerance that follows when ``flipped`` of all answers are scored otherwise there (docs/decisions.md).
    """

    references: Annotated[tuple[str, ...], Field(min_length=1)]
    flipped: Annotated[float, Field(gt=0, lt=1)] = 0.02


class Arms(Frozen):
    """Checkpoints: every one of ``models`` (or their roles) in every one of ``variants``, in this order, with every seed."""

    models: tuple[Name, ...]
    """Models, or the roles that the study gives to models."""
    variants: tuple[Name, ...]
    """Ways to train them."""


class Table(Arms):
    """A row is a model in a variant; ``published`` names tables of config/published.csv."""

    title: str
    """Its heading."""
    columns: tuple[Name, ...]
    """Of ``columns``, in the order of the table."""
    published: tuple[str, ...] = ()
    """Tables of config/published.csv whose numbers stand beside those that are reproduced."""
    calibration: Calibration | None = None
    """Whether the rows are checkpoints that others have evaluated too."""


class LossFigure(Arms):
    """The losses of some checkpoints' runs, drawn together."""


class ShownPictures(Frozen):
    """Pictures whose maps of attention are drawn: the first of a folder."""

    asset: Name
    """Where the pictures are."""
    folder: str = ""
    """The asset's folder of pictures."""
    pictures: Annotated[int, Field(ge=1)] = 4
    """How many are shown."""


class MaskedPictures(Frozen):
    """Pictures of which it is known where their objects are: attention is measured on them."""

    asset: Name
    """Where the pictures are: one ZIP archive, or files."""
    folder: str = ""
    """Where in it."""
    masks: Name
    """The asset that says where their objects are; it may be the same."""
    objects: str
    """A file of COCO's instances (``*.json``), or a folder with a white-on-black ``NAME.png`` for every picture ``NAME.*``."""
    pictures: Annotated[int, Field(ge=8)] = 1000
    """How many are measured, by their names the first whose objects cover neither next to nothing nor most of the picture."""


class AttentionFigure(Frozen):
    """Figure 1 of the paper: a model in two variants on the same pictures; and how much of it lies on objects."""

    model: Name
    """A model or a role."""
    left: Name
    """The variant on the left."""
    right: Name
    """The variant on the right, which all others are compared with."""
    controls: tuple[Name, ...] = ()
    """Further variants, in curves and tables only."""
    shown: ShownPictures
    """What maps are drawn of."""
    measured: MaskedPictures
    """What curves and tables are means of."""
    question: str = "Describe this photo in detail."
    """Whose words attend to the image."""

    @property
    def variants(self) -> tuple[Name, ...]:
        return self.left, self.right, *self.controls

    @property
    def assets(self) -> tuple[Name, ...]:
        return self.shown.asset, self.measured.asset, self.measured.masks

    @model_validator(mode="after")
    def _each_once(self) -> AttentionFigure:
        if len(set(self.variants)) < len(self.variants):
            raise ValueError("left, right and controls should be different variants")
        return self


class Target(Frozen):
    """What ``snakemake NAME`` builds. Runs, evaluations, data and downloads follow from it."""

    targets: tuple[Name, ...] = ()
    """Other targets that belong to it."""
    tables: tuple[Name, ...] = ()
    """Of ``tables``."""
    figures: tuple[Name, ...] = ()
    """Of ``figures`` and ``loss_figures``."""
    verdicts: tuple[Name, ...] = ()
    """Claims (``verdicts.claims``) whose arms are evaluated on everything that they are judged by, and the comparison."""
