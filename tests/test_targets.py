"""Targets, placebos among them, and the losses of the field: each against float64 by hand or finite differences; and that
ranks, packing and the schedule change none of them."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
import world
from test_gradients import Bench, both_modes, close

from vdep.data.archive import Location
from vdep.data.images import ImageTransform
from vdep.data.loader import MicroBatches
from vdep.data.plan import GlobalBatch, Hybrid
from vdep.data.prepare import read_conversations
from vdep.data.prepared import PreparedData
from vdep.data.targets import Targets
from vdep.data.tokenizer import load_tokenizer
from vdep.errors import ConfigError, DataError
from vdep.model.llava import projector
from vdep.model.objective import image_losses
from vdep.model.targets import mean_of_words, random_sequence, shuffled, with_norm_of
from vdep.model.task import AlignmentTask
from vdep.study.settings import VdepSettings, contradictions
from vdep_demo.world.scenes import COLORS

LOSSES, TARGETS = (get_args(VdepSettings.model_fields[name].annotation) for name in ("loss", "target"))
STAGE = world.make_study().stage("tiny", "run", "pretrain")


def readings() -> Iterator[VdepSettings]:
    """Every loss with every target, position and reduction that can be meant; and the target that is trained through."""
    cross = itertools.product(LOSSES, TARGETS, ("same", "next"), ("mean", "sum_dims"), (True, False))
    for loss, target, position, reduction, detached in cross:
        vdep = VdepSettings(
            alpha=0.5, ratio=0.8, loss=loss, target=target, position=position, reduction=reduction, detach_target=detached
        )
        if not list(contradictions(vdep, STAGE)):
            yield vdep


READINGS = list(readings())


def name_of(vdep: VdepSettings) -> str:
    return "-".join((vdep.loss, vdep.target, vdep.position, vdep.reduction, *([] if vdep.detach_target else ["through"])))


@pytest.fixture(scope="module")
def told(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny world, in which every caption names a colour or two as its oracle."""
    folder = tmp_path_factory.mktemp("told") / "assets"
    shutil.copytree(assets, folder)
    (path,) = (p for p in (folder / "captions").glob("[!.]*.json") if p.name != "manifest.json")
    samples = read_conversations(path)
    for number, sample in enumerate(samples):
        sample["oracle"] = " ".join(list(COLORS)[number % 3 : number % 3 + 1 + number % 2])
    path.write_text(json.dumps(samples))
    (folder / "captions" / "manifest.json").unlink()
    world.write_manifest(folder / "captions")
    return folder


class Spoken(Bench):
    """A bench in float64 whose states and X are short, so that no sigmoid saturates."""

    def __init__(self, vdep: VdepSettings, told: Path) -> None:
        super().__init__("phi", vdep, told, told.parent / "prepared", torch.float64)
        with torch.no_grad():
            for parameter in self.task.model.model.language_model.final_layernorm.parameters():
                parameter.mul_(0.1)
            projector(self.task.model).linear_2.weight.mul_(0.3)

    def become(self, vdep: VdepSettings) -> Bench:
        """The same model under another reading."""
        self.task, self.vdep = AlignmentTask(self.task.model, vdep, 3).double(), vdep
        return self


@pytest.fixture(scope="module")
def bench(told: Path) -> Spoken:
    return Spoken(VdepSettings(), told)


def test_there_are_as_many_readings_as_can_be_meant() -> None:
    assert len(TARGETS) == 5
    assert len(LOSSES) == 6
    # four losses have both reductions, two only one; info_nce has no oracle; only X itself can be trained through
    assert len(READINGS) == (4 * 2 + 1 + 1) * 5 * 2 - 2 + (4 * 2 + 1 + 1) * 2


