"""Tables: every number rounded once, beside the paper's, and traceable."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import world
from test_recipe import paper_config

from vdep.errors import EvaluationError, ReportError
from vdep.evaluation.samples import write_samples
from vdep.files import sha256, write_json
from vdep.report.printing import as_csv, as_markdown, provenance
from vdep.report.results import Key, Results, read_published
from vdep.report.tables import AUDITED, CHANGE, BuiltTable, TableDefinition, build_table
from vdep.study.check import load_study
from vdep.study.plan import Plan
from vdep.study.study import Study
from vdep.study.tables import Calibration, Column
from vdep_demo.skills import as_csv as skills_csv
from vdep_demo.skills import pooled

STUDY = load_study(paper_config())
PLAN = Plan(STUDY)
PAPERS = [table for target in PLAN.members("all") for table in target.tables]
PUBLISHED = read_published(world.ROOT / "config" / "published.csv")
SENSITIVITY = 2.0
CLUSTERS = {"gqa": ("imageId", 8), "vizwiz": ("question", 10), "mmbench_en": ("question", 3)}
MME = ("perception", "commonsense_reasoning", "existence", "count", "position", "color")


def write_scores(
    path: Path,
    value: float,
    blind: float | None = None,
    parts: tuple[str, ...] = ("score",),
    judge: str | None = None,
    samples: Path | None = None,
) -> None:
    if samples is None:
        samples = path.with_suffix(".samples.jsonl.gz")
        path.parent.mkdir(parents=True, exist_ok=True)
        samples.write_bytes(b"rows")

    def numbers(v: float) -> dict[str, Any]:
        numbers = {p: {"value": v, "low": v - 1, "high": v + 1, "sensitivity": SENSITIVITY} for p in parts}
        by, clusters = CLUSTERS.get(path.stem, ("picture", 9))
        return {"n": 10, "empty": 0, "parts": numbers, "clusters": {"by": by, "n": clusters}}

    scores: dict[str, Any] = {
        "benchmark": path.stem,
        "recipe": {},
        "digest": hashlib.sha256(b"{}").hexdigest(),
        "checkpoint": {"recipe": "sft", "initial_recipe": "stage1", "weights": "w", "versions": {"torch": "2.13.0"}},
        "judge": judge,
        "lmms_eval": "0.7.3",
        "samples": {"file": samples.name, "sha256": sha256(samples)},
        "seen": numbers(value),
    }
    if blind is not None:
        scores["blind"] = numbers(blind)
    write_json(path, scores)


def define(name: str, study: Study = STUDY, seeds: tuple[str, ...] = ("seed-42",), **changes: Any) -> TableDefinition:
    """A table of the configuration, with runs of some seeds."""
    table = study.tables[name]
    return TableDefinition.model_validate(
        {
            "table": table,
            "rows": study.rows(table),
            "columns": study.columns,
            "left_out": [column for column in table.columns if study.left_out(column)],
            "evaluations": [(*run[:2], seed, b) for seed in seeds for run, b in study.table_evaluations(name)],
            "recipes": [study.scored_recipes(run, b) for _ in seeds for run, b in study.table_evaluations(name)],
            "protocols": study.table_protocols(name),
        }
        | changes
    )


def build(
    name: str, tmp_path: Path, value: float = 50.005, definition: TableDefinition | None = None, **kwargs: Any
) -> tuple[BuiltTable, Results]:
    definition = definition or define(name)
    files = {}
    for number, key in enumerate(definition.evaluations):
        files[key] = tmp_path / "/".join(key[:3]) / f"{key[3]}.json"
        judge = "gpt-4o" if key[3] == "mmvet" else None
        write_scores(files[key], value + number, parts=MME if key[3] == "mme" else ("score",), judge=judge, **kwargs)
    results = Results(files)
    return build_table(definition, results, PUBLISHED), results


def runs(table: BuiltTable) -> dict[tuple[str, str, str], dict[str, str]]:
    return {key: cell for key, cell in table.cells.items() if key[1] != CHANGE}


def one(seed: str, model: str, variant: str, benchmark: str, path: Path) -> Results:
    key: Key = (model, variant, seed, benchmark)
    return Results({key: path})


def test_the_difference_is_that_of_the_two_numbers_shown(tmp_path: Path) -> None:
    table, _ = build("main_vqa", tmp_path)
    for cell in runs(table).values():
        assert float(cell["difference"]) == pytest.approx(float(cell["reproduced"]) - float(cell["published"]), abs=1e-9)


def test_every_cell_of_the_papers_tables_has_its_published_number(tmp_path: Path) -> None:
    for name in PAPERS:
        table, _ = build(name, tmp_path)
        missing = [key for key, cell in runs(table).items() if "published" not in cell]
        # the paper's ablation tables do not repeat these columns for these rows
        assert not missing, (name, missing)


def test_where_the_paper_contradicts_itself_both_numbers_are_shown(tmp_path: Path) -> None:
    table, _ = build("main_general", tmp_path)
    cell = table.cells["llava-7b", "vdep", "pope"]
    assert cell["published"] == "86.20"
    assert cell["published_elsewhere"] == "85.95"
    table, _ = build("ablation_alpha", tmp_path)
    cell = table.cells["llava-7b", "vdep", "mme_perception"]
    assert (cell["published"], cell["published_elsewhere"]) == ("1515.60", "1516.60")


def test_what_the_audit_says_of_a_published_number_marks_it_and_stands_under_the_table(tmp_path: Path) -> None:
    definition = define("main_vqa")
    _, results = build("main_vqa", tmp_path)
    cell, change = ("table1", "llava-7b", "baseline", "scienceqa_img"), ("table1", "llava-7b", CHANGE, "okvqa")
    remarks = {cell: ["cannot be"], change: ["is", "cannot be"], ("table9", *cell[1:]): ["of another table"]}
    table = build_table(definition, results, PUBLISHED, remarks)
    markdown = as_markdown(table)
    letter = table.marks(table.cells[cell[1:]], "published")
    assert letter.endswith(f",{AUDITED}")
    assert f"66.80<sup>{letter}</sup>" in markdown.replace("**", "")
    assert f"*published* +3.36<sup>{AUDITED}</sup>" in markdown
    assert [line for line in markdown.splitlines() if line.startswith(f"<sup>{AUDITED}</sup>")] == [
        f"<sup>{AUDITED}</sup> 66.80 (llava-7b/baseline, SQA-I), +3.36 (llava-7b/CHANGE, OK-VQA): cannot be.",
        f"<sup>{AUDITED}</sup> +3.36 (llava-7b/CHANGE, OK-VQA): is.",
    ]
    assert "see below, and audit.md" in markdown
    rows = {(r["model"], r["run"], r["quantity"]): r for r in csv.DictReader(io.StringIO(as_csv(table)))}
    assert rows["llava-7b", "baseline", "note"]["scienceqa_img"].endswith("audit: cannot be.")
    assert AUDITED not in as_markdown(build_table(definition, results, PUBLISHED))


def test_mme_total_is_built_as_in_the_paper(tmp_path: Path) -> None:
    published = {p.column: p.value for p in PUBLISHED if (p.table, p.model, p.run) == ("table3", "llava-7b", "baseline")}
    assert STUDY.columns["mme_total"].sum_of == ("mme_commonsense", "mme_existence", "mme_count", "mme_position", "mme_color")
    assert sum(published[c] for c in STUDY.columns["mme_total"].sum_of) == published["mme_total"]
    table, _ = build("main_mme", tmp_path, value=100)
    for number, row in enumerate(dict.fromkeys(key[:2] for key in runs(table))):
        assert table.cells[*row, "mme_total"]["reproduced"] == f"{5 * (100 + number):.2f}"


def test_the_csv_has_one_line_per_checkpoint_and_quantity(tmp_path: Path) -> None:
    table, _ = build("main_vqa", tmp_path)
    rows = list(csv.DictReader(io.StringIO(as_csv(table))))
    assert [(r["model"], r["run"]) for r in rows[:5]] == [("tinyllava-3b", "baseline")] * 5
    assert [r["quantity"] for r in rows[:5]] == ["reproduced", "low", "high", "published", "difference"]
    assert list(rows[0])[3:] == list(STUDY.tables["main_vqa"].columns)
    whole, _ = build("main_vqa", tmp_path, value=50)  # which JSON reads as integers
    assert (
        whole.cells["tinyllava-3b", "baseline", "okvqa"] | {"reproduced": "50.00", "low": "49.00", "high": "51.00"}
        == (whole.cells["tinyllava-3b", "baseline", "okvqa"])
    )


def test_blind_stands_beside_the_score_where_it_is_known(tmp_path: Path) -> None:
    table, _ = build("main_vqa", tmp_path, blind=30.0)
    assert "*blind* 30.00" in as_markdown(table)
    plain, _ = build("main_vqa", tmp_path)
    assert "*blind*" not in as_markdown(plain)


def test_the_judge_is_named_beside_the_table(tmp_path: Path) -> None:
    assert "Free-form answers graded by gpt-4o." in as_markdown(build("main_general", tmp_path)[0])
    assert "graded by" not in as_markdown(build("main_vqa", tmp_path)[0])


def test_what_is_left_out_for_want_of_a_judge_is_a_dash_and_a_note(tmp_path: Path) -> None:
    study = load_study(paper_config() | {"judge": None})
    definition = define("main_general", study)
    assert not any(benchmark == "mmvet" for *_, benchmark in definition.evaluations)
    table, results = build("main_general", tmp_path, definition=definition)
    lines = as_markdown(table).splitlines()
    assert "MM-Vet: left out, because no judge is configured." in lines
    place = table.columns.index("mmvet") + 3
    cells = [line.split("|")[place].strip() for line in lines if line.startswith(("| llava", "| tinyllava"))]
    shown = [cell for cell, line in zip(cells, table.rows, strict=True) if line[1] != CHANGE]
    assert len(shown) == 4
    assert all(re.fullmatch(r"-<br>\*published\* (\*\*)?\d+\.\d+(\*\*)?<sup>a</sup>", cell) for cell in shown), shown
    assert "-<br>*published* +3.00" in cells
    read = list(csv.DictReader(io.StringIO(as_csv(table))))
    assert {row["mmvet"] for row in read if row["quantity"] in ("reproduced", "low", "high", "difference")} == {""}
    assert all(row["mmvet"] for row in read if row["quantity"] == "published")
    assert not any(cell["column"] == "mmvet" for cell in provenance(table, results, study.columns)["cells"])


def test_a_mean_is_left_out_with_any_of_its_parts() -> None:
    config = paper_config() | {"judge": None}
    config["columns"]["both"] = {"label": "Both", "mean_of": ["gqa", "mmvet"]}
    study = load_study(config)
    assert study.left_out("both")
    assert not study.left_out("mmbench_mean")


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
    with pytest.raises(ReportError, match="no evaluation of m/v was given to the table"):
        results.cell("m", "v", "okvqa", STUDY.columns)
    write_scores(tmp_path / "mme.json", 1.0)
    results = one("seed-42", "m", "v", "mme", tmp_path / "mme.json")
    with pytest.raises(ReportError, match="no evaluation of m/v/seed-42 on okvqa was given to the table"):
        results.cell("m", "v", "okvqa", STUDY.columns)
    with pytest.raises(ReportError, match=r"has no part 'color' \(it has score\)"):
        results.cell("m", "v", "x", {"x": Column(label="x", benchmark="mme", part="color")})


def test_scores_whose_samples_are_others_fill_no_table(tmp_path: Path) -> None:
    _, results = build("main_vqa", tmp_path)
    file = results.files["llava-7b", "vdep", "seed-42", "gqa"]
    file.with_suffix(".samples.jsonl.gz").write_bytes(b"other rows")
    with pytest.raises(EvaluationError, match=r"gqa\.samples\.jsonl\.gz is not the file that gqa\.json describes"):
        build_table(define("main_vqa"), Results(results.files), PUBLISHED)


def test_scores_of_another_recipe_than_the_configurations_fill_no_table(tmp_path: Path) -> None:
    """Whose configuration was edited while jobs waited: they are scores of what is asked for no longer, or not of it yet."""
    _, results = build("main_vqa", tmp_path)
    key = ("llava-7b", "vdep", "seed-42", "gqa")
    recipes = {key: (scores.checkpoint.recipe, scores.digest) for key in results.files for scores in [results.scores(key)]}
    build_table(define("main_vqa"), Results(results.files, recipes), PUBLISHED)
    for other in ((recipes[key][0], "0" * 64), ("0" * 64, recipes[key][1])):
        with pytest.raises(ReportError, match=r"vdep/seed-42/gqa\.json is of another recipe than the configuration has"):
            build_table(define("main_vqa"), Results(results.files, recipes | {key: other}), PUBLISHED)


def test_the_published_numbers_are_all_there() -> None:
    changes = [p for p in PUBLISHED if p.run == CHANGE]
    papers = [p for p in PUBLISHED if p.table.startswith("table") and p not in changes]
    assert len(papers) == 223
    assert {p.column for p in PUBLISHED} <= set(STUDY.columns)
    assert {(p.model, p.run) for p in papers} == {run[:2] for run in PLAN.target_runs("all")}
    others = [p for p in PUBLISHED if p not in papers and p not in changes]
    released = {("model_zoo", "llava-7b", "released"), ("lmms_eval", "llava-7b", "released")}
    assert {(p.table, p.model, p.run) for p in others} == released
    assert {p.column for p in others} == set(STUDY.tables["calibration"].columns)


def test_skills_are_pooled_over_benchmarks(tmp_path: Path) -> None:
    files = {}
    for benchmark, right in (("one", 9), ("two", 7)):
        seen = [{"document": i, "points": float(i < right)} for i in range(10)]
        blind = [{"document": i, "points": float(i < 2)} for i in range(10)]
        files["m", "v", benchmark] = tmp_path / f"{benchmark}.json"
        samples = tmp_path / f"{benchmark}.samples.jsonl.gz"
        write_samples(samples, {"seen": seen, "blind": blind})
        write_scores(files["m", "v", benchmark], 0.0, samples=samples)
        questions = [{"skill": "color", "answer": "ABCD"[i % 4], "candidates": list("ABCD")} for i in range(10)]
        (tmp_path / benchmark).mkdir()
        write_json(tmp_path / benchmark / "questions.json", questions)
    (score,) = pooled(files, {name: tmp_path / name for name in ("one", "two")})
    assert (score.questions, score.seen, score.blind, score.chance) == (20, 80, 20, 30)
    assert score.above_chance == 50
    assert 35 < score.low < 60 < score.high < 85
    assert "color,20,80.0,30.0,50.0,20.0,60.0" in skills_csv([score])


# -- numbers of other protocols

ANOTHER = {
    # column -> what the note says of the paper's cells
    "vizwiz": "test-dev",
    "scienceqa_img": "by which script",
    "ocrbench": "another version",
    "mmmu": "16 tokens",
    "realworldqa": "Another metric",
    "mmvet": "Another judge",
    "mmbench_en": "1,784 questions",
    "mmbench_cn": "1,784 questions",
    "mmbench_mean": "1,784 questions",
}


def test_every_cell_of_another_protocol_is_marked_and_no_other(tmp_path: Path) -> None:
    for name in PAPERS:
        table, results = build(name, tmp_path / name)
        rows = {(r["model"], r["run"], r["quantity"]): r for r in csv.DictReader(io.StringIO(as_csv(table)))}
        markdown = as_markdown(table)
        for (model, variant, column), cell in runs(table).items():
            if column in ANOTHER:
                assert ANOTHER[column] in rows[model, variant, "note"][column]
                letter = table.marks(cell, "published")
                assert f"{cell['published']}<sup>{letter}</sup> ({cell['difference']})" in markdown.replace("**", "")
                note = next(line for line in markdown.splitlines() if line.startswith(f"<sup>{letter}</sup>"))
                assert ANOTHER[column] in note
            else:
                assert "note" not in cell
                assert f"*published* {cell['published']} (" in markdown.replace("**", "")
        if {*ANOTHER} & {*table.columns}:
            marked = [c for c in provenance(table, results, STUDY.columns)["cells"] if c["protocols"]]
            assert {c["column"] for c in marked} == {*ANOTHER} & {*table.columns}


def test_a_mark_is_for_a_number_that_is_there() -> None:
    for name, protocol in STUDY.protocols.items():
        covered = [p for p in PUBLISHED if protocol.covers(p.table, p.model, p.column)]
        assert {p.column for p in covered} == set(protocol.columns), name
        assert protocol.note.endswith(".")
        assert protocol.source


def test_the_legend_says_what_each_columns_interval_resamples(tmp_path: Path) -> None:
    legend = as_markdown(build("main_vqa", tmp_path / "vqa")[0])
    assert (
        "questions resampled by picture: OK-VQA, TextVQA, RealWorldQA, SQA-I; by imageId: GQA; one by one: VizWiz); one seed "
        "(n = 1): no training noise" in legend
    )
    assert "together with what is scored with them: MMB-EN" in as_markdown(build("main_general", tmp_path / "general")[0])


# -- calibration


def calibrated(tmp_path: Path, **scores: float) -> dict[str, dict[str, str]]:
    """The cells of the calibration table where ours are the references' numbers, but for ``scores``."""
    reference = {p.column: float(p.value) for p in PUBLISHED if p.table == "lmms_eval"}
    definition = define("calibration", seeds=("imported",))
    files = {}
    for key in definition.evaluations:
        files[key] = tmp_path / f"{key[3]}.json"
        column = "mme_perception" if key[3] == "mme" else key[3]
        write_scores(files[key], scores.get(column, reference[column]), parts=MME if key[3] == "mme" else ("score",))
    built = build_table(definition, Results(files), PUBLISHED)
    cells = {column: cell for (*_, column), cell in built.cells.items()}
    assert all(f"{cell['verdict']}" in as_markdown(built) for cell in cells.values())
    quantities = {row["quantity"] for row in csv.DictReader(io.StringIO(as_csv(built)))}
    assert {"lmms_eval", "lmms_eval_difference", "model_zoo", "tolerance", "verdict", "note"} <= quantities
    return cells


