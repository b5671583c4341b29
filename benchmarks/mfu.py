"""Model FLOP utilisation of the trainer as it is configured: ``vdep train`` itself, on made data and random weights, on one
device.

Stage 1 at 7B size and SFT at 3B size by default, with the recipes of config/models.yaml and the execution of
config/config.yaml, but one process: engine, autocast, packing, micro-batches, checkpointing and data workers are those of the
paper's plan. ``--set`` changes how it is run, as a configuration would. What is read afterwards is the training's own log
(``metrics.jsonl``): the median over its steps, but for the first two. What is counted: ``vdep.train.flops``.

``--geometry tiny`` runs it anywhere, to see that it runs; a ratio is claimed only where the device's peak is known.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import GEOMETRIES, Claim, Geometry, parts, report, say, tower_settings
from packed_sft import stated_lengths
from PIL import Image
from safetensors.torch import save_file
from transformers import LlavaConfig
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from vdep.artifacts import MANIFEST, AssetManifest, FinishedStage
from vdep.data.prepare import ArchiveRoute, prepare
from vdep.study.check import load_study
from vdep.study.files import merged_configuration
from vdep.study.settings import Stage
from vdep.study.study import Study, deep_merge
from vdep.train.build import PROJECTOR_FILE
from vdep_demo.base_weights import tokenizer

ROOT = Path(__file__).resolve().parents[1]
CASES: dict[str, tuple[Stage, str]] = {"stage 1": ("pretrain", "7b"), "SFT": ("finetune", "3b")}
TARGET = {"stage 1": 0.50, "SFT": 0.50}
PICTURES, CAPTION = 64, 24
MODEL = {"llava": "llava-7b", "tinyllava": "tinyllava-3b"}


def study_of(geometry: Geometry, stage: Stage, global_batch: int | None, changes: dict[str, Any], on_gpu: bool) -> Study:
    """The paper's configuration, with a model of this geometry and made data in place of its own."""
    config = merged_configuration(ROOT)
    like = config["models"][MODEL[geometry.family]]
    tower = tower_settings(geometry).model_dump(mode="json") | {"weights": "made-tower"}
    override = like[stage] | {"data": "made-data"} | ({"global_batch": global_batch} if global_batch else {})
    execution = {"processes": 1, "gpus": int(on_gpu), "log_every": 1, "save_every": 10**6, "probe_every": 0, **changes}
    made = {name: {"kind": "made", "maker": "benchmarks:random"} for name in ("made-tower", "made-language", "made-data")}
    change = {
        "models": {"made": like | {"vision_tower": tower, "language_model": "made-language", stage: override}},
        "datasets": {"made-data": {"conversations": "made-data", "images": [{"asset": "made-data"}]}},
        "assets": made,
        "execution": {"device": "cuda" if on_gpu else "cpu", stage: execution},
    }
    return load_study(deep_merge(config, change))


def make_weights(geometry: Geometry, folder: Path, device: torch.device) -> None:
    """``made-tower`` and ``made-language`` as the trainer reads them, with random weights in bf16."""
    tower, language = parts(geometry, device, torch.bfloat16)
    tower.save_pretrained(folder / "made-tower")
    language.save_pretrained(folder / "made-language")
    side = geometry.image_size
    if geometry.family == "llava":
        processor = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    else:
        processor = SiglipImageProcessorPil(size={"height": side, "width": side})
    processor.save_pretrained(folder / "made-tower")
    tokenizer.save("llama" if geometry.family == "llava" else "phi", folder / "made-language")


