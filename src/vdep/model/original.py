"""Weights in the layout of the original LLaVA (haotian-liu/LLaVA 1.5), both ways.

A full checkpoint there is a Llama with ``model.mm_projector.0`` and ``.2`` added, without the vision tower, which
``mm_vision_tower`` in its configuration names; stage 1 leaves ``mm_projector.bin`` alone. So others' checkpoints can be used
here, and ours there.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from ..errors import CheckpointError
from ..files import read_json, write_json
from ..study.settings import VisionTower
from .export import export_checkpoint
from .llava import assemble, count_image_tokens, load_checkpoint, load_vision_tower, projector

PROJECTOR_FILE = "mm_projector.bin"
_TOWER = "model.vision_tower.vision_tower."
_PREFIXES = (
    ("model.multi_modal_projector.linear_1.", "model.mm_projector.0."),
    ("model.multi_modal_projector.linear_2.", "model.mm_projector.2."),
    ("model.language_model.", "model."),
    ("lm_head.", "lm_head."),
)
_FOREIGN = ("auto_map", "image_aspect_ratio", "image_grid_pinpoints", "model_type", "transformers_version", "use_mm_proj")
_BUFFERS = ("rotary_emb.inv_freq", "position_ids")
_TOKENIZER_FILES = ("tokenizer*", "special_tokens_map.json", "vocab.json", "merges.txt", "added_tokens.json")


def to_original_name(name: str) -> str:
    """``model.multi_modal_projector.linear_1.weight`` -> ``model.mm_projector.0.weight``, and so on."""
    for ours, theirs in _PREFIXES:
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    raise CheckpointError(f"the original layout has no place for {name!r}")


def from_original_name(name: str) -> str:
    """The reverse of ``to_original_name``."""
    known = tuple(theirs for _, theirs in _PREFIXES[:2])
    if name.startswith("model.mm_") and not name.startswith(known):
        raise CheckpointError(f"{name!r} belongs to another projector than mlp2x_gelu (Linear, GELU, Linear)")
    for ours, theirs in sorted(_PREFIXES, key=lambda pair: -len(pair[1])):
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    raise CheckpointError(f"{name!r} is not a parameter of the original layout")


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.bin`` or ``.safetensors`` file, or of all of them in a folder.

    Raises:
        CheckpointError: where there are none, or the file is something else.
    """
    if path.is_dir():
        files = sorted(path.glob("*.safetensors")) or sorted(path.glob("pytorch_model*.bin"))
        if not files:
            raise CheckpointError(f"{path} holds neither *.safetensors nor pytorch_model*.bin")
        return {name: tensor for file in files for name, tensor in read_weights(file).items()}
    try:
        return load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the two readers raise, it says the same
        raise CheckpointError(f"{path} cannot be read as weights: {error}") from error


