"""Run the TinyLLaVA Factory's own code on ``material`` and write down what it computes.

``python tests/originals/make_factory.py``, with TinyLLaVA_Factory 53f12c7 on ``PYTHONPATH`` (README.md here: the environment).
It asks for transformers 4.40.1 and runs under 4.37.2, too. Its dataset, collator and ``TinyLlavaForConditionalGeneration`` are
used as they are. Writes factory* into tests/fixtures/originals.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import compat  # noqa: F401
import material
import numpy as np
import torch
import transformers
from safetensors.numpy import save_file
from tinyllava.data.dataset import DataCollatorForSupervisedDataset, LazySupervisedDataset
from tinyllava.model import TinyLlavaConfig, TinyLlavaForConditionalGeneration
from tinyllava.utils.arguments import DataArguments

COMMIT = "TinyLLaVA/TinyLLaVA_Factory 53f12c7"
TEMPLATE = {"pretrain": "pretrain", "finetune": "phi"}
SELECT = {"full": "cls_patch", "default": "patch"}
"""Ours: the Factory's. ``patch`` drops the first patch as if it were a class token."""


def new_model(folder: Path, select: str = "patch") -> Any:
    """As its ``train()`` makes one, before the pretrained parts are loaded. It picks classes by the folders' names."""
    config = TinyLlavaConfig()
    config.load_from_config(
        SimpleNamespace(
            model_name_or_path=str(folder / "phi"),
            vision_tower=str(folder / "siglip"),
            connector_type="mlp2x_gelu",
            mm_vision_select_layer=-2,
            mm_vision_select_feature=select,
            image_aspect_ratio="square",
            model_max_length=2048,
        )
    )
    return TinyLlavaForConditionalGeneration(config)


def loaded_model(folder: Path, select: str) -> Any:
    model = new_model(folder, select)
    model.load_llm(model_name_or_path=str(folder / "phi"))
    model.load_vision_tower(model_name_or_path=str(folder / "siglip"))
    model.load_connector()
    own = {name: torch.from_numpy(value) for name, value in material.weights("projector").items()}
    model.connector._connector.load_state_dict(own)
    return model.eval()


def data_of(model: Any, folder: Path, stage: str, samples: list[dict[str, Any]], processor: Any = None) -> Any:
    path = folder / "data.json"
    path.write_text(json.dumps(samples))
    arguments = DataArguments(
        data_path=str(path), image_folder=str(folder / "pictures"), image_aspect_ratio="square", conv_version=TEMPLATE[stage]
    )
    arguments.image_processor = processor or model.vision_tower._image_processor
    return LazySupervisedDataset(str(path), model.tokenizer, arguments)


def losses(folder: Path) -> dict[str, np.ndarray]:
    """Of every batch: its loss, and a part of the logits at every position that is no padding."""
    found = {}
    for ours, select in SELECT.items():
        model = loaded_model(folder, select)
        for name, (stage, samples) in material.batches().items():
            data = data_of(model, folder, stage, samples)
            batch = DataCollatorForSupervisedDataset(model.tokenizer)([data[i] for i in range(len(data))])
            prepared = model.prepare_inputs_labels_for_multimodal(
                batch["input_ids"], None, batch["attention_mask"], None, batch["labels"], batch["images"]
            )
            real = prepared[2].bool()
            with torch.no_grad():
                out = model(**batch)
            found[f"{ours}/{name}/loss"] = out.loss.numpy()
            found[f"{ours}/{name}/lengths"] = real.sum(1).numpy()
            found[f"{ours}/{name}/labels"] = prepared[5][real].numpy().astype(np.int16)
            found[f"{ours}/{name}/logits"] = out.logits[real][:, :: material.KEPT_LOGITS].contiguous().numpy()
    return found


def pixels(model: Any, folder: Path) -> dict[str, Any]:
    found = {}
    for size in (48, 384):
        (folder / "processor").mkdir(exist_ok=True)
        (folder / "processor" / "preprocessor_config.json").write_text(json.dumps(material.processor_config("siglip", size)))
        processor = transformers.SiglipImageProcessor.from_pretrained(folder / "processor")
        samples = [{**material.captions(1)[0], "image": name} for name in material.pictures()]
        data = data_of(model, folder, "pretrain", samples, processor)
        found[f"siglip {size} warp"] = {
            sample["image"]: material.described(data[i]["image"].numpy()) for i, sample in enumerate(samples)
        }
    return found


def connector(folder: Path) -> dict[str, Any]:
    """How the connector starts: each tensor's standard deviation and largest value over a hundred models."""
    torch.manual_seed(0)
    drawn = [new_model(folder).connector._connector.state_dict() for _ in range(100)]
    tensors = {name: torch.stack([state[name] for state in drawn]) for name in drawn[0]}
    return {name: {"std": float(t.std()), "largest": float(t.abs().max())} for name, t in tensors.items()}


def main() -> None:
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    made = {"made_by": COMMIT, "transformers": transformers.__version__, "torch": torch.__version__.partition("+")[0]}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        material.write_models(folder, "siglip", "phi")
        (folder / "pictures").mkdir()
        for name, content in material.pictures().items():
            (folder / "pictures" / name).write_bytes(content)
        save_file(losses(folder), material.FIXTURES / "factory_losses.safetensors", made)
        model = loaded_model(folder, "patch")
        written = {"made_by": made, "pixels": pixels(model, folder), "connector": connector(folder)}
        (material.FIXTURES / "factory.json").write_text(json.dumps(written, indent=0) + "\n")


if __name__ == "__main__":
    main()
