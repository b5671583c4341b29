"""A world small enough for tests: untrained models of both families, their tokenizers, a little data in the real formats."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

from vdep.artifacts import FINAL, AssetManifest, FinishedStage
from vdep.files import read_json, write_json
from vdep.study.check import load_study
from vdep.study.recipe import TrainingRecipe
from vdep.study.settings import VdepSettings
from vdep.study.study import Study
from vdep_demo.base_weights import tokenizer
from vdep_demo.world import data as demo_data

ROOT = Path(__file__).resolve().parents[1]
IMAGE_TOKENS = 9
WIDTH = 32
FAMILIES = {"llama": ("clip", "vicuna_v1"), "phi": ("siglip", "phi")}


def copy_checkout(target: Path) -> Path:
    """What a run needs of this checkout, to change and to run in."""
    for part in ("Snakefile", "rules", "workflow_scripts", "config", "envs", "slurm", "profiles", "src"):
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, target / part, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(source, target / part)
    return target


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def on_two_ranks(script: str, *arguments: str) -> str:
    """What a script of the tests prints on two ranks."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [str(Path(__file__).with_name(script)), *arguments]
    # torchrun ends its workers on SIGTERM, and would be outlived by them after SIGKILL
    with subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:  # fmt: skip
        try:
            output, errors = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            process.terminate()
            raise
    assert process.returncode == 0, errors[-3000:]
    return output


def make_models(folder: Path) -> None:
    """``clip``, ``siglip``, ``llama`` and ``phi`` with seeded random weights: 48 px, patches of 16, width 32, two layers."""
    from transformers import (
        CLIPConfig,
        CLIPModel,
        LlamaConfig,
        LlamaForCausalLM,
        PhiConfig,
        PhiForCausalLM,
        SiglipConfig,
        SiglipModel,
    )
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    torch.manual_seed(0)
    vision = {
        "hidden_size": WIDTH,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": 48,
        "patch_size": 16,
    }
    text = {"hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 64}
    CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=16)).save_pretrained(folder / "clip")
    CLIPImageProcessorPil(size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48}).save_pretrained(folder / "clip")
    SiglipModel(SiglipConfig(vision_config=vision, text_config=text)).save_pretrained(folder / "siglip")
    SiglipImageProcessorPil(size={"height": 48, "width": 48}).save_pretrained(folder / "siglip")
    common = {
        "hidden_size": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.2,
    }
    LlamaForCausalLM(LlamaConfig(vocab_size=tokenizer.VOCABULARY["llama"], intermediate_size=64, **common)).save_pretrained(
        folder / "llama"
    )
    phi = PhiConfig(vocab_size=tokenizer.VOCABULARY["phi"], intermediate_size=64, resid_pdrop=0.1, **common)
    model = PhiForCausalLM(phi)
    torch.nn.init.normal_(model.lm_head.bias)
    model.save_pretrained(folder / "phi")
    tokenizer.save("llama", folder / "llama")
    tokenizer.save("phi", folder / "phi")


def make_assets(folder: Path, captions: int = 96, conversations: int = 64) -> None:
    make_models(folder)
    (folder / "captions").mkdir()
    demo_data.make_captions(folder / "captions", captions, 1)
    (folder / "conversations").mkdir()
    demo_data.make_conversations(folder / "conversations", conversations, 2, text_only_share=0.2)
    for asset in folder.iterdir():
        write_manifest(asset)


def write_manifest(asset: Path) -> Path:
    """Of a folder that a test has filled; returns the manifest's path."""
    AssetManifest.record(asset, asset.name, {"kind": "made"}, None)
    return asset / "manifest.json"


def finish(weights: Path, recipe: str = "r" * 64, stage: str = "finetune", initial_recipe: str | None = "i" * 64) -> Path:
    """Have a folder be the weights of a finished stage; returns its ``done.json``, beside the folder."""
    (weights / FINAL).unlink(missing_ok=True)
    FinishedStage.seal(weights, recipe=recipe, stage=stage, initial_recipe=initial_recipe, steps=1)
    FinishedStage.publish(weights, weights.parent / "done.json")
    return weights.parent / "done.json"


