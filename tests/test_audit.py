"""The audit of printed numbers: what it finds in the paper, in tables with planted errors, and in clean ones."""

from __future__ import annotations

import csv
import io
import random
import time
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from itertools import product
from pathlib import Path

import pytest
import world
from hypothesis import given, settings
from hypothesis import strategies as st
from made_papers import EXPECTATIONS, KINDS, PAPERS, PUBLISHED, clean_paper, plant, suspicious, ways_to_print
from test_recipe import paper_config
from test_workflow import planned, snakemake

from vdep.__main__ import run as command
from vdep.errors import ConfigError, ReportError
from vdep.report.audit import CHECKS, Audit, as_csv, as_markdown, audit, remarks
from vdep.report.audit_checks import CellKey
from vdep.report.audit_expectations import Expectations, read_expectations
from vdep.report.audit_lattice import Lattice, Printed, fitting_denominators, is_printed_as, two_decimals
from vdep.report.results import Published
from vdep.report.tables import CHANGE
from vdep.study.check import load_study

PROTOCOLS = load_study(paper_config()).protocols
FOUND = audit(PUBLISHED, EXPECTATIONS, PROTOCOLS)


def cells(found: Audit, check: str) -> set[CellKey]:
    return {finding.cell for finding in found.of(check)}


# -- the paper

IMPOSSIBLE = """
table1 llava-7b baseline realworldqa 54.80
table1 llava-7b baseline scienceqa_img 66.80
table2 tinyllava-3b baseline mmmu 33.80
table2 tinyllava-3b vdep mmmu 33.80
table2 llava-7b baseline mmmu 31.20
table2 llava-7b vdep mmmu 30.80
table3 tinyllava-3b vdep mme_commonsense 130.70
table3 llava-7b vdep mme_commonsense 136.00
table3 llava-7b vdep mme_count 153.30
table6 llava-7b ratio-0.5 mmmu 31.20
table6 llava-7b ratio-0.8 mmmu 31.30
table6 llava-7b vdep mmmu 30.80
table7 llava-7b alpha-0.1 mmmu 30.60
table7 llava-7b alpha-0.01 mmmu 31.30
table7 llava-7b vdep mmmu 30.80
table8 llava-7b vdep mme_commonsense 136.00
table8 llava-7b vdep mme_count 153.30
table10 llava-7b loss-inverse mmmu 31.20
table10 llava-7b vdep mmmu 30.80
"""
"""The cells that are no score of so many questions with the decimals that are printed."""


def test_the_cells_that_no_count_of_questions_yields() -> None:
    found = {" ".join((*f.cell, f.printed)) for f in FOUND.of("granularity")}
    assert found == set(IMPOSSIBLE.split("\n")) - {""}
    assert len(found) == 19
    words = {f.printed: f.words for f in FOUND.of("granularity")}
    assert "it can be 66.8 with one decimal, padded" in words["66.80"]
    assert "it can be 130.7 with one decimal, padded, which stands for 130.71" in words["130.70"]
    assert "nor with one decimal; it can be 136 as a whole number, padded, which stands for 135.71 or 136.43" in words["136.00"]


def test_1784_is_the_only_number_of_questions_that_fits_the_papers_mmbench() -> None:
    (search,) = FOUND.searches
    assert len(search.different) == 12
    assert search.fit_all == [1784]
    assert (search.search.low, search.search.high) == (100, 2400)
    fitting = search.tried.set_index("n")["either"]
    assert (fitting[1784], fitting[1164], sorted(fitting)[-2]) == (12, 3, 10)
    # dev's number fits 3 of the 14 cells; the others each have their line
    found = [f for f in FOUND.of("denominator") if f.column != "mmbench_mean"]
    assert len(found) == 11
    assert all("1,784 is the only number of questions from 100 to 2,400 that fits all 12" in f.words for f in found)


