"""Power: what is assumed, what is measured, and simulated studies in which verdicts go wrong as often as they may, not more."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import world
from evidence_world import MODEL, World, write_study
from scipy import stats
from test_comparison import BENCHMARKS, PUBLISHED, STUDY, define, rules, study_of
from test_recipe import paper_config

from vdep.__main__ import run
from vdep.errors import ReportError
from vdep.evaluation.scores import MME_COGNITION, MME_PERCEPTION, SCORERS, Scored
from vdep.report import power_text as text
from vdep.report.comparison import build_comparison
from vdep.report.evidence import Comparison, Definition
from vdep.report.inference import crossed_interval, t_interval, t_power
from vdep.report.power import build_power
from vdep.report.verdicts import decide
from vdep.study.evidence import comparison_definition
from vdep.study.files import merged_configuration

MARGIN = 1.0


def nothing_yet(definition: Definition) -> Comparison:
    return build_comparison(definition, {}, PUBLISHED)


PAPER = build_power(nothing_yet(Definition.model_validate(comparison_definition(STUDY))), PUBLISHED)


def test_before_any_run_the_assumptions_decide() -> None:
    rows = {row.quantity: row for row in PAPER.rows}
    assert all(row.basis == "assumed" and set(row.smallest) == {1, 3, 5, 10} for row in PAPER.rows)
    # by hand, for GQA: 12,578 questions of which 15% turn; 0.4 points over seeds in either arm
    gqa = rows["gqa"]
    assert gqa.by_questions == pytest.approx(100 * math.sqrt(0.15 / 12578))
    assert gqa.spread == pytest.approx(math.sqrt(2 * 0.4**2 + 100**2 * 0.15 / 12578))
    assert gqa.smallest[1] == pytest.approx((stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) * gqa.by_questions)
    assert t_power(gqa.smallest[5], gqa.spread, 5) == pytest.approx(0.8)
    assert rows["mmvet"].smallest[5] > rows["primary"].smallest[5] * 3, "218 questions against all"
    for row in PAPER.rows:
        assert row.smallest[3] > row.smallest[5] > row.smallest[10]


def test_the_papers_differences_are_held_against_what_can_be_detected() -> None:
    found = {(d.model, d.treatment, d.reference, d.quantity): d for d in PAPER.published}
    okvqa = found["llava-7b", "vdep", "baseline", "okvqa"]
    assert okvqa.points == pytest.approx(3.36)
    assert okvqa.detected_with == 3
    mmt = found["llava-7b", "vdep", "baseline", "mmt"]
    assert (mmt.points, mmt.detected_with) == (pytest.approx(0.06), None)
    assert mmt.needed is not None
    assert mmt.needed > 10
    ocr = found["llava-7b", "vdep", "baseline", "ocrbench"]
    assert (ocr.change, ocr.points) == (pytest.approx(29), pytest.approx(2.9))
    # Table 2 prints both halves of MMBench, and not their mean
    assert found["llava-7b", "vdep", "baseline", "mmbench_mean"].change == pytest.approx((1.84 + 0.33) / 2)
    assert "of 216 lie below what 10 seeds would detect" in text.as_markdown(PAPER)


@pytest.mark.parametrize("column", ["mme_all", "mme_perception", "mmbench_en"])
def test_the_effective_numbers_of_questions_are_those_of_the_scores(column: str) -> None:
    """By the scorer's own sensitivity to single answers, on a benchmark with MME's, and MMBench's, numbers of questions."""
    assert STUDY.verdicts is not None
    rng = np.random.default_rng(0)
    if column == "mmbench_en":
        questions = [Scored(4 * i + j, str(i), float(i % 3 > 0), unit=str(i)) for i in range(1164) for j in range(4)]
        # a question of MMBench turns as a whole
        assert STUDY.verdicts.assumed.questions[column] == len({q.unit for q in questions})
        return
    few = ("existence", "count", "position", "color")
    images = dict.fromkeys(few, 30) | {
        "posters": 147,
        "celebrity": 170,
        "scene": 200,
        "landmark": 200,
        "artwork": 200,
        "OCR": 20,
    }
    images |= {
        "OCR": 20,
        "commonsense_reasoning": 70,
        "numerical_calculation": 20,
        "text_translation": 20,
        "code_reasoning": 20,
    }
    assert 2 * sum(images.values()) == 2374
    questions = [
        Scored(0, f"{c}{i}", float(rng.random() < 0.8), c, unit=f"{c}{i}")
        for c, n in images.items()
        for i in range(n)
        for _ in "ab"
    ]
    parts = SCORERS["mme"].parts
    assert set(images) == {*MME_PERCEPTION, *MME_COGNITION}
    names = ["perception"] if column == "mme_perception" else ["perception", "cognition"]
    sensitivity = math.hypot(*(parts[name].sensitivity(questions) for name in names))
    scale = 100 / STUDY.columns[column].maximum
    # of a mean of N questions it is 100 / sqrt(N)
    effective = (100 / (sensitivity * scale)) ** 2
    assert STUDY.verdicts.assumed.questions[column] == pytest.approx(effective, rel=0.1)


