"""Configuration and recipes: what is refused, what changes a digest and what does not."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import world
import yaml
from hypothesis import given
from hypothesis import strategies as st

from vdep.errors import ConfigError
from vdep.study.check import load_study, missing_files
from vdep.study.evaluation import SCORER_PARTS
from vdep.study.plan import Plan
from vdep.study.recipe import canonical_json
from vdep.study.schema import schema_text
from vdep.study.study import Study, apply_lock, deep_merge

FILES = ("assets", "datasets", "models", "variants", "benchmarks", "protocols", "verdicts", "config")


def paper_config(*overlays: str) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for name in (*FILES, *overlays):
        merged = deep_merge(merged, yaml.safe_load((world.ROOT / "config" / f"{name}.yaml").read_text()))
    return merged


def changed(path: str, value: Any, *overlays: str) -> dict[str, Any]:
    """The paper's configuration with one key changed; ``path`` is written with slashes."""
    keys = path.split("/")
    change: Any = value
    for key in reversed(keys):
        change = {key: change}
    return deep_merge(paper_config(*overlays), change)


def evaluations(study: Study) -> set[Any]:
    """Of the target ``all``."""
    plan = Plan(study)
    return {e for target in plan.members("all") for table in target.tables for e in plan.evaluations[table]}


def test_the_paper_needs_ten_checkpoints_and_146_evaluations() -> None:
    study = load_study(paper_config())
    assert len(Plan(study).target_runs("all")) == 10
    assert len(evaluations(study)) == 146
    assert len(study.table_evaluations("ablation_alpha")) == 39
    assert not any(benchmark == "seedbench_img" for _, benchmark in study.table_evaluations("ablation_loss"))


@pytest.mark.parametrize("text", ["judge: null", "judge:", "judge: none"])
def test_without_a_judge_its_evaluations_are_left_out(text: str) -> None:
    study = load_study(deep_merge(paper_config(), yaml.safe_load(text)))
    assert len(evaluations(study)) == 136
    assert not any("mm-vet" in asset for asset in Plan(study).assets)
    with pytest.raises(ConfigError, match="mmvet is graded by a judge, and none is configured"):
        study.evaluation_recipe("llava-7b", "vdep", "mmvet")


def test_how_a_judge_is_asked_is_no_part_of_a_recipe_and_who_it_is_is_none_of_the_answers() -> None:
    study = load_study(paper_config())
    recipe = study.evaluation_recipe("llava-7b", "vdep", "mmvet")
    slower = load_study(changed("execution/judge", {"parallel": 1})).evaluation_recipe("llava-7b", "vdep", "mmvet")
    other = load_study(changed("judge", {"model": "other"})).evaluation_recipe("llava-7b", "vdep", "mmvet")
    assert recipe.digest == slower.digest
    assert recipe.digest != other.digest
    assert recipe.of_answers.digest == other.of_answers.digest != recipe.digest


def test_every_checkpoint_of_the_paper_has_its_own_recipe() -> None:
    study = load_study(paper_config())
    runs = [run for run in study.all_runs if not study.imported(run.variant)]
    digests = {study.recipe(*run[:2], stage, run.seed).digest for run in runs for stage in ("pretrain", "finetune")}
    assert len(digests) == 2 * len(runs) == 42


def test_fields_that_came_later_change_no_digest_where_they_are_as_ever() -> None:
    """What was trained before them is still what a recipe names: written into JSON as it was, and read back with defaults."""
    study = load_study(paper_config())
    recipe = study.recipe("llava-7b", "vdep", "pretrain")
    assert json.loads(recipe.canonical)["vdep"] == {
        "alpha": 0.001, "ratio": 1.0, "loss": "l2", "schedule": "interleaved", "position": "same", "detach_target": True,
        "distance": "squared", "reduction": "mean", "positions": "mean", "form": "position", "normalize": "none",
        "inverse_floor": 1e-06, "mixing": "batch", "auto_image": "sentinel",
    }  # fmt: skip
    assert type(recipe).model_validate_json(recipe.canonical) == recipe
    for path, value in (("target", "shuffled"), ("temperature", 0.5), ("alpha", {"rule": "gradient_ratio", "rho": 0.5})):
        other = load_study(changed(f"variants/vdep/vdep/{path}", value)).recipe("llava-7b", "vdep", "pretrain")
        assert other.digest != recipe.digest
        assert type(other).model_validate_json(other.canonical) == other


