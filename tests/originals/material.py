"""What the originals and this project are both given: small models' weights, odd pictures, conversations, image processors.

Everything comes from seeded integers, so that nothing of it has to be kept: only what the originals made of it does
(tests/fixtures/originals). It imports nothing of this project, because the originals run in an environment of their own.
"""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "originals"

# ------------------------------------------------------------------------------------------------------------- models

WIDTH, INNER, LAYERS, TOWER_LAYERS, PIXELS, PATCH = 32, 48, 2, 3, 48, 16
PATCHES = (PIXELS // PATCH) ** 2
LLAMA_VOCABULARY, PHI_VOCABULARY = 384, 320

_TOWER = {
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_hidden_layers": TOWER_LAYERS,
    "num_attention_heads": 2,
    "image_size": PIXELS,
    "patch_size": PATCH,
    "torch_dtype": "float32",
}
_LANGUAGE = {
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
}
# in the words of the configurations that are published with the real models
CONFIGS: dict[str, dict[str, Any]] = {
    "clip": _TOWER | {"model_type": "clip_vision_model", "architectures": ["CLIPVisionModel"]},
    "siglip": _TOWER | {"model_type": "siglip_vision_model", "architectures": ["SiglipVisionModel"]},
    "llama": _LANGUAGE
    | {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": LLAMA_VOCABULARY, "rms_norm_eps": 1e-5}
    | {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
    "phi": _LANGUAGE
    | {"model_type": "phi", "architectures": ["PhiForCausalLM"], "vocab_size": PHI_VOCABULARY, "partial_rotary_factor": 0.5}
    | {"bos_token_id": 0, "eos_token_id": 0, "layer_norm_eps": 1e-5},
}


def _clip_shapes() -> dict[str, tuple[int, ...]]:
    return {
        "vision_model.embeddings.class_embedding": (WIDTH,),
        "vision_model.embeddings.patch_embedding.weight": (WIDTH, 3, PATCH, PATCH),
        "vision_model.embeddings.position_embedding.weight": (PATCHES + 1, WIDTH),
        **_norm("vision_model.pre_layrnorm"),
        **_encoder(),
        **_norm("vision_model.post_layernorm"),
    }


def _siglip_shapes() -> dict[str, tuple[int, ...]]:
    return {
        "vision_model.embeddings.patch_embedding.weight": (WIDTH, 3, PATCH, PATCH),
        "vision_model.embeddings.patch_embedding.bias": (WIDTH,),
        "vision_model.embeddings.position_embedding.weight": (PATCHES, WIDTH),
        **_encoder(),
        **_norm("vision_model.post_layernorm"),
        "vision_model.head.probe": (1, 1, WIDTH),
        "vision_model.head.attention.in_proj_weight": (3 * WIDTH, WIDTH),
        "vision_model.head.attention.in_proj_bias": (3 * WIDTH,),
        **_linear("vision_model.head.attention.out_proj", WIDTH, WIDTH),
        **_norm("vision_model.head.layernorm"),
        **_linear("vision_model.head.mlp.fc1", WIDTH, INNER),
        **_linear("vision_model.head.mlp.fc2", INNER, WIDTH),
    }


def _encoder() -> dict[str, tuple[int, ...]]:
    shapes = {}
    for layer in (f"vision_model.encoder.layers.{i}" for i in range(TOWER_LAYERS)):
        for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
            shapes |= _linear(f"{layer}.self_attn.{part}", WIDTH, WIDTH)
        shapes |= _norm(f"{layer}.layer_norm1") | _norm(f"{layer}.layer_norm2")
        shapes |= _linear(f"{layer}.mlp.fc1", WIDTH, INNER) | _linear(f"{layer}.mlp.fc2", INNER, WIDTH)
    return shapes


def _llama_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (LLAMA_VOCABULARY, WIDTH), "model.norm.weight": (WIDTH,)}
    for layer in (f"model.layers.{i}" for i in range(LAYERS)):
        shapes |= {f"{layer}.self_attn.{part}_proj.weight": (WIDTH, WIDTH) for part in "qkvo"}
        shapes |= {f"{layer}.mlp.{part}_proj.weight": (INNER, WIDTH) for part in ("gate", "up")}
        shapes[f"{layer}.mlp.down_proj.weight"] = (WIDTH, INNER)
        shapes |= {f"{layer}.{norm}.weight": (WIDTH,) for norm in ("input_layernorm", "post_attention_layernorm")}
    return shapes | {"lm_head.weight": (LLAMA_VOCABULARY, WIDTH)}


def _phi_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (PHI_VOCABULARY, WIDTH)}
    for layer in (f"model.layers.{i}" for i in range(LAYERS)):
        for part in ("q_proj", "k_proj", "v_proj", "dense"):
            shapes |= _linear(f"{layer}.self_attn.{part}", WIDTH, WIDTH)
        shapes |= _linear(f"{layer}.mlp.fc1", WIDTH, INNER) | _linear(f"{layer}.mlp.fc2", INNER, WIDTH)
        shapes |= _norm(f"{layer}.input_layernorm")
    return shapes | _norm("model.final_layernorm") | _linear("lm_head", WIDTH, PHI_VOCABULARY)


def _projector_shapes() -> dict[str, tuple[int, ...]]:
    """In the names of the originals' ``nn.Sequential``."""
    return _linear("0", WIDTH, WIDTH) | _linear("2", WIDTH, WIDTH)


def _linear(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name: str) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)}