def test_calibration_has_a_verdict_in_every_cell(tmp_path: Path) -> None:
    cells = calibrated(tmp_path)
    assert {column: cell["verdict"] for column, cell in cells.items()} == dict.fromkeys(cells, "agrees (lmms_eval)")
    # 1.96 x sqrt(0.02) x 2, and half of the last place of 61.97, of 312 and of 1511.3
    assert (cells["gqa"]["tolerance"], cells["ocrbench"]["tolerance"], cells["mme_perception"]["tolerance"]) == (
        "0.56",
        "1.05",
        "0.60",
    )


@pytest.mark.parametrize(("ours", "verdict"), [(62.53, "agrees"), (61.41, "agrees"), (62.54, "differs"), (61.40, "differs")])
def test_the_verdict_is_that_of_the_tolerance_shown(ours: float, verdict: str, tmp_path: Path) -> None:
    cell = calibrated(tmp_path, gqa=ours)["gqa"]
    assert cell["verdict"] == {"agrees": "agrees", "differs": "differs by more than the tolerance"}[verdict] + " (lmms_eval)"
    assert (abs(float(cell["lmms_eval_difference"])) <= float(cell["tolerance"])) == (verdict == "agrees")


def test_a_number_of_another_protocol_is_shown_and_judges_nothing(tmp_path: Path) -> None:
    results = one("imported", "llava-7b", "released", "vizwiz", tmp_path / "vizwiz.json")
    write_scores(tmp_path / "vizwiz.json", 50.0)

    def calibrate(*references: str) -> dict[str, str]:
        spec = STUDY.tables["calibration"].model_copy(
            update={"columns": ("vizwiz",), "calibration": Calibration(references=references)}
        )
        table = build_table(define("calibration", table=spec, protocols=STUDY.protocols), results, PUBLISHED)
        return table.cells["llava-7b", "released", "vizwiz"]

    zoo = calibrate("model_zoo")
    assert (zoo["model_zoo"], zoo["verdict"]) == ("50.0", "no reference")
    assert calibrate("model_zoo", "lmms_eval")["verdict"] == "differs by more than the tolerance (lmms_eval)"
    for column in ("pope", "mmbench_en", "textvqa"):
        assert not any(p.comparable for p in STUDY.protocols.values() if p.covers("model_zoo", "llava-7b", column)), column


