"""What may be asked for: every file that a rule makes, and no other without a reason."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import world
from hypothesis import given
from hypothesis import strategies as st
from test_recipe import changed, paper_config
from test_workflow import planned, snakemake

from vdep.study.check import load_study
from vdep.study.plan import Plan
from vdep.study.study import deep_merge
from vdep.study.targets import mistyped, nothing, unknown


def answer(name: str, **switches: str) -> str:
    plan = Plan(load_study(deep_merge(paper_config(), switches)))
    return str(unknown(plan, name, ["all", "controls"]))


@pytest.mark.parametrize(
    ("name", "switches", "expected"),
    [
        ("runs/llava-7b/vdep/seed-7/finetune/done.json", {}, r"vdep has the seeds of `seeds: \[42\]`.* seed-42$"),
        ("runs/llava-7b/released/seed-42/finetune/done.json", {}, r"released is imported, not trained.* imported$"),
        ("runs/llava-7b/vdp/seed-42/finetune/done.json", {}, r"there is no variant named 'vdp' \(did you mean vdep\?"),
        ("runs/llava-8b/vdep/seed-42/finetune/done.json", {}, r"there is no model named 'llava-8b'"),
        ("runs/llava/vdep/seed-42/finetune/done.json", {}, r"llava is a role, .*: llava-7b$"),
        ("runs/llava-7b/vdep/seed-42/sft/done.json", {}, r"pretrain/done\.json and finetune/done\.json"),
        ("runs/llava-7b", {}, r"there is no variant named ''"),
        ("runs/llava-7b/vdep/seed-42/pretrain/done.json", {"only_model": "tinyllava-3b"}, r"only_model: tinyllava-3b leaves"),
        ("evaluations/llava-7b/vdep/seed-42/gqaa.json", {}, r"there is no benchmark named 'gqaa' \(did you mean gqa"),
        ("submissions/llava-7b/vdep/seed-42/gqa.json", {}, r"there is no benchmark named 'gqa' \(.*known: mmbench"),
        ("evaluations/llava-7b/vdep/seed-42/gqa.json", {"only_stage": "finetune"}, r"only_stage: finetune stops before it"),
        ("attention/attention/llava-7b/vdep/seed-7.npz", {}, r"seeds: \[42\]"),
        ("figures/attention.pdf", {}, r"Near it: .*figures of attention|files of attention end in \.png, \.csv"),
        ("tables/main_vqa", {}, r"files of main_vqa end in|there is no table"),
        ("tables/controls.csv", {"only_model": "tinyllava-3b"}, r"^there is no target 'r\S+'\. only_model: .* of controls$"),
        ("tables/main_vqa.csv", {"only_stage": "pretrain"}, r"only_stage: pretrain stops before tables and figures"),
    ],
)
def test_the_answer_says_what_is_wrong_and_what_there_is(name: str, switches: dict[str, str], expected: str) -> None:
    assert re.search(expected, answer(f"results/{name}", **switches)), answer(f"results/{name}", **switches)


def test_an_empty_target_says_which_switch_emptied_it() -> None:
    plan = Plan(load_study(changed("only_model", "tinyllava-3b")))
    assert not plan.target("controls")
    assert nothing(plan, "controls") == "only_model: tinyllava-3b leaves nothing of the target controls"
    taken = Plan(load_study(changed("targets/all", None)))
    assert re.match(r"there is no target 'all' .*known: controls, main", nothing(taken, "all"))


parts = st.text("abc.-/(){}é ", max_size=12)


@given(parts)
def test_a_file_that_a_rule_makes_is_never_a_mistake(name: str) -> None:
    made = [r"results/tables/(?P<table>a|b)\.csv$", r"results/runs/(?P<m>[^/]+)/(?P=m)/done\.json$"]
    pattern = re.compile(mistyped("results", made))
    for path in (f"results/tables/{name}", f"results/runs/{name}", f"results/runs/{name}/done.json"):
        by_rule = any(re.fullmatch(r"results/tables/(a|b)\.csv|results/runs/[^/]+/[^/]+/done\.json", path) for _ in made)
        assert bool(pattern.fullmatch(path)) != by_rule
    assert not pattern.fullmatch(f"data/{name}/x.csv") or "tables/" in name or "figures/" in name


def test_files_of_the_checkout_are_never_a_mistake() -> None:
    pattern = re.compile(mistyped("results", ["nothing"]))
    inputs = ("config/published.csv", "resources/assets/gqa/manifest.json", "rules/tables.smk")
    assert all((world.ROOT / inputs[i]).exists() for i in (0, 2))
    assert not any(pattern.fullmatch(path) for path in inputs)


@pytest.mark.parametrize(
    ("target", "config", "expected"),
    [
        ("results/runs/llava-7b/vdep/seed-7/finetune/done.json", "", "seeds: \\[42\\].*folders are seed-42"),
        ("results/tables/main_vqa.tsv", "", r"files of main_vqa end in \.csv, \.md"),
        ("controls", "only_model=tinyllava-3b", "only_model: tinyllava-3b leaves nothing of the target controls"),
        ("results/tables/main_vqa.csv", "only_stage=pretrain", "only_stage: pretrain stops before tables"),
        (
            "results/runs/llava-7b/vdep/seed-42/finetune/done.json",
            "only_stage=pretrain",
            "only_stage: pretrain stops before it",
        ),
    ],
)
def test_what_no_rule_makes_is_answered_with_the_reason(target: str, config: str, expected: str) -> None:
    done = snakemake("-n", target, *(["--config", config] if config else []))
    assert done.returncode != 0
    assert re.search(expected, done.stdout + done.stderr)


def test_a_local_asset_that_is_not_there_stops_only_the_plans_that_need_it(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"assets: {{vicuna-7b-v1.5: null, mine: {{kind: local, path: {tmp_path}/nowhere}}}}\n"
                                        "models: {llava-7b: {language_model: mine}}\n")  # fmt: skip
    overlay = ("--configfile", str(tmp_path / "mine.yaml"))
    done = snakemake("-n", "results/runs/llava-7b/vdep/seed-42/pretrain/done.json", *overlay)
    assert done.returncode != 0
    assert f"assets.mine.path: {tmp_path}/nowhere is not there" in done.stdout + done.stderr
    assert planned("results/runs/tinyllava-3b/vdep/seed-42/pretrain/done.json", *overlay)["pretrain"] == 1


def test_a_variant_that_stands_in_no_table_is_planned_with_data_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("variants: {short: {pretrain: {max_length: 999}}}\n")
    jobs = planned("results/runs/llava-7b/short/seed-42/pretrain/done.json", "--configfile", str(tmp_path / "mine.yaml"))
    assert (jobs["pretrain"], jobs["prepare"]) == (1, 2)


def test_no_table_is_named_like_a_file_of_a_rule(tmp_path: Path) -> None:
    table = "{title: T, models: [llava], variants: [vdep], columns: [gqa]}"
    (tmp_path / "mine.yaml").write_text(f"tables: {{skills: {table}}}\n")
    done = snakemake("-n", "all", "--configfile", str(tmp_path / "mine.yaml"))
    assert done.returncode != 0
    assert "a rule makes results/tables/skills." in done.stdout + done.stderr
