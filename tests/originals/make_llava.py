"""Run LLaVA's own code on ``material`` and write down what it computes.

``python tests/originals/make_llava.py``, with haotian-liu/LLaVA c121f04 on ``PYTHONPATH`` (README.md here: the environment).
Its dataset, collator, ``LlavaLlamaForCausalLM`` and ``LLaVATrainer`` are used as they are; what its ``train()`` does around
them is done here, because that puts the vision tower into half precision. Writes llava_* into tests/fixtures/originals.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

import compat  # noqa: F401
import material
import numpy as np
import torch
import transformers
from llava import conversation as conversation_lib
from llava.model.language_model.llava_llama import LlavaLlamaForCausalLM
from llava.train.llava_trainer import LLaVATrainer
from llava.train.train import DataArguments, DataCollatorForSupervisedDataset, LazySupervisedDataset, TrainingArguments
from safetensors.numpy import save_file

from vdep.data.plan import BatchPlan

COMMIT = "haotian-liu/LLaVA c121f0432da27facab705978f83c4ada465e46fd"
TEMPLATE = {"pretrain": "plain", "finetune": "v1"}
ASPECT = {"pretrain": "square", "finetune": "pad"}


def provenance() -> dict[str, str]:
    return {"made_by": COMMIT, "transformers": transformers.__version__, "torch": torch.__version__.partition("+")[0]}


class Original:
    """The original's model, tokenizer and data around one folder of ``material``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(
            folder / "llama", model_max_length=2048, padding_side="right", use_fast=False
        )
        self.tokenizer.pad_token = self.tokenizer.unk_token
        self.model = self.build()
        self.processor = self.model.get_vision_tower().image_processor

    def build(self) -> Any:
        """The model as ``train()`` has it before it trains, in float32 and evaluation mode."""
        model = LlavaLlamaForCausalLM.from_pretrained(self.folder / "llama")
        model.config.use_cache = False
        model.get_model().initialize_vision_modules(
            SimpleNamespace(
                vision_tower=str(self.folder / "clip"),
                mm_vision_select_layer=-2,
                mm_vision_select_feature="patch",
                pretrain_mm_mlp_adapter=None,
                mm_patch_merge_type="flat",
                mm_projector_type="mlp2x_gelu",
            )
        )
        own = {name: torch.from_numpy(value) for name, value in material.weights("projector").items()}
        model.get_model().mm_projector.load_state_dict(own)
        model.config.tokenizer_model_max_length = self.tokenizer.model_max_length
        model.config.tokenizer_padding_side = "right"
        return model.eval()

    def data(self, stage: str, samples: list[dict[str, Any]], processor: Any = None, aspect: str | None = None) -> Any:
        conversation_lib.default_conversation = conversation_lib.conv_templates[TEMPLATE[stage]]
        path = self.folder / "data.json"
        path.write_text(json.dumps(samples))
        arguments = DataArguments(
            data_path=str(path), is_multimodal=True, image_folder=str(self.folder / "pictures"),
            image_aspect_ratio=aspect or ASPECT[stage],
        )  # fmt: skip
        arguments.image_processor = processor or self.processor
        arguments.mm_use_im_start_end = False
        return LazySupervisedDataset(str(path), self.tokenizer, arguments)

    @property
    def collator(self) -> Any:
        return DataCollatorForSupervisedDataset(self.tokenizer)


def losses(original: Original) -> dict[str, np.ndarray]:
    """Of every batch: its loss, and a part of the logits at every position that is no padding."""
    found = {}
    for name, (stage, samples) in material.batches().items():
        data = original.data(stage, samples)
        batch = original.collator([data[i] for i in range(len(data))])
        # what the model's forward does with images, for the lengths; then the forward itself
        prepared = original.model.prepare_inputs_labels_for_multimodal(
            batch["input_ids"], None, batch["attention_mask"], None, batch["labels"], batch["images"]
        )
        real = prepared[2].bool()
        with torch.no_grad():
            out = original.model(**batch)
        found[f"{name}/loss"] = out.loss.numpy()
        found[f"{name}/lengths"] = real.sum(1).numpy()
        found[f"{name}/labels"] = prepared[5][real].numpy().astype(np.int16)
        found[f"{name}/logits"] = out.logits[real][:, :: material.KEPT_LOGITS].contiguous().numpy()
    return found


