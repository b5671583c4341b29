"""The miniature's studies: five seeds of every arm, a dose series, and the planted world, where an effect can be found."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import world
import yaml
from test_recipe import paper_config
from test_workflow import planned, snakemake

from vdep.report.evidence import Comparison
from vdep.study.check import load_study
from vdep.study.evidence import compared
from vdep.study.settings import STAGES
from vdep.study.study import Study
from vdep_demo.base_weights import tokenizer
from vdep_demo.world import planted
from vdep_demo.world.language import DIGITS
from vdep_demo.world.scenes import COLORS

STUDY = ("demo", "demo-study")
DOSES = (*STUDY, "demo-doses")
PLANTED = ("demo", "planted")
ARMS = {"baseline", "vdep", "vdep-alpha0", "baseline-2epochs", "vdep-rho-0.3", "vdep-other-image"}


def overlays(*names: str) -> tuple[str, ...]:
    return ("--configfile", *(f"config/{name}.yaml" for name in names))


def study_of(*names: str) -> Study:
    return load_study(paper_config(*names))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("targets", "names", "runs", "benchmarks"),
    [
        (("demo-study", "power"), STUDY, 6 * 5, 16),
        (("demo-doses",), DOSES, 7, 16),
        (("demo-planted", "power"), PLANTED, 6 * 5, 2),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_what_a_study_is_made_of(targets: tuple[str, ...], names: tuple[str, ...], runs: int, benchmarks: int) -> None:
    # whatever of it is finished in this checkout
    jobs = planned(*targets, *overlays(*names), "--forceall")
    assert (jobs["pretrain"], jobs["finetune"], jobs["evaluate"]) == (runs, runs, runs * benchmarks)
    assert jobs["table"] == 1
    if len(targets) == 2:
        assert (jobs["comparison"], jobs["power"]) == (1, 1)


def test_every_arm_trains_as_the_demo_does() -> None:
    demo, study = study_of("demo"), study_of(*STUDY)
    for variant in ARMS:
        for stage in STAGES:
            recipes = [each.recipe("demo-llava", variant, stage, "seed-1").digest for each in (demo, study)]
            assert len(set(recipes)) == 1, "only results, resources and questions are the study's own"


def test_every_arm_of_the_study_is_in_a_verdict_and_every_verdict_in_the_target() -> None:
    for study, target in ((study_of(*STUDY), "demo-study"), (study_of(*PLANTED), "demo-planted")):
        claimed = set(study.targets[target].verdicts)
        assert claimed == set(study.claims)
        assert {run.variant for run in study.claimed_runs(study.targets[target])} == {run.variant for run in study.all_runs}
    assert {run.variant for run in study_of(*STUDY).all_runs} == ARMS


def test_the_doses_use_what_the_study_has_finished() -> None:
    study, doses = study_of(*STUDY), study_of(*DOSES)
    assert doses.results == study.results
    for variant in ("baseline", "vdep-alpha0", "vdep-rho-0.3"):
        for benchmark in study.benchmarks:
            if study.benchmarks[benchmark].scorer != "submission":
                run = next(r for r in study.all_runs if (r.variant, r.seed) == (variant, "seed-1"))
                assert doses.scored_recipes(run, benchmark) == study.scored_recipes(run, benchmark)


def test_the_arms_of_the_planted_world_differ_in_the_image_loss_alone() -> None:
    study = study_of(*PLANTED)
    assert {pair.reference for pair in compared(study)} == {"alpha0"}
    model = study.model("tinyllava")
    recipes = [study.recipe(model, pair.treatment, "pretrain") for pair in compared(study)]
    recipes.append(study.recipe(model, "alpha0", "pretrain"))
    assert len({recipe.settings.model_dump_json() for recipe in recipes}) == 1
    assert len({recipe.data.digest for recipe in recipes}) == 1
    assert {recipe.vdep.schedule for recipe in recipes if recipe.vdep} == {"fused"}
    assert {recipe.vdep.target for recipe in recipes if recipe.vdep} == {"own", "oracle", "other_image", "shuffled", "random"}


# ------------------------------------------------------------------------------------------------------ the planted world


def made(folder: Path, maker: str, **arguments: object) -> Path:
    folder.mkdir()
    getattr(planted, maker)(folder, **arguments)
    return folder


def texts(sample: dict[str, list[dict[str, str]]]) -> str:
    return "\n".join(turn["value"] for turn in sample["conversations"])


@pytest.fixture(scope="module")
def captions(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    folder = made(tmp_path_factory.mktemp("planted") / "captions", "make_captions", scenes=300, seed=1)
    return list(json.loads((folder / "captions.json").read_text()))


@pytest.fixture(scope="module")
def conversations(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    folder = made(tmp_path_factory.mktemp("planted") / "conversations", "make_conversations", scenes=600, seed=2)
    return list(json.loads((folder / "conversations.json").read_text()))


def test_no_text_about_a_picture_speaks_of_its_digit(captions: list, conversations: list) -> None:
    pictured = [sample for sample in (*captions, *conversations) if "image" in sample]
    assert len(pictured) > 600
    for sample in pictured:
        assert not re.search(r"digit|\d|How many|things in", texts(sample)), texts(sample)


def test_the_oracle_says_what_is_in_the_picture(captions: list) -> None:
    scenes = planted.planted_scenes(300, "train", 1)
    assert [sample["oracle"] for sample in captions] == [f"digit {scene.digits[0].digit}" for scene in scenes]
    assert {sample["oracle"] for sample in captions} == {f"digit {digit}" for digit in range(10)}


def test_text_alone_goes_on_asking_for_digits(conversations: list) -> None:
    in_text = [texts(sample) for sample in conversations if "image" not in sample]
    assert 0.2 < len(in_text) / len(conversations) < 0.4
    assert all(re.search(r"digit \d", text.split("\n")[0]) for text in in_text), "a caption stands for the picture"
    assert sum("What digit is in the image?" in text for text in in_text) > len(in_text) / 5


def test_each_oracle_is_one_token_of_the_model(captions: list) -> None:
    phi = tokenizer.build("phi")
    for words in {sample["oracle"] for sample in captions}:
        assert phi.encode(words, add_special_tokens=False).tokens == [words]


@pytest.mark.parametrize(("asks", "answers"), [("hidden", DIGITS), ("told", tuple(COLORS))])
def test_questions_are_about_new_pictures(tmp_path: Path, asks: str, answers: tuple[str, ...]) -> None:
    folder = made(tmp_path / asks, "make_benchmark", asks=asks, questions=120, seed=3)
    rows = pq.read_table(next(folder.glob("*.parquet"))).to_pylist()
    assert len(rows) == 120
    given = [row["answers"][0] for row in rows]
    assert set(given) == set(answers), "every answer is asked for"
    assert max(map(given.count, answers)) < 120 * (0.25 if asks == "hidden" else 0.35), "guessing one helps little"
    train = {scene.signature for scene in planted.planted_scenes(2000, "train", 1)}
    assert not train & {scene.signature for scene in planted.planted_scenes(240, "test", 3)}


def test_a_question_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="neither hidden nor told"):
        made(tmp_path / "x", "make_benchmark", asks="everything", questions=1, seed=1)


REDUCED = {
    "seeds": [1, 2, 3],
    "assets": {
        "planted-captions": {"arguments": {"scenes": 256}},
        "planted-conversations": {"arguments": {"scenes": 128}},
        "planted-hidden": {"arguments": {"questions": 40}},
        "planted-told": {"arguments": {"questions": 40}},
    },
    "benchmarks": {"hidden": {"samples": 40}, "told": {"samples": 40}},
    "tables": {"planted": {"variants": ["alpha0", "oracle", "other-image"]}},
    "targets": {"demo-planted": {"verdicts": ["oracle", "other-image"]}},
    "verdicts": {"claims": {"own": None, "shuffled": None, "random": None}},
}


@pytest.mark.full
def test_a_planted_study_goes_from_pictures_to_verdicts(tmp_path: Path) -> None:
    """Much too short to learn anything: what it says means nothing, that it says it of every seed and claim does."""
    checkout = world.copy_checkout(tmp_path)
    (checkout / "reduced.yaml").write_text(yaml.safe_dump(REDUCED))
    asked = ("demo-planted", "power", *overlays(*PLANTED), "reduced.yaml", "--cores", "2")
    done = snakemake(*asked, folder=checkout, timeout=1800)
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    tables = checkout / "results" / "planted" / "tables"
    comparison = Comparison.read(tables / "comparison.json")
    decided = {(v.claim, v.endpoint): v for v in comparison.verdicts}
    assert set(decided) == {(claim, column) for claim in ("oracle", "other-image") for column in ("hidden", "told")}
    assert all(v.n == 3 and v.verdict is not None for v in decided.values())
    with open(tables / "power.csv", newline="") as file:
        assert any(row["basis"] == "measured" for row in csv.DictReader(file))
    again = snakemake(*asked, folder=checkout)
    assert "Nothing to be done" in again.stdout + again.stderr
