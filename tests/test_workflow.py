"""The DAG: what is planned, what makes it run again and what does not, and what is refused before any work."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import world
from judge_server import JudgeServer, grades, says
from planner import PLANNER

ITS_OWN = re.compile(r"(?m)^( *(Date|Workflow ID|Command): .*|\[.* \d\d:\d\d:\d\d \d{4}\])$")
SNAKEMAKE = str(Path(sys.executable).parent / "snakemake")


def snakemake(*arguments: str, folder: Path = world.ROOT, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """The command and what it printed; a dry run is planner.py's, which has imported Snakemake already."""
    if "-n" in arguments:
        return PLANNER.ask(list(arguments), folder, world.environment())
    return command(*arguments, folder=folder, timeout=timeout)


def command(*arguments: str, folder: Path = world.ROOT, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SNAKEMAKE, *arguments],
        cwd=folder,
        env=world.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )


def planned(*arguments: str, folder: Path = world.ROOT) -> Counter[str]:
    """Rule -> number of jobs of a dry run."""
    done = snakemake("-n", *arguments, folder=folder)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    text = done.stdout + done.stderr
    table = text.split("Job stats:")[1] if "Job stats:" in text else ""
    rows = re.findall(r"^(\w+)\s+(\d+)$", table.split("\n\n")[0], re.MULTILINE)
    return Counter({name: int(count) for name, count in rows if name != "total"})


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of this checkout, to change and to run in."""
    return world.copy_checkout(tmp_path)


def test_the_papers_plan() -> None:
    jobs = planned("all")
    assert (jobs["pretrain"], jobs["finetune"], jobs["evaluate"]) == (10, 10, 146)
    assert (jobs["answer"], jobs["grade"]) == (10, 10), "MM-Vet is answered with a GPU and graded without one"
    assert jobs["table"] == 6
    assert jobs["attention_figure"] == 1


def test_one_table_needs_only_what_is_in_it() -> None:
    jobs = planned("results/tables/ablation_alpha.csv")
    assert (jobs["pretrain"], jobs["finetune"], jobs["evaluate"], jobs["table"]) == (3, 3, 39, 1)


def test_the_controls() -> None:
    jobs = planned("controls")
    assert (jobs["pretrain"], jobs["finetune"], jobs["evaluate"], jobs["table"]) == (13, 13, 166, 3)
    both = planned("all", "controls")
    assert (both["pretrain"], both["finetune"], both["evaluate"], both["table"]) == (21, 21, 287, 9), "eleven more, and 141"


def test_one_model_and_one_stage_can_be_asked_for() -> None:
    jobs = planned("all", "--config", "only_model=tinyllava-3b")
    assert (jobs["pretrain"], jobs["finetune"], jobs["evaluate"], jobs["table"]) == (2, 2, 32, 3)
    jobs = planned("all", "--config", "only_stage=pretrain")
    assert (jobs["pretrain"], jobs["finetune"], jobs["evaluate"], jobs["table"]) == (10, 0, 0, 0)


def test_every_run_is_made_with_every_seed() -> None:
    jobs = planned("all", "--config", "seeds=[42,43]")
    assert (jobs["prepare"], jobs["pretrain"], jobs["finetune"], jobs["evaluate"], jobs["table"]) == (8, 20, 20, 292, 6)


@pytest.mark.parametrize(
    ("target", "near"),
    [
        ("al", "all"),
        ("results/tables/ablation_alfa.csv", "results/tables/ablation_alpha.csv"),
        ("results/figures/atention.png", "results/figures/attention.png"),
        ("results/demo/tables/main_vqa.csv", "results/tables/main_vqa.csv"),
        ("tables/main_vqa.csv", "results/tables/main_vqa.csv"),
    ],
)
def test_a_mistyped_target_is_answered_with_the_nearest_names(target: str, near: str) -> None:
    done = snakemake("-n", target)
    assert done.returncode != 0
    assert re.search(rf"there is no target '{re.escape(target)}'\. Near it: .*{re.escape(near)}", done.stdout + done.stderr)


def test_the_demo_without_its_configuration_is_not_the_paper() -> None:
    done = snakemake("-n", "demo")
    assert done.returncode != 0
    assert "snakemake demo --configfile config/demo.yaml" in done.stdout + done.stderr


def test_it_runs_from_another_folder(tmp_path: Path) -> None:
    jobs = planned("results/tables/ablation_alpha.csv", "-s", str(world.ROOT / "Snakefile"), folder=tmp_path)
    assert jobs["evaluate"] == 39


@pytest.mark.slow
def test_a_thousand_variants_are_planned(tmp_path: Path) -> None:
    names = [f"a{i}" for i in range(1000)]
    variants = "".join(f"  {name}: {{extends: vdep, vdep: {{alpha: {i / 1000}}}}}\n" for i, name in enumerate(names))
    table = f"tables: {{many: {{title: Many, models: [llava], variants: [{', '.join(names)}], columns: [gqa]}}}}\n"
    (tmp_path / "many.yaml").write_text(f"variants:\n{variants}{table}")
    jobs = planned("results/tables/many.csv", "--configfile", str(tmp_path / "many.yaml"))
    assert (jobs["pretrain"], jobs["finetune"], jobs["evaluate"]) == (1000, 1000, 1000)


def test_a_released_checkpoint_is_evaluated_and_not_trained() -> None:
    jobs = planned("results/tables/calibration.csv")
    assert (jobs["import_checkpoint"], jobs["evaluate"], jobs["table"]) == (1, 9, 1)
    assert not {"pretrain", "finetune", "prepare"} & set(jobs)


def test_submissions_are_a_target_of_their_own() -> None:
    jobs = planned("submissions")
    assert (jobs["submission"], jobs["finetune"], jobs["evaluate"], jobs["table"]) == (30, 10, 0, 0)
    done = snakemake("-n", "results/evaluations/llava-7b/vdep/seed-42/vizwiz_test.json")
    assert done.returncode != 0, "there is no score of a split whose answers are kept back"


def test_the_slurm_profile_is_found_by_its_literal_name() -> None:
    jobs = planned("--profile", "slurm", "all")
    assert (jobs["pretrain"], jobs["finetune"], jobs["evaluate"]) == (10, 10, 146)


def test_without_a_judge_its_column_is_left_out_and_everything_else_is_planned(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("judge: null\n")
    jobs = planned("all", "--configfile", str(tmp_path / "mine.yaml"))
    assert (jobs["pretrain"], jobs["finetune"], jobs["evaluate"], jobs["table"]) == (10, 10, 136, 6)
    assert not {"answer", "grade"} & set(jobs)
    done = snakemake("-n", "all", "--config", "judge=none")
    assert done.returncode == 0
    assert "mm-vet" not in done.stdout + done.stderr, "nor is its data downloaded"


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [("all", "--configfile", "config/demo.yaml"), ("controls",)], ids=["demo", "controls"])
def test_the_other_targets_can_be_planned_without_a_judge_too(arguments: tuple[str, ...]) -> None:
    jobs = planned(*arguments, "--config", "judge=none")
    assert jobs["evaluate"] > 0
    assert not {"answer", "grade"} & set(jobs)


def test_a_table_of_nothing_but_a_judged_column_can_be_planned_without_a_judge(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "judge: null\ntables: {mine: {title: Mine, models: [llava], variants: [vdep], columns: [mmvet], published: [table2]}}\n"
    )
    assert planned("results/tables/mine.csv", "--configfile", str(tmp_path / "mine.yaml")) == Counter({"table": 1})


@pytest.mark.slow
def test_a_judge_that_does_not_grade_is_named_before_any_work(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a dry run, or a plan without one, asks nobody."""
    edit(checkout / "config" / "config.yaml", "device: cuda", "device: cpu")
    target = ("results/tables/ablation_alpha.csv", "--cores", "1")
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    done = snakemake(*target, folder=checkout)
    assert done.returncode != 0
    message = done.stdout + done.stderr
    assert "set OPENAI_API_KEY to a key of OpenAI's, or OPENAI_BASE_URL" in message
    assert "snakemake --config judge=none" in message
    assert "Traceback" not in message
    with JudgeServer(lambda prompt, number: says("Correctness: 0.5")) as judge:
        monkeypatch.setenv("OPENAI_BASE_URL", judge.url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-not-to-be-shown")
        assert planned("all", folder=checkout)["grade"] == 10
        assert not judge.prompts
        limits = ("--config", "execution={judge: {backoff: 0.01}}")
        done = snakemake(*target, *limits, folder=checkout)
        assert done.returncode != 0
        assert "it answered 'Correctness: 0.5' where a number" in done.stdout + done.stderr
        assert "sk-not-to-be-shown" not in done.stdout + done.stderr
        assert 1 <= len(judge.prompts) <= 10
    assert not (checkout / "resources").exists(), "nothing was downloaded"


@pytest.mark.slow
def test_the_demos_plan_contains_no_run_of_the_paper() -> None:
    for target in ("main", "all", "controls"):
        done = snakemake("-n", target, "--configfile", "config/demo.yaml")
        text = done.stdout + done.stderr
        assert done.returncode == 0, text[-2000:]
        assert "llava-7b" not in text
        assert "tinyllava-3b" not in text
        assert not re.search(r"results/(?!demo/)", text)
        assert not re.search(r"resources/(?!demo/)", text)


@pytest.mark.parametrize(
    "target", ["all", "results/runs/llava-7b/vdep/seed-42/pretrain/done.json", "results/tables/main_vqa.csv"]
)
def test_a_plan_that_needs_a_gpu_is_refused_here_before_any_work(checkout: Path, target: str) -> None:
    done = snakemake(target, "--cores", "2", folder=checkout)
    if not shutil.which("nvidia-smi"):
        assert done.returncode != 0
        message = done.stdout + done.stderr
        assert "need a GPU and this machine has none" in message
        assert "make demo" in message
        assert "--profile slurm" in message
        assert not (checkout / "resources").exists(), "nothing was downloaded"


def test_a_download_target_does_not_mind(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A target without GPU rules runs on a machine without GPU: here a real download from this machine."""
    served = tmp_path_factory.mktemp("served")
    (served / "images2.zip").write_bytes(b"content")
    handler = partial(SimpleHTTPRequestHandler, directory=str(served))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/images2.zip"
        (checkout / "local.yaml").write_text(f"assets: {{vg-images: {{kind: url, url: '{url}'}}}}\n")
        target = "resources/assets/vg-images/manifest.json"
        done = snakemake(target, "--cores", "1", "--quiet", "--configfile", "local.yaml", folder=checkout)
        server.shutdown()
    assert done.returncode == 0, done.stderr[-2000:]
    assert (checkout / "resources" / "assets" / "vg-images" / "images2.zip").read_bytes() == b"content"


BAD = {
    "alpha = 2": ("variants: {vdep: {vdep: {alpha: 2}}}", r"llava-7b/vdep: vdep\.alpha: should be less than or equal to 1"),
    "an unknown variant": ("tables: {main_vqa: {variants: [nobody]}}", r"there is no variant named 'nobody'"),
    "extends itself": ("variants: {a: {extends: b}, b: {extends: a}}", r"extends itself \(a -> b -> a\)"),
    "an engine that is not there": ("execution: {finetune: {engine: zero4}}", r"there is no engine named 'zero4'"),
    "a variant that nothing uses": (
        "variants: {mine: {pretrain: {epochz: 2}}}",
        r"mine\.pretrain\.epochz: there is no such key",
    ),
    "a target with a rule's name": ("targets: {fetch: {tables: [main_vqa]}}", r"targets\.fetch: a rule has that name"),
    "an unknown key": ("variants: {vdep: {vdep: {alhpa: 1}}}", r"alhpa: there is no such key"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_configuration_fails_before_the_dag_is_built(name: str, tmp_path: Path) -> None:
    text, message = BAD[name]
    (tmp_path / "bad.yaml").write_text(text)
    done = snakemake("-n", "all", "--configfile", str(tmp_path / "bad.yaml"))
    assert done.returncode != 0
    assert re.search(message, done.stdout + done.stderr)
    assert "Building DAG" not in done.stdout + done.stderr


# -- what runs again, on a finished plan whose jobs are replaced by `touch`


@pytest.fixture
def finished(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The paper's alpha table with every job marked as done, without a GPU or a download."""
    rules = sorted((checkout / "rules").glob("*.smk"))
    kept = {rule: rule.read_text() for rule in rules}
    for rule in rules:
        text = re.sub(r"(?m)^    shell:\n(        .*\n)+", '    shell:\n        "true > {output[0]}"\n', rule.read_text())
        text = re.sub(r"(?m)^    script:\n        .*\n", '    shell:\n        "touch {output}"\n', text)
        rule.write_text(text)
    config = checkout / "config" / "config.yaml"
    original = config.read_text()
    config.write_text(original.replace("device: cuda", "device: cpu"))
    with JudgeServer(lambda prompt, number: grades(prompt)) as judge:
        monkeypatch.setenv("OPENAI_BASE_URL", judge.url)
        done = snakemake("results/tables/ablation_alpha.csv", "--cores", "2", "--quiet", folder=checkout)
        assert len(judge.prompts) == 2, "the known pair, before the first job"
    assert done.returncode == 0, done.stderr[-3000:]
    config.write_text(original)
    for rule, text in kept.items():
        rule.write_text(text)
    return checkout


TRIGGERS = ("--rerun-triggers", "mtime", "params", "input")  # the stand-in commands are other code


def again(folder: Path) -> Counter[str]:
    return planned("results/tables/ablation_alpha.csv", *TRIGGERS, folder=folder)


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


@pytest.mark.slow
def test_what_runs_again(finished: Path) -> None:
    variants, config = finished / "config" / "variants.yaml", finished / "config" / "config.yaml"
    assert not again(finished), "a finished plan has nothing to do"

    for path in [*finished.glob("rules/*.smk"), *finished.glob("src/**/*.py"), *finished.glob("config/*.yaml")]:
        # as published.csv is, it is data of the tables
        if path.name != "audit.yaml":
            path.touch()
    assert not again(finished), "touching a file runs nothing again"

    before = variants.read_text()
    edit(variants, "vdep: {alpha: 0.001, ratio: 1.0, loss: l2}", "vdep: {loss: l2, ratio: 1.0, alpha: 0.001}")
    assert not again(finished), "reordering keys runs nothing again"
    variants.write_text(before)

    edit(config, "micro_batch_tokens: 6144", "micro_batch_tokens: 3072")
    edit(config, "save_every: 200", "save_every: 77")
    assert not again(finished), "how a stage is run is no reason to run it again"

    assets = finished / "config" / "assets.yaml"
    edit(
        assets, "coco-train2017: {kind: url,", "coco-train2017: {kind: url, mirror: 'https://mirror.example.org/train2017.zip',"
    )
    assert not again(finished), "a mirror has the same files"

    benchmarks = finished / "config" / "benchmarks.yaml"
    edit(benchmarks, "model: gpt-4o-2024-11-20", "model: another")
    expected = Counter({"grade": 3, "evaluate": 3, "table": 1})
    assert again(finished) == expected, "another judge grades again, and no answer is made anew"
    edit(benchmarks, "model: another", "model: gpt-4o-2024-11-20")
    assert not again(finished)

    edit(config, "title: Weight of the image loss (paper, Tables 4 and 7)", "title: Weight")
    assert again(finished) == Counter({"table": 1}), "a table's layout makes only the table anew"
    edit(config, "title: Weight", "title: Weight of the image loss (paper, Tables 4 and 7)")
    assert not again(finished)

    edit(
        variants,
        "alpha-0.1: {extends: vdep, vdep: {alpha: 0.1}}",
        "alpha-0.1: {extends: vdep, vdep: {alpha: 0.5, ratio: 0.25}}",
    )
    jobs = again(finished)
    assert (jobs["pretrain"], jobs["finetune"], jobs["evaluate"]) == (1, 1, 13), "one variant and what depends on it"


@pytest.mark.slow
def test_swapping_the_values_of_two_fields_trains_again(finished: Path) -> None:
    variants = finished / "config" / "variants.yaml"
    edit(variants, "vdep: {alpha: 0.001, ratio: 1.0, loss: l2}", "vdep: {alpha: 1.0, ratio: 0.001, loss: l2}")
    jobs = again(finished)
    # Snakemake alone would not see it: it stores the set of a rule's parameters without their names
    assert jobs["pretrain"] == 3
    assert jobs["finetune"] == 3


# -- one driver a checkout


@pytest.mark.slow
def test_a_second_driver_is_refused_and_a_killed_one_leaves_nothing_behind(checkout: Path) -> None:
    rule = checkout / "rules" / "assets.smk"
    rule.write_text(
        re.sub(r"(?m)^    shell:\n(        .*\n)+", '    shell:\n        "sleep 60; true > {output}"\n', rule.read_text())
    )
    target = "resources/assets/vg-images/manifest.json"
    first = subprocess.Popen(
        [SNAKEMAKE, target, "--cores", "1"], cwd=checkout, env=world.environment(),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        lock = checkout / ".snakemake" / "driver.lock"
        deadline = time.monotonic() + 60
        while not (lock.is_file() and lock.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        second = snakemake(target, "--cores", "1", folder=checkout)
        assert second.returncode != 0
        assert f"this checkout is being written by process {first.pid}" in second.stdout + second.stderr
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    rule.write_text(rule.read_text().replace("sleep 60; ", ""))
    done = snakemake(target, "--cores", "1", folder=checkout)
    assert done.returncode == 0, "the same command works at once, without --unlock: " + done.stderr[-1500:]
