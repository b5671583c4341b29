"""The original LLaVA's layout, both ways: the same weights come back, and answers do not change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import world
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from vdep.__main__ import run
from vdep.errors import CheckpointError
from vdep.files import read_json, write_json
from vdep.model.export import export_checkpoint
from vdep.model.imported import import_checkpoint
from vdep.model.llava import build_model, load_checkpoint, projector
from vdep.model.original import (
    export_original,
    from_original_name,
    import_original,
    projector_from_original,
    projector_to_original,
    read_weights,
    to_original_name,
)
from vdep.study.recipe import ImportRecipe


@pytest.fixture(scope="module")
def ours(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for family, (tower, _) in world.FAMILIES.items():
        vision_tower = world.make_study(family).models["tiny"].vision_tower
        model = build_model(assets / tower, assets / family, vision_tower, torch.float32, 3)
        folders[family] = tmp_path_factory.mktemp(family)
        export_checkpoint(model, assets / tower, assets / family, "pad" if family == "llama" else "warp", folders[family])
    return folders


def test_a_checkpoint_goes_there_and_comes_back(ours: dict[str, Path], assets: Path, tmp_path: Path) -> None:
    export_original(ours["llama"], assets / "llama", "openai/clip-vit-large-patch14-336", tmp_path / "original")
    config = read_json(tmp_path / "original" / "config.json")
    assert config["architectures"] == ["LlavaLlamaForCausalLM"]
    assert (config["mm_projector_type"], config["image_aspect_ratio"]) == ("mlp2x_gelu", "pad")
    assert config["vocab_size"] == read_json(assets / "llama" / "config.json")["vocab_size"]
    assert (config["rope_theta"], config["torch_dtype"]) == (10000.0, "float32"), "as its transformers calls them"
    names = set(read_weights(tmp_path / "original"))
    assert {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight", "model.mm_projector.2.bias"} <= names
    assert not any("vision_tower" in name or "language_model" in name for name in names)

    import_original(tmp_path / "original", assets / "clip", None, "pad", tmp_path / "back")
    before, after = (load_checkpoint(folder, torch.float32) for folder in (ours["llama"], tmp_path / "back"))
    assert before.state_dict().keys() == after.state_dict().keys()
    for name, tensor in before.state_dict().items():
        assert torch.equal(tensor, after.state_dict()[name]), name
    for file in ("config.json", "processor_config.json", "tokenizer.json", "generation_config.json"):
        assert (ours["llama"] / file).read_bytes() == (tmp_path / "back" / file).read_bytes(), file


def test_llamas_own_class_reads_the_language_model(ours: dict[str, Path], assets: Path, tmp_path: Path) -> None:
    """As the original does: its model is a Llama with more on it."""
    export_original(ours["llama"], assets / "llama", "clip", tmp_path / "original")
    state = {n: t for n, t in read_weights(tmp_path / "original").items() if "mm_projector" not in n}
    config = LlamaConfig.from_pretrained(assets / "llama")
    model = LlamaForCausalLM(config)
    model.load_state_dict(state)
    ids = torch.arange(12)[None]
    expected = LlamaForCausalLM.from_pretrained(assets / "llama", dtype=torch.float32)(ids).logits
    assert torch.equal(model(ids).logits, expected)


def test_a_checkpoint_with_a_tower_and_old_buffers(ours: dict[str, Path], assets: Path, tmp_path: Path) -> None:
    export_original(ours["llama"], assets / "llama", "clip", tmp_path / "original")
    (weights,) = (tmp_path / "original").glob("*.safetensors")
    state = load_file(weights)
    tower = load_checkpoint(ours["llama"], torch.float32).model.vision_tower.state_dict()
    other = {f"model.vision_tower.vision_tower.vision_model.{n.removeprefix('vision_model.')}": t + 1 for n, t in tower.items()}
    weights.unlink()
    buffers = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    torch.save(state | other | buffers, tmp_path / "original" / "pytorch_model.bin")
    import_original(tmp_path / "original", assets / "clip", None, "pad", tmp_path / "back")
    found = load_checkpoint(tmp_path / "back", torch.float32).model.vision_tower.state_dict()
    assert all(torch.equal(found[name], tensor + 1) for name, tensor in tower.items())


@pytest.mark.parametrize("family", ["llama", "phi"])
def test_a_projector_goes_there_and_comes_back(ours: dict[str, Path], assets: Path, family: str, tmp_path: Path) -> None:
    model = load_checkpoint(ours[family], torch.float32)
    state = projector(model).state_dict()
    projector_to_original(state, tmp_path / "mm_projector.bin")
    assert set(torch.load(tmp_path / "mm_projector.bin", weights_only=True)) == {
        f"model.mm_projector.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")
    }
    back = projector_from_original(tmp_path / "mm_projector.bin")
    assert all(torch.equal(tensor, back[name]) for name, tensor in state.items())
    if family == "llama":
        # a projector alone, with the language model that it was trained with
        import_original(tmp_path / "mm_projector.bin", assets / "clip", assets / "llama", "pad", tmp_path / "whole")
        for name, tensor in load_checkpoint(tmp_path / "whole", torch.float32).state_dict().items():
            assert torch.equal(tensor, model.state_dict()[name]), name


def test_the_commands(ours: dict[str, Path], assets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained = shutil.copytree(ours["llama"], tmp_path / "trained" / "final")
    world.finish(trained)
    there = ["export-llava", "--checkpoint", str(trained), "--language-model", str(assets / "llama")]
    assert run([*there, "--tower-name", "openai/clip", "--output", str(tmp_path / "original")]) == 0
    back = ["import-llava", "--source", str(tmp_path / "original"), "--tower", str(assets / "clip"), "--image", "pad"]
    assert run([*back, "--output", str(tmp_path / "back")]) == 0
    assert (tmp_path / "back" / "model.safetensors").read_bytes() == (ours["llama"] / "model.safetensors").read_bytes()

    state = projector(load_checkpoint(ours["phi"], torch.float32)).state_dict()
    stage_1 = tmp_path / "stage-1" / "final"
    stage_1.mkdir(parents=True)
    save_file(state, stage_1 / "projector.safetensors")
    world.finish(stage_1, stage="pretrain")
    there = ["export-llava", "--checkpoint", str(stage_1 / "projector.safetensors")]
    assert run([*there, "--output", str(tmp_path / "mm_projector.bin")]) == 0
    assert projector_from_original(tmp_path / "mm_projector.bin").keys() == state.keys()

    assert run(["export-llava", "--checkpoint", str(trained), "--output", str(tmp_path / "x")]) == 1
    assert "--language-model" in capsys.readouterr().err


def test_what_is_not_the_originals_is_refused(ours: dict[str, Path], assets: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="around a phi model"):
        export_original(ours["phi"], assets / "phi", "siglip", tmp_path / "phi")
    with pytest.raises(CheckpointError, match="no whole projector"):
        import_original(assets / "llama" / "model.safetensors", assets / "clip", assets / "llama", "pad", tmp_path / "a")
    export_original(ours["llama"], assets / "llama", "clip", tmp_path / "original")
    config = read_json(tmp_path / "original" / "config.json")
    write_json(tmp_path / "original" / "config.json", config | {"num_hidden_layers": config["num_hidden_layers"] + 1})
    with pytest.raises(CheckpointError, match="does not hold the weights"):
        import_original(tmp_path / "original", assets / "clip", None, "pad", tmp_path / "b")
    torch.save({"model.mm_projector.weight": torch.ones(2, 2)}, tmp_path / "linear.bin")
    with pytest.raises(CheckpointError, match="another projector than mlp2x_gelu"):
        projector_from_original(tmp_path / "linear.bin")
    (tmp_path / "mm_projector.bin").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        projector_from_original(tmp_path / "mm_projector.bin")


def test_it_takes_the_place_of_a_training_only_where_it_fits(ours: dict[str, Path], assets: Path, tmp_path: Path) -> None:
    export_original(ours["llama"], assets / "llama", "clip", tmp_path / "asset")
    world.write_manifest(tmp_path / "asset")
    tower = world.make_study("llama").models["tiny"].vision_tower
    recipe = ImportRecipe(vision_tower=tower, tower_source={}, checkpoint="theirs", checkpoint_source={}, image="pad")
    manifests = assets / "clip" / "manifest.json", tmp_path / "asset" / "manifest.json"
    import_checkpoint(recipe, *manifests, tmp_path / "run" / "done.json")
    done = read_json(tmp_path / "run" / "done.json")
    weights = tmp_path / "run" / done["run"] / "model.safetensors"
    assert weights.read_bytes() == (ours["llama"] / "model.safetensors").read_bytes()
    assert {"digest", "recipe", "initial_recipe", "versions", "files"} <= set(done)

    other = recipe.model_copy(update={"vision_tower": tower.model_copy(update={"layer": -1})})
    with pytest.raises(CheckpointError, match="has layer -2, the model that it is a variant of -1"):
        import_checkpoint(other, *manifests, tmp_path / "other" / "done.json")
    assert not (tmp_path / "other" / "done.json").exists()
    state = projector(load_checkpoint(ours["llama"], torch.float32)).state_dict()
    projector_to_original(state | {"linear_1.weight": torch.ones(world.WIDTH, 24)}, tmp_path / "narrow.bin")
    with pytest.raises(CheckpointError, match=r"linear_1\.weight is .* it was trained with others"):
        import_original(tmp_path / "narrow.bin", assets / "clip", assets / "llama", "pad", tmp_path / "narrow")


@pytest.mark.parametrize("name", ["model.language_model.layers.3.mlp.up_proj.weight", "lm_head.weight"])
def test_names_come_back(name: str) -> None:
    assert from_original_name(to_original_name(name)) == name