def test_scores_from_before_the_sensitivity_cannot_be_judged(tmp_path: Path) -> None:
    write_scores(tmp_path / "gqa.json", 50.0)
    scores = json.loads((tmp_path / "gqa.json").read_text())
    del scores["seen"]["parts"]["score"]["sensitivity"]
    write_json(tmp_path / "gqa.json", scores)
    results = one("imported", "llava-7b", "released", "gqa", tmp_path / "gqa.json")
    spec = STUDY.tables["calibration"].model_copy(update={"columns": ("gqa",)})
    with pytest.raises(ReportError, match=r"gqa\.json: no sensitivity is recorded: evaluate again"):
        build_table(define("calibration", table=spec), results, PUBLISHED)


# -- seeds

TWO = {"seed-42": 60.0, "seed-43": 63.0}


def over_seeds(name: str, tmp_path: Path, scores: dict[str, float], blind: float | None = None) -> tuple[BuiltTable, Results]:
    """A table whose every score is ``scores`` of its seed; MM-Vet's and MMBench-CN's one more."""
    definition = define(name, seeds=tuple(scores))
    files = {key: tmp_path / "/".join(key[:3]) / f"{key[3]}.json" for key in definition.evaluations}
    for (*_, seed, benchmark), path in files.items():
        value = scores[seed] + (benchmark in ("mmvet", "mmbench_cn"))
        write_scores(path, value, blind, parts=MME if benchmark == "mme" else ("score",))
    results = Results(files)
    return build_table(definition, results, PUBLISHED), results


