"""The text loss on a dataset of its own, at every save: what it is, and that training does not notice it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import world
from test_failures import patched
from test_training import Runs, checkpoints, finish, kill_trainer, log_of, same, start

from vdep.data.collate import Row, collate
from vdep.data.images import ImageTransform, decode_image, load_processor
from vdep.data.prepared import PreparedData
from vdep.run.job import Job
from vdep.study.check import load_study
from vdep.train.build import build_task

pytestmark = pytest.mark.slow

SAMPLES = 21
"""Fewer than there are, and a number that two ranks cannot share evenly."""


class Validated(Runs):
    """Runs of VDEP's stage 1 of Phi, which drops out: 27 steps, saved every 8."""

    def command(self, name: str, validation: Path | None = None, **execution: Any) -> list[str]:
        command = super().command(name, **{"save_every": 8, "validation_samples": SAMPLES, **execution})
        return [*command, "--validation", str(validation / "manifest.json")] if validation else command

    def rows(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder(name) / "validation.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def held_out(assets: Path, prepared_root: Path) -> Path:
    """Samples that stage 1 of Phi does not train."""
    config = world.study_config("phi")
    config["stages"]["pretrain"]["data"] = "conversations"
    return world.prepare(load_study(config), assets, prepared_root, "pretrain")


@pytest.fixture(scope="module")
def runs(assets: Path, prepared_root: Path, held_out: Path, tmp_path_factory: pytest.TempPathFactory) -> Validated:
    study = world.make_study("phi", vdep={"alpha": 0.5, "ratio": 0.5}, epochs=3)
    prepared = world.prepare(study, assets, prepared_root, "pretrain")
    runs = Validated(study, "pretrain", assets, prepared, tmp_path_factory.mktemp("validated"))
    finish(runs.command("plain"))
    finish(runs.command("validated", held_out))
    return runs


def test_it_is_measured_before_the_first_step_at_every_save_and_at_the_end(runs: Validated) -> None:
    rows = runs.rows("validated")
    assert [row["step"] for row in rows] == [0, 8, 16, 24, 27]
    assert rows[-1]["text_loss"] < rows[0]["text_loss"]
    assert not (runs.folder("plain") / "validation.jsonl").exists()
    log = log_of(runs.folder("validated"))
    assert f"after step 16/27: validation text {rows[2]['text_loss']:.4f}, over {rows[2]['tokens']} tokens" in log


def test_before_the_first_step_it_is_the_untrained_models_mean_over_all_tokens(runs: Validated, held_out: Path) -> None:
    """Computed sample by sample from whole logits."""
    recipe = runs.study.recipe("tiny", "run", "pretrain")
    job = Job(
        recipe=recipe, execution=runs.study.execution.pretrain, device="cpu", tower=runs.assets / "siglip",
        language_model=runs.assets / "phi", data=held_out, initial=None, deepspeed=world.engines(), run=runs.root, inputs={},
    )  # fmt: skip
    data, task = PreparedData(held_out), build_task(job).eval()
    transform = ImageTransform(load_processor(job.tower), recipe.settings.image)
    total, tokens = 0.0, 0
    for sample in (data[i] for i in range(SAMPLES)):
        pixels = transform([decode_image(data.read_image(sample), sample.id)]) if sample.location else None
        batch = collate([Row(sample.input_ids, sample.labels)], pixels, data.image_tokens)
        with torch.no_grad():
            embeddings, _ = task.embed(batch)
            logits = task.model.lm_head(task.model.model.language_model(inputs_embeds=embeddings).last_hidden_state)
        wanted = batch.labels[0, 1:]
        right = logits[0, :-1].double().log_softmax(-1).gather(1, wanted.clamp(min=0)[:, None])[:, 0]
        total -= float(right[wanted != -100].sum())
        tokens += int((wanted != -100).sum())
    row = runs.rows("validated")[0]
    assert row["tokens"] == tokens
    assert row["text_loss"] == pytest.approx(total / tokens, rel=1e-5)


def test_training_does_not_notice_it(runs: Validated) -> None:
    assert same(runs.folder("validated"), runs.folder("plain"))


def test_the_weights_are_not_other_ones_because_of_the_validation_data(runs: Validated) -> None:
    done = runs.root / "validated" / "done.json"
    before = done.read_bytes()
    assert before == (runs.root / "plain" / "done.json").read_bytes()
    done.unlink()
    finish(runs.command("validated", runs.prepared))
    assert done.read_bytes() == before


def test_data_that_is_prepared_for_another_model_is_refused(runs: Validated, captions: Path) -> None:
    done = world.vdep(*runs.command("refused", captions))
    assert done.returncode == 1
    assert "is prepared with another tokenizer, template or number of image tokens" in done.stderr


def test_a_run_that_was_killed_has_no_row_twice_and_the_same_weights(runs: Validated, held_out: Path) -> None:
    process = start(runs.command("killed", held_out))
    world.wait_for(lambda: any(c >= "step-00000016" for c in checkpoints(runs.folder("killed"))))
    kill_trainer(process.pid)
    process.communicate(timeout=60)
    assert "resumed after step" in finish(runs.command("killed", held_out))
    assert runs.rows("killed") == runs.rows("validated")
    assert same(runs.folder("killed"), runs.folder("plain"))


STATES = """
    import random, sys, numpy, torch
    import vdep.train.validation as validation
    after = validation.Validation.after
    def states():
        return random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    def watched(self, steps):
        before = states()
        after(self, steps)
        print('random state', 'kept' if states() == before else 'CHANGED', flush=True)
    validation.Validation.after = watched
"""


def test_two_ranks_measure_the_same_and_draw_no_random_number(runs: Validated, held_out: Path, tmp_path: Path) -> None:
    process = start(runs.command("two", held_out, processes=2, micro_batch=4), **patched(tmp_path / "patch", STATES))
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output[-3000:]
    assert output.count("random state kept") == 10, "five times on two ranks"
    assert "CHANGED" not in output
    two, one = runs.rows("two")[0], runs.rows("validated")[0]
    assert two["tokens"] == one["tokens"]
    assert two["text_loss"] == pytest.approx(one["text_loss"], rel=1e-5)


def test_under_zero_3_nothing_changes_either(assets: Path, conversations: Path, tmp_path: Path) -> None:
    """In bf16, packed, on two ranks; among the samples are some without picture."""
    study = world.make_study(precision="bf16")
    world.untrained_projector(study, assets, tmp_path / "initial")
    runs = Validated(study, "finetune", assets, conversations, tmp_path, tmp_path / "initial")
    execution = {"engine": "zero3", "processes": 2, "packing": True, "micro_batch_tokens": 150, "save_every": 2}
    finish(runs.command("plain", **execution))
    finish(runs.command("validated", conversations, **execution))
    assert [row["step"] for row in runs.rows("validated")] == [0, 2, 4]
    assert same(runs.folder("validated"), runs.folder("plain"))