def test_a_variant_can_go_back_to_what_was_before_the_field_came() -> None:
    study = load_study(changed("variants/mine", {"extends": "vdep-shuffled", "vdep": {"target": "own", "alpha": 0.001}}))
    assert study.recipe("llava-7b", "mine", "pretrain") == study.recipe("llava-7b", "vdep", "pretrain")


def test_projectors_start_as_the_original_of_each_model_has_it() -> None:
    models = load_study(paper_config("demo")).models
    kinds = {name: model.projector_init for name, model in models.items()}
    assert kinds == {"llava-7b": "linear", "demo-llava": "linear", "tinyllava-3b": "normal", "demo-tinyllava": "normal"}
    other = load_study(changed("models/tinyllava-3b/projector_init", "linear"))
    assert (
        other.recipe("tinyllava-3b", "vdep", "pretrain").digest
        != load_study(paper_config()).recipe("tinyllava-3b", "vdep", "pretrain").digest
    )


def test_the_demo_is_a_study_of_its_own() -> None:
    study = load_study(paper_config("demo"))
    assert all(run.model.startswith("demo-") for run in study.all_runs)
    assert study.results == "results/demo"


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("variants/vdep/vdep/alpha", 2, r"pretrain of llava-7b/vdep: vdep\.alpha: .*less than or equal to 1.*2"),
        ("variants/vdep/vdep/alpha", {"rule": "gradient_ratio"}, r"variants\.vdep\.vdep\.alpha\.rho: .*required"),
        ("variants/vdep/vdep/alpha", {"rule": "gradient_ratio", "rho": 1, "evry": 2}, r"alpha\.evry: .*did you mean every"),
        ("variants/vdep/vdep/target", "others", r"variants\.vdep\.vdep\.target: .*'other_image'.*'others'"),
        ("variants/vdep/vdep/alpha", -1, r"variants\.vdep\.vdep\.alpha: .*greater than or equal to 0.*-1"),
        ("variants/vdep/vdep", {"form": "group"}, r"llava-7b/vdep: vdep\.form: group needs normalization"),
        ("variants/vdep/vdep", {"schedule": "fused", "mixing": "steps"}, r"fused is not exact with vdep\.mixing: steps"),
        ("variants/vdep/vdep", {"schedule": "fused", "auto_image": "token"}, r"fused is not exact with vdep\.auto_image"),
        ("variants/vdep/pretrain", {"normalization": {"micro_batch": 0}}, r"normalization.*greater than or equal to 1"),
        ("variants/vdep/pretrain", {"grouping": "modality_length"}, r"llava-7b/vdep: grouping: modality_length is for SFT"),
        ("variants/vdep/vdep", {"alpha": math.inf, "positions": "sum"}, r"variants\.vdep\.vdep\.alpha: .*finite number.*inf"),
        ("stages/pretrain/gradient_clipping", math.inf, r"stages\.pretrain\.gradient_clipping: .*finite"),
        ("stages/pretrain/epsilon", -1e-8, r"epsilon: .*greater than or equal to 0"),
        ("stages/pretrain/betas", [0.9, 1.0], r"betas\.1: .*less than 1"),
        ("variants/vdep/vdep/ratio", 0, r"variants\.vdep\.vdep\.ratio: .*greater than 0"),
        ("variants/vdep/vdep/loss", "l3", r"variants\.vdep\.vdep\.loss: .*'l2'.*'l3'"),
        ("variants/vdep/vdep/alhpa", 0.1, r"variants\.vdep\.vdep\.alhpa: there is no such key"),
        ("variants/vdep/extends", "vdep", r"variants\.vdep: extends itself \(vdep -> vdep\)"),
        ("variants/vdep/extends", "alpha-0.1", r"extends itself \((vdep|alpha-0\.1) -> "),
        ("variants/vdep/extends", "nobody", r"variants\.vdep\.extends: there is no variant named 'nobody' \(known: .*baseline"),
        ("variants/released/imported", "nothing", r"variants\.released\.imported: there is no asset named 'nothing'"),
        ("variants/released/vdep", {}, r"variants\.released: an imported checkpoint is not trained"),
        (
            "loss_figures",
            {"mine": {"models": ["llava"], "variants": ["released"]}},
            r"loss_figures\.mine: released is imported",
        ),
        ("tables/main_vqa/variants", ["nobody"], r"tables\.main_vqa\.variants: there is no variant named 'nobody'"),
        ("tables/main_vqa/models", ["llava-13b"], r"main_vqa\.models: .*'llava-13b' \(did you mean llava-7b\?"),
        ("stages/pretrain/learning_rate", -1, r"stages\.pretrain\.learning_rate: .*greater than 0"),
        ("stages/finetune/data", "nowhere", r"finetune of llava-7b/baseline: there is no dataset named 'nowhere'"),
        ("models/llava-7b/pretrain/template", "chatml", r"template: .*'plain'"),
        ("tables/main_vqa/columns", ["okvqq"], r"tables\.main_vqa\.columns: there is no column named 'okvqq'"),
        ("resultz", "x", r"resultz: there is no such key, did you mean results\?"),
        (
            "variants/mine",
            {"pretrain": {"epochz": 2}},
            r"mine\.pretrain\.epochz: there is no such key, did you mean epochs",
        ),
        ("variants/mine", {"pretrain": {"epochs": "two"}}, r"variants\.mine\.pretrain\.epochs: .*integer.*'two'"),
        ("variants/mine", {"pretrain": {"seed": 1}}, r"variants\.mine\.pretrain\.seed: there is no such key"),
        ("variants/mine", {"vdep": {"alpha": 0, 5: None}}, r"variants\.mine\.vdep\.5: .*is there a comma in a number"),
        ("columns/gqa/part", "accuracy", r"columns\.gqa\.part: there is no part of gqa named 'accuracy' \(known: score\)"),
        ("benchmarks/gqa/scorer", "meen", r"benchmarks\.gqa\.scorer: there is no scorer named 'meen' \(did you mean mean"),
        ("targets/all/tables", ["ablation"], r"targets\.all\.tables: there is no table named 'ablation'"),
        ("targets/all/figures", ["atention"], r"targets\.all\.figures: .*did you mean attention"),
        ("roles/llava", "llava-8b", r"roles\.llava: there is no model named 'llava-8b' \(did you mean llava-7b"),
        ("figures/attention/right", "vdepp", r"figures\.attention: there is no variant named 'vdepp'"),
        ("validation/pretrain", "coco", r"validation\.pretrain: there is no dataset named 'coco'"),
        ("seeds", [], r"seeds: .*at least 1 item"),
        ("execution/finetune/gpus", 4, r"execution\.finetune: 8 processes need as many GPUs \(given: gpus: 4\)"),
        ("tables/main_vqa/models", [], r"tables\.main_vqa\.models: is empty"),
        ("tables/main_vqa/columns", [], r"tables\.main_vqa\.columns: is empty"),
        ("results", "", r"results: should be a folder's path"),
        ("resources", "a{b}", r"resources: should be a folder's path"),
        ("seeds", 43, r"seeds: should be a list: \[43\] \(given: 43\)$"),
        ("seeds", [-1], r"^seeds\.0: [^;]* \(given: -1\)$"),
        ("variants/Mine", {}, r"variants\.Mine\.\[key\]: names begin with"),
        ("variants/mine", {"pretrain": {"seed": 1}}, r"pretrain\.seed: there is no such key, did you mean seeds\?"),
        ("seeds", ["42", 43, 42], r"seeds: 42 is there twice"),
        ("targets/mine", {"targets": ["mine"]}, r"targets\.mine: belongs to itself \(mine -> mine\)"),
        ("targets/main", {"targets": ["all"]}, r"targets\.main: belongs to itself \(main -> all -> main\)"),
        ("columns/gqa", {"benchmark": None, "mean_of": ["gqa"]}, r"columns\.gqa: belongs to itself \(gqa -> gqa\)"),
        ("only_model", "llava", r"only_model: there is no model named 'llava'"),
        ("variants/vdep/vdep/alpha", True, r"variants\.vdep\.vdep\.alpha: should be a number; .*\(given: True\)"),
        ("variants/mine", {"pretrain": {"epochs": True}}, r"variants\.mine\.pretrain\.epochs: should be a number"),
        ("stages/pretrain/dropout", False, r"stages\.pretrain\.dropout: should be a number"),
        ("stages/pretrain/betas", [True, 0.9], r"stages\.pretrain\.betas: should be a number"),
        ("seeds", [True], r"seeds: should be a number"),
        ("benchmarks/gqa/samples", True, r"benchmarks\.gqa\.samples: should be a number"),
        ("assets/coco-train2017/size", True, r"assets\.coco-train2017\.url\.size: should be a number"),
        ("stages/pretrain/tf32", 1, r"stages\.pretrain\.tf32: should be true or false \(given: 1\)"),
        ("execution/pretrain/packing", "no", r"execution\.pretrain\.packing: should be true or false \(given: 'no'\)"),
        ("tables/main_vqa/models", ["llava", "llava-7b"], r"tables\.main_vqa\.models: llava-7b is there twice"),
        ("tables/main_vqa/variants", ["vdep", "vdep"], r"tables\.main_vqa\.variants: vdep is there twice"),
        ("tables/main_vqa/columns", ["gqa", "gqa"], r"tables\.main_vqa\.columns: gqa is there twice"),
        ("columns/mmbench_mean/mean_of", ["gqa", "gqa"], r"columns\.mmbench_mean: gqa is there twice"),
        ("loss_figures/losses/models", ["llava", "llava-7b"], r"loss_figures\.losses\.models: llava-7b is there twice"),
        (
            "assets/coco-train2017/url",
            "https://me:secret@host/x.zip",
            r"assets\.coco-train2017\..*names no user \(a mirror may\)",
        ),
        ("figures/attention/left", "vdep", r"figures\.attention: left, right and controls should be different variants"),
        ("tables/main_vqa/variants", ["released"], r"tinyllava-3b/released: the checkpoint llava-v1\.5-7b is of llava-7b"),
        ("variants/theirs", {"imported": "llava-v1.5-7b"}, r"variants\.theirs\.model: say which model .*known: llava-7b, tiny"),
        ("variants/released/model", "nobody", r"variants\.released\.model: there is no model named 'nobody'"),
        ("variants/baseline/model", "llava-7b", r"variants\.baseline\.model: is for imported checkpoints"),
        ("targets/mine", {}, r"targets\.mine: builds nothing"),
        (f"variants/{'x' * 300}", {}, r"variants\.x+\.\[key\]: .*at most 100 characters"),
        ("models/llava-7b/pretrain/max_length", 576, r"pretrain of llava-7b/\S+: max_length: 576 has no room for text"),
        ("seeds", [2**70], r"seeds\.0: .*less than"),
        ("evaluation/seed", -1, r"evaluation\.seed: .*greater than or equal to 0"),
        ("benchmarks/gqa/samples", 0, r"benchmarks\.gqa\.samples: .*greater than or equal to 1"),
        ("benchmarks/gqa/max_new_tokens", -1, r"benchmarks\.gqa\.max_new_tokens: .*greater than or equal to 1"),
        ("assets/coco-train2017/sha256", "abc", r"assets\.coco-train2017\.url\.sha256: should be a SHA-256"),
        ("assets/coco-train2017/size", -3, r"assets\.coco-train2017\.url\.size: .*greater than or equal to 1"),
        ("assets/mine", {"kind": "hub", "repo": ""}, r"assets\.mine\.hub\.repo: .*pattern"),
        ("assets/mine", {"kind": "local", "path": ""}, r"assets\.mine\.local\.path: .*at least 1 character"),
        ("execution/pretrain/runtime", "soon", r"execution\.pretrain\.runtime: should be a time, such as .*'soon'"),
        ("execution/pretrain/memory", "-3GB", r"execution\.pretrain\.memory: should be an amount of memory.*'-3GB'"),
        ("execution/evaluate/gpus", 0, r"execution\.evaluate: device: cuda needs a GPU"),
        ("execution/command", "", r"execution\.command: .*at least 1 character"),
        ("results", "resources", r"resources: resources is the folder of results"),
        ("results", "a/..", r"results: should be a folder of its own"),
        ("results", "../..", r"results: should be a folder of its own"),
        (
            "datasets/llava-mix-665k/images",
            [{"asset": "gqa-images"}, {"asset": "vg-images"}],
            r"images: prefix:  ?is there twice",
        ),
    ],
)
def test_a_bad_configuration_names_the_key_and_the_reason(path: str, value: Any, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        load_study(changed(path, value))


@pytest.mark.parametrize("ending", ["answers", "graded"])
def test_no_benchmark_is_named_as_a_file_of_another(ending: str) -> None:
    config = paper_config()
    config["benchmarks"][f"gqa.{ending}"] = config["benchmarks"]["gqa"]
    with pytest.raises(ConfigError, match=rf"benchmarks\.gqa\.{ending}: .*another name"):
        load_study(config)


def test_numbers_and_truth_values_may_be_text_as_the_command_line_gives_them() -> None:
    # snakemake --config 'seeds=[42,43]' and nested mappings arrive as text
    study = load_study(deep_merge(changed("seeds", ["42", "43"]), {"stages": {"pretrain": {"tf32": "true", "epochs": "2"}}}))
    assert study.seeds == (42, 43)
    settings = study.stage("llava-7b", "vdep", "pretrain")
    assert (settings.tf32, settings.epochs) == (True, 2)
    # what YAML 1.1 takes for text: an exponent without a point
    assert load_study(changed("variants/vdep/vdep/alpha", "1e-3")).recipe("llava-7b", "vdep", "pretrain").vdep.alpha == 1e-3  # type: ignore[union-attr]


def test_an_argument_of_a_maker_stays_what_it_is() -> None:
    entry = {"kind": "made", "maker": "a.b:c", "arguments": {"flag": True, "count": 1, "share": 0.5, "name": "1"}}
    made = load_study(changed("assets/mine", entry)).assets["mine"]
    assert canonical_json(made.model_dump(mode="json")["arguments"]) == '{"count":1,"flag":true,"name":"1","share":0.5}'


def test_a_folder_may_be_written_in_several_ways() -> None:
    assert {load_study(changed("results", way)).results for way in ("mine/r", "./mine/r/", "mine//r")} == {"mine/r"}
    assert load_study(changed("results", "~/r")).results == str(Path.home() / "r")


@pytest.mark.parametrize("value", [None, ["a"], {"gqa": "a"}])
def test_assets_that_are_none_are_named_with_a_lock_too(value: Any) -> None:
    lock = {"assets": {"gqa": {"revision": "r"}}}
    with pytest.raises(ConfigError, match=r"^assets.*(mapping|dictionary|object)"):
        load_study(apply_lock({**paper_config(), "assets": value}, lock))


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (
            "execution/finetune/engine",
            "zero4",
            r"execution\.finetune\.engine: .*'zero4' .*ddp, zero2, zero3",
        ),
        ("judge", {"kind": "function", "model": "nowhere.mod:grade"}, r"judge\.model: 'nowhere\.mod:grade' cannot be found"),
        ("judge", {"kind": "function", "model": "vdep_demo.judge"}, r"judge\.model: 'vdep_demo\.judge' cannot be found"),
        ("tables/main_vqa/published", ["table99"], r"tables\.main_vqa: there is no published table named 'table99'"),
        ("assets/mine", {"kind": "made", "maker": "nowhere.b:c"}, r"assets\.mine\.maker: 'nowhere\.b:c' cannot be found"),
        ("benchmarks/gqa/task", "/etc/passwd", r"benchmarks\.gqa\.task: should be relative to"),
        ("benchmarks/gqa/task", "gqa/gqaa.yaml", r"benchmarks\.gqa\.task: .*'gqa/gqaa\.yaml' \(did you mean gqa/gqa\.yaml"),
    ],
)
def test_files_that_are_not_there_are_named_before_the_plan(path: str, value: Any, expected: str) -> None:
    (problem,) = missing_files(load_study(changed(path, value)), world.ROOT)
    assert re.match(expected, problem), problem


