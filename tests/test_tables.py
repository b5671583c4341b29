"""Tables: every number rounded once, beside the paper's, and traceable."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
import world
from test_recipe import paper_config

from vdep.errors import ReportError
from vdep.evaluation.samples import write_samples
from vdep.files import sha256, write_json
from vdep.report.skills import as_csv as skills_csv
from vdep.report.skills import pooled
from vdep.report.tables import BuiltTable, Results, as_csv, as_markdown, build_table, provenance, read_published
from vdep.settings import Column
from vdep.study import load_study, split_checkpoint

STUDY = load_study(paper_config())
PUBLISHED = read_published(world.ROOT / "config" / "published.csv")
MME = ("perception", "commonsense_reasoning", "existence", "count", "position", "color")


def write_scores(
    path: Path, value: float, blind: float | None = None, parts: tuple[str, ...] = ("score",), judge: str | None = None
) -> None:
    def numbers(v: float) -> dict[str, Any]:
        return {"n": 10, "empty": 0, "parts": {p: {"value": v, "low": v - 1, "high": v + 1} for p in parts}}

    scores: dict[str, Any] = {
        "benchmark": path.stem,
        "digest": "evaluation",
        "checkpoint": {"recipe": "sft", "initial_recipe": "stage1", "weights": "w", "versions": {"torch": "2.13.0"}},
        "judge": judge,
        "lmms_eval": "0.7.3",
        "samples": {"file": "x", "sha256": "y"},
        "seen": numbers(value) | {"chance": dict.fromkeys(parts, 25.0)} if blind is not None else numbers(value),
    }
    if blind is not None:
        scores["blind"] = numbers(blind)
    write_json(path, scores)


def build(name: str, tmp_path: Path, value: float = 50.005, **kwargs: Any) -> tuple[BuiltTable, Results]:
    table = STUDY.tables[name]
    files = {}
    for number, key in enumerate(STUDY.table_evaluations(name)):
        files[key] = tmp_path / "/".join(key[:2]) / f"{key[2]}.json"
        judge = "gpt-4o" if key[2] == "mmvet" else None
        write_scores(files[key], value + number, parts=MME if key[2] == "mme" else ("score",), judge=judge, **kwargs)
    results = Results(files)
    rows = [split_checkpoint(row) for row in table.rows]
    return build_table(table.title, rows, table.columns, STUDY.columns, results, PUBLISHED, table.published), results


def test_the_difference_is_that_of_the_two_numbers_shown(tmp_path: Path) -> None:
    table, _ = build("main_vqa", tmp_path)
    for _, _, cells in table.rows:
        for cell in cells.values():
            assert float(cell["difference"]) == pytest.approx(float(cell["reproduced"]) - float(cell["published"]), abs=1e-9)


def test_every_cell_of_the_papers_tables_has_its_published_number(tmp_path: Path) -> None:
    for name in set(STUDY.tables) - {STUDY.control_table}:
        table, _ = build(name, tmp_path)
        missing = [(m, v, c) for m, v, cells in table.rows for c, cell in cells.items() if "published" not in cell]
        # the paper's ablation tables do not repeat these columns for these rows
        assert not missing, (name, missing)


def test_where_the_paper_contradicts_itself_both_numbers_are_shown(tmp_path: Path) -> None:
    table, _ = build("main_general", tmp_path)
    cell = next(cells for m, v, cells in table.rows if (m, v) == ("llava-7b", "vdep"))["pope"]
    assert cell["published"] == "86.20"
    assert cell["published_elsewhere"] == "85.95"
    assert "the paper contradicts itself (86.20 in table2, 85.95 in table10)" in as_markdown(table)
    table, _ = build("ablation_alpha", tmp_path)
    cell = next(cells for m, v, cells in table.rows if (m, v) == ("llava-7b", "vdep"))["mme_perception"]
    assert (cell["published"], cell["published_elsewhere"]) == ("1515.60", "1516.60")


def test_mme_total_is_built_as_in_the_paper(tmp_path: Path) -> None:
    published = {p.column: p.value for p in PUBLISHED if (p.table, p.model, p.run) == ("table3", "llava-7b", "baseline")}
    assert STUDY.columns["mme_total"].sum_of == ("mme_commonsense", "mme_existence", "mme_count", "mme_position", "mme_color")
    assert sum(published[c] for c in STUDY.columns["mme_total"].sum_of) == published["mme_total"]
    table, _ = build("main_mme", tmp_path, value=100)
    for number, (_, _, cells) in enumerate(table.rows):
        assert cells["mme_total"]["reproduced"] == f"{5 * (100 + number):.2f}"


def test_the_csv_has_one_line_per_checkpoint_and_quantity(tmp_path: Path) -> None:
    table, _ = build("main_vqa", tmp_path)
    rows = list(csv.DictReader(io.StringIO(as_csv(table))))
    assert [(r["model"], r["run"]) for r in rows[:5]] == [("tinyllava-3b", "baseline")] * 5
    assert [r["quantity"] for r in rows[:5]] == ["reproduced", "low", "high", "published", "difference"]
    assert list(rows[0])[3:] == list(STUDY.tables["main_vqa"].columns)


def test_blind_and_chance_stand_beside_the_score_where_they_are_known(tmp_path: Path) -> None:
    table, _ = build("main_vqa", tmp_path, blind=30.0)
    assert "*blind* 30.00<br>*chance* 25.00" in as_markdown(table)
    plain, _ = build("main_vqa", tmp_path)
    assert "*blind*" not in as_markdown(plain)


def test_the_judge_is_named_beside_the_table(tmp_path: Path) -> None:
    assert "Free-form answers graded by gpt-4o." in as_markdown(build("main_general", tmp_path)[0])
    assert "graded by" not in as_markdown(build("main_vqa", tmp_path)[0])


def test_every_number_is_traceable(tmp_path: Path) -> None:
    table, results = build("ablation_alpha", tmp_path)
    record = provenance(table, results, STUDY.columns)
    assert len(record["cells"]) == 3 * 12
    assert len(record["results"]) == 39
    for cell in record["cells"]:
        for source in cell["results"]:
            entry = record["results"][source]
            assert entry["sha256"] == sha256(Path(source))
            assert entry["weights"]
            assert entry["pretrain_recipe"]
            assert entry["versions"]["lmms_eval"] == "0.7.3"
    means = [c for c in record["cells"] if c["column"] == "mmbench_mean"]
    assert all(len(c["results"]) == 2 for c in means)


def test_a_missing_result_or_part_is_an_error_and_not_an_empty_cell(tmp_path: Path) -> None:
    results = Results({})
    with pytest.raises(ReportError, match="no evaluation of m/v on okvqa"):
        results.cell("m", "v", "okvqa", STUDY.columns)
    write_scores(tmp_path / "mme.json", 1.0)
    results = Results({("m", "v", "mme"): tmp_path / "mme.json"})
    with pytest.raises(ReportError, match=r"has no part 'color' \(it has score\)"):
        results.cell("m", "v", "x", {"x": Column(label="x", benchmark="mme", part="color")})


def test_the_published_numbers_are_all_there() -> None:
    papers = [p for p in PUBLISHED if p.table.startswith("table")]
    assert len(papers) == 223
    assert {p.column for p in PUBLISHED} <= set(STUDY.columns)
    assert {f"{p.model}/{p.run}" for p in papers} == set(STUDY.checkpoints)
    others = [p for p in PUBLISHED if p not in papers]
    assert {(p.table, p.model, p.run) for p in others} == {("model_zoo", "llava-7b", "released")}
    assert {p.column for p in others} == set(STUDY.tables["calibration"].columns)


def test_skills_are_pooled_over_benchmarks(tmp_path: Path) -> None:
    files = {}
    for benchmark, right in (("one", 9), ("two", 7)):
        seen = [{"document": i, "points": float(i < right), "skill": "color", "guess": 0.25} for i in range(10)]
        blind = [{"document": i, "points": float(i < 2)} for i in range(10)]
        files["m", "v", benchmark] = tmp_path / f"{benchmark}.json"
        write_samples(tmp_path / f"{benchmark}.samples.jsonl.gz", {"seen": seen, "blind": blind})
    (score,) = pooled(files)
    assert (score.questions, score.seen, score.blind, score.chance) == (20, 80, 20, 25)
    assert score.above_chance == 55
    assert 35 < score.low < 60 < score.high < 85
    assert "color,20,80.0,25.0,55.0,20.0,60.0" in skills_csv([score])
