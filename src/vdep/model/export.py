"""A trained model as a Hugging Face checkpoint that stock transformers loads, with its processor beside it.

Neither ``<image>`` nor ``<auto_image>`` has an embedding in training. The stock class looks one up all the same before it
overwrites it with the picture, and its processor wants the token in the tokenizer: so ``<image>`` gets a row here, a copy of
the unknown token's, which greedy decoding never prefers to the original (the first of two equal logits wins).
``<auto_image>`` is in no exported tokenizer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LlavaForConditionalGeneration, LlavaProcessor
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from ..data.conversation import IMAGE_PLACEHOLDER, SYSTEM, swallows_a_first_space
from ..data.images import load_processor
from ..data.tokenizer import load_tokenizer


def chat_template(tokenizer: Any) -> str:
    """The conversation format, as stock transformers renders it.

    SentencePiece puts a space before every text. LLaVA's code and ours tokenise what stands before and after an image as texts
    of their own; the stock processor tokenises all at once, so the template writes that space behind each image.
    """
    space = " " if swallows_a_first_space(tokenizer) else ""
    return (
        "{{ bos_token if add_bos is defined and add_bos else '' }}"
        + SYSTEM
        + " {% for message in messages %}{% if message['role'] == 'user' %}"
        "{{ 'USER: ' }}{% if message['content'] is string %}"
        f"{{{{ message['content'] | replace('<image>', '<image>{space}') }}}}{{% else %}}"
        "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
        f"{{{{ '<image>{space}\\n' }}}}{{% endif %}}{{% endfor %}}"
        "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
        "{% endif %}{{ ' ' }}{% else %}{{ 'ASSISTANT: ' }}"
        "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
        "{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endif %}{{ eos_token }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
    )


def add_image_token(model: LlavaForConditionalGeneration, tokenizer: Any) -> None:
    """Give ``<image>`` an id and, where the embedding has no spare row, a row (in multiples of 64, as llava-hf has it)."""
    tokenizer.add_tokens([IMAGE_PLACEHOLDER], special_tokens=True)
    image_id = tokenizer.convert_tokens_to_ids(IMAGE_PLACEHOLDER)
    unknown = tokenizer.unk_token_id if tokenizer.unk_token_id is not None else 0
    rows = model.get_input_embeddings().weight.shape[0]
    if image_id >= rows:
        rows = -(-(image_id + 1) // 64) * 64
        embedding, head = model.get_input_embeddings(), model.lm_head
        embedding.weight = torch.nn.Parameter(_padded(embedding.weight, rows, unknown))
        embedding.num_embeddings = rows
        head.weight = torch.nn.Parameter(_padded(head.weight, rows, unknown))
        head.out_features = rows
        if head.bias is not None:
            head.bias = torch.nn.Parameter(_padded(head.bias, rows, unknown))
        model.config.text_config.vocab_size = rows
    model.config.image_token_index = image_id


def _padded(weight: Tensor, rows: int, copied: int) -> Tensor:
    extra = weight.detach()[copied : copied + 1].expand(rows - weight.shape[0], *weight.shape[1:])
    return torch.cat([weight.detach(), extra]).contiguous()


def processor_for(model: LlavaForConditionalGeneration, tokenizer: Any, tower: Path, image_fit: str) -> LlavaProcessor:
    """The stock processor that prepares images as SFT did (``pad``, ``crop`` or ``warp``) and prompts as the template."""
    processor = load_processor(tower)
    common = {"image_mean": processor.image_mean, "image_std": processor.image_std, "resample": processor.resample}
    if image_fit == "warp":
        image_processor: Any = SiglipImageProcessorPil(size=dict(processor.size), **common)
    else:
        image_processor = LlavaImageProcessorPil(
            size=dict(processor.size), crop_size=dict(processor.crop_size), do_pad=image_fit == "pad", **common
        )
    vision = model.config.vision_config
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=vision.patch_size,
        vision_feature_select_strategy=model.config.vision_feature_select_strategy,
        num_additional_image_tokens=0 if vision.model_type.startswith("siglip") else 1,
        chat_template=chat_template(tokenizer),
    )


def export_checkpoint(
    model: LlavaForConditionalGeneration, tower: Path, language_model: Path, image_fit: str, folder: Path
) -> None:
    """Write weights (safetensors), tokenizer, processor and a clean generation config. Changes ``model``."""
    tokenizer = load_tokenizer(language_model)
    tokenizer.padding_side = "left"
    add_image_token(model, tokenizer)
    # Vicuna's own generation config has sampling settings without sampling, which newer versions refuse to save
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
    )
    model.config.architectures = [type(model).__name__]
    model.save_pretrained(folder)
    processor_for(model, tokenizer, tower, image_fit).save_pretrained(folder)