def test_a_cell_over_seeds_is_their_mean_and_sample_standard_deviation(tmp_path: Path) -> None:
    table, _ = over_seeds("ablation_alpha", tmp_path, TWO | {"seed-44": 66.0}, blind=30.0)
    cell = table.cells["llava-7b", "vdep", "gqa"]
    assert (cell["reproduced"], cell["spread"], cell["n"], cell["blind"]) == ("63.00", "3.00", "3", "30.00")
    assert cell["difference"] == "+0.50"  # to 62.50
    assert "low" not in cell
    markdown = as_markdown(table)
    assert "**63.00** ± 3.00<br>*published* 62.50 (+0.50)" in markdown
    assert "Each cell: the mean over 3 seeds ± their standard deviation;" in markdown
    assert "95%" not in markdown
    rows = [row["quantity"] for row in csv.DictReader(io.StringIO(as_csv(table)))]
    assert rows[:5] == ["reproduced", "spread", "n", "published", "difference"]


def test_a_mean_of_columns_is_made_for_each_seed_first(tmp_path: Path) -> None:
    definition = define("ablation_alpha", seeds=("a", "b"))
    results = Results({key: tmp_path / "/".join(key[:3]) / f"{key[3]}.json" for key in definition.evaluations})
    for (*_, seed, benchmark), path in results.files.items():
        # what one part gains in seed b, the other loses
        gain = {"mmbench_en": 4.0, "mmbench_cn": -4.0}.get(benchmark, 0.0) * (seed == "b")
        write_scores(path, 50.0 + gain, parts=MME if benchmark == "mme" else ("score",))
    cell = build_table(definition, results, PUBLISHED).cells["llava-7b", "vdep", "mmbench_mean"]
    assert (cell["reproduced"], cell["spread"]) == ("50.00", "0.00")


