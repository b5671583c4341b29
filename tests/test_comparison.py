"""Pairs of arms question by question, from files of scores and samples to a verdict."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import world
from evidence_world import MODEL, World, columns, questions_of, write_evaluation, write_study
from scipy import stats
from test_recipe import changed, paper_config

from vdep.errors import ConfigError, ReportError
from vdep.evaluation.scores import MME_COGNITION, MME_PERCEPTION, Scored
from vdep.report import comparison_text as text
from vdep.report.comparison import build_comparison, provenance
from vdep.report.evidence import Comparison, Definition
from vdep.report.results import Key, read_published
from vdep.report.verdicts import judge
from vdep.study.check import load_study
from vdep.study.evidence import comparable, compared, comparison_definition, needed
from vdep.study.plan import Plan
from vdep.study.recipe import canonical_json
from vdep.study.tables import Column
from vdep.study.verdicts import Rules

STUDY = load_study(paper_config())
PUBLISHED = read_published(world.ROOT / "config" / "published.csv")
BENCHMARKS = ("gqa", "pope", "ai2d")


def rules(**changes: Any) -> Rules:
    claim = {"says": "It helps.", "models": [MODEL], "pairs": [{"treatment": "vdep", "reference": "baseline"}]}
    return Rules.model_validate(
        {
            "endpoints": {"all": {"label": "mean", "columns": BENCHMARKS}},
            "claims": {
                "helps": {**claim, "endpoints": ["all"]},
                "everywhere": {**claim, "endpoints": ["all"], "each": True},
            },
            "assumed": {"seed_spread": 0.4, "seed_correlation": 0.3, "disagreement": 0.15},
        }
        | changes
    )


def define(**changes: Any) -> Definition:
    return Definition.model_validate(
        {
            "pairs": [(MODEL, "vdep", "baseline")],
            "family": BENCHMARKS,
            "columns": columns(BENCHMARKS),
            "rules": rules(),
            "rules_sha256": "0" * 64,
        }
        | changes
    )


def study_of(tmp_path: Path, seeds: int, effect: float = 0.05) -> Comparison:
    return build_comparison(define(), study_files(tmp_path, seeds, effect), PUBLISHED)


def study_files(tmp_path: Path, seeds: int, effect: float = 0.05) -> dict[Key, Path]:
    (outcomes,) = World(effect, seeds, len(BENCHMARKS)).studies(1, np.random.default_rng(0))
    return write_study(tmp_path, outcomes, BENCHMARKS)


def rows_of(path: Path) -> list[float]:
    from vdep.evaluation.samples import read_samples

    return [row["points"] for row in read_samples(path.with_suffix(".samples.jsonl.gz")) if row["pass"] == "seen"]


def test_over_seeds_the_difference_is_that_of_the_seeds_means_and_its_test_is_scipys(tmp_path: Path) -> None:
    comparison = study_of(tmp_path, 4)
    for name in BENCHMARKS:
        found = comparison.of((MODEL, "vdep", "baseline"), name)
        assert found is not None
        by_arm = {
            arm: [100 * np.mean(rows_of(tmp_path / arm / f"seed-{s}" / f"{name}.json")) for s in range(4)]
            for arm in ("vdep", "baseline")
        }
        test = stats.ttest_rel(by_arm["vdep"], by_arm["baseline"])
        assert found.difference == pytest.approx(np.mean(by_arm["vdep"]) - np.mean(by_arm["baseline"]))
        assert (found.low, found.high) == pytest.approx(tuple(test.confidence_interval()))
        assert found.p == pytest.approx(test.pvalue)
        assert found.basis == "over seeds"
        assert found.p_adjusted is not None
        assert found.p_adjusted >= found.p
    pooled = comparison.of((MODEL, "vdep", "baseline"), "all", pooled=True)
    assert pooled is not None
    singles = [comparison.of((MODEL, "vdep", "baseline"), name) for name in BENCHMARKS]
    assert pooled.difference == pytest.approx(np.mean([d.difference for d in singles if d]))
    assert pooled.p_adjusted is None, "the pooled difference is no member of the family"


def test_two_checkpoints_are_told_as_such_and_get_no_test_and_no_verdict(tmp_path: Path) -> None:
    comparison = study_of(tmp_path, 1, effect=0.08)
    assert {d.basis for d in comparison.differences} == {"two checkpoints, no training noise"}
    assert all(d.p is None and d.p_adjusted is None and d.low < d.difference < d.high for d in comparison.differences)
    assert [v.verdict for v in comparison.verdicts] == ["cannot tell", "cannot tell"], "however large the difference"
    assert "1 seed of at least 3; would need about" in comparison.verdicts[0].why
    assert "two checkpoints, no training noise" in text.as_markdown(comparison)


def test_gained_and_lost_are_counted_question_by_question(tmp_path: Path) -> None:
    pictures = np.arange(6)
    outcomes = {"vdep": [1, 1, 0, 1, 0, 0.6], "baseline": [0, 1, 1, 0, 0, 0.3]}
    files = {
        (MODEL, arm, "seed-42", "gqa"): write_evaluation(tmp_path / arm / "gqa.json", questions_of(np.array(right), pictures))
        for arm, right in outcomes.items()
    }
    definition = define(family=("gqa",), columns=columns(("gqa",)), rules=None)
    (found,) = build_comparison(definition, files, PUBLISHED).differences
    assert (found.gained, found.lost, found.questions) == (3, 1, 6)
    assert found.difference == pytest.approx(100 * (3.6 - 2.3) / 6)
    assert found.published is not None
    assert found.published.change == pytest.approx(0.38)


def test_a_question_of_mmbench_is_gained_or_lost_with_all_its_rotations(tmp_path: Path) -> None:
    def rotations(right: list[list[int]]) -> list[Scored]:
        return [Scored(4 * i + j, str(i), float(r), unit=str(i)) for i, row in enumerate(right) for j, r in enumerate(row)]

    whole, partly = [1, 1, 1, 1], [1, 1, 0, 1]
    arms = {"vdep": [whole, whole, partly, partly], "baseline": [whole, partly, partly, whole]}
    files = {
        (MODEL, arm, "seed-42", "gqa"): write_evaluation(tmp_path / arm / "gqa.json", rotations(right), "circular")
        for arm, right in arms.items()
    }
    definition = define(family=("gqa",), columns=columns(("gqa",)), rules=None)
    (found,) = build_comparison(definition, files, PUBLISHED).differences
    assert (found.difference, found.gained, found.lost, found.questions) == (0.0, 1, 1, 4)


def test_benchmarks_on_the_same_pictures_are_resampled_together(tmp_path: Path) -> None:
    """MMBench asks the same questions twice, in English and in Chinese: as one cluster, not as independent evidence."""
    rng = np.random.default_rng(0)
    both, pictures = ("mmbench_en", "mmbench_cn"), np.arange(100)
    right = {arm: rng.random(100) < 0.6 for arm in ("vdep", "baseline")}

    def width(assets: tuple[str, str]) -> float:
        files = {
            (MODEL, arm, "seed-42", b): write_evaluation(
                tmp_path / arm / f"{b}.json", questions_of(right[arm], pictures), "mean", a
            )
            for arm in right
            for b, a in zip(both, assets, strict=True)
        }
        shown = columns(both) | {"mean": Column(label="MMB", mean_of=both)}
        definition = define(family=("mean",), columns=shown, rules=None)
        (found,) = build_comparison(definition, files, PUBLISHED).differences
        return found.high - found.low

    one, two = width(("mmbench", "mmbench")), width(("mmbench", "another"))
    assert one == pytest.approx(two * 2**0.5, rel=0.01)


def test_all_questions_in_one_cluster_are_an_error(tmp_path: Path) -> None:
    files = {
        (MODEL, arm, "seed-42", "gqa"): write_evaluation(tmp_path / arm / "gqa.json", questions_of(np.ones(5), np.zeros(5)))
        for arm in ("vdep", "baseline")
    }
    with pytest.raises(ReportError, match=r"gqa\.json: all 5 questions are one cluster .* benchmarks\.gqa\.cluster"):
        build_comparison(define(family=("gqa",), columns=columns(("gqa",)), rules=None), files, PUBLISHED)


def test_different_questions_under_one_recipe_are_an_error(tmp_path: Path) -> None:
    files = {
        (MODEL, arm, "seed-42", "gqa"): write_evaluation(tmp_path / arm / "gqa.json", questions_of(np.ones(n), np.arange(n)))
        for arm, n in (("vdep", 7), ("baseline", 8))
    }
    definition = define(family=("gqa",), columns=columns(("gqa",)), rules=None)
    with pytest.raises(ReportError, match=r"vdep/gqa\.json and .*baseline/gqa\.json are not of the same questions"):
        build_comparison(definition, files, PUBLISHED)


def test_an_arm_that_was_evaluated_otherwise_is_named_with_what_differs_and_the_others_are_compared(tmp_path: Path) -> None:
    """A variant with another prompt or another way with pictures has evaluations of its own."""
    files = study_files(tmp_path, 3, effect=0.2)
    for (_, arm, seed, benchmark), path in list(files.items()):
        if arm == "vdep":
            answers = questions_of(np.array(rows_of(path)), np.arange(200) // 2)
            image = "pad" if benchmark == "ai2d" else "crop"
            crop = write_evaluation(tmp_path / "crop" / seed / f"{benchmark}.json", answers, image=image)
            files[MODEL, "vdep-crop", seed, benchmark] = crop
    pairs = [(MODEL, "vdep", "baseline"), (MODEL, "vdep-crop", "baseline")]
    comparison = build_comparison(define(pairs=pairs), files, PUBLISHED)
    assert {d.quantity for d in comparison.differences if d.treatment == "vdep"} == {*BENCHMARKS, "all"}
    assert [d.quantity for d in comparison.differences if d.treatment == "vdep-crop"] == ["ai2d"]
    assert comparison.missing == (
        f"{MODEL}, vdep-crop against baseline: "
        'evaluated in different ways (image: "crop" and "pad"), and not paired: gqa, pope',
    )  # fmt: skip
    assert comparison.verdicts[0].verdict == "holds"


def test_an_endpoint_with_a_columns_name_is_neither_judged_nor_adjusted_in_its_place(tmp_path: Path) -> None:
    endpoints = {"gqa": {"label": "mean", "columns": ["gqa", "pope"]}}
    claim = {"says": "It helps.", "models": [MODEL], "pairs": [{"treatment": "vdep", "reference": "baseline"}]}
    claims = {"mean": {**claim, "endpoints": ["gqa"]}, "each": {**claim, "endpoints": ["gqa"], "each": True}}
    files = study_files(tmp_path, 4)
    comparison = build_comparison(define(rules=rules(endpoints=endpoints, claims=claims)), files, PUBLISHED)
    pair = (MODEL, "vdep", "baseline")
    column, endpoint = comparison.of(pair, "gqa"), comparison.of(pair, "gqa", pooled=True)
    assert column is not None
    assert endpoint is not None
    assert column.difference != endpoint.difference
    mean, each = comparison.verdicts
    assert [part.difference for part in mean.parts] == [endpoint.difference]
    assert each.parts[0].difference == column.difference
    alone = build_comparison(define(), files, PUBLISHED).of(pair, "gqa")
    assert alone is not None
    assert column.p_adjusted == alone.p_adjusted
    assert endpoint.p_adjusted is None


def test_the_planted_world_whose_endpoints_are_called_as_its_columns_is_compared(tmp_path: Path) -> None:
    planted = load_study(paper_config("demo", "planted"))
    definition = Definition.model_validate(comparison_definition(planted))
    assert set(definition.endpoints) == set(definition.family)
    rng, model = np.random.default_rng(0), planted.model("tinyllava")
    files = {
        (model, arm, seed, b): write_evaluation(
            tmp_path / arm / seed / f"{b}.json",
            questions_of(rng.random(100) < (0.8 if (arm, b) == ("oracle", "hidden") else 0.3), np.arange(100)),
        )
        for arm in ("oracle", "alpha0")
        for seed in definition.seeds
        for b in definition.family
    }
    comparison = build_comparison(definition, files, PUBLISHED)
    assert [(d.quantity, d.pooled, d.p_adjusted is None) for d in comparison.differences] == [
        ("hidden", False, False), ("told", False, False), ("hidden", True, True), ("told", True, True),
    ]  # fmt: skip
    told = comparison.of((model, "oracle", "alpha0"), "told")
    assert told is not None
    assert told.p_adjusted == pytest.approx(told.p), "the larger of two"
    hidden = comparison.of((model, "oracle", "alpha0"), "hidden")
    assert hidden is not None
    assert hidden.p is not None
    assert hidden.p_adjusted == pytest.approx(2 * hidden.p), "of two, and not of four"
    verdicts = {v.endpoint: v.verdict for v in comparison.verdicts if v.claim == "oracle"}
    assert verdicts["hidden"] == "holds"
    assert verdicts["told"] != "holds"


def test_p_is_adjusted_for_all_the_columns_that_are_compared_however_few_are_finished(tmp_path: Path) -> None:
    files = {key: path for key, path in study_files(tmp_path, 4).items() if key[3] == "gqa"}
    (found,) = build_comparison(define(), files, PUBLISHED).differences
    assert found.p is not None
    assert found.p_adjusted == pytest.approx(min(1.0, 3 * found.p))


def test_only_seeds_that_both_arms_have_are_paired_and_what_is_missing_is_named(tmp_path: Path) -> None:
    files = study_files(tmp_path, 4)
    del files[MODEL, "vdep", "seed-3", "gqa"], files[MODEL, "baseline", "seed-0", "gqa"]
    for seed in range(4):
        del files[MODEL, "vdep", f"seed-{seed}", "ai2d"]
    comparison = build_comparison(define(), files, PUBLISHED, ["left out: something"])
    found = {d.quantity: d for d in comparison.differences}
    assert [s.seed for s in found["gqa"].by_seed] == ["seed-1", "seed-2"]
    assert found["pope"].n == 4
    assert "ai2d" not in found
    assert "all" not in found, "a mean of fewer benchmarks is another number"
    assert comparison.missing == (
        "left out: something", f"{MODEL}, vdep against baseline: not both evaluated at one seed on AI2D",
    )  # fmt: skip
    assert [v.verdict for v in comparison.verdicts] == [None, "cannot tell"]


def test_a_claim_is_judged_once_when_all_configured_seeds_are_there_for_both_arms(tmp_path: Path) -> None:
    """Not at every look, and not on whichever seeds survived: an effect of 20 points does not change that."""
    seeds = [f"seed-{s}" for s in range(5)]
    files = study_files(tmp_path, 5, effect=0.2)
    whole = build_comparison(define(seeds=seeds), files, PUBLISHED)
    assert whole.missing == ()
    assert whole.verdicts[0].verdict == "holds"
    for benchmark in BENCHMARKS:
        del files[MODEL, "vdep", "seed-3", benchmark], files[MODEL, "baseline", "seed-4", benchmark]
    some = build_comparison(define(seeds=seeds), files, PUBLISHED)
    for verdict in some.verdicts:
        assert verdict.verdict == "cannot tell"
        assert verdict.why == "2 of 5 configured seeds are missing (seed-3, seed-4)"
        assert verdict.needed is None, "how many a new study would need is no reason to add some to this one"
        assert all(part.p is None and part.p_below_margin is None for part in verdict.parts)
    assert some.missing == (
        f"{MODEL}, vdep against baseline: 2 of 5 configured seeds are missing (seed-3, seed-4)",
    )  # fmt: skip
    assert build_comparison(define(), files, PUBLISHED).verdicts[0].verdict == "holds", "of checkpoints there is no such rule"


def test_a_seed_that_is_missing_on_one_benchmark_is_named_with_it_and_leaves_every_claim_about_it_open(tmp_path: Path) -> None:
    files = study_files(tmp_path, 4, effect=-0.2)
    del files[MODEL, "vdep", "seed-0", "gqa"]
    comparison = build_comparison(define(seeds=[f"seed-{s}" for s in range(4)]), files, PUBLISHED)
    assert comparison.missing == (
        f"{MODEL}, vdep against baseline: 1 of 4 configured seeds is missing (seed-0) on GQA, mean",
    )  # fmt: skip
    assert {v.verdict for v in comparison.verdicts} == {"cannot tell"}, "however bad it looks on the others"


def test_scores_of_two_checkpoints_are_no_run(tmp_path: Path) -> None:
    """Trained anew by the same recipe, with only some benchmarks evaluated since: every digest is what it was."""
    files = study_files(tmp_path, 4)
    path = files[MODEL, "vdep", "seed-2", "pope"]
    scores = json.loads(path.read_text())
    scores["checkpoint"]["weights"] = "another"
    path.write_text(json.dumps(scores))
    comparison = build_comparison(define(seeds=[f"seed-{s}" for s in range(4)]), files, PUBLISHED)
    assert {tuple(s.seed for s in d.by_seed) for d in comparison.differences} == {("seed-0", "seed-1", "seed-3")}
    assert comparison.missing == (
        f"{MODEL}/vdep/seed-2 has scores of 2 checkpoints, and is left out; evaluate it again: "
        "weights w on gqa, ai2d; weights another on pope",
        f"{MODEL}, vdep against baseline: 1 of 4 configured seeds is missing (seed-2)",
    )
    assert {v.verdict for v in comparison.verdicts} == {"cannot tell"}


def test_the_document_is_read_as_it_was_written(tmp_path: Path) -> None:
    comparison = study_of(tmp_path, 3)
    path = tmp_path / "comparison.json"
    path.write_text(json.dumps(comparison.model_dump(mode="json"), allow_nan=False))
    assert Comparison.read(path) == comparison
    path.write_text("{}")
    with pytest.raises(ReportError, match=r"comparison\.json is no comparison of this version"):
        Comparison.read(path)


def test_what_is_printed_is_what_was_computed(tmp_path: Path) -> None:
    comparison = study_of(tmp_path, 3)
    lines = list(csv.DictReader(io.StringIO(text.as_csv(comparison))))
    assert len(lines) == len(comparison.differences)
    for line, d in zip(lines, comparison.differences, strict=True):
        assert float(line["difference"]) == pytest.approx(d.difference, abs=0.005)
        assert float(line["low"]) <= float(line["difference"]) <= float(line["high"])
    markdown = text.as_markdown(comparison)
    for d in comparison.differences:
        assert f"{d.label}** | 3 |" in markdown or f"\n| {d.label} | 3 |" in markdown, "the seeds of each line"
    assert markdown.count("\n| ") == 1 + len(comparison.differences)
    assert "0000000000" in text.verdicts_markdown(comparison), "the rules' hash"
    for latex in (text.as_latex(comparison), text.verdicts_latex(comparison)):
        assert latex.count(r"\begin{table}") == latex.count(r"\end{table}")
        assert latex.count("{") == latex.count("}")


def test_every_file_behind_a_number_is_named_with_the_rules(tmp_path: Path) -> None:
    files = study_files(tmp_path, 3)
    files[MODEL, "vdep", "seed-9", "gqa"] = files[MODEL, "vdep", "seed-0", "gqa"]
    record = provenance(build_comparison(define(), files, PUBLISHED), files)
    assert record["verdicts"]["rules_sha256"] == "0" * 64
    assert len(record["results"]) == 18


# --------------------------------------------------------------------------------------------------------- configuration


def test_every_variant_is_compared_with_the_baseline_and_every_claim_has_its_pairs() -> None:
    pairs = compared(STUDY)
    assert len(pairs) == len(set(pairs))
    for name in ("vdep", "alpha-0.1", "loss-inverse", "vdep-alpha0", "baseline-2epochs"):
        assert ("llava-7b", name, "baseline") in pairs
    assert ("tinyllava-3b", "vdep", "baseline") in pairs
    assert ("llava-7b", "vdep", "vdep-alpha0") in pairs
    assert ("llava-7b", "alpha-0.01", "alpha-0.1") in pairs
    assert not any("released" in pair for pair in pairs), "it has no seed to be paired by"


def test_a_named_pair_is_compared_in_every_model_that_is_trained_in_both() -> None:
    study = load_study(changed("comparison/pairs", {"mine": {"treatment": "vdep", "reference": "vdep-sum"}}))
    assert [pair for pair in compared(study) if pair.reference == "vdep-sum"] == [("llava-7b", "vdep", "vdep-sum")]


def test_every_arm_of_a_verdict_is_evaluated_on_the_whole_list() -> None:
    plan = Plan(STUDY)
    scores = set(plan.asked(["controls"]))
    assert STUDY.verdicts is not None
    for claim in STUDY.targets["controls"].verdicts:
        for run, benchmark in needed(STUDY, [claim]):
            assert (run, benchmark) in scores
        arms = STUDY.runs(STUDY.arms_of(STUDY.claims[claim]))
        assert {(run, b) for run in arms for b in STUDY.benchmarks if not b.endswith("_test")} <= scores
    assert scores <= set(comparable(STUDY))
    assert f"{STUDY.results}/tables/verdicts.md" in plan.target("controls")
    assert not any("verdicts" in path or "comparison" in path for path in plan.target("all"))


def test_the_endpoints_are_the_papers_benchmarks_on_one_scale() -> None:
    assert STUDY.verdicts is not None
    primary = STUDY.verdicts.endpoints["primary"].columns
    measured = {b for column in primary for b in STUDY.column_benchmarks(column)}
    assert measured == {name for name in STUDY.benchmarks if not name.endswith("_test")}
    assert set(primary) - {"mmvet"} == set(STUDY.verdicts.endpoints["primary-unjudged"].columns)
    for published in PUBLISHED:
        assert float(published.value) <= STUDY.columns[published.column].maximum


def test_a_claim_that_nothing_can_decide_without_a_judge_is_said_and_so_are_the_columns_left_out() -> None:
    without = changed("judge", None)
    assert without["verdicts"]["claims"]["helps"]["endpoints"] == ["primary", "primary-unjudged"]
    without["verdicts"]["claims"]["helps"]["endpoints"] = ["primary"]
    definition = Definition.model_validate(comparison_definition(load_study(without)))
    comparison = build_comparison(definition, {}, PUBLISHED)
    (helps,) = [v for v in comparison.verdicts if v.claim == "helps" and v.model == MODEL]
    assert (helps.verdict, helps.n, helps.parts) == (None, 0, ())
    assert helps.why == "no version of its endpoint can be made without MM-Vet, for which no judge is configured"
    assert "MM-Vet: left out, because no judge is configured." in text.as_markdown(comparison)
    assert "MM-Vet" in text.verdicts_markdown(comparison)


def test_without_a_judge_the_unjudged_version_decides() -> None:
    study = load_study(changed("judge", None))
    definition = Definition.model_validate(comparison_definition(study))
    assert "primary" not in definition.endpoints
    assert {v.endpoint for v in judge(definition, []) if v.claim == "helps" and v.deciding} == {"primary-unjudged"}


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("comparison/reference", "basline", "comparison.reference: there is no variant named 'basline'"),
        ("comparison/columns", ["gqaa"], "comparison.columns: there is no column named 'gqaa'"),
        ("comparison/pairs", {"x": {"treatment": "vdep", "reference": "vdep"}}, "vdep is compared with itself"),
        ("verdicts/endpoints/mme/columns", ["mme_al"], "verdicts.endpoints.mme.columns: there is no column named 'mme_al'"),
        ("verdicts/claims/alpha/endpoints", ["ablations"], "verdicts.claims.alpha.endpoints: there is no endpoint"),
        (
            "verdicts/claims/alpha/pairs", [{"treatment": "vdep", "reference": "released"}],
            "released is imported, and has no seeds to be compared over",
        ),
        ("verdicts/level", 5, "verdicts.level"),
        ("verdicts/minimum_seeds", 1, "verdicts.minimum_seeds"),
        ("targets/controls/verdicts", ["helpz"], "targets.controls.verdicts: there is no claim named 'helpz'"),
        ("tables/comparison", {"title": "x", "models": ["llava"], "variants": ["vdep"], "columns": ["gqa"]}, "another name"),
    ],
)  # fmt: skip
def test_what_the_rules_name_has_to_be_there(path: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_study(changed(path, value))


def test_rules_can_be_changed_by_an_overlay_and_their_hash_says_so() -> None:
    definition = comparison_definition(STUDY)
    other = comparison_definition(load_study(changed("verdicts/margin", 0.5)))
    assert definition["rules_sha256"] != other["rules_sha256"]
    assert definition["rules_sha256"] == comparison_definition(load_study(paper_config()))["rules_sha256"]
    without = load_study(changed("verdicts/claims/helps-everywhere", None))
    assert "helps-everywhere" not in without.claims
    assert canonical_json(Definition.model_validate(definition).model_dump(mode="json"))


@pytest.mark.long
def test_at_full_size_two_arms_are_compared(tmp_path: Path) -> None:
    """All 72,323 questions of the paper's benchmarks, with clusters as they are there."""
    rng = np.random.default_rng(0)
    files, whole = {}, {name: b for name, b in STUDY.benchmarks.items() if b.cluster}
    for name, benchmark in whole.items():
        n = benchmark.samples or 0
        for variant in ("baseline", "vdep"):
            right = rng.random(n) < 0.65
            questions = [full_size(benchmark.scorer, name, i, bool(r)) for i, r in enumerate(right)]
            path = tmp_path / variant / f"{name}.json"
            files[MODEL, variant, "seed-42", name] = write_evaluation(path, questions, benchmark.scorer, benchmark.asset)
    comparison = build_comparison(Definition.model_validate(comparison_definition(STUDY)), files, PUBLISHED)
    found = {d.quantity: d for d in comparison.differences}
    assert found["gqa"].clusters == 398
    # MMBench counts whole questions, and both languages' are the same ones
    assert found["primary"].questions == 72323 - 2 * (4329 - 1164)
    assert found["mmbench_mean"].clusters == 1164


def full_size(scorer: str, name: str, i: int, right: bool) -> Scored:
    points = float(right)
    if scorer == "circular":
        return Scored(i, str(i % 1164), points, unit=str(i % 1164))
    if scorer == "mme":
        categories = (*MME_PERCEPTION, *MME_COGNITION)
        return Scored(i, str(i // 2), points, categories[i // 2 % len(categories)], unit=str(i // 2))
    if scorer == "f1":
        return Scored(i, str(i // 18), points, predicted_yes=right, is_yes=i % 2 == 0)
    return Scored(i, str(i % 398 if name == "gqa" else i // 2), points)