def make_data(stage: Stage, samples: int, shrink: int, folder: Path) -> None:
    """Conversations of the stated lengths over a few pictures of COCO's size, as LLaVA's JSON beside a ZIP."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for number in range(PICTURES):
            buffer = io.BytesIO()
            Image.fromarray(rng.integers(0, 255, (480, 640, 3), np.uint8)).save(buffer, "JPEG")
            archive.writestr(f"{number}.jpg", buffer.getvalue())
    lengths, has_image = stated_lengths(samples)
    words = np.maximum((lengths - 576 * has_image) // shrink, 4) if stage == "finetune" else np.full(samples, CAPTION)
    rows = []
    for number, (count, image) in enumerate(zip(words, has_image | (stage == "pretrain"), strict=True)):
        question = "<image>\nWhat color is the shape?" if image else "What color is the shape?"
        turns = [{"from": "human", "value": question}, {"from": "gpt", "value": " ".join(["red"] * int(count))}]
        rows.append({"id": str(number), "conversations": turns} | ({"image": f"{number % PICTURES}.jpg"} if image else {}))
    (folder / "data.json").write_text(json.dumps(rows))


def train(study: Study, stage: Stage, folder: Path) -> list[dict[str, Any]]:
    """The rows of ``metrics.jsonl`` of a training by ``vdep train``."""
    for asset in ("made-tower", "made-language", "made-data"):
        AssetManifest.record(folder / asset, asset, {"kind": "made"}, None)
    prepared, recipe = study.preparation_recipe("made", "baseline", stage), study.recipe("made", "baseline", stage)
    data = folder / "prepared"
    made = AssetManifest.read(folder / "made-data" / MANIFEST)
    routes = [ArchiveRoute(made.only_file(".zip"), e.prefix, e.folder) for e in prepared.dataset.images]
    prepare(prepared, made.only_file(".json"), folder / "made-language", routes, data)
    execution = getattr(study.execution, stage)
    how = {
        "settings": execution.model_dump(mode="json"),
        "device": study.execution.device,
        "deepspeed": str(ROOT / "config/deepspeed"),
    }
    command = [
        sys.executable, "-m", "vdep", "train", "--recipe", recipe.canonical, "--execution", json.dumps(how),
        "--tower", str(folder / "made-tower/manifest.json"), "--language-model", str(folder / "made-language/manifest.json"),
        "--data", str(data / "manifest.json"), "--done", str(folder / "run/done.json"),
    ]  # fmt: skip
    if stage == "finetune":
        initial = folder / "initial"
        initial.mkdir()
        vision = json.loads((folder / "made-tower/config.json").read_text())
        text = json.loads((folder / "made-language/config.json").read_text())
        projector = LlavaMultiModalProjector(LlavaConfig(vision_config=vision, text_config=text))
        save_file(projector.state_dict(), initial / PROJECTOR_FILE)
        FinishedStage.seal(initial, recipe=recipe.initial, stage="pretrain", initial_recipe=None, steps=0)
        FinishedStage.publish(initial, folder / "initial.json")
        command += ["--initial", str(folder / "initial.json")]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-4000:])
    (metrics,) = (folder / "run").rglob("metrics.jsonl")
    return [json.loads(line) for line in metrics.read_text().splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--geometry", choices=GEOMETRIES, help="instead of 7b for stage 1 and 3b for SFT")
    parser.add_argument("--case", choices=CASES, action="append")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of execution.STAGE, as JSON")
    chosen = parser.parse_args()
    on_gpu = torch.cuda.is_available()
    if not on_gpu and chosen.geometry is None:
        say("no GPU here: nothing measured (--geometry tiny runs anywhere)")
        return
    changes = {key: json.loads(value) for key, _, value in (item.partition("=") for item in chosen.set)}
    claims, figures = [], {}
    for case in chosen.case or CASES:
        stage, name = CASES[case]
        name = chosen.geometry or name
        geometry, small = GEOMETRIES[name], chosen.geometry == "tiny"
        study = study_of(geometry, stage, 8 if small else None, changes, on_gpu)
        settings, execution = study.stage("made", "baseline", stage), getattr(study.execution, stage)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            make_weights(geometry, folder, torch.device("cuda" if on_gpu else "cpu"))
            if on_gpu:
                torch.cuda.empty_cache()
            make_data(stage, chosen.steps * settings.global_batch, 36 if small else 1, folder / "made-data")
            rows = train(study, stage, folder)[2:]
        middle = {
            key: round(statistics.median(row[key] for row in rows), 4)
            for key in ("samples_per_second", "tokens_per_second", "tflops_per_second", "data_wait_share", "memory_gb", "mfu")
            if key in rows[0]
        }
        ran = ("engine", "packing", "micro_batch_tokens", "activation_checkpointing", "kernels")
        figures[case] = {"geometry": name, "execution": {key: getattr(execution, key) for key in ran}, **middle}
        if "mfu" in middle and chosen.geometry is None:
            claims.append(Claim(f"MFU, {case} at {name} size, by the trainer", middle["mfu"], TARGET[case]))
    report(claims, **figures)


if __name__ == "__main__":
    main()
