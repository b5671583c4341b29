"""A tiny training, written down: when behaviour changes on purpose, METHOD_VERSION is raised and these numbers with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import world

from vdep.data.images import ImageTransform, load_processor
from vdep.data.loader import MicroBatches, count
from vdep.data.plan import BatchPlan, Hybrid
from vdep.data.prepared import PreparedData
from vdep.model.llava import build_model, projector
from vdep.model.task import AlignmentTask
from vdep.recipe import METHOD_VERSION
from vdep.settings import Stage, VdepSettings
from vdep.train.loop import loss_scales, step_seed
from vdep.train.schedule import learning_rate

GOLDEN = Path(__file__).parent / "golden.json"
CASES: dict[str, tuple[Stage, VdepSettings | None]] = {
    "baseline": ("pretrain", None),
    "interleaved": ("pretrain", VdepSettings(alpha=0.5, ratio=0.8)),
    "fused": ("pretrain", VdepSettings(alpha=0.5, ratio=0.8, schedule="fused")),
    "next": ("pretrain", VdepSettings(alpha=0.5, position="next", loss="sigmoid_l2")),
    "finetune": ("finetune", None),
}


def losses(family: str, case: str, assets: Path, prepared_root: Path) -> list[float]:
    """The loss of every step of a stage, by the functions of the loop but without processes. Trains the projector alone."""
    stage, vdep = CASES[case]
    study = world.make_study(family)
    settings, tower = study.stage("tiny", "run", stage), world.FAMILIES[family][0]
    data = PreparedData(world.prepare(study, assets, prepared_root, stage))
    plan = BatchPlan(
        data.lengths, data.has_image, global_batch=16 if stage == "pretrain" else 8, epochs=1, seed=settings.seed,
        grouping=settings.grouping, hybrid=Hybrid(vdep.ratio, vdep.schedule) if vdep else None,
    )  # fmt: skip
    model = build_model(assets / tower, assets / family, study.models["tiny"].vision_tower, torch.float32, settings.seed)
    model.requires_grad_(False)
    projector(model).requires_grad_(True)
    task = AlignmentTask(model, vdep).train()
    optimizer = torch.optim.AdamW(projector(model).parameters(), betas=settings.betas, eps=settings.epsilon, weight_decay=0)
    source = MicroBatches(data, plan, ImageTransform(load_processor(assets / tower), settings.image), 0, 1, 16)
    found = []
    for step in range(plan.steps):
        scales = loss_scales(count(plan.batch(step), data, vdep.position if vdep else "same"), vdep.alpha if vdep else 0, 1)
        torch.manual_seed(step_seed(settings.seed, step, 0))
        optimizer.param_groups[0]["lr"] = learning_rate(step, plan.steps, settings)
        _, _, batch = source[step, 0]
        assert batch is not None
        loss, _ = task(batch, scales)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(float(loss.detach()))
    return found


@pytest.mark.parametrize("family", list(world.FAMILIES))
@pytest.mark.parametrize("case", CASES)
def test_the_losses_are_those_that_were_written_down(family: str, case: str, assets: Path, prepared_root: Path) -> None:
    found = losses(family, case, assets, prepared_root)
    golden = json.loads(GOLDEN.read_text())
    assert golden["method_version"] == METHOD_VERSION, "a new METHOD_VERSION needs new golden numbers: tests/golden.py"
    expected = golden["losses"][f"{family}/{case}"]
    assert found == pytest.approx(expected, rel=2e-5), (
        "training computes something else. If that is meant, raise METHOD_VERSION in recipe.py and run tests/golden.py"
    )