def test_after_one_seed_questions_are_measured_and_after_three_all_is(tmp_path: Path) -> None:
    for seeds, basis in ((1, "questions measured, seeds assumed"), (2, "questions measured, seeds assumed"), (3, "measured")):
        comparison = study_of(tmp_path / str(seeds), seeds)
        rows = {row.quantity: row for row in build_power(comparison, PUBLISHED).rows}
        for d in comparison.differences:
            assert rows[d.quantity].basis == basis
            assert rows[d.quantity].by_questions == pytest.approx(d.question_error)
            if seeds == 3:
                assert rows[d.quantity].spread == pytest.approx(np.std(d.differences, ddof=1))


def test_two_seeds_of_many_pairs_do_not_measure_what_three_of_one_do(tmp_path: Path) -> None:
    comparison = study_of(tmp_path, 2)
    again = [d.model_copy(update={"treatment": f"other-{i}"}) for i in range(4) for d in comparison.differences]
    many = comparison.model_copy(update={"differences": (*comparison.differences, *again)})
    assert {row.basis for row in build_power(many, PUBLISHED).rows} == {"questions measured, seeds assumed"}


def test_a_difference_of_nothing_and_an_unknown_spread_are_not_counted_as_too_small() -> None:
    below = next(d for d in PAPER.published if d.detected_with is None and d.needed)
    unknown = below.model_copy(update={"needed": None})
    shown = text.as_markdown(PAPER.model_copy(update={"published": (below, unknown)}))
    assert "1 of 2 lie below what 10 seeds would detect. Of 1 nothing can be said" in shown


def test_power_is_printed_as_it_was_computed() -> None:
    lines = {line["quantity"]: line for line in csv.DictReader(io.StringIO(text.as_csv(PAPER)))}
    for row in PAPER.rows:
        if not row.pooled:
            assert float(lines[row.quantity]["smallest_5"]) == pytest.approx(row.smallest[5], abs=0.005)
    assert len(text.published_csv(PAPER).splitlines()) == 1 + len(PAPER.published)
    latex = text.as_latex(PAPER)
    assert latex.count("{") == latex.count("}")


def test_without_rules_there_is_no_power() -> None:
    with pytest.raises(ReportError, match="`verdicts`: configure them"):
        build_power(nothing_yet(define(rules=None)), PUBLISHED)


# ------------------------------------------------------------------------------------------------------ simulated studies


def within(count: int, n: int, share: float) -> bool:
    """Whether a count is what a binomial distribution allows in 999 of 1,000 cases."""
    low, high = stats.binom.interval(0.999, n, share)
    return bool(low <= count <= high)


def verdicts(differences: np.ndarray, margin: float = MARGIN) -> list[str]:
    return [decide(list(study), margin, rules())[0] for study in differences]


def said(simulated: World, effect: float) -> float:
    """What `power` says of a simulated study, from the assumptions that it was made by."""
    assumed = {"seed_spread": 100 * simulated.seed_spread, "seed_correlation": 1.0, "disagreement": simulated.disagreement}
    definition = define(rules=rules(assumed=assumed), questions=dict.fromkeys(BENCHMARKS, simulated.questions))
    power = build_power(nothing_yet(definition), PUBLISHED)
    (row,) = [row for row in power.rows if row.pooled]
    assert row.spread is not None
    return t_power(effect, row.spread, simulated.seeds)


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_without_an_effect_a_claim_holds_as_rarely_as_the_level_says(seeds: int) -> None:
    n = 1500
    found = verdicts(World(seeds=seeds).differences(World(seeds=seeds).studies(n, np.random.default_rng(seeds))))
    assert found.count("holds") <= stats.binom.ppf(0.999, n, 0.05)
    assert within(found.count("holds"), n, 0.025), "the upper half of a two-sided test"


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_an_effect_of_two_points_is_found_as_often_as_power_says(seeds: int) -> None:
    simulated, n = World(effect=0.02, seeds=seeds), 1500
    differences = simulated.differences(simulated.studies(n, np.random.default_rng(seeds)))
    assert within(verdicts(differences).count("holds"), n, said(simulated, 2.0))


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_intervals_over_seeds_cover_the_effect_in_95_of_100_studies(seeds: int) -> None:
    simulated, n = World(effect=0.02, seeds=seeds), 1500
    differences = simulated.differences(simulated.studies(n, np.random.default_rng(seeds + 1)))
    intervals = [t_interval(list(study)) for study in differences]
    assert within(sum(i.low <= 2.0 <= i.high for i in intervals), n, 0.95)