def test_one_seed_has_an_interval_over_questions_and_says_that_it_is_one(tmp_path: Path) -> None:
    table, _ = over_seeds("main_vqa", tmp_path, {"seed-7": 60.0})
    assert "one seed (n = 1): no training noise" in as_markdown(table)
    assert {"low", "high"} <= set(table.cells["llava-7b", "vdep", "gqa"])
    quantities = {row["quantity"] for row in csv.DictReader(io.StringIO(as_csv(table)))}
    assert quantities.isdisjoint({"spread", "n"})


def test_provenance_names_the_files_of_all_seeds(tmp_path: Path) -> None:
    table, results = over_seeds("ablation_alpha", tmp_path, TWO)
    record = provenance(table, results, STUDY.columns)
    assert len(record["results"]) == 2 * 39
    (mean,) = [c for c in record["cells"] if (c["run"], c["column"]) == ("vdep", "mmbench_mean")]
    wanted = {f"llava-7b/vdep/{seed}/{benchmark}.json" for seed in TWO for benchmark in ("mmbench_en", "mmbench_cn")}
    assert {str(Path(file).relative_to(tmp_path)) for file in mean["results"]} == wanted
    assert mean["value"] == 62.0


def test_what_one_seed_lacks_is_an_error_that_names_it(tmp_path: Path) -> None:
    definition = define("main_mme", seeds=("seed-42", "seed-43"))
    _, results = build("main_mme", tmp_path, definition=definition)
    file = results.files["llava-7b", "vdep", "seed-43", "mme"]
    write_scores(file, 1.0, parts=MME[:-1])
    with pytest.raises(ReportError, match=rf"{re.escape(str(file))} has no part 'color'"):
        build_table(definition, Results(results.files), PUBLISHED)
    _, results = build("main_vqa", tmp_path, definition=define("main_vqa", seeds=("seed-42", "seed-43")))
    less = {key: path for key, path in results.files.items() if key != ("llava-7b", "vdep", "seed-43", "gqa")}
    with pytest.raises(ReportError, match="no evaluation of llava-7b/vdep/seed-43 on gqa was given to the table"):
        build_table(define("main_vqa"), Results(less), PUBLISHED)