def study_config(family: str = "llama", vdep: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """A whole configuration with one model and one variant; ``changes`` go into both stages' settings."""
    tower, template = FAMILIES[family]
    select = "default" if tower == "clip" else "full"
    sft_image, stage1_image = ("pad", "crop") if tower == "clip" else ("warp", "warp")
    seeds = [changes.pop("seed", 42)]
    settings = {"global_batch": 16, "learning_rate": 1e-3, "precision": "float32", "dropout": "model", **changes}
    execution = {"gpus": 0, "processes": 1, "micro_batch": 16, "save_every": 2, "log_every": 1, "probe_every": 0}
    assets = ("clip", "siglip", "llama", "phi", "captions", "conversations")
    return {
        "results": "results",
        "resources": "resources",
        "assets": {name: {"kind": "made", "maker": f"world:{name}"} for name in assets},
        "stages": {
            "pretrain": {"data": "captions", "template": "plain", "image": stage1_image, **settings},
            "finetune": {
                "data": "conversations",
                "template": template,
                "image": sft_image,
                "grouping": "modality_length",
                **settings,
            },
        },
        "models": {
            "tiny": {
                "vision_tower": {"weights": tower, "image_tokens": IMAGE_TOKENS, "feature_select": select},
                "language_model": family,
            }
        },
        "datasets": {name: {"conversations": name, "images": [{"asset": name}]} for name in ("captions", "conversations")},
        "variants": {"run": {"vdep": vdep}},
        "seeds": seeds,
        "benchmarks": {},
        "columns": {},
        "tables": {},
        "execution": {
            "device": "cpu",
            "pretrain": execution,
            "finetune": {**execution, "engine": "zero2"},
            "evaluate": {"gpus": 0},
        },
    }


def make_study(family: str = "llama", vdep: dict[str, Any] | None = None, **changes: Any) -> Study:
    return load_study(study_config(family, vdep, **changes))


def vdep_settings(**changes: Any) -> VdepSettings:
    return VdepSettings(**changes)


def environment() -> dict[str, str]:
    """For subprocesses: this package, one thread, and the extension that set-up built."""
    known = dict(os.environ)
    known["PYTHONPATH"] = str(ROOT / "src")
    known["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{known['PATH']}"
    known["OMP_NUM_THREADS"] = "1"
    known.setdefault("TORCH_EXTENSIONS_DIR", str(ROOT / ".torch_extensions"))
    known.pop("VDEP_DRIVER", None)
    return known


def vdep(*arguments: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    """``python -m vdep ...`` with its output captured."""
    command = [sys.executable, "-m", "vdep", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), check=False, **kwargs)


def prepare(study: Study, assets: Path, folder: Path, stage: str) -> Path:
    """Prepare the data of a stage in this process; returns its folder."""
    from vdep.data.prepare import ArchiveRoute
    from vdep.data.prepare import prepare as prepare_data

    recipe = study.preparation_recipe("tiny", "run", stage)  # type: ignore[arg-type]
    target = folder / f"{recipe.name}-{recipe.key}"
    if not (target / "manifest.json").is_file():
        manifests = {path.name: AssetManifest.open(path / "manifest.json") for path in assets.iterdir()}
        routes = [ArchiveRoute(manifests[e.asset].only_file(".zip"), e.prefix, e.folder) for e in recipe.dataset.images]
        conversations = manifests[recipe.dataset.conversations].only_file(".json")
        prepare_data(recipe, conversations, assets / recipe.tokenizer, routes, target)
    return target


def untrained_projector(study: Study, assets: Path, folder: Path) -> None:
    """What stage 1 would leave in ``folder``, untrained, with its ``done.json``: for tests of SFT alone."""
    from safetensors.torch import save_file

    from vdep.model.llava import build_model, projector
    from vdep.train.build import PROJECTOR_FILE

    model = study.models["tiny"]
    built = build_model(
        assets / model.vision_tower.weights, assets / model.language_model, model.vision_tower, torch.float32, 3
    )
    weights = folder / "final"
    weights.mkdir(parents=True)
    save_file({name: tensor.contiguous() for name, tensor in projector(built).state_dict().items()}, weights / PROJECTOR_FILE)
    finish(weights, study.recipe("tiny", "run", "pretrain").digest, "pretrain", None)


@cache
def engines() -> Path:
    """config/deepspeed, but that ZeRO-3 really takes these small models apart: as it comes, it keeps small parameters whole."""
    folder = Path(tempfile.mkdtemp(prefix="engines"))
    atexit.register(shutil.rmtree, folder)
    for file in (ROOT / "config" / "deepspeed").glob("*.json"):
        config = read_json(file)
        if config["zero_optimization"]["stage"] == 3:
            config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
        write_json(folder / file.name, config)
    return folder


def train_command(
    study: Study, assets: Path, prepared: Path, out: Path, stage: str, initial: Path | None = None, **execution: Any
) -> list[str]:
    """The arguments of ``python -m vdep train``, as the rule gives them."""
    recipe: TrainingRecipe = study.recipe("tiny", "run", stage)  # type: ignore[arg-type]
    settings = getattr(study.execution, stage).model_dump(mode="json") | execution
    how = {"settings": settings, "device": "cpu", "deepspeed": str(engines())}
    command = [
        "train", "--recipe", recipe.canonical, "--execution", json.dumps(how),
        "--tower", str(assets / recipe.vision_tower.weights / "manifest.json"),
        "--language-model", str(assets / recipe.language_model / "manifest.json"),
        "--data", str(prepared / "manifest.json"), "--done", str(out / "done.json"),
    ]  # fmt: skip
    return [*command, "--initial", str(initial / "done.json")] if initial else command


def run_folder(study: Study, out: Path, stage: str) -> Path:
    return out / study.recipe("tiny", "run", stage).key  # type: ignore[arg-type]
