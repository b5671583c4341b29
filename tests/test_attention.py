"""What a checkpoint attends to: rows that sum to 1, equal to the model's own attention, reduced as they come."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import numpy as np
import pytest
import torch
import world
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vdep.artifacts import AssetManifest
from vdep.data.collate import Row, collate
from vdep.data.conversation import TEMPLATES, encode_segments, prompt_segments
from vdep.data.tokenizer import load_tokenizer
from vdep.errors import ReportError
from vdep.model.export import export_checkpoint
from vdep.model.llava import build_model, image_features, load_checkpoint, projector, splice
from vdep.report.attention import Watcher, attention_rows, flow, instruction_positions
from vdep.report.attention_data import MEASURES, Flow
from vdep.report.attention_measures import measures
from vdep.report.masks import Masked, list_images, masked_pictures
from vdep_demo.world.gallery import make_gallery

QUESTION = "Describe this photo in detail."


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gallery")
    make_gallery(folder, 24, 1)
    world.write_manifest(folder)
    return folder


@pytest.fixture(scope="module", params=list(world.FAMILIES))
def checkpoint(request: pytest.FixtureRequest, assets: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    family = request.param
    tower, _ = world.FAMILIES[family]
    study = world.make_study(family)
    model = build_model(assets / tower, assets / family, study.models["tiny"].vision_tower, torch.float32, 3)
    folder = tmp_path_factory.mktemp(family)
    export_checkpoint(model, assets / tower, assets / family, study.stage("tiny", "run", "finetune").image, folder)
    return family, folder


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(2, 20), st.integers(0, 999))
def test_rows_sum_to_one_and_never_look_ahead(kv_heads: int, groups: int, length: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(2, kv_heads * groups, length, 8, generator=generator)
    key = torch.randn(2, kv_heads, length, 8, generator=generator)
    positions = torch.arange(length)[:: max(1, length // 3)]
    rows = attention_rows(query, key, positions, 0.35)
    assert rows.shape == (2, kv_heads * groups, len(positions), length)
    assert torch.allclose(rows.sum(-1), torch.ones(rows.shape[:-1]), atol=1e-5)
    for number, position in enumerate(positions.tolist()):
        assert not rows[:, :, number, position + 1 :].any()


def watcher_of(checkpoint: tuple[str, Path]) -> Watcher:
    family, folder = checkpoint
    image_fit = world.make_study(family).stage("tiny", "run", "finetune").image
    return Watcher(folder, world.FAMILIES[family][1], image_fit, QUESTION, device="cpu", precision="float32")


def gallery_pictures(gallery: Path) -> Iterator[Masked]:
    asset = AssetManifest.open(gallery / "manifest.json")
    return masked_pictures(asset, "images", asset, "masks")


def test_everything_is_of_the_models_own_attention(checkpoint: tuple[str, Path], gallery: Path) -> None:
    """The whole matrix of the eager implementation, cut by hand, one picture at a time; measured with its masks."""
    watcher = watcher_of(checkpoint)
    images = list_images(gallery / "images")
    found = flow(watcher, images[:2], gallery_pictures(gallery), 8, batch_size=3)
    layers, heads = watcher.layers, watcher.heads
    assert found.maps.shape == (2, layers, world.IMAGE_TOKENS)
    assert found.head_maps.shape == (2, layers, heads, world.IMAGE_TOKENS)
    assert found.by_layer.shape == (8, layers, len(MEASURES))
    assert found.by_head.shape == (2, layers, heads, len(MEASURES))
    assert found.best_values.shape == (4, len(MEASURES))

    family, folder = checkpoint
    model = load_checkpoint(folder, torch.float32, attn_implementation="eager").eval()
    tokenizer = load_tokenizer(folder)
    segments = prompt_segments(f"<image>\n{QUESTION}", TEMPLATES[world.FAMILIES[family][1]])
    encoded = encode_segments(segments, tokenizer)
    rows = instruction_positions(segments, tokenizer, world.IMAGE_TOKENS)

    @torch.no_grad()
    def by_hand(pixels: np.ndarray) -> np.ndarray:
        batch = collate([Row(encoded.input_ids, encoded.labels)], pixels, world.IMAGE_TOKENS)
        projected = projector(model)(image_features(model, batch.pixel_values))  # type: ignore[arg-type]
        embeddings = splice(model.get_input_embeddings()(batch.input_ids), batch.image_mask, projected)
        attentions = model.model.language_model(inputs_embeds=embeddings, output_attentions=True).attentions
        return np.stack([a[0][:, rows].mean(1)[:, batch.image_mask[0]].numpy() for a in attentions])

    for number, path in enumerate(images[:2]):
        with Image.open(path) as image:
            attention = by_hand(watcher.transform([image.convert("RGB")]))
        assert np.allclose(found.head_maps[number], attention, atol=1e-3)
        assert np.allclose(found.maps[number], attention.mean(1), atol=1e-5)
    sinks = watcher.sinks()
    assert np.array_equal(found.sinks, sinks[:, -1].numpy())
    pictures = {picture.name: picture for picture in gallery_pictures(gallery)}
    each = []
    for name in found.names:
        seen = watcher.see(pictures[name])
        attention = torch.from_numpy(by_hand(seen.pixels[None]))
        objects, inside = torch.from_numpy(seen.objects)[None], torch.from_numpy(seen.inside)[None]
        whole = [torch.cat([a, a.mean(0, keepdim=True)]) for a in attention]
        each.append(torch.stack([measures(a[None], objects, inside, sinks[n])[0] for n, a in enumerate(whole)]).numpy())
    wanted = np.stack(each)
    assert np.allclose(found.by_layer, wanted[:, :, -1], atol=1e-4, equal_nan=True)
    assert np.allclose(found.by_head[1], np.nanmean(wanted[1::2, :, :-1], 0), atol=1e-4, equal_nan=True)


def test_the_best_head_is_chosen_on_other_pictures_than_those_it_is_shown_on(
    checkpoint: tuple[str, Path], gallery: Path
) -> None:
    watcher = watcher_of(checkpoint)
    found = flow(watcher, list_images(gallery / "images")[:1], gallery_pictures(gallery), 8, batch_size=8)
    ratio = found.by_head[0, ..., MEASURES.index("object_without_sinks")]
    assert tuple(found.best) == np.unravel_index(ratio.argmax(), ratio.shape)
    layer, head = found.best
    assert np.allclose(np.nanmean(found.best_values, 0), found.by_head[1, layer, head], atol=1e-5)


def test_batches_change_nothing(checkpoint: tuple[str, Path], gallery: Path) -> None:
    images = list_images(gallery / "images")[:1]
    one, all_at_once = (flow(watcher_of(checkpoint), images, gallery_pictures(gallery), 8, size) for size in (1, 8))
    assert np.array_equal(one.names, all_at_once.names)
    assert np.allclose(one.by_layer, all_at_once.by_layer, atol=1e-5, equal_nan=True)


def test_pictures_of_which_next_to_nothing_or_most_is_object_are_passed_over(
    checkpoint: tuple[str, Path], gallery: Path
) -> None:
    some = next(gallery_pictures(gallery))
    nothing, everything = (some._replace(name=n, mask=np.full_like(some.mask, n == "all")) for n in ("none", "all"))
    found = flow(watcher_of(checkpoint), list_images(gallery / "images")[:1], [nothing, everything, *repeat(some, 8)], 8, 4)
    assert set(found.names) == {some.name}
    with pytest.raises(ReportError, match=r"2 pictures have objects that cover 1% to 60% of them, where 8"):
        flow(watcher_of(checkpoint), list_images(gallery / "images")[:1], [nothing, everything, some, some], 8, 4)


def test_uniform_attention_is_what_a_model_without_preference_pays(checkpoint: tuple[str, Path]) -> None:
    """Queries of zeros attend alike to everything before them."""
    watcher = watcher_of(checkpoint)
    for name, weights in watcher.model.named_parameters():
        if "language_model" in name and "q_proj" in name:
            weights.data.zero_()
    maps = watcher.maps(watcher.transform([Image.new("RGB", (48, 48), (200, 30, 30))]))
    assert np.allclose(maps.sum(-1), watcher.uniform, atol=1e-5)


def test_the_instruction_is_what_follows_the_image(checkpoint: tuple[str, Path]) -> None:
    family, folder = checkpoint
    tokenizer = load_tokenizer(folder)
    segments = prompt_segments("<image>\nWhat color is the circle?", TEMPLATES[world.FAMILIES[family][1]])
    positions = instruction_positions(segments, tokenizer, world.IMAGE_TOKENS)
    ids = encode_segments(segments, tokenizer).input_ids
    words = tokenizer.convert_ids_to_tokens([int(ids[p - world.IMAGE_TOKENS + 1]) for p in positions])
    if family == "llama":
        assert words == ["▁", "<0x0A>", "What", "▁color", "▁is", "▁the", "▁circle", "?"]
    else:
        assert words == ["\n", "What", "color", "is", "the", "circle", "?"]
    with pytest.raises(ReportError, match="no words after the image"):
        instruction_positions(prompt_segments("Where?\n<image>", TEMPLATES["vicuna_v1"]), tokenizer, 9)


def test_flows_read_back(tmp_path: Path, checkpoint: tuple[str, Path], gallery: Path) -> None:
    one = flow(watcher_of(checkpoint), list_images(gallery / "images")[:1], gallery_pictures(gallery), 8, 8)
    one.save(tmp_path / "flow.npz")
    other = Flow.load(tmp_path / "flow.npz")
    for name in vars(one):
        wanted, found = np.asarray(getattr(one, name)), np.asarray(getattr(other, name))
        assert np.array_equal(wanted, found, equal_nan=wanted.dtype.kind == "f"), name
    assert other.grid(other.maps).shape == (1, other.maps.shape[1], other.side, other.side)
    assert np.array_equal(other.grid(other.maps)[0, 0].ravel(), other.maps[0, 0])


def test_a_folder_without_pictures_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="holds no pictures"):
        list_images(tmp_path)


def test_the_attention_of_one_layer_exists_at_a_time(
    checkpoint: tuple[str, Path], gallery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At full size a picture's maps of all heads are 2.4 MB, and there are a thousand pictures: they are reduced and gone."""
    handed_over: list[weakref.ref[torch.Tensor]] = []
    alive = []

    def watched(attention: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        handed_over.append(weakref.ref(attention))
        alive.append(sum(reference() is not None for reference in handed_over))
        return measures(attention, *others)

    monkeypatch.setattr("vdep.report.attention.measures", watched)
    found = flow(watcher_of(checkpoint), list_images(gallery / "images")[:1], gallery_pictures(gallery), 8, 2)
    assert len(alive) == 4 * found.by_layer.shape[1]
    assert set(alive) == {1}
