"""What the page shows, as types. Their JSON is what the page's JavaScript reads: a name changed here is changed there.

Everything is optional but the title: a study that has only begun has a page too, and ``missing`` says in a sentence for each
part what would fill it.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ...study.settings import Frozen

Verdict = Literal["holds", "does not hold", "cannot tell", "not evaluated"]
Outcome = Literal["better", "worse", "undecided", "no verdict"]


class Claim(Frozen):
    """A sentence that may hold, for one model, and what a rule written in advance says of it."""

    claim: str
    source: str
    """Who says so."""
    model: str
    verdict: Verdict
    reason: str
    on: str
    """The endpoint that decides."""
    seeds: int = 0
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    margin: float | None = None
    """In the unit of the estimate: effects below it count as none."""
    others: dict[str, str] = Field(default_factory=dict)
    """Other versions of the endpoint -> the verdict there."""


class Difference(Frozen):
    """``right`` minus ``left`` on the same questions, in points of the benchmark."""

    model: str
    left: str
    right: str
    label: str
    pooled: bool = False
    """An endpoint, over several benchmarks."""
    scale: float = 1.0
    """What makes points of 100 of it."""
    questions: int
    seeds: int
    left_mean: float
    right_mean: float
    difference: float
    low: float
    high: float
    p: float | None = None
    p_adjusted: float | None = None
    gained: float
    lost: float
    published: str = ""
    """The change that the paper prints."""
    outcome: Outcome = "no verdict"


class Evidence(Frozen):
    """By which rules the claims are judged, and what could not be compared."""

    rules: str
    """SHA-256 of the rules as they were used."""
    level: float
    margin: float | None
    minimum_seeds: int | None
    missing: tuple[str, ...]


class TableCell(Frozen):
    """``texts``: quantity -> as printed."""

    texts: dict[str, str]
    outcome: Outcome | None = None
    sources: tuple[str, ...] = ()
    """Of ``Origin.scores``."""


class TableRow(Frozen):
    model: str
    run: str
    cells: tuple[TableCell, ...]
    change: bool = False
    """The row is the difference of two others."""


class ShownTable(Frozen):
    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]
    notes: tuple[str, ...]


class Sheet(Frozen):
    """A table that is shown as it was written. ``numbers`` are the columns that are set right."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


class Curve(Frozen):
    """One quantity of one run's stage; ``x`` are steps, ``y`` means over the steps since the point before."""

    model: str
    variant: str
    seed: str
    stage: str
    quantity: str
    x: tuple[int, ...]
    y: tuple[float, ...]
    steps: int
    """Of the whole stage."""
    validation: bool = False


class AttentionSide(Frozen):
    """``maps`` and ``heads``: base64 of a byte a value; a byte b is ``peak * (b / 255) ** 2``."""

    checkpoint: str
    peak: float
    maps: str = ""
    """(pictures, layers, patches): the mean over heads. Empty where there is no room for more checkpoints."""
    heads: str = ""
    """(first pictures, layers, heads, patches)."""
    totals: tuple[float, ...]
    """(layers,): the share of attention on all image tokens, a mean over the pictures that are counted."""
    low: tuple[float, ...]
    high: tuple[float, ...]


class AttentionView(Frozen):
    name: str
    question: str
    sides: tuple[AttentionSide, ...]
    pictures: tuple[str, ...]
    """As data URLs, as the tower sees them."""
    grid: tuple[int, int]
    """Rows and columns of patches."""
    layers: int
    heads: int
    """Of each layer; 0 where heads were not recorded."""
    with_heads: int
    """Of how many of the pictures the single heads are there."""
    counted: int
    """Pictures behind the totals."""
    uniform: float | None = None
    """The share if every position attended alike."""
    notes: tuple[str, ...] = ()
    """What can be concluded, as the figure's own text says it."""
    numbers: Sheet | None = None


class Question(Frozen):
    """One question with what every checkpoint answered. Short names: there are thousands."""

    id: str
    q: str
    """The question."""
    t: str
    """What is right."""
    c: int
    """Of the benchmark's categories."""
    w: tuple[str, ...]
    """The different answers."""
    a: tuple[int, ...]
    """(checkpoints,): which of ``w``; -1 where the checkpoint was not asked."""
    s: tuple[float, ...]
    """(checkpoints,): points, from 0 to 1."""
    o: tuple[str, ...] = ()
    """Options."""
    p: tuple[int, ...] = ()
    """Of ``Answers.pictures``."""
    r: tuple[str, ...] = ()
    """Every answer that counts, where several people gave one."""


class PairCounts(Frozen):
    """Of two checkpoints (``left``, ``right``: of ``Answers.checkpoints``) on a benchmark. ``counts``: for each category those
    that both have right, that the right one gains, that it loses, and all others."""

    left: int
    right: int
    counts: tuple[tuple[int, int, int, int], ...]


class AnsweredBenchmark(Frozen):
    name: str
    label: str
    categories: tuple[str, ...]
    asked: int
    """Questions that there are."""
    pairs: tuple[PairCounts, ...]
    questions: tuple[Question, ...]
    """Those that are shown."""
    page: str = ""
    """Another page with all of them."""


class Answers(Frozen):
    checkpoints: tuple[str, ...]
    benchmarks: tuple[AnsweredBenchmark, ...]
    pictures: tuple[str, ...]


class Trained(Frozen):
    """One finished stage."""

    checkpoint: str
    stage: str
    recipe: str
    weights: str
    steps: int
    hours: float | None
    attempts: int
    """Those that were recorded: a training that was interrupted has several."""
    hardware: str
    settings: dict[str, Any]
    versions: dict[str, str]


class Source(Frozen):
    """What was downloaded, made or shipped."""

    name: str
    kind: str
    origin: str
    revision: str


class Evaluated(Frozen):
    """Where a number of a table comes from."""

    checkpoint: str
    benchmark: str
    questions: int
    weights: str
    recipe: str
    samples: str
    judge: str
    hours: float | None


class Origin(Frozen):
    commit: str
    """Of the checkout that wrote the page."""
    trained: tuple[Trained, ...] = ()
    sources: tuple[Source, ...] = ()
    scores: dict[str, Evaluated] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    """What was made by another configuration, a line each."""


class Page(Frozen):
    """The whole page, or one of its further pages, which have nothing but ``answers``."""

    title: str
    note: str = ""
    home: str = ""
    """The page that this one belongs to."""
    claims: tuple[Claim, ...] = ()
    differences: tuple[Difference, ...] = ()
    evidence: Evidence | None = None
    tables: tuple[ShownTable, ...] = ()
    others: tuple[Sheet, ...] = ()
    """Of a configuration's own rules."""
    power: tuple[Sheet, ...] = ()
    audit: tuple[Sheet, ...] = ()
    curves: tuple[Curve, ...] = ()
    attention: tuple[AttentionView, ...] = ()
    answers: Answers | None = None
    origin: Origin | None = None
    missing: dict[str, str] = Field(default_factory=dict)
    """Part -> what would fill it."""