SHAPES: dict[str, Callable[[], dict[str, tuple[int, ...]]]] = {
    "clip": _clip_shapes,
    "siglip": _siglip_shapes,
    "llama": _llama_shapes,
    "phi": _phi_shapes,
    "projector": _projector_shapes,
}


def weights(kind: str) -> dict[str, np.ndarray]:
    """float32 tensors by name, every value a multiple of 2**-10: exact, whatever computes them."""
    found = {}
    for name, shape in SHAPES[kind]().items():
        draw = np.random.RandomState(zlib.crc32(f"{kind}/{name}".encode()))
        values = draw.randint(-128, 128, shape).astype(np.float32) / 128
        is_norm = "norm" in name and name.endswith("weight")
        scale = 0.125 if is_norm or name.endswith("bias") else 0.5 if "embed" in name else 0.375
        found[name] = values * np.float32(scale) + np.float32(is_norm)
    return found


def processor_config(kind: str, pixels: int = PIXELS) -> dict[str, Any]:
    """The ``preprocessor_config.json`` of clip-vit-large-patch14-336 or siglip-so400m-patch14-384, for so many pixels."""
    if kind == "clip":
        return {
            "image_processor_type": "CLIPImageProcessor",
            "feature_extractor_type": "CLIPFeatureExtractor",
            "crop_size": {"height": pixels, "width": pixels},
            "size": {"shortest_edge": pixels},
            "do_center_crop": True,
            "do_normalize": True,
            "do_resize": True,
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
            "resample": 3,
        }
    return {
        "image_processor_type": "SiglipImageProcessor",
        "size": {"height": pixels, "width": pixels},
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "resample": 3,
        "rescale_factor": 0.00392156862745098,
    }


def write_models(folder: Path, *kinds: str) -> None:
    """A folder for each: ``config.json`` and ``model.safetensors`` in the published names, tokenizer or processor beside it."""
    for kind in kinds:
        target = folder / kind
        target.mkdir(parents=True)
        (target / "config.json").write_text(json.dumps(CONFIGS[kind]))
        save_file(weights(kind), target / "model.safetensors", {"format": "pt"})
        if kind in ("clip", "siglip"):
            (target / "preprocessor_config.json").write_text(json.dumps(processor_config(kind)))
        else:
            for file in sorted((FIXTURES / kind).iterdir()):
                (target / file.name).write_bytes(file.read_bytes())


# ----------------------------------------------------------------------------------------------------------- pictures


def _noise(height: int, width: int, channels: int, seed: int) -> np.ndarray:
    """(height, width, channels) uint8: a slope with noise on it, so that every filter has something to do."""
    draw = np.random.RandomState(seed)
    slope = np.add.outer(np.arange(height) * 3, np.arange(width) * 5)[..., None] + np.arange(channels) * 60
    return ((slope + draw.randint(0, 96, (height, width, channels))) % 256).astype(np.uint8)


def _image(mode: str, width: int, height: int, seed: int) -> Image.Image:
    return Image.frombytes(mode, (width, height), _noise(height, width, len(mode), seed).tobytes())