def test_what_the_plan_knows_of_scorers_is_what_they_yield() -> None:
    from vdep.evaluation.scores import SCORERS

    assert {name: tuple(scorer.parts) for name, scorer in SCORERS.items()} == SCORER_PARTS


def test_a_seed_changes_both_stages_and_nothing_but_the_seed() -> None:
    study = load_study(changed("seeds", [42, 43]))
    for stage in ("pretrain", "finetune"):
        first, second = (study.recipe("llava-7b", "vdep", stage, seed) for seed in ("seed-42", "seed-43"))
        assert first.digest == load_study(paper_config()).recipe("llava-7b", "vdep", stage).digest, "what it was alone"
        one, other = (recipe.model_dump(mode="json") for recipe in (first, second))
        assert (one["settings"].pop("seed"), other["settings"].pop("seed")) == (42, 43)
        assert (one.pop("initial") == other.pop("initial")) == (stage == "pretrain")
        assert one == other


def test_an_overlay_takes_an_entry_away_with_null() -> None:
    study = load_study(changed("tables/calibration", None))
    assert "calibration" not in study.tables


def test_every_setting_is_explained_in_the_schema() -> None:
    schema = json.loads(schema_text())
    for name in ("StageOverride", "VdepSettings", "Table", "Target", "AttentionFigure"):
        for key, field in schema["$defs"][name]["properties"].items():
            assert field.get("description"), f"{name}.{key}"
    assert all(field.get("description") for field in schema["properties"].values())


