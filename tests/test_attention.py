"""The attention figure's numbers: rows that sum to 1, equal to the model's own attention, where they should be."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
import torch
import world
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from PIL import Image

from vdep.data.conversation import TEMPLATES, encode_segments, prompt_segments
from vdep.data.tokenizer import load_tokenizer
from vdep.errors import ReportError
from vdep.model.export import export_checkpoint
from vdep.model.llava import build_model, image_features, load_checkpoint, projector, splice
from vdep.report.attention import attention_rows, flow, instruction_positions, list_images
from vdep.report.attention_data import Flow, total_interval
from vdep.report.attention_figure import draw, shown_layers, totals_csv
from vdep_demo.world.gallery import make_gallery

QUESTION = "Describe this photo in detail."


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gallery")
    make_gallery(folder, 3, 1)
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
    query = torch.randn(1, kv_heads * groups, length, 8, generator=generator)
    key = torch.randn(1, kv_heads, length, 8, generator=generator)
    positions = torch.arange(length)[:: max(1, length // 3)]
    rows = attention_rows(query, key, positions, 0.35)
    assert torch.allclose(rows.sum(-1), torch.ones(len(positions)), atol=1e-5)
    for row, position in zip(rows, positions.tolist(), strict=True):
        assert not row[position + 1 :].any()


def test_the_map_is_the_models_own_attention(checkpoint: tuple[str, Path], gallery: Path) -> None:
    family, folder = checkpoint
    template = world.FAMILIES[family][1]
    image_fit = world.make_study(family).stage("tiny", "run", "finetune").image
    images = list_images(gallery / "images")
    found = flow(folder, template, image_fit, images, QUESTION, 2, "cpu", "float32")
    assert found.maps.shape == (2, 2, world.IMAGE_TOKENS)
    assert found.totals.shape == (3, 2)
    assert np.allclose(found.maps.sum(-1), found.totals[:2], atol=1e-6)

    # the whole attention matrix of the eager implementation, cut by hand
    from vdep.data.collate import Row, collate
    from vdep.data.images import ImageTransform, load_processor

    model = load_checkpoint(folder, torch.float32, attn_implementation="eager").eval()
    tokenizer = load_tokenizer(folder)
    segments = prompt_segments(f"<image>\n{QUESTION}", TEMPLATES[template])
    encoded = encode_segments(segments, tokenizer)
    rows = instruction_positions(segments, tokenizer, world.IMAGE_TOKENS)
    with Image.open(images[0]) as image:
        pixels = ImageTransform(load_processor(folder), image_fit)([image.convert("RGB")])
    batch = collate([Row(encoded.input_ids, encoded.labels)], pixels, world.IMAGE_TOKENS)
    with torch.no_grad():
        projected = projector(model)(image_features(model, batch.pixel_values))  # type: ignore[arg-type]
        embeddings = splice(model.get_input_embeddings()(batch.input_ids), batch.image_mask, projected)
        attentions = model.model.language_model(inputs_embeds=embeddings, output_attentions=True).attentions
    for layer, attention in enumerate(attentions):
        by_hand = attention[0].mean(0)[rows][:, batch.image_mask[0]].mean(0).numpy()
        assert np.allclose(found.maps[0, layer], by_hand, atol=1e-5)


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


def test_a_hot_patch_is_drawn_where_it_is(tmp_path: Path) -> None:
    """One bright token in a synthetic map: the picture is brightest there, and nowhere else."""
    maps = np.zeros((1, 3, 9), np.float32)
    maps[0, 1, 5] = 1.0  # second layer, row 1, column 2
    flows = {
        name: [Flow(maps, np.full((4, 3), 0.5, np.float32), np.zeros((1, 48, 48, 3), np.uint8))]
        for name in ("m/baseline", "m/vdep")
    }
    draw(flows, "question", tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as image:
        pixels = np.asarray(image.convert("L"), float)
        assert image.width > 400
    assert pixels.std() > 10


def test_two_checkpoints_have_to_see_the_same_pictures(tmp_path: Path) -> None:
    a = Flow(np.zeros((1, 2, 9)), np.zeros((4, 2)), np.zeros((1, 4, 4, 3), np.uint8))
    for b in (Flow(a.maps, a.totals, a.pixels + 1), Flow(a.maps, a.totals[:3], a.pixels)):
        for flows in ({"m/a": [a], "m/b": [b]}, {"m/a": [a, b], "m/b": [a, a]}):
            with pytest.raises(ReportError, match="did not see the same pictures"):
                draw(flows, "q", tmp_path / "x.png")


def test_the_curves_are_means_over_seeds_with_an_interval_over_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles = []
    monkeypatch.setattr(Axes, "set_title", lambda _, text, **kwargs: titles.append(text))

    def seed(offset: float) -> Flow:
        totals = np.arange(12, dtype=float).reshape(4, 3) + offset
        return Flow(np.zeros((1, 3, 9)), totals, np.zeros((1, 4, 4, 3), np.uint8))

    several = {name: [seed(10.0), seed(16.0), seed(19.0)] for name in ("m/a", "m/b")}
    draw(several, "q", tmp_path / "several.png")
    assert titles[-1] == "total over image tokens; mean over 3 seeds; 95% interval over 4 pictures"
    draw({name: seeds[:1] for name, seeds in several.items()}, "q", tmp_path / "one.png")
    assert "two checkpoints, no training noise" in titles[-1]
    first = next(csv.DictReader(io.StringIO(totals_csv(several))))
    assert (first["checkpoint"], first["layer"], first["pictures"], first["seeds"]) == ("m/a", "1", "4", "3")
    assert float(first["total"]) == pytest.approx(np.mean([0, 3, 6, 9]) + 15)
    low, high = total_interval(seed(15.0).totals)
    assert (float(first["low"]), float(first["high"])) == pytest.approx((low[0], high[0]))


def test_flows_read_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    one = Flow(rng.random((2, 3, 9)), rng.random((5, 3)), rng.integers(0, 255, (2, 4, 4, 3), np.uint8))
    one.save(tmp_path / "flow.npz")
    other = Flow.load(tmp_path / "flow.npz")
    assert all(np.array_equal(getattr(one, f), getattr(other, f)) for f in ("maps", "totals", "pixels"))
    low, high = total_interval(one.totals)
    assert (low <= one.totals.mean(0)).all()
    assert (one.totals.mean(0) <= high).all()
    assert totals_csv({"m/v": [one]}).count("\n") == 4


def test_layers_are_chosen_evenly_with_the_first_and_the_last() -> None:
    assert shown_layers(3) == [0, 1, 2]
    assert shown_layers(32)[0] == 0
    assert shown_layers(32)[-1] == 31
    assert len(shown_layers(32)) == 8


def test_a_folder_without_pictures_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="holds no pictures"):
        list_images(tmp_path)