def pixels(original: Original) -> dict[str, Any]:
    """By processor, path and picture: the hash of the pixels, and a little to look at where they differ."""
    found: dict[str, Any] = {}
    for size in (48, 336):
        (original.folder / "processor").mkdir(exist_ok=True)
        config = json.dumps(material.processor_config("clip", size))
        (original.folder / "processor" / "preprocessor_config.json").write_text(config)
        processor = transformers.CLIPImageProcessor.from_pretrained(original.folder / "processor")
        for path, aspect in (("crop", "square"), ("pad", "pad")):
            samples = [{**material.captions(1)[0], "image": name} for name in material.pictures()]
            data = original.data("pretrain", samples, processor, aspect)
            found[f"clip {size} {path}"] = {
                sample["image"]: material.described(data[i]["image"].numpy()) for i, sample in enumerate(samples)
            }
    return found


class Ordered(LLaVATrainer):
    """Takes the samples in a given order, and remembers the loss of every micro-batch."""

    order: list[int]
    micro_losses: list[float]

    def _get_train_sampler(self) -> Any:
        return self.order

    def training_step(self, model: Any, inputs: Any) -> torch.Tensor:
        loss = super().training_step(model, inputs)
        self.micro_losses.append(float(loss) * self.args.gradient_accumulation_steps)
        return loss


def planned_order(samples: int) -> list[int]:
    """The order in which this project trains so many samples, for the seed and the batch of ``material``."""
    plan = BatchPlan(
        np.ones(samples, int), np.ones(samples, bool), global_batch=material.GLOBAL_BATCH, epochs=1, seed=material.SEED
    )
    return np.concatenate([plan.batch(step).samples for step in range(plan.steps)]).tolist()


def steps(original: Original, stage: str, micro_batch: int) -> dict[str, np.ndarray]:
    """Twenty optimizer steps: the losses of the micro-batches (steps, micro-batches), and the weights they lead to."""
    model = original.build()
    if stage == "pretrain":
        model.requires_grad_(False)
        model.get_model().mm_projector.requires_grad_(True)
    data = original.data(stage, material.training_data(stage))
    arguments = TrainingArguments(
        output_dir=str(original.folder / "out"),
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=material.GLOBAL_BATCH // micro_batch,
        num_train_epochs=1,
        learning_rate=material.LEARNING_RATE,
        weight_decay=0.0,
        warmup_ratio=0.03,
        lr_scheduler_type="cosine",
        max_grad_norm=0.0,  # their DeepSpeed configurations named no clipping, and DeepSpeed's default was none
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Ordered(
        model=model, tokenizer=original.tokenizer, args=arguments, train_dataset=data, data_collator=original.collator
    )
    trainer.order, trainer.micro_losses = planned_order(len(data)), []
    trainer.train()
    assert trainer.state.global_step == material.STEPS
    found = {"losses": np.array(trainer.micro_losses).reshape(material.STEPS, -1)}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            found[name.removeprefix("model.")] = material.kept(name, parameter.detach().numpy())
    return found


def main() -> None:
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        material.write_models(folder, "clip", "llama")
        (folder / "pictures").mkdir()
        for name, content in material.pictures().items():
            (folder / "pictures" / name).write_bytes(content)
        original = Original(folder)
        made = provenance()
        save_file(losses(original), material.FIXTURES / "llava_losses.safetensors", made)
        written = {"made_by": made, "decoded": material.decoded_hashes(), "pixels": pixels(original)}
        (material.FIXTURES / "llava_pixels.json").write_text(json.dumps(written, indent=0) + "\n")
        for stage in ("pretrain", "finetune"):
            for micro_batch in material.MICRO_BATCHES:
                file = material.FIXTURES / f"llava_{stage}_{micro_batch}.safetensors"
                save_file(steps(original, stage, micro_batch), file, made)


if __name__ == "__main__":
    main()