def test_reordering_keys_does_not_change_a_digest() -> None:
    forward = paper_config()
    backward = json.loads(json.dumps(forward), object_pairs_hook=lambda pairs: dict(reversed(pairs)))
    for stage in ("pretrain", "finetune"):
        first, second = (load_study(c).recipe("llava-7b", "vdep", stage) for c in (forward, backward))
        assert first.digest == second.digest


def test_swapping_the_values_of_two_fields_changes_the_digest() -> None:
    one = changed("variants/vdep/vdep", {"alpha": 0.5, "ratio": 0.25})
    other = changed("variants/vdep/vdep", {"alpha": 0.25, "ratio": 0.5})
    digests = {load_study(c).recipe("llava-7b", "vdep", "pretrain").digest for c in (one, other)}
    assert len(digests) == 2


@pytest.mark.parametrize(
    "path", ["execution/pretrain/micro_batch", "execution/pretrain/processes", "execution/finetune/save_every"]
)
def test_how_a_stage_is_run_is_no_part_of_its_recipe(path: str) -> None:
    plain, other = load_study(paper_config()), load_study(changed(path, 3))
    for stage in ("pretrain", "finetune"):
        assert plain.recipe("llava-7b", "vdep", stage).digest == other.recipe("llava-7b", "vdep", stage).digest


