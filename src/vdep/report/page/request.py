"""What the page is asked to show: what is finished when it is planned. Imports nothing heavy, as Snakemake plans with it.

The page causes no training and no evaluation. So finished files are no inputs of its rule, whose own inputs would be looked
at in turn; a digest of them, each with its size and time, is its parameter, and what is finished since makes the page anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from ...study.plan import Plan
from ...study.recipe import canonical_json
from ...study.settings import STAGES, Frozen
from ...study.study import IMPORTED, Run, Study

Metadata = Callable[[str], Any]
"""File -> what Snakemake recorded about the job that made it, or None."""
TITLE = "VDEP: what these results say"
SHEETS = ("comparison", "verdicts", "power", "power_published", "audit")
NOT_SHOWN = ("results",)
"""A file for programs, of numbers that stand in the tables."""


class AskedStage(Frozen):
    checkpoint: str
    stage: str
    done: str
    seconds: float | None


class AskedScores(Frozen):
    """``evaluation`` and ``training``: the digests of the recipes that the configuration has now."""

    checkpoint: str
    file: str
    seconds: float | None
    evaluation: str
    training: str


class AskedBenchmark(Frozen):
    name: str
    label: str
    data: str
    """The manifest of its data."""
    scores: tuple[AskedScores, ...]


class AskedTable(Frozen):
    name: str
    title: str
    columns: dict[str, str]
    """Name -> label."""


class AskedFigure(Frozen):
    name: str
    question: str
    sides: dict[str, str]
    """Checkpoint -> file."""
    numbers: str | None
    """The CSV of the figure, beside which its conclusions stand as Markdown."""


class Request(Frozen):
    """Paths are relative to where Snakemake runs."""

    title: str
    note: str
    results: str
    stages: tuple[AskedStage, ...]
    benchmarks: tuple[AskedBenchmark, ...]
    tables: tuple[AskedTable, ...]
    figures: tuple[AskedFigure, ...]
    sheets: dict[str, str]
    """File name -> CSV or JSON of the comparison and so on, beside the tables."""
    others: dict[str, str]
    """Name -> every other CSV there, which a configuration's own rules wrote."""
    assets: dict[str, str]
    """Name -> manifest."""
    stamps: dict[str, tuple[int, int]]
    """File -> size and modification time, in nanoseconds."""

    @property
    def digest(self) -> str:
        """Of what is finished. What is concluded of it (``sheets``) is not, and may be made just before the page."""
        finished = self.model_dump(mode="json", exclude={"sheets"})
        return sha256(canonical_json(finished).encode()).hexdigest()


def ask(plan: Plan, metadata: Metadata = lambda file: None) -> Request:
    """What there is of a study's runs, evaluations, tables and figures."""
    study, here = plan.study, Path(plan.results)
    seconds = _Seconds(metadata)
    runs = study.all_runs
    stages = [
        AskedStage(checkpoint="/".join(run), stage=stage, done=done, seconds=seconds(done))
        for run in runs
        for stage in STAGES
        if Path(done := plan.done(run, stage)).is_file()
    ]
    training = {run: _training_digest(study, run) for run in runs}
    benchmarks = []
    for name, benchmark in study.benchmarks.items():
        if name in study.submission_benchmarks or (benchmark.judged and study.judge is None):
            continue
        found = [
            AskedScores(
                checkpoint="/".join(run),
                file=file,
                seconds=seconds(file),
                evaluation=study.evaluation_recipe(run.model, run.variant, name).digest,
                training=training[run],
            )
            for run in runs
            if Path(file := plan.scores(run, name)).is_file()
        ]
        if found:
            label = next((c.label for c in study.columns.values() if c.benchmark == name and c.part == "score"), name)
            benchmarks.append(AskedBenchmark(name=name, label=label, data=plan.asset(benchmark.asset), scores=tuple(found)))
    tables = [
        AskedTable(name=name, title=table.title, columns={c: study.columns[c].label for c in table.columns})
        for name, table in study.tables.items()
        if (here / "tables" / f"{name}.csv").is_file()
    ]
    figures = []
    for name, figure in study.figures.items():
        files = {"/".join(run): f"{here}/attention/{name}/{'/'.join(run)}.npz" for run in study.sides(name)}
        if present := {run: file for run, file in files.items() if Path(file).is_file()}:
            numbers = here / "figures" / f"{name}.csv"
            found_numbers = str(numbers) if numbers.is_file() else None
            figures.append(AskedFigure(name=name, question=figure.question, sides=present, numbers=found_numbers))
    sheets = dict(_sheets(here / "tables"))
    known = {*study.tables, *SHEETS, *NOT_SHOWN}
    assets = {name: file for name in study.assets if Path(file := plan.asset(name)).is_file()}
    request = Request(
        title=TITLE,
        note=study.note or "",
        results=str(here),
        stages=tuple(stages),
        benchmarks=tuple(benchmarks),
        tables=tuple(tables),
        figures=tuple(figures),
        sheets=sheets,
        others={path.stem: str(path) for path in sorted((here / "tables").glob("*.csv")) if path.stem not in known},
        assets=assets,
        stamps={},
    )
    return request.model_copy(update={"stamps": {file: _stamp(file) for file in _files(request)}})


def _training_digest(study: Study, run: Run) -> str:
    if run.seed == IMPORTED:
        return study.import_recipe(run.model, run.variant).digest
    return study.recipe(run.model, run.variant, "finetune", run.seed).digest


def _sheets(folder: Path) -> Iterator[tuple[str, str]]:
    for name in SHEETS:
        for ending in ("json", "csv"):
            if (path := folder / f"{name}.{ending}").is_file():
                yield f"{name}.{ending}", str(path)


def _files(request: Request) -> Iterator[str]:
    yield from (stage.done for stage in request.stages)
    yield from (scores.file for benchmark in request.benchmarks for scores in benchmark.scores)
    yield from (f"{request.results}/tables/{table.name}.csv" for table in request.tables)
    yield from (file for figure in request.figures for file in figure.sides.values())
    yield from (figure.numbers for figure in request.figures if figure.numbers)
    yield from request.others.values()
    yield from request.assets.values()


def _stamp(file: str) -> tuple[int, int]:
    status = Path(file).stat()
    return status.st_size, status.st_mtime_ns


class _Seconds:
    """How long the job took that made a file."""

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata

    def __call__(self, file: str) -> float | None:
        found = self._metadata(file)
        start, end = (getattr(found, name, None) for name in ("starttime", "endtime"))
        return round(end - start, 1) if start and end and end >= start else None