def _palette(width: int, height: int, seed: int) -> Image.Image:
    """A palette of 64 colours; the first one, which is declared transparent, is in about a fifth of the pixels."""
    draw = np.random.RandomState(seed)
    indices = draw.randint(0, 64, (height, width)) * (draw.randint(0, 5, (height, width)) > 0)
    image = Image.frombytes("P", (width, height), indices.astype(np.uint8).tobytes())
    image.putpalette(draw.randint(0, 256, 64 * 3).tolist())
    return image


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pictures() -> dict[str, bytes]:
    """Files as they turn up, by name. Of height 1 or 3 there is none: the originals crash on it, or take it for the colours."""
    grey, rgb, palette = _image("L", 44, 60, 9), _image("RGB", 64, 64, 1), _palette(64, 64, 2)
    deep = Image.frombytes("I;16", (70, 50), (_noise(50, 70, 1, 10).astype("<u2") * 257).tobytes())
    black = Image.frombytes("RGB", (72, 40), (_noise(40, 72, 3, 23) % 2).tobytes())
    turned = Image.Exif()
    turned[0x0112] = 6
    return {
        "palette_transparent.png": _encoded(palette, "PNG", transparency=0),
        "palette_transparent_wide.png": _encoded(_palette(90, 40, 3), "PNG", transparency=0),
        "palette_many_alphas.png": _encoded(palette, "PNG", transparency=bytes(range(0, 256, 4))),
        "palette.png": _encoded(palette, "PNG"),
        "transparent.gif": _encoded(_palette(64, 64, 4), "GIF", transparency=0),
        "animated.gif": _encoded(palette, "GIF", save_all=True, append_images=[_palette(64, 64, 5)], duration=100),
        "rgb_with_a_transparent_colour.png": _encoded(rgb, "PNG", transparency=rgb.getpixel((5, 5))),
        "grey_with_a_transparent_level.png": _encoded(_image("L", 56, 56, 6), "PNG", transparency=128),
        "rgba.png": _encoded(_image("RGBA", 64, 64, 7), "PNG"),
        "grey_and_alpha.png": _encoded(_image("LA", 67, 51, 8), "PNG"),
        "grey.png": _encoded(grey, "PNG"),
        "grey_16_bit.png": _encoded(deep, "PNG"),
        "one_bit.png": _encoded(_image("L", 62, 40, 11).point(lambda level: 255 * (level > 120), mode="1"), "PNG"),
        "cmyk.jpg": _encoded(_image("CMYK", 58, 70, 12), "JPEG", quality=90),
        "cmyk.tif": _encoded(_image("CMYK", 58, 45, 13), "TIFF"),
        "turned_by_exif.jpg": _encoded(_image("RGB", 80, 50, 14), "JPEG", quality=85, exif=turned),
        "progressive.jpg": _encoded(_image("RGB", 123, 77, 15), "JPEG", quality=75, progressive=True),
        "bitmap.bmp": _encoded(_image("RGB", 33, 95, 16), "BMP"),
        "elongated.png": _encoded(_image("RGB", 1200, 5, 17), "PNG"),
        "elongated_upright.png": _encoded(_image("RGB", 7, 900, 18), "PNG"),
        "tiny.png": _encoded(_image("RGB", 2, 2, 19), "PNG"),
        "one_pixel_wide.png": _encoded(_image("RGB", 1, 40, 25), "PNG"),
        "three_pixels_wide.png": _encoded(_image("RGB", 3, 50, 26), "PNG"),
        "tiny_wide.png": _encoded(_image("RGB", 5, 4, 20), "PNG"),
        "as_large_as_the_tower.png": _encoded(_image("RGB", 48, 48, 21), "PNG"),
        "one_pixel_off_square.png": _encoded(_image("RGB", 50, 49, 22), "PNG"),
        "nearly_black.png": _encoded(black, "PNG"),
        "two_megapixels.jpg": _encoded(_image("RGB", 1224, 1632, 24), "JPEG", quality=80),
    }


# ------------------------------------------------------------------------------------------------------ conversations