def test_a_calibration_is_of_one_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="a calibration is of one checkpoint, and these are of 2 seeds"):
        over_seeds("calibration", tmp_path, TWO)


def test_numbers_are_rounded_only_where_they_are_shown(tmp_path: Path) -> None:
    table, _ = over_seeds("main_vqa", tmp_path, {"seed-42": 60.0, "seed-43": 60.001, "seed-44": 60.001})
    kept = table.numbers.query("quantity == 'reproduced'")["value"]
    assert kept.to_list() == pytest.approx([60 + 2 / 3000] * len(kept))
    assert table.cells["llava-7b", "vdep", "gqa"]["reproduced"] == "60.00"


def test_the_note_of_a_table_stands_under_it(tmp_path: Path) -> None:
    table, _ = build("main_vqa", tmp_path, definition=define("main_vqa", note="A miniature: not the paper's numbers."))
    assert "\nA miniature: not the paper's numbers.\n" in as_markdown(table)


def test_a_table_that_holds_nothing_yet_can_be_printed() -> None:
    spec = STUDY.tables["main_general"].model_copy(update={"columns": ("mmvet",), "published": ()})
    table = build_table(define("main_general", table=spec, left_out=["mmvet"]), Results({}), PUBLISHED)
    assert as_csv(table) == "model,run,quantity,mmvet\n"
    assert "| llava-7b | vdep | - |" in as_markdown(table)


