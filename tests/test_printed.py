"""What tables are printed as besides Markdown: intervals of combined cells, LaTeX, and results.csv."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import numpy as np
import pytest
from evidence_world import questions_of, write_evaluation
from test_tables import build

from vdep.evaluation.scores import Scored, mme
from vdep.report.combined import interval, parts_by_benchmark
from vdep.report.latex import escaped, table_latex, tabular
from vdep.report.results import Results
from vdep.report.tidy import FIELDS
from vdep.report.tidy import as_csv as tidy_csv
from vdep.study.tables import Column

COLUMNS = {
    "one": Column(label="One", benchmark="mme", part="existence"),
    "other": Column(label="Other", benchmark="mme", part="count"),
    "sum": Column(label="Sum", sum_of=("one", "other")),
    "en": Column(label="EN", benchmark="en"),
    "cn": Column(label="CN", benchmark="cn"),
    "mean": Column(label="Mean", mean_of=("en", "cn")),
    "nested": Column(label="Nested", sum_of=("mean", "sum")),
}


def mme_questions() -> list[Scored]:
    rng = np.random.default_rng(0)
    groups = {"existence": 80, "count": 60}
    return [
        Scored(n * 1000 + 2 * i + j, f"{group}{i}", float(rng.random() < 0.7), group, unit=f"{group}{i}")
        for n, (group, pictures) in enumerate(groups.items())
        for i in range(pictures)
        for j in range(2)
    ]


def test_the_interval_of_a_sum_is_that_of_the_sum_resampled_as_one_score(tmp_path: Path) -> None:
    questions = mme_questions()
    path = write_evaluation(tmp_path / "mme.json", questions, "mme")
    low, high = mme("existence", "count").interval(questions)
    assert interval({"mme": path}, "sum", COLUMNS) == pytest.approx((low, high), abs=0.12 * (high - low))


def test_a_mean_of_benchmarks_is_as_wide_as_their_common_pictures_make_it(tmp_path: Path) -> None:
    right = np.random.default_rng(0).random((2, 400)) < 0.6
    pictures = np.arange(400)

    def width(second: int, asset: str) -> float:
        files = {
            "en": write_evaluation(tmp_path / "en.json", questions_of(right[0], pictures), asset="mmbench"),
            "cn": write_evaluation(tmp_path / "cn.json", questions_of(right[second], pictures), asset=asset),
        }
        low, high = interval(files, "mean", COLUMNS)
        return high - low

    alone = 2 * 1.96 * 100 * np.sqrt(0.24 / 400)
    assert width(0, "mmbench") == pytest.approx(alone, rel=0.05), "the same answers twice are no more evidence"
    assert width(1, "another") == pytest.approx(alone / np.sqrt(2), rel=0.05)


def test_a_cell_of_one_seed_has_the_interval_and_one_of_several_seeds_has_none(tmp_path: Path) -> None:
    files = {
        ("m", "v", f"seed-{s}", "mme"): write_evaluation(tmp_path / f"{s}" / "mme.json", mme_questions(), "mme") for s in (1, 2)
    }
    one = Results(dict([next(iter(files.items()))]), interval=interval).cell("m", "v", "sum", COLUMNS)
    assert one.low is not None
    assert one.high is not None
    assert one.low < one.value < one.high
    assert Results(files, interval=interval).cell("m", "v", "sum", COLUMNS).low is None


def test_parts_of_parts_are_found() -> None:
    assert parts_by_benchmark("nested", COLUMNS) == {"mme": ["count", "existence"], "cn": ["score"], "en": ["score"]}


def test_a_table_as_latex_has_all_its_numbers(tmp_path: Path) -> None:
    table, _ = build("main_general", tmp_path)
    latex = table_latex(table, "main_general")
    for cell in table.cells.values():
        for quantity in ("reproduced", "published", "change", "published_change"):
            if quantity in cell:
                assert cell[quantity] in latex, (quantity, cell)
    rows = [line for line in latex.splitlines() if line.endswith(r"\\")]
    assert all(row.count(" & ") == 1 + len(table.columns) for row in rows)
    assert latex.count(r"\textbf") == sum(cell[2] in table.columns for cell in table.best)


def test_words_are_escaped_and_bold_stays_bold() -> None:
    assert escaped("50% of a_b & c#") == r"50\% of a\_b \& c\#"
    assert escaped("**vdep_1** > x") == r"\textbf{vdep\_1} $>$ x"
    assert escaped("-1.20") == "$-1.20$"
    made = tabular(("a", "b"), [("x", "1"), (), ("y", "+2")], "50% of {it}", "t")
    assert not re.search(r"(?<!\\)%(?! needs)", made)
    assert made.count(r"\midrule") == 2


def test_every_number_of_every_evaluation_is_a_line(tmp_path: Path) -> None:
    files = {
        ("m", "v", "seed-1", "mme"): write_evaluation(tmp_path / "mme.json", mme_questions(), "mme"),
        ("m", "v", "seed-1", "gqa"): write_evaluation(tmp_path / "gqa.json", questions_of(np.ones(5), np.arange(5))),
    }
    rows = list(csv.DictReader(io.StringIO(tidy_csv(files))))
    assert tuple(rows[0]) == FIELDS
    assert len({tuple(row[name] for name in FIELDS[:5]) for row in rows}) == len(rows)
    found = {(row["benchmark"], row["quantity"]): row for row in rows}
    assert float(found["gqa", "score"]["value"]) == 100.0
    assert found["gqa", "score.low"]["n"] == "5"
    assert float(found["mme", "existence"]["value"]) == mme("existence")(mme_questions())