def projector_from_original(path: Path, weights: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """``mm_projector.bin`` (or any file that holds one) -> ``linear_1.weight`` and so on.

    Args:
        weights: what ``path`` holds, where it has been read already.
    """
    marker = "mm_projector."
    read = read_weights(path) if weights is None else weights
    state = {from_original_name(f"model.{marker}{n.split(marker)[1]}"): t for n, t in read.items() if marker in n}
    if len(state) != 4:
        raise CheckpointError(f"{path} holds no whole projector of two layers (names that contain {marker!r}: {len(state)})")
    return {name.removeprefix("model.multi_modal_projector."): tensor for name, tensor in state.items()}


def projector_to_original(state: dict[str, Tensor], path: Path) -> None:
    """``linear_1.weight`` and so on -> ``mm_projector.bin``."""
    torch.save({to_original_name(f"model.multi_modal_projector.{name}"): t.contiguous() for name, t in state.items()}, path)


def import_original(source: Path, tower: Path, language_model: Path | None, image_fit: str, output: Path) -> None:
    """A checkpoint of the original as one of ours: weights, processor and tokenizer in ``output``.

    Args:
        source: a full checkpoint's folder, or ``mm_projector.bin`` (then ``language_model`` is what it was trained with).
        tower: the vision tower's folder; where the checkpoint holds a tower of its own, its weights are used.
        image_fit: ``crop``, ``pad`` or ``warp``: how the model was fine-tuned.

    Raises:
        CheckpointError: where weights are missing, or the checkpoint is of another kind of model.
    """
    beside = (source if source.is_dir() else source.parent) / "config.json"
    config = read_json(beside) if beside.is_file() else {}
    if config.get("mm_use_im_start_end"):
        raise CheckpointError(f"{source} puts tokens around the image (mm_use_im_start_end), which is not supported")
    own_tower, weights = {}, None
    if source.is_dir():
        weights = read_weights(source)
        language = _language_model(config, weights, source)
        own_tower = {n.removeprefix(_TOWER): t for n, t in weights.items() if n.startswith(_TOWER)}
    elif language_model is not None:
        language = AutoModelForCausalLM.from_pretrained(language_model, local_files_only=True)
    else:
        raise CheckpointError(f"{source} is a projector alone: name the language model it was trained with")
    select: Literal["default", "full"] = "full" if config.get("mm_vision_select_feature") == "cls_patch" else "default"
    vision_tower = load_vision_tower(tower, language.dtype)
    settings = VisionTower(
        weights="imported",
        image_tokens=count_image_tokens(vision_tower.config, select),
        layer=config.get("mm_vision_select_layer", -2),
        feature_select=select,
    )
    model = assemble(vision_tower, language, settings, projector_seed=0)
    state = projector_from_original(source, weights)
    for name, parameter in projector(model).state_dict().items():
        if state[name].shape != parameter.shape:
            raise CheckpointError(
                f"{source}: the projector's {name} is {tuple(state[name].shape)}, and {tuple(parameter.shape)} between {tower} "
                "and the language model: it was trained with others"
            )
    projector(model).load_state_dict(state)
    if own_tower:
        # the name of the part within the tower has come and gone in transformers
        flat = {name.removeprefix("vision_model."): tensor for name, tensor in own_tower.items()}
        names = {name: name.removeprefix("vision_model.") for name in vision_tower.state_dict()}
        lacking = [name for name in names.values() if name not in flat]
        if lacking:
            raise CheckpointError(
                f"{source} holds a part of a vision tower: {lacking[0]} and {len(lacking) - 1} more are missing"
            )
        vision_tower.load_state_dict({name: flat[key] for name, key in names.items()})
    output.mkdir(parents=True, exist_ok=True)
    export_checkpoint(model, tower, language_model or source, image_fit, output)


def export_original(checkpoint: Path, language_model: Path, tower_name: str, output: Path) -> None:
    """One of our checkpoints in the original's layout. The vision tower, which is frozen, stays out, as it does there.

    Args:
        language_model: whose tokenizer goes along: ours has ``<image>`` in it, the original's has not.
        tower_name: what ``mm_vision_tower`` shall say, such as ``openai/clip-vit-large-patch14-336``.

    Raises:
        CheckpointError: for another language model than Llama, which the original layout has no class for.
    """
    model = load_checkpoint(checkpoint, "auto")
    text = model.config.text_config
    if text.model_type != "llama":
        raise CheckpointError(f"{checkpoint} is around a {text.model_type} model; the original layout is for Llama")
    rows = json.loads((language_model / "config.json").read_text())["vocab_size"]
    state = {}
    for name, tensor in model.state_dict().items():
        if name.startswith("model.vision_tower."):
            continue
        is_vocabulary = name in ("lm_head.weight", "model.language_model.embed_tokens.weight")
        state[to_original_name(name)] = tensor[:rows].contiguous() if is_vocabulary else tensor.contiguous()
    output.mkdir(parents=True, exist_ok=True)
    save_torch_state_dict(state, str(output))
    is_patch = model.config.vision_feature_select_strategy == "default"
    pads = read_json(checkpoint / "processor_config.json")["image_processor"].get("do_pad", False)
    config = {
        **{key: value for key, value in text.to_dict().items() if key != "_name_or_path"},
        "architectures": ["LlavaLlamaForCausalLM"],
        "model_type": "llava_llama",
        "vocab_size": rows,
        # the original's transformers knows these by their older names
        "rope_theta": text.rope_parameters["rope_theta"],
        "torch_dtype": str(model.dtype).removeprefix("torch."),
        "mm_vision_tower": tower_name,
        "mm_hidden_size": model.config.vision_config.hidden_size,
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": model.config.vision_feature_layer,
        "mm_vision_select_feature": "patch" if is_patch else "cls_patch",
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "image_aspect_ratio": "pad" if pads else "square",
        "use_mm_proj": True,
    }
    write_json(output / "config.json", config)
    for pattern in _TOKENIZER_FILES:
        for file in language_model.glob(pattern):
            shutil.copy(file, output / file.name)


def _language_model(config: dict[str, Any], weights: dict[str, Tensor], source: Path) -> LlamaForCausalLM:
    if not str(config.get("architectures", [""])[0]).startswith("LlavaLlama"):
        raise CheckpointError(f"{source} is not a LLaVA around Llama: its architectures are {config.get('architectures')}")
    language = {k: v for k, v in config.items() if "mm_" not in k and k not in _FOREIGN}
    language["architectures"] = ["LlamaForCausalLM"]
    state = {n: t for n, t in weights.items() if not n.startswith(("model.mm_projector.", _TOWER)) and not n.endswith(_BUFFERS)}
    model, loading = LlamaForCausalLM.from_pretrained(
        None, config=LlamaConfig(**language), state_dict=state, dtype=state["lm_head.weight"].dtype, output_loading_info=True
    )
    wrong = {kind: sorted(names)[:3] for kind, names in loading.items() if names}
    if wrong:
        raise CheckpointError(f"{source} does not hold the weights its config.json promises: {wrong}")
    return model