# -- CHANGE rows, and the best in bold

PRINTED_CHANGES = {
    ("main_vqa", "tinyllava-3b"): "+1.26 +0.60 +3.28 +0.85 +0.26 +0.15",
    ("main_vqa", "llava-7b"): "+3.36 +0.38 +0.03 +0.60 +2.84 +1.56",
    ("main_general", "tinyllava-3b"): "+1.05 +0.81 +1.10 +3.00 +0.00 +0.15 -2.00 -1.18 -3.20",
    ("main_general", "llava-7b"): "+0.35 +0.60 +0.94 -0.50 -0.40 +0.06 +29.00 +1.84 +0.33",
    ("main_mme", "tinyllava-3b"): "+10.78 +9.99 +15.00 +15.00 +5.00 +0.00 +44.99",
    ("main_mme", "llava-7b"): "+5.88 +0.29 +0.00 -5.03 +6.67 +5.00 +6.93",
}
"""The CHANGE rows of the paper's Tables 1 to 3 (the columns of Table 1 in our order; a change of OCRBench is printed +29)."""


@pytest.mark.parametrize(("name", "model"), PRINTED_CHANGES)
def test_the_published_change_is_the_papers_change_row(name: str, model: str, tmp_path: Path) -> None:
    table, _ = build(name, tmp_path)
    changes = [table.cells[model, CHANGE, column]["published_change"] for column in table.columns]
    assert " ".join(changes) == PRINTED_CHANGES[name, model]
    printed = [p for p in PUBLISHED if (p.table, p.model, p.run) == (*STUDY.tables[name].published, model, CHANGE)]
    assert [p.column for p in printed] == list(table.columns)
    assert [p.value for p in printed] == [Decimal(change) for change in changes]