@pytest.mark.parametrize("vdep", READINGS, ids=name_of)
def test_every_gradient_is_that_of_finite_differences(
    vdep: VdepSettings, bench: Spoken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the projector, in a direction of its own; what is detached is held where it was."""
    task = bench.become(vdep).task
    batch = bench.plan(Hybrid(0.8, "interleaved")).batch(1).take(slice(6))
    plan = bench.plan(None)
    plan.batch = lambda step: batch  # type: ignore[method-assign]
    micro = MicroBatches(bench.data, plan, bench.transform, 0, 1, 100, False, vdep)[0, 0][2]
    parameters = [p for p in task.parameters() if p.requires_grad]
    generator = torch.Generator().manual_seed(5)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
    loss = task.losses(micro)[0].image
    along = sum(float((g * v).sum()) for g, v in zip(torch.autograd.grad(loss, parameters), direction, strict=True))
    if vdep.detach_target:
        with torch.no_grad():
            held = task.targets(micro, *task.embed(micro))
        monkeypatch.setattr(task, "targets", lambda *_: held)

    @torch.no_grad()
    def moved(by: float) -> float:
        for parameter, towards in zip(parameters, direction, strict=True):
            parameter += by * towards
        value = float(task.losses(micro)[0].image)
        for parameter, towards in zip(parameters, direction, strict=True):
            parameter -= by * towards
        return value

    step = 1e-5
    assert abs(along) > 1e-6
    assert (moved(step) - moved(-step)) / (2 * step) == pytest.approx(along, rel=1e-5)


@pytest.mark.parametrize("vdep", READINGS, ids=name_of)
def test_ranks_and_packing_change_no_gradient(vdep: VdepSettings, bench: Spoken) -> None:
    bench.become(vdep)
    batch = bench.plan(Hybrid(0.8, "interleaved")).batch(0)
    whole = bench.gradient(batch)
    assert close(bench.gradient(batch, 2, 4), whole) < 1e-10
    assert close(bench.gradient(batch, 2, 90, packed=True), whole) < 1e-10


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("loss", ["l2", "info_nce"])
def test_a_fused_step_is_the_interleaved_batch_with_the_same_targets(target: Any, loss: Any, bench: Spoken) -> None:
    if (loss, target) == ("info_nce", "oracle"):
        return
    bench.become(VdepSettings(alpha=0.5, ratio=0.5, schedule="fused", target=target, loss=loss))
    fused = bench.plan(Hybrid(0.5, "fused")).batch(3)
    assert close(bench.gradient(fused), bench.gradient(both_modes(fused))) < 1e-10


def test_with_two_real_ranks_too() -> None:
    found = [float(part) for part in world.on_two_ranks("two_ranks.py", *TARGETS[:-1]).split("difference ")[1:]]
    assert len(found) == 4
    assert max(found) < 1e-10


# ------------------------------------------------------------------------------------------------- what a target is made of


def targets_of(data: PreparedData, transform: ImageTransform, target: Any, seed: int = 3) -> Targets:
    return Targets(data, VdepSettings(target=target), seed, lambda sample: sample.id, transform)  # type: ignore[arg-type, return-value]


def test_a_partner_has_another_picture_and_each_is_as_likely(bench: Spoken) -> None:
    targets = targets_of(bench.data, bench.transform, "other_image")
    pictures = bench.data.pictures
    drawn = [(i, targets.partner(step, i)) for step in range(60) for i in range(len(bench.data))]
    assert all(pictures[a] != pictures[b] for a, b in drawn)
    assert drawn == [(i, targets.partner(step, i)) for step in range(60) for i in range(len(bench.data))]
    others = targets_of(bench.data, bench.transform, "other_image", seed=4)
    assert [others.partner(0, i) for i in range(20)] != [targets.partner(0, i) for i in range(20)]
    assert [targets.partner(1, i) for i in range(20)] != [targets.partner(0, i) for i in range(20)]
    counts = np.bincount([pictures[b] for _, b in drawn], minlength=pictures.max() + 1)
    expected = len(drawn) / len(counts)
    assert ((counts - expected) ** 2 / expected).sum() < 1.5 * len(counts), "chi-square: about one for each picture"


class Repeated:
    """Data in which only rows 3 and 7 have a picture of their own; row 5 has none."""

    image_tokens = 9
    has_oracle = False
    pictures = np.array([0, 0, 0, 1, 0, -1, 0, 2, 0])

    def __getitem__(self, index: int) -> Any:
        return index


def test_files_of_the_same_content_are_one_picture(bench: Spoken) -> None:
    targets = targets_of(Repeated(), bench.transform, "other_image")  # type: ignore[arg-type]
    assert {targets.partner(step, 1) for step in range(40)} == {3, 7}
    assert {targets.partner(step, 3) for step in range(40)} == {0, 7}
    alone = Repeated()
    alone.pictures = np.zeros(4, int)
    with pytest.raises(DataError, match="needs data with two different pictures"):
        targets_of(alone, bench.transform, "other_image")  # type: ignore[arg-type]


def test_pictures_are_told_apart_by_their_bytes(bench: Spoken) -> None:
    """Against the bytes themselves: equal numbers where they are equal, and nowhere else."""
    content: dict[bytes, int] = {}
    for i, picture in enumerate(bench.data.pictures):
        sample = bench.data[i]
        assert isinstance(sample.location, Location)
        assert content.setdefault(bench.data.read_image(sample), int(picture)) == picture
    assert len(content) == len(set(bench.data.pictures)) > 50


def test_the_oracle_has_the_words_of_the_sample_as_the_tokenizer_has_them(told: Path) -> None:
    for family in world.FAMILIES:
        study = world.make_study(family)
        data = PreparedData(world.prepare(study, told, told.parent / "prepared", "pretrain"))
        tokenizer = load_tokenizer(told / family)
        for number in (0, 1, 2, 3):
            words = " ".join(list(COLORS)[number % 3 : number % 3 + 1 + number % 2])
            oracle = data[number].oracle
            assert oracle is not None
            assert tokenizer.decode(oracle).strip() == words


def test_data_without_words_has_no_oracle(assets: Path, captions: Path, bench: Spoken) -> None:
    plain = PreparedData(captions)
    assert plain[0].oracle is None
    with pytest.raises(DataError, match="in a field `oracle`"):
        targets_of(plain, bench.transform, "oracle")
    targets = targets_of(bench.data, bench.transform, "oracle")
    silent = bench.data[0]
    object.__setattr__(silent, "oracle", np.empty(0, np.int32))
    with pytest.raises(DataError, match=f"sample {silent.id} names no words"):
        targets.of(0, 0, silent)


def test_what_stands_at_each_position_is_what_is_said(bench: Spoken) -> None:
    """From the batch to the target, computed a second way: each sample alone, by its own partner, order and words."""
    llava = np.array([2, 5, 11, 2])
    text = np.array([True, False, False, False])
    batch = GlobalBatch(llava, text, ~text)
    plan = bench.plan(None)
    plan.batch = lambda step: batch  # type: ignore[method-assign]

    def x_of(sample: int) -> torch.Tensor:
        alone = GlobalBatch(np.array([sample]), np.array([True]), np.array([False]))
        one = bench.plan(None)
        one.batch = lambda step: alone  # type: ignore[method-assign]
        return bench.task.embed(MicroBatches(bench.data, one, bench.transform, 0, 1, 9)[4, 0][2])[1][0].detach()

    for target in TARGETS:
        task = bench.become(VdepSettings(alpha=0.5, target=target)).task
        source = MicroBatches(bench.data, plan, bench.transform, 0, 1, 1000, True, bench.vdep)
        step, shares = source.step(4)
        micro = source.build(step, shares[0])
        found = task.targets(micro, *task.embed(micro))
        assert found.requires_grad == (target == "own")
        supervised = found[micro.image_weights > 0].view(3, 9, -1)
        for place, row in enumerate(r for r in shares[0] if not text[r]):
            sample = int(llava[row])
            own = x_of(sample)
            drawn = targets_of(bench.data, bench.transform, target, plan.seed)
            words = task.model.get_input_embeddings()(torch.tensor(bench.data[sample].oracle)).mean(0)
            noise = task.random if task.random is not None else own
            expected = {
                "own": lambda own=own: own,
                "other_image": lambda sample=sample, drawn=drawn: x_of(drawn.partner(4, sample)),
                "shuffled": lambda own=own, drawn=drawn, sample=sample: own[drawn.of(4, sample, bench.data[sample])],
                "random": lambda own=own, noise=noise: (noise.T / noise.norm(dim=1) * own.norm(dim=1)).T,
                "oracle": lambda own=own, words=words: torch.outer(own.norm(dim=1), words / words.norm()),
            }[target]()
            assert torch.allclose(supervised[place], expected, rtol=1e-10, atol=1e-12), (target, place)


def test_targets_by_hand() -> None:
    rng = np.random.default_rng(1)
    x = torch.tensor(rng.normal(size=(2, 3, 4)))
    order = torch.tensor([[2, 0, 1], [0, 2, 1]])
    for i, p in itertools.product(range(2), range(3)):
        assert torch.equal(shuffled(x, order)[i, p], x[i, order[i, p]])
    noise = random_sequence(7, 3, 4)
    assert torch.equal(noise, random_sequence(7, 3, 4))
    assert not torch.equal(noise, random_sequence(8, 3, 4))
    long = with_norm_of(x, noise)
    assert torch.allclose(long.norm(dim=-1), x.norm(dim=-1))
    assert torch.allclose(torch.cosine_similarity(long, noise.double().expand_as(long), dim=-1), torch.ones(2, 3).double())
    words = torch.tensor([[1, 2], [3, -1]])
    spoken = torch.tensor(rng.normal(size=(2, 2, 4)))
    mean = mean_of_words(spoken, words)
    assert torch.allclose(mean[0, 0], (spoken[0, 0] + spoken[0, 1]) / 2)
    assert torch.allclose(mean[1, 0], spoken[1, 0])


# ------------------------------------------------------------------------------------------------------ losses of the field


def by_hand(h: np.ndarray, x: np.ndarray, mask: np.ndarray, pictures: np.ndarray, vdep: VdepSettings) -> float:
    """As one would write it on paper: loops, float64, no library."""

    def normalised(v: np.ndarray) -> np.ndarray:
        return (v - v.mean()) / math.sqrt(v.var() + 1e-5) if vdep.normalize == "layer_norm" else v

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / math.sqrt((a @ a) * (b @ b)))

    before, total = vdep.position == "next", 0.0
    read = [(b, p) for b, p in itertools.product(*map(range, mask.shape)) if mask[b, p] and not (before and p == 0)]
    for b, p in read:
        state, target = normalised(h[b, p - before]), normalised(x[b, p])
        if vdep.loss == "cosine":
            total += 1 - cosine(state, target)
        elif vdep.loss == "smooth_l1":
            each = [0.5 * e**2 if abs(e) < 1 else abs(e) - 0.5 for e in state - target]
            total += sum(each) / (len(each) if vdep.reduction == "mean" else 1)
        else:
            with_others = [
                math.exp(cosine(state, normalised(x[c, q])) / vdep.temperature)
                for c, q in read
                if pictures[c, q] == pictures[b, p]
            ]
            total -= math.log(math.exp(cosine(state, target) / vdep.temperature) / sum(with_others))
    return total


@pytest.mark.parametrize("position", ["same", "next"])
@pytest.mark.parametrize("normalize", ["none", "layer_norm"])
@pytest.mark.parametrize(
    ("loss", "reduction", "temperature"),
    [
        ("cosine", "mean", 1),
        ("smooth_l1", "mean", 1),
        ("smooth_l1", "sum_dims", 1),
        ("info_nce", "mean", 0.07),
        ("info_nce", "mean", 1),
    ],
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-5), (torch.bfloat16, 0.1)])
def test_losses_of_the_field(
    loss: Any, reduction: Any, temperature: float, normalize: Any, position: Any, dtype: torch.dtype, tolerance: float
) -> None:
    rng = np.random.default_rng(3)
    h, x = rng.normal(size=(2, 2, 9, 5))
    mask = rng.random((2, 9)) < 0.7
    mask[0, 0] = True
    # two pictures in the first row, side by side, and one in the second
    pictures = np.array([[0] * 4 + [1] * 5, [2] * 9])
    vdep = VdepSettings(loss=loss, reduction=reduction, temperature=temperature, normalize=normalize, position=position)
    value = image_losses(
        torch.tensor(h, dtype=dtype), torch.tensor(x, dtype=dtype), torch.tensor(mask), loss=loss, position=position,
        reduction=reduction, normalize=normalize, temperature=temperature, pictures=torch.tensor(pictures),
    ).sum()  # fmt: skip
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert float(value) == pytest.approx(by_hand(h, x, mask, pictures, vdep), rel=tolerance)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_micro_batch_without_a_sample_in_vdep_mode_has_a_gradient_of_zero(loss: Any, bench: Spoken) -> None:
    """Samples are sorted by length, and those in VDEP mode are short: some micro-batches have none, and are measured too."""
    task = bench.become(VdepSettings(alpha=0.5, loss=loss)).task
    text = np.array([True, True])
    plan = bench.plan(None)
    plan.batch = lambda step: GlobalBatch(np.array([2, 5]), text, ~text)  # type: ignore[method-assign]
    micro = MicroBatches(bench.data, plan, bench.transform, 0, 1, 9, False, bench.vdep)[0, 0][2]
    parameters = [p for p in task.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(task.losses(micro)[0].image, parameters, allow_unused=True)
    assert all(g is None or not g.any() for g in gradients)


def test_what_is_told_apart_are_positions_of_the_same_picture_alone(bench: Spoken) -> None:
    """Other pictures in the micro-batch, side by side in a packed row, are no negatives."""
    bench.become(VdepSettings(alpha=0.5, loss="info_nce"))
    rows = np.arange(4)
    together = bench.gradient(GlobalBatch(rows, rows < 0, rows >= 0), packed=True, micro=1000)
    alone = [bench.gradient(GlobalBatch(rows[i : i + 1], rows[:1] < 0, rows[:1] >= 0)) for i in range(4)]
    assert close(together, torch.stack(alone).mean(0)) < 1e-10


@pytest.mark.parametrize(
    ("vdep", "said"),
    [
        ({"target": "shuffled", "detach_target": False}, r"detach_target: only a picture's own X"),
        ({"target": "oracle", "loss": "info_nce"}, r"vdep\.loss: info_nce tells the targets"),
        ({"loss": "cosine", "reduction": "sum_dims"}, r"vdep\.reduction: sum_dims has no part in loss: cosine"),
        ({"loss": "smooth_l1", "distance": "root"}, r"vdep\.distance: root has no part in loss: smooth_l1"),
        ({"alpha": {"rule": "gradient_ratio", "rho": 1}, "mixing": "steps"}, r"vdep\.alpha: .*mixing: steps"),
        ({"alpha": {"rule": "gradient_ratio", "rho": 1, "min": 2, "max": 1}}, r"vdep\.alpha\.min: should not be above max"),
    ],
)
def test_what_cannot_be_meant_is_said(vdep: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        world.make_study(vdep=vdep)