_THINGS = (
    "a red ball",
    "two dogs",
    "the number 7",
    "a sign that says STOP",
    "1999",
    "a cat on a mat",
    "45% of a pie",
    "three cups",
)
_QUESTIONS = ("What is shown?", "How many are there?", "Answer with a word:\nis it red?", "Describe it in detail.", "Why?")
_ANSWERS = ("It is {}.", "{}", "Yes, {}", "There is {} to the left,\nand nothing else.", "2", "No")
SHOWN = (
    "palette_transparent.png",
    "rgba.png",
    "grey.png",
    "turned_by_exif.jpg",
    "bitmap.bmp",
    "progressive.jpg",
    "tiny_wide.png",
)


def captions(count: int, seed: int = 1) -> list[dict[str, Any]]:
    """Stage 1's JSON: a picture and a sentence."""
    draw = np.random.RandomState(seed)
    found = []
    for i in range(count):
        words = " and ".join(_THINGS[j] for j in draw.randint(0, len(_THINGS), 1 + draw.randint(0, 4)))
        turns = [{"from": "human", "value": "Give a brief description.\n<image>"}, {"from": "gpt", "value": words}]
        found.append({"id": str(i), "image": SHOWN[draw.randint(0, len(SHOWN))], "conversations": turns})
    return found


def conversations(count: int, seed: int = 2, shown: float = 0.7) -> list[dict[str, Any]]:
    """SFT's JSON: one to three turns, and a picture in a share of the samples, before or after the first question."""
    draw = np.random.RandomState(seed)
    found = []
    for i in range(count):
        has_image = draw.randint(0, 100) < 100 * shown
        sample: dict[str, Any] = {"id": str(i), "conversations": []}
        for turn in range(1 + draw.randint(0, 3)):
            question = _QUESTIONS[draw.randint(0, len(_QUESTIONS))]
            if has_image and turn == 0:
                question = f"<image>\n{question}" if draw.randint(0, 2) else f"{question}\n<image>"
            answer = _ANSWERS[draw.randint(0, len(_ANSWERS))].format(_THINGS[draw.randint(0, len(_THINGS))])
            sample["conversations"] += [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
        if has_image:
            sample["image"] = SHOWN[draw.randint(0, len(SHOWN))]
        found.append(sample)
    return found


KEPT_LOGITS = 32
"""One in so many of the vocabulary's logits is kept: all of them follow from as many hidden dimensions."""


def batches() -> dict[str, tuple[str, list[dict[str, Any]]]]:
    """(stage, samples) of the batches whose logits and losses are compared."""
    mixed = conversations(40)
    with_image = [s for s in mixed if "image" in s]
    several = [s for s in with_image if len(s["conversations"]) > 2]
    text = [s for s in mixed if "image" not in s]
    return {
        "captions": ("pretrain", captions(4)),
        "several turns": ("finetune", several[:3]),
        "text alone": ("finetune", text[:3]),
        "mixed": ("finetune", [text[3], with_image[0], with_image[1], text[4]]),
    }


# --------------------------------------------------------------------------------------------------------- the training

SEED, STEPS, GLOBAL_BATCH, MICRO_BATCHES, LEARNING_RATE = 42, 20, 8, (8, 2), 1e-3


def training_data(stage: str) -> list[dict[str, Any]]:
    return captions(STEPS * GLOBAL_BATCH, 3) if stage == "pretrain" else conversations(STEPS * GLOBAL_BATCH, 4)


def kept(name: str, weight: np.ndarray) -> np.ndarray:
    """What a fixture keeps of a trained tensor: all of it, or every fourth row of the two as large as the vocabulary."""
    return weight[::4].copy() if "embed_tokens" in name or "lm_head" in name else weight


# --------------------------------------------------------------------------------------------------------------- pixels


def described(values: np.ndarray) -> dict[str, Any]:
    """The hash of float32 pixels (3, height, width), and a little to look at where another is found."""
    assert values.dtype == np.float32
    return {
        "sha256": hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest(),
        "mean": round(float(values.mean(dtype=np.float64)), 6),
        "corner": [round(float(v), 6) for v in values[:, 0, 0]],
    }


def decoded_hashes() -> dict[str, str]:
    """Of every picture as Pillow opens it, the same way in both environments, or no comparison has a meaning."""
    found = {}
    for name, content in pictures().items():
        with Image.open(io.BytesIO(content)) as image:
            found[name] = hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()
    return found