def test_the_change_is_that_of_the_two_numbers_shown_and_stands_under_them(tmp_path: Path) -> None:
    table, _ = build("controls", tmp_path, value=50.005)
    assert [run for _, run in table.rows][:4] == ["baseline", "vdep", CHANGE, "vdep-alpha0"]
    for column in table.columns:
        before, after = (float(table.cells["llava-7b", run, column]["reproduced"]) for run in ("baseline", "vdep"))
        change = table.cells["llava-7b", CHANGE, column]
        assert change.keys() == {"change"}, "the paper has no such table"
        assert float(change["change"]) == pytest.approx(after - before, abs=1e-9)
    markdown = as_markdown(table)
    assert re.search(r"\| llava-7b \| CHANGE \| \+\d", markdown)
    assert "CHANGE: vdep minus baseline;" not in as_markdown(build("ablation_alpha", tmp_path)[0])
    assert CHANGE not in as_csv(table), "what follows from two of its lines is not one of its lines"


def test_the_spread_of_a_change_is_that_of_the_differences_within_a_seed(tmp_path: Path) -> None:
    definition = define("main_vqa", seeds=("a", "b", "c"))
    results = Results({key: tmp_path / "/".join(key[:3]) / f"{key[3]}.json" for key in definition.evaluations})
    for (_, variant, seed, _), path in results.files.items():
        # seeds differ a lot, and what a seed gains by it hardly
        write_scores(path, {"a": 40.0, "b": 50.0, "c": 60.0}[seed] + (variant == "vdep") * {"a": 1.0, "b": 2.0, "c": 3.0}[seed])
    table = build_table(definition, results, PUBLISHED)
    assert table.cells["llava-7b", "vdep", "gqa"]["spread"] == "11.00"
    assert table.cells["llava-7b", CHANGE, "gqa"] == {"change": "+2.00", "spread": "1.00", "published_change": "+0.38"}
    markdown = as_markdown(table)
    assert "+2.00 ± 1.00<br>*published* +0.38" in markdown
    assert "CHANGE: vdep minus baseline ± the standard deviation of the seeds' own changes" in markdown


def test_the_highest_of_a_models_runs_is_bold_in_each_column(tmp_path: Path) -> None:
    definition = define("ablation_ratio")
    results = Results({key: tmp_path / "/".join(key[:3]) / f"{key[3]}.json" for key in definition.evaluations})
    for (_, variant, _, _), path in results.files.items():
        write_scores(path, {"ratio-0.5": 51.0, "ratio-0.8": 51.001, "vdep": 50.0}[variant], parts=("score", *MME))
    table = build_table(definition, results, PUBLISHED)
    gqa = {key[1] for key in table.best if key[2:] == ("gqa", "reproduced")}
    assert gqa == {"ratio-0.5", "ratio-0.8"}, "as shown, they are one"
    assert {key[1] for key in table.best if key[2:] == ("gqa", "published")} == {"vdep"}
    markdown = as_markdown(table)
    assert "**51.00**<br>[50.00, 52.00]<br>*published* 61.65 (-10.65)" in markdown
    assert "| 50.00<br>[49.00, 51.00]<br>*published* **62.50** (-12.50)" in markdown
    assert "bold: the highest of a model's runs" in markdown
    alone = as_markdown(build("calibration", tmp_path / "alone")[0])
    assert "**" not in alone
    assert "bold" not in alone
