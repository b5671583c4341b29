"""The demo's pipeline at reduced size: every room with its real parts, and what a SIGKILL does to it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
import torch
import world
from PIL import Image
from test_workflow import SNAKEMAKE, planned, snakemake
from transformers import AutoProcessor, LlavaForConditionalGeneration

from vdep.artifacts import AssetManifest
from vdep.evaluation.samples import read_samples
from vdep.files import folder_digest, read_json
from vdep.model.original import export_original
from vdep.study.settings import UrlAsset, asset_identity

pytestmark = pytest.mark.slow

OVERLAYS = ("--configfile", "config/demo.yaml", str(world.ROOT / "tests" / "reduced.yaml"), "--cores", "2")
STAGE_1 = "results/demo/runs/demo-llava/vdep/seed-42/pretrain"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkout = world.copy_checkout(tmp_path_factory.mktemp("pipeline"))
    done = snakemake("main", *OVERLAYS, folder=checkout, timeout=900)
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    return checkout


def test_every_result_is_there(finished: Path) -> None:
    results = finished / "results" / "demo"
    for table, rows, column in (("main_vqa", 2, "gqa"), ("main_general", 1, "pope")):
        with open(results / "tables" / f"{table}.csv", newline="") as file:
            read = list(csv.DictReader(file))
        values = [row for row in read if any(column in str(cell) for cell in (*row, *row.values()))]
        assert len(values) >= rows
        assert column.upper() in (results / "tables" / f"{table}.md").read_text().upper()
        provenance = (results / "tables" / f"{table}.provenance.json").read_text()
        assert f"/{column}.json" in provenance
    for name in ("attention", "losses"):
        with Image.open(results / "figures" / f"{name}.png") as figure:
            assert min(figure.size) > 200
            assert len(figure.convert("RGB").getcolors(1 << 24) or []) > 100, "not an empty page"
    seen = read_json(results / "evaluations" / "demo-llava" / "vdep" / "seed-42" / "gqa.json")
    assert seen["seen"]["n"] == seen["blind"]["n"] == 60


def test_nothing_is_left_to_be_done(finished: Path) -> None:
    done = snakemake("main", *OVERLAYS, folder=finished)
    assert done.returncode == 0
    assert "Nothing to be done" in done.stdout + done.stderr


@pytest.mark.parametrize(
    "data",
    [
        {"pretrain": "demo-captions", "finetune": "demo-new-conversations"},
        {"pretrain": None, "finetune": None},
        {"pretrain": "demo-new-conversations"},
    ],
    ids=["other", "none", "one other"],
)
def test_other_validation_data_makes_no_run_again(finished: Path, data: dict[str, str | None]) -> None:
    (finished / "other.yaml").write_text(json.dumps({"validation": data}))
    jobs = planned("main", *OVERLAYS[:3], "other.yaml", *OVERLAYS[3:], folder=finished)
    assert jobs["validation"] > 0
    assert set(jobs) <= {"main", "validation", "prepare", "fetch"}


def test_a_hash_that_was_recorded_afterwards_fetches_nothing_again(finished: Path) -> None:
    """`make lock` between two trainings."""
    url = {"kind": "url", "url": "https://example.com/x.zip"}
    manifest = finished / "resources" / "demo" / "assets" / "downloaded" / "manifest.json"
    manifest.parent.mkdir(exist_ok=True)
    (manifest.parent / "x.zip").write_bytes(b"content")
    AssetManifest.record(manifest.parent, "downloaded", asset_identity(UrlAsset.model_validate(url)), None)
    command = ("main", *OVERLAYS, "--config")
    assert "Nothing to be done" in snakemake(*command, f"assets={json.dumps({'downloaded': url})}", folder=finished).stderr
    recorded = url | {"sha256": hashlib.sha256(b"content").hexdigest(), "size": 7}
    assert "Nothing to be done" in snakemake(*command, f"assets={json.dumps({'downloaded': recorded})}", folder=finished).stderr
    # of what is there to be used, and is another file
    (finished / "results" / "demo" / "tables" / "main_vqa.csv").unlink()
    other = snakemake(*command, f"assets={json.dumps({'downloaded': recorded | {'sha256': '0' * 64}})}", folder=finished)
    assert f"assets.downloaded.sha256 is {'0' * 64}, and resources/demo/assets/downloaded holds a file with" in other.stderr
    assert snakemake("main", *OVERLAYS, folder=finished).returncode == 0


def test_the_three_stages_1_are_three_trainings(finished: Path) -> None:
    runs = finished / "results" / "demo" / "runs"
    names = ("demo-llava/baseline", "demo-llava/vdep", "demo-tinyllava/fused")
    done = {name: read_json(runs / name / "seed-42" / "pretrain" / "done.json") for name in names}
    steps = {name: len(losses(runs / name / "seed-42" / "pretrain").read_text().splitlines()) for name in names}
    assert len({d["digest"] for d in done.values()}) == 3
    assert steps["demo-llava/vdep"] == 2 * steps["demo-llava/baseline"], "every sample in both modes, one mode a step"
    assert steps["demo-tinyllava/fused"] == 2 * steps["demo-llava/baseline"], "half as many samples a step, both modes at once"


def test_stock_transformers_gives_the_recorded_answers(finished: Path) -> None:
    """The SFT checkpoint in stock transformers, on the pictures and questions that lmms-eval asked ours."""
    assets, results = finished / "resources" / "demo" / "assets" / "demo-gqa", finished / "results" / "demo"
    (questions,), (images,) = (list(assets.glob(pattern)) for pattern in ("testdev-*.parquet", "images-*.parquet"))
    pictures = {row["id"]: Image.open(io.BytesIO(row["image"]["bytes"])) for row in pq.read_table(images).to_pylist()}
    done = results / "runs" / "demo-llava" / "vdep" / "seed-42" / "finetune" / "done.json"
    checkpoint = done.parent / read_json(done)["run"]
    model = LlavaForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(checkpoint)
    recorded = {
        row["document"]: row["answer"]
        for row in read_samples(results / "evaluations" / "demo-llava" / "vdep" / "seed-42" / "gqa.samples.jsonl.gz")
        if row["pass"] == "seen"
    }
    for document, row in enumerate(pq.read_table(questions).to_pylist()[:12]):
        text = f"{row['question']}\nAnswer the question using a single word or phrase."
        content = [{"type": "image"}, {"type": "text", "text": text}]
        prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        picture = pictures[row["imageId"]].convert("RGB")
        # where a palette had a transparent colour, Pillow still says so, and the stock processor would lay it onto white
        picture.info.pop("transparency", None)
        inputs = processor(images=picture, text=prompt, return_tensors="pt")
        with torch.inference_mode():
            output = model.generate(**inputs, max_new_tokens=12, do_sample=False)
        answer = processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        assert answer.strip() == recorded[document].strip()


def test_a_checkpoint_of_the_original_is_evaluated_like_one_of_ours(finished: Path) -> None:
    """Ours in the original's layout, taken for somebody else's release: the pipeline imports it, and it answers alike."""
    ours = finished / "results" / "demo" / "runs" / "demo-llava" / "vdep" / "seed-42" / "finetune" / "done.json"
    language_model = finished / "resources" / "demo" / "assets" / "demo-llama"
    released = finished / "released-weights"
    export_original(ours.parent / read_json(ours)["run"], language_model, "demo-clip", released)
    (finished / "released.yaml").write_text(
        f"assets: {{theirs: {{kind: shipped, path: released-weights, revision: {folder_digest(released)}}}}}\n"
        "variants: {theirs: {imported: theirs, model: demo-llava}}\n"
    )
    target = "results/demo/evaluations/demo-llava/theirs/imported/gqa.json"
    command = [target, *OVERLAYS[:3], "released.yaml", *OVERLAYS[3:]]
    done = snakemake(*command, folder=finished)
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    assert not list(finished.glob("results/demo/runs/demo-llava/theirs/*/pretrain"))
    evaluations = finished / "results" / "demo" / "evaluations" / "demo-llava"
    theirs, own = (
        list(read_samples(evaluations / name / "gqa.samples.jsonl.gz")) for name in ("theirs/imported", "vdep/seed-42")
    )
    assert theirs == own
    assert "Nothing to be done" in snakemake(*command, folder=finished).stderr


def losses(stage: Path) -> Path:
    (found,) = stage.glob("*/losses.jsonl")
    return found


# -- killed


def start(checkout: Path) -> subprocess.Popen[bytes]:
    command = [SNAKEMAKE, f"{STAGE_1}/done.json", *OVERLAYS]
    with open(checkout / "driver.log", "wb") as log:
        return subprocess.Popen(
            command, cwd=checkout, env=world.environment(), stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )


def trainers(process: psutil.Process) -> list[psutil.Process]:
    """torchrun and the ranks below a driver."""
    found = []
    for child in process.children(recursive=True):
        try:
            command = " ".join(child.cmdline())
        except psutil.Error:
            continue
        if "torch.distributed.run" in command or "vdep.train.worker" in command:
            found.append(child)
    return found


@pytest.fixture
def interrupted(finished: Path, tmp_path: Path) -> tuple[Path, subprocess.Popen[bytes], list[psutil.Process]]:
    """A second checkout with the same data, whose stage 1 has written a checkpoint and goes on."""
    checkout = world.copy_checkout(tmp_path)
    shutil.copytree(finished / "resources", checkout / "resources", symlinks=True)
    shutil.copytree(finished / ".snakemake" / "metadata", checkout / ".snakemake" / "metadata")
    driver = start(checkout)
    world.wait_for(lambda: list(checkout.glob(f"{STAGE_1}/*/checkpoints/step-*")) or driver.poll() is not None)
    assert driver.poll() is None, (checkout / "driver.log").read_text()[-3000:]
    return checkout, driver, trainers(psutil.Process(driver.pid))


def finish(checkout: Path, finished: Path) -> str:
    """The same command again; returns what it printed."""
    driver = start(checkout)
    assert driver.wait(timeout=300) == 0, (checkout / "driver.log").read_text()[-3000:]
    one, other = (read_json(folder / STAGE_1 / "done.json") for folder in (checkout, finished))
    assert one["digest"] == other["digest"], "the weights are not those of the undisturbed run"
    assert losses(checkout / STAGE_1).read_bytes() == losses(finished / STAGE_1).read_bytes()
    return (checkout / "driver.log").read_text()


def test_the_trainer_is_killed(finished: Path, interrupted: tuple[Path, subprocess.Popen[bytes], list[psutil.Process]]) -> None:
    checkout, driver, processes = interrupted
    assert len(processes) >= 2, "torchrun and its rank"
    for process in processes:
        process.kill()
    assert driver.wait(timeout=120) != 0
    assert "resumes from the last checkpoint" in (checkout / "driver.log").read_text()
    printed = finish(checkout, finished)
    assert "resum" in printed.lower()


def test_the_driver_alone_is_killed(
    finished: Path, interrupted: tuple[Path, subprocess.Popen[bytes], list[psutil.Process]]
) -> None:
    checkout, driver, processes = interrupted
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    # started at once, while the ranks of the first may still be saving
    printed = finish(checkout, finished)
    assert not psutil.wait_procs(processes, timeout=60)[1], "the first trainer is gone"
    attempts = sorted(checkout.glob(f"{STAGE_1}/*/logs/attempt-*.log"))
    assert len(attempts) == 2
    assert "resum" in printed.lower()