def test_a_change_in_stage_1_reaches_sft() -> None:
    plain = load_study(paper_config()).recipe("llava-7b", "vdep", "finetune")
    other = load_study(changed("variants/vdep/vdep/alpha", 0.5)).recipe("llava-7b", "vdep", "finetune")
    assert plain.digest != other.digest


def test_the_lock_fills_in_what_is_null_and_nothing_else() -> None:
    config = paper_config()
    locked = apply_lock(config, {"assets": {"phi-2": {"revision": "abc"}, "unknown": {"revision": "x"}}})
    assert locked["assets"]["phi-2"]["revision"] == "abc"
    assert "unknown" not in locked["assets"]
    again = apply_lock(locked, {"assets": {"phi-2": {"revision": "other"}}})
    assert again["assets"]["phi-2"]["revision"] == "abc"
    study, plain = load_study(locked), load_study(config)
    assert study.recipe("tinyllava-3b", "vdep", "pretrain").digest != plain.recipe("tinyllava-3b", "vdep", "pretrain").digest
    assert study.recipe("llava-7b", "vdep", "pretrain").digest == plain.recipe("llava-7b", "vdep", "pretrain").digest


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_canonical_json_reads_back_as_the_same_value(value: Any) -> None:
    assert json.loads(canonical_json(value)) == value


@given(st.dictionaries(st.text(), json_values), st.dictionaries(st.text(), json_values))
def test_merging_takes_every_changed_leaf_and_leaves_its_arguments_alone(base: dict[str, Any], change: dict[str, Any]) -> None:
    before = json.dumps([base, change], sort_keys=True)
    merged = deep_merge(base, change)
    assert json.dumps([base, change], sort_keys=True) == before
    assert set(merged) == set(base) | set(change)
    for key, value in change.items():
        if not isinstance(value, dict) or not isinstance(base.get(key), dict):
            assert merged[key] == value


def test_the_schema_file_is_the_one_that_the_types_generate() -> None:
    assert (world.ROOT / "config" / "schema.json").read_text() == schema_text(), (
        "run: python -m vdep schema > config/schema.json"
    )


def test_parsing_the_configuration_imports_no_torch() -> None:
    code = "import sys, vdep.study.plan, vdep.run.driver; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=world.environment(), check=False).returncode == 0
