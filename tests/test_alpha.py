"""alpha that follows the gradients: its arithmetic; and trainings, in which nothing else decides it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
import world
from golden import forked
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from test_training import Runs, checkpoints, finish, kill_trainer, same, start

from vdep.errors import ConfigError
from vdep.model import task
from vdep.run.job import Job
from vdep.study.settings import GradientRatio
from vdep.train import checkpoint, loop
from vdep.train.alpha import AlphaRule
from vdep.train.build import build_task
from vdep.train.probe import Gradients

RULE: dict[str, Any] = {"rule": "gradient_ratio", "rho": 0.3, "every": 4}
VDEP = {"alpha": RULE, "ratio": 0.5}

measured = st.lists(st.tuples(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6)), min_size=1, max_size=8)


def ruled(**changes: Any) -> AlphaRule:
    return AlphaRule(GradientRatio.model_validate({**RULE, **changes}))


@given(measured, st.floats(0, 0.99), st.floats(0.01, 10))
def test_alpha_is_rho_times_the_ratio_of_the_means(norms: list[tuple[float, float]], decay: float, rho: float) -> None:
    alpha = ruled(rho=rho, decay=decay, max=1e30)
    for text, image in norms:
        alpha.note(Gradients(text, image, 0.0))
    weights = [decay ** (len(norms) - 1 - i) for i in range(len(norms))]
    text_mean, image_mean = (sum(w * n[k] for w, n in zip(weights, norms, strict=True)) / sum(weights) for k in (0, 1))
    assert alpha.value == pytest.approx(rho * text_mean / image_mean, rel=1e-9)
    other = ruled(rho=rho, decay=decay, max=1e30)
    other.restore(json.loads(json.dumps(alpha.state)))
    assert (other.value, other.state) == (alpha.value, alpha.state), "to the bit, through JSON"


def test_it_is_clipped_and_says_nothing_before_it_has_measured() -> None:
    alpha = ruled(min=0.01, max=2.0)
    assert alpha.value == 0.01
    alpha.note(Gradients(1.0, 0.0, 0.0))
    assert alpha.value == 0.01, "a step without an image loss says nothing of its gradient"
    alpha.note(Gradients(1.0, 1e-9, 0.0))
    assert alpha.value == 2.0
    number = AlphaRule(0.25)
    assert (number.value, number.state, number.due(0)) == (0.25, None, False)


def test_it_measures_often_at_first() -> None:
    found = [step for step in range(200) if ruled(every=10).due(step)]
    assert found[:28] == [*range(17), *range(18, 33, 2), 36, 40, 44]
    gaps = [(a, b - a) for a, b in pairwise(found)]
    assert all(gap <= max(1, step / 8) for step, gap in gaps if step < 80)
    assert all(gap == 10 for step, gap in gaps if step >= 130)
    assert [step for step in range(6) if ruled(every=1).due(step)] == list(range(6))


def test_ratio_and_cosine_by_hand() -> None:
    found = Gradients(text=2.0, image=0.5, product=-0.25)
    assert found.ratio(0.1) == pytest.approx(0.025)
    assert found.cosine == pytest.approx(-0.25)
    assert Gradients(0.0, 1.0, 0.0).ratio(1.0) is Gradients(0.0, 1.0, 0.0).cosine is None


# --------------------------------------------------------------------------------------------------------------- trainings


class Trained:
    """Stage 1 of the tiny world in forks of this process, each one rank."""

    def __init__(self, assets: Path, prepared: Path, root: Path) -> None:
        self.assets, self.prepared, self.root = assets, prepared, root

    def job(self, name: str, vdep: dict[str, Any], family: str = "llama", epochs: int = 6, **execution: Any) -> Job:
        study = world.make_study(family, vdep, epochs=epochs)
        run = self.root / name
        run.mkdir()
        return Job(
            recipe=study.recipe("tiny", "run", "pretrain"), device="cpu",
            execution=study.execution.pretrain.model_copy(update={"save_every": 1000, **execution}),
            tower=self.assets / world.FAMILIES[family][0], language_model=self.assets / family, initial=None,
            data=world.prepare(study, self.assets, self.prepared, "pretrain"), deepspeed=world.engines(), run=run, inputs={},
        )  # fmt: skip

    def run(self, job: Job, before: Callable[[], None] = lambda: None) -> Path:
        def work() -> None:
            port = str(20000 + os.getpid() % 20000)
            os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
            before()
            assert loop.train(job) == 0

        forked(work, job.run / "log")
        return job.run


@pytest.fixture(scope="module")
def trained(assets: Path, prepared_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(assets, prepared_root, tmp_path_factory.mktemp("alpha"))


@pytest.fixture(scope="module")
def plain(trained: Trained) -> Path:
    return trained.run(trained.job("plain", VDEP))


def rows(run: Path, file: str = "losses") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / f"{file}.jsonl").read_text().splitlines()]


def projector_of(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "final" / "projector.safetensors")


def image_losses_times(factor: float) -> Callable[[], None]:
    def change() -> None:
        form = task.image_form
        task.image_form = lambda *arguments: factor * form(*arguments)

    return change


@pytest.mark.slow
def test_the_size_of_the_image_loss_changes_no_bit(trained: Trained, plain: Path) -> None:
    larger = trained.run(trained.job("larger", VDEP), image_losses_times(1024))
    ours, theirs = projector_of(plain), projector_of(larger)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    for a, b in zip(rows(plain), rows(larger), strict=True):
        assert b == a | {"alpha": a["alpha"] / 1024, "image_loss": a["image_loss"] * 1024}
    assert all(0 < row["alpha"] < 1000 for row in rows(plain)), "unclipped"
    # the control: a fixed alpha sees it, and so does one that is held at its bound
    clipped = {**VDEP, "alpha": {**RULE, "max": 1e-3}}
    ends = [
        projector_of(trained.run(trained.job(f"clipped-{factor}", clipped), image_losses_times(factor))) for factor in (1, 1024)
    ]
    assert any(not torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


@pytest.mark.slow
@pytest.mark.parametrize("family", list(world.FAMILIES))
def test_the_ratio_is_rho_on_steps_at_which_it_was_not_measured(family: str, trained: Trained) -> None:
    """By a pass of its own at every step, which changes nothing of the training. It measures every other step, because within
    the hundred and forty that this training has the gradients of Phi's projector change by a factor of seven."""
    vdep = {**VDEP, "alpha": {**RULE, "every": 2}}
    probed = trained.run(trained.job(f"probed-{family}", vdep, family, epochs=15, probe_every=1))
    ratios = [row["gradient_ratio"] for row in rows(probed, "metrics") if not ruled(every=2).due(row["step"])]
    assert len(ratios) > 50
    assert median(ratios) == pytest.approx(0.3, rel=0.1)
    assert all(-1 <= row["gradient_cosine"] <= 1 for row in rows(probed, "metrics"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "execution",
    [
        {"packing": True, "micro_batch_tokens": 150},
        {"micro_batch": 3},
        {"engine": "zero2"},
        {"engine": "zero2", "micro_batch": 5},
    ],
    ids=["packed", "accumulated", "zero2", "zero2, accumulated"],
)
def test_alpha_does_not_depend_on_how_a_training_is_run(execution: dict[str, Any], trained: Trained, plain: Path) -> None:
    other = trained.run(trained.job("-".join(map(str, execution.values())), VDEP, **execution))
    for a, b in zip(rows(plain), rows(other), strict=True):
        assert b["alpha"] == pytest.approx(a["alpha"], rel=2e-3)
        assert b["samples"] == a["samples"]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ddp", "zero2"])
def test_two_ranks_come_to_the_same_alpha(engine: str, assets: Path, captions: Path, tmp_path: Path, plain: Path) -> None:
    runs = Runs(world.make_study(vdep=VDEP, epochs=6), "pretrain", assets, captions, tmp_path)
    finish(runs.command("two", processes=2, micro_batch=4, engine=engine))
    for a, b in zip(rows(plain), rows(runs.folder("two")), strict=True):
        assert b["alpha"] == pytest.approx(a["alpha"], rel=2e-3)


@pytest.mark.slow
def test_a_killed_training_goes_on_with_the_same_alpha_to_the_bit(assets: Path, captions: Path, tmp_path: Path) -> None:
    """The checkpoint it goes on from lies between two measurements."""
    study = world.make_study(vdep={**VDEP, "target": "other_image", "alpha": {**RULE, "every": 7}}, epochs=10)
    runs = Runs(study, "pretrain", assets, captions, tmp_path)
    finish(runs.command("undisturbed"))
    process = start(runs.command("killed"))
    world.wait_for(lambda: any(c >= "step-00000010" for c in checkpoints(runs.folder("killed"))))
    kill_trainer(process.pid)
    process.communicate(timeout=60)
    assert "resumed after step" in finish(runs.command("killed"))
    assert same(runs.folder("killed"), runs.folder("undisturbed"))


@pytest.mark.slow
def test_without_its_state_a_resumed_training_would_be_another(
    trained: Trained, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the one before, and of what a checkpoint says."""

    def until_saved(step: int) -> Callable[[], None]:
        def change() -> None:
            save = checkpoint.save_checkpoint

            def stop(*arguments: Any, **kwargs: Any) -> None:
                save(*arguments, **kwargs)
                if arguments[2] == step:
                    raise KeyboardInterrupt

            loop.save_checkpoint = stop  # type: ignore[assignment]

        return change

    def forget() -> None:
        AlphaRule.restore = lambda self, state: None  # type: ignore[method-assign]

    for name, before in (("kept", lambda: None), ("forgotten", forget)):
        job = trained.job(name, VDEP, save_every=30)
        with pytest.raises(SystemExit):
            trained.run(job, until_saved(30))
        state = json.loads((job.checkpoints / "step-00000030" / "checkpoint.json").read_text())["alpha"]
        assert state.keys() == {"text", "image", "weight"}
        trained.run(job, before)
        assert (rows(job.run) == rows(plain)) is (name == "kept")


def test_zero_3_is_refused_with_what_to_do(assets: Path, captions: Path, tmp_path: Path) -> None:
    study = world.make_study(vdep=VDEP)
    job = Job(
        recipe=study.recipe("tiny", "run", "pretrain"), device="cpu", tower=assets / "clip", language_model=assets / "llama",
        execution=study.execution.pretrain.model_copy(update={"engine": "zero3"}), initial=None, data=captions,
        deepspeed=world.engines(), run=tmp_path, inputs={},
    )  # fmt: skip
    with pytest.raises(
        ConfigError, match=r"gradient_ratio .* under zero3 .* Take ddp or zero2 \(execution\.pretrain\.engine\)"
    ):
        build_task(job)