def test_an_effect_as_large_as_the_margin_is_denied_in_5_of_100_studies() -> None:
    n = 600
    simulated = World(effect=MARGIN / 100, seeds=5, pictures=400)
    differences = simulated.differences(simulated.studies(n, np.random.default_rng(0)))
    below = [decide(list(study), MARGIN, rules())[2] for study in differences]
    assert within(sum(p is not None and p < 0.05 for p in below), n, 0.05)
    # a difference that is found to be above 0 holds, however small: fewer claims are denied than tests say
    assert verdicts(differences).count("does not hold") <= stats.binom.ppf(0.999, n, 0.05)


def test_where_there_is_no_effect_a_claim_is_denied_as_often_as_the_one_sided_test_can() -> None:
    n, simulated = 600, World(seeds=5, pictures=400)
    differences = simulated.differences(simulated.studies(n, np.random.default_rng(1)))
    spread = math.sqrt(2 * (100 * simulated.seed_spread) ** 2 + 100**2 * simulated.disagreement / (3 * simulated.questions))
    denied = stats.nct.sf(stats.t.ppf(0.95, 4), 4, MARGIN * math.sqrt(5) / spread)
    below = [decide(list(study), MARGIN, rules())[2] for study in differences]
    assert within(sum(p is not None and p < 0.05 for p in below), n, denied)
    assert verdicts(differences).count("does not hold") >= stats.binom.ppf(0.001, n, denied - 0.025)


def test_an_interval_for_other_pictures_too_covers_an_effect_that_differs_from_picture_to_picture() -> None:
    simulated, n = World(effect=0.02, seeds=5, interaction=0.06, benchmarks=1, pictures=100), 400
    outcomes = simulated.studies(n, np.random.default_rng(2))
    covered = alone = 0
    for study, differences in zip(outcomes, simulated.differences(outcomes), strict=True):
        change = 100 * (study[1, :, 0].astype(float) - study[0, :, 0])
        clusters = change.reshape(simulated.seeds, simulated.pictures, simulated.each).sum(-1)
        contributions = (clusters - clusters.mean(1, keepdims=True)) / simulated.questions
        crossed, plain = crossed_interval(list(differences), [contributions]), t_interval(list(differences))
        covered += crossed.low <= 2.0 <= crossed.high
        alone += plain.low <= 2.0 <= plain.high
    assert covered >= stats.binom.ppf(0.001, n, 0.95)
    assert covered >= alone


def from_files(simulated: World, n: int, folder: Path, rng: np.random.Generator) -> list[Comparison]:
    """Studies from files of single answers to verdicts, one after the other."""
    return [
        build_comparison(define(), write_study(folder, outcomes, BENCHMARKS, simulated.each), PUBLISHED)
        for outcomes in simulated.studies(n, rng)
    ]


def test_studies_as_files_are_the_simulated_ones(tmp_path: Path) -> None:
    """So what is shown above for arrays is true of the whole way from answers to a verdict."""
    simulated = World(effect=0.02, seeds=5)
    arrays = simulated.differences(simulated.studies(6, np.random.default_rng(5)))
    for comparison, differences in zip(from_files(simulated, 6, tmp_path, np.random.default_rng(5)), arrays, strict=True):
        pooled = comparison.of((MODEL, "vdep", "baseline"), "all", pooled=True)
        assert pooled is not None
        assert pooled.differences == pytest.approx(list(differences))
        assert comparison.verdicts[0].verdict == verdicts(differences[None])[0]


@pytest.mark.full
@pytest.mark.parametrize("effect", [0.0, 0.02])
def test_five_hundred_studies_as_files(effect: float, tmp_path: Path) -> None:
    simulated, n = World(effect=effect, seeds=5), 500
    studies = from_files(simulated, n, tmp_path, np.random.default_rng(6))
    holds = sum(comparison.verdicts[0].verdict == "holds" for comparison in studies)
    if effect:
        assert within(holds, n, said(simulated, 100 * effect))
    else:
        assert holds <= stats.binom.ppf(0.999, n, 0.05)
    pooled = [comparison.of((MODEL, "vdep", "baseline"), "all", pooled=True) for comparison in studies]
    assert within(sum(d is not None and d.low <= 100 * effect <= d.high for d in pooled), n, 0.95)


def test_the_command_says_what_snakemake_power_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.chdir(world.ROOT)
    (tmp_path / "mine.yaml").write_text(f"results: {tmp_path}\nverdicts: {{seeds: [1, 4]}}\n")
    assert run(["power", "--configfile", str(tmp_path / "mine.yaml")]) == 0
    printed = capsys.readouterr().out
    assert "| 1 seed * | 4 seeds | basis |" in printed
    for row in PAPER.rows:
        assert row.label in printed
    monkeypatch.chdir(tmp_path)
    assert run(["power"]) == 1
    assert "Snakefile cannot be read" in capsys.readouterr().err


def test_commands_read_the_configuration_that_snakemake_merges() -> None:
    assert merged_configuration(world.ROOT, [world.ROOT / "config" / "demo.yaml"]) == paper_config("demo")