def test_an_independent_search_comes_to_1784_too() -> None:
    units = {int(100 * p.value) for p in PAPERS if p.run != CHANGE and p.column in ("mmbench_en", "mmbench_cn")}

    def possible(n: int) -> int:
        near = {unit: range(max(0, unit * n // 10_000 - 1), unit * n // 10_000 + 2) for unit in units}
        return sum(any(unit in (10_000 * k // n, (20_000 * k + n) // (2 * n)) for k in near[unit]) for unit in units)

    assert [n for n in range(100, 2401) if possible(n) == len(units)] == [1784]


def test_totals_changes_contradictions_and_numbers_of_others() -> None:
    assert {(f.table, f.model, f.run, f.printed, f.fits) for f in FOUND.of("sum")} == {
        ("table3", "tinyllava-3b", "baseline", "762.37", "762.38"),
        ("table3", "tinyllava-3b", "vdep", "807.36", "807.38"),
        ("table3", "llava-7b", "baseline", "787.37", "787.38"),
        ("table3", "llava-7b", "vdep", "794.30", "794.05 or 794.76"),
        ("table8", "llava-7b", "vdep", "794.30", "794.05 or 794.76"),
    }
    assert not FOUND.of("change"), "the CHANGE rows are the differences of what is printed"
    assert {(f.table, f.column, f.printed) for f in FOUND.of("contradiction")} == {
        ("table2", "pope", "86.20"),
        ("table10", "pope", "85.95"),
        ("table3", "mme_perception", "1516.60"),
        *((f"table{n}", "mme_perception", "1515.60") for n in (4, 5, 8)),
    }
    assert {f.printed for f in FOUND.of("reference")} == {"66.80", "31.10", "1510.72", "85.85", "66.10"}
    unlike_the_text = {f.printed for f in FOUND.of("claim") if "throughout" in f.words}
    assert unlike_the_text == {"+0.00", "-2.00", "-1.18", "-3.20", "-0.50", "-0.40"}
    gains = {f.printed: f.words for f in FOUND.of("claim") if "in percent" in f.words}
    assert gains.keys() == {"+3.36", "+3.28", "+2.84", "+1.56", "+3.00"}
    assert all("not in points" in words for words in gains.values())
    assert {f.column for f in FOUND.of("protocol")} == {
        c for p in PROTOCOLS.values() for c in p.columns if "table*" in p.tables
    }


def test_every_published_column_says_what_it_can_hold() -> None:
    assert {p.column for p in PUBLISHED} == set(EXPECTATIONS.columns)


def test_words_are_careful_and_every_finding_has_its_line() -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(FOUND))))
    assert len(rows) == len(FOUND.findings)
    assert {row["check"] for row in rows} == set(CHECKS) - {"change", "range"}
    assert not [f for f in FOUND.findings if "wrong" in f.words or "error" in f.words]
    printed = {(p.table, p.model, p.run, p.column): p.printed for p in PAPERS}
    assert all(printed[f.cell] == f.printed for f in FOUND.findings)
    page = as_markdown(FOUND)
    assert all(f"| {f.printed} | {f.fits} | {f.words} |" in page for f in FOUND.findings if f.check != "protocol")
    assert "So many arbitrary numbers would all fit 1,784 with a chance of 1e-07" in page


def test_tables_are_told_everything_but_protocols() -> None:
    told = remarks(FOUND)
    assert told.keys() == {f.cell for f in FOUND.findings if f.check != "protocol"}
    assert len(told["table2", "llava-7b", "vdep", "mmmu"]) == 1
    assert told["table1", "llava-7b", "baseline", "realworldqa"][0].startswith("cannot be a score of 765 questions")


# -- the arithmetic, against slower ways


def slow_category(pictures: int) -> set[Fraction]:
    """Accuracy + accuracy+ of every possible number of pictures with no, one and both questions right."""
    return {
        Fraction(100 * (one + 2 * both), 2 * pictures) + Fraction(100 * both, pictures)
        for one, both in product(range(pictures + 1), repeat=2)
        if one + both <= pictures
    }


@pytest.mark.parametrize("decimals", [0, 1, 2])
@pytest.mark.parametrize("n", [1, 3, 7, 30, 64, 97])
def test_a_number_fits_if_some_count_is_printed_so(n: int, decimals: int) -> None:
    can_be = {text for k in range(n + 1) for text in ways_to_print(Fraction(100 * k, n), decimals)}
    texts = [f"{Decimal(unit).scaleb(-decimals):f}" for unit in range(101 * 10**decimals)]
    fits = Lattice.of_questions(n).fits(Printed.of(texts))
    assert {text for text, fit in zip(texts, fits, strict=True) if fit} == can_be
    _, rounded, cut = fitting_denominators(Printed.of(texts), n, n)
    assert ((rounded | cut)[0] == fits).all()


@pytest.mark.parametrize("pictures", [1, 2, 5, 30, 70])
def test_a_category_of_mme_has_the_scores_of_its_pictures(pictures: int) -> None:
    lattice = Lattice.of_pictures(pictures)
    assert {Fraction(int(n), lattice.denominator) for n in lattice.numerators} == slow_category(pictures)


def test_lmms_evals_own_aggregation_stays_on_the_lattice() -> None:
    from lmms_eval.tasks.mme.utils import mme_aggregate_results

    chance = random.Random(5)
    seen = set()
    for pictures, _ in product((30, 70), range(40)):
        rate = chance.random()
        results = [
            {"question_id": i, "category": "count", "score": float(chance.random() < rate)}
            for i in range(pictures)
            for _ in "ab"
        ]
        text = f"{mme_aggregate_results(results):.2f}"
        assert Lattice.of_pictures(pictures).rounded(Printed.of([text])).all(), text
        seen.add(text)
    assert len(seen) > 40


@settings(max_examples=200, deadline=None)
@given(n=st.integers(1, 100_000), data=st.data())
def test_a_score_is_among_those_that_its_print_can_stand_for(n: int, data: st.DataObject) -> None:
    value = Fraction(100 * data.draw(st.integers(0, n)), n)
    decimals = data.draw(st.integers(0, 4))
    text = data.draw(st.sampled_from(sorted(ways_to_print(value, decimals)))) + "0" * data.draw(
        st.integers(0, 2) if decimals else st.just(0)
    )
    printed, lattice = Printed.of([text]), Lattice.of_questions(n)
    (fitting,) = lattice.fitting_decimals(printed)
    assert fitting >= decimals
    if fitting == decimals:
        assert value in lattice.candidates(printed)[0]
    assert is_printed_as(value, text[: len(text) - len(text.split(".")[-1]) + decimals] if decimals else text)


def test_decimals_that_are_not_zeros_are_never_given_up() -> None:
    lattice = Lattice.of_questions(765)
    texts = ["54.80", "54.81", "54.77", "54.00", "55", "300.00"]
    assert list(lattice.fitting_decimals(Printed.of(texts))) == [1, -1, 2, 1, 0, -1]
    assert [tuple(map(two_decimals, near)) for near in lattice.neighbours(Printed.of(["54.80", "300.00"]))] == [
        ("54.77", "54.90"),
        ("100.00",),
    ]


@pytest.mark.parametrize(
    ("value", "text", "is_so"), [("-1/8", "-0.12", True), ("-1/8", "-0.13", True), ("-1/8", "-0.11", False)]
)
def test_negative_changes_are_cut_towards_zero(value: str, text: str, is_so: bool) -> None:
    assert is_printed_as(Fraction(value), text) is is_so
    assert two_decimals(Fraction("-1/1000")) == "0.00"


@pytest.mark.parametrize(
    ("column", "text", "check"),
    [
        ("okvqa", "100.01", "range"),
        ("okvqa", "-0.01", "range"),
        ("gqa", "100.01", "granularity"),
        ("gqa", "-1.00", "granularity"),
    ],
)
def test_no_score_is_below_zero_or_above_the_highest(column: str, text: str, check: str) -> None:
    found = audit([Published("table1", "llava-7b", "vdep", column, text)], EXPECTATIONS, {})
    assert [f.check for f in found.findings] == [check]
    assert not audit([Published("table1", "llava-7b", "vdep", column, "100.00")], EXPECTATIONS, {}).findings


# -- made papers

TWENTY = [kind for kind in KINDS for _ in range(3)] + ["a digit off the lattice", "a digit off the lattice"]


def test_at_most_one_of_twenty_clean_papers_has_a_finding() -> None:
    flagged = {seed: found for seed in range(20) if (found := suspicious(clean_paper(seed)[0]).findings)}
    assert len(flagged) <= 1, flagged


@pytest.mark.parametrize(("seed", "kind"), enumerate(TWENTY, 1000))
def test_every_planted_error_is_found_where_it_is_by_the_check_that_is_for_it(seed: int, kind: str) -> None:
    assert len(TWENTY) == 20
    (paper, cell), check = plant(kind, seed)
    assert cell in cells(suspicious(paper), check)


@pytest.mark.long
def test_of_three_hundred_clean_papers_one_in_twenty_at_most_has_a_finding() -> None:
    assert sum(bool(suspicious(clean_paper(seed)[0]).findings) for seed in range(2000, 2300)) <= 15


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_of_forty_planted_errors_of_each_kind_all_are_found(kind: str) -> None:
    for seed in range(3000, 3040):
        (paper, cell), check = plant(kind, seed)
        assert cell in cells(suspicious(paper), check), seed


# -- files and commands


def test_the_command_writes_both_files_within_ten_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(world.ROOT)
    start = time.process_time()
    assert command(["audit", "--output", str(tmp_path)]) == 0
    assert time.process_time() - start < 10
    assert (tmp_path / "audit.csv").read_text() == as_csv(FOUND)
    assert (tmp_path / "audit.md").read_text() == as_markdown(FOUND)
    assert "19 granularity" in capsys.readouterr().out


@pytest.mark.parametrize("overlay", [(), ("--configfile", "config/demo.yaml")], ids=["paper", "demo"])
def test_the_target_needs_nothing_but_the_numbers(overlay: tuple[str, ...]) -> None:
    assert planned("audit", *overlay) == {"audit": 1}


def test_no_table_of_a_study_takes_its_name(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("tables: {audit: {title: Mine, models: [llava], variants: [vdep], columns: [gqa]}}\n")
    done = snakemake("-n", "audit", "--configfile", str(mine))
    assert done.returncode != 0
    assert "tables.audit: the audit of the printed numbers has that name" in done.stdout + done.stderr


@pytest.mark.parametrize("text", ["", "n/a", "nan", "5 4.80", "1e3", "54,80"])
def test_what_is_no_number_is_refused_by_its_place(text: str) -> None:
    cell = replace(PAPERS[0], printed=text)
    with pytest.raises(ReportError, match=r"table1, tinyllava-3b/baseline, okvqa: .* is no number"):
        audit([cell], EXPECTATIONS, {})


def test_a_column_nobody_described_and_no_cells_at_all_are_no_error() -> None:
    found = audit([Published("table1", "m", "r", "unheard", "12.34")], EXPECTATIONS, PROTOCOLS)
    assert not found.findings
    assert "| unheard | not in config/audit.yaml |" in as_markdown(found)
    assert not audit([], EXPECTATIONS, PROTOCOLS).findings
    assert as_markdown(audit([], EXPECTATIONS, PROTOCOLS)).startswith("# Audit")


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("columns: {gqa: {questions: 0, source: s}}", "columns.gqa.questions"),
        ("columns: {gqa: {questions: 5, points: 5, source: s}}", "exactly one of"),
        ("columns: {a: {any: why, source: s}}", "any needs it"),
        ("columns: {total: {sum_of: [gqa], source: s}}", "columns.total: gqa is no column"),
        ("columns: {a: {points: 5, source: s}}\ndenominators: {a: {columns: [a], low: 1, high: 2}}", "should have `questions`"),
        ("columns: {a: {questions: 5, source: s}}\ndenominators: {a: {columns: [a], low: 3, high: 2}}", "low is above high"),
        ("columns: {a: {question: 5, source: s}}", "did you mean questions"),
        ("columns: {}\nreferences: [{name: n, model: m, run: r, more: {a: '1'}, source: s}]", "references.n: a is no column"),
        (
            "columns: {a: {points: 5, source: s}}\nclaims: {gains: [{model: m, column: a, printed: '5%', where: w}]}",
            "as it is printed",
        ),
        ("columns: [", "cannot be read"),
    ],
)
def test_expectations_that_cannot_be_are_refused_by_their_key(tmp_path: Path, written: str, message: str) -> None:
    path = tmp_path / "audit.yaml"
    path.write_text(written)
    with pytest.raises(ConfigError, match=message) as refused:
        read_expectations(path)
    assert str(path) in str(refused.value)


def test_of_two_conventions_the_rarer_change_is_told_and_the_common_one_is_not() -> None:
    expectations = Expectations.model_validate(
        {"columns": {f"c{i}": {"any": "soft", "up_to": 100, "source": "s"} for i in range(20)}}
    )

    def rows(odd: int) -> list[Published]:
        made = []
        for i in range(20):
            texts = {"baseline": "50.00", "vdep": "51.00", CHANGE: "+1.01" if i < odd else "+1.00"}
            made += [Published("table1", "m", run, f"c{i}", text) for run, text in texts.items()]
        return made

    (only,) = audit(rows(1), expectations, {}).findings
    assert "is not the change from 50.00 to 51.00, which is +1.00; rounding may account for it" in only.words
    assert not audit(rows(7), expectations, {}).findings, "changes are made before rounding here"
    far = [replace(p, printed="+1.02") if p.run == CHANGE and p.column == "c3" else p for p in rows(7)]
    (only,) = audit(far, expectations, {}).findings
    assert "cannot be the change from 50.00 to 51.00" in only.words
