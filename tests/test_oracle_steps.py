"""Twenty optimizer steps of LLaVA under its own trainer, and the same twenty by our loop (fixtures: tests/originals)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import world
from oracle_steps import CASES, Case
from originals import material
from safetensors.numpy import load_file

from vdep.model.llava import load_checkpoint
from vdep.train.build import PROJECTOR_FILE

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("steps")
    command = [sys.executable, str(Path(__file__).with_name("oracle_steps.py")), str(folder)]
    done = subprocess.run(command, env=world.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def before(case: Case) -> dict[str, np.ndarray]:
    """What is trained, in the originals' names, as it starts."""
    projector = {f"mm_projector.{name}": value for name, value in material.weights("projector").items()}
    language = {name.removeprefix("model."): value for name, value in material.weights("llama").items()}
    return projector if case.stage == "pretrain" else {**language, **projector}


def after(case: Case, run: Path) -> dict[str, np.ndarray]:
    """The same after our training."""
    if case.stage == "pretrain":
        projector = load_file(run / "final" / PROJECTOR_FILE)
        language = {}
    else:
        state = {name: t.numpy() for name, t in load_checkpoint(run / "final", torch.float32).state_dict().items()}
        prefix = "model.multi_modal_projector."
        projector = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        language = {
            name.removeprefix("model.language_model."): value[: material.LLAMA_VOCABULARY]
            for name, value in state.items()
            if name.startswith(("model.language_model.", "lm_head."))
        }
    numbers = {"linear_1": "0", "linear_2": "2"}
    renamed = {f"mm_projector.{numbers[name.split('.')[0]]}.{name.split('.')[1]}": v for name, v in projector.items()}
    return {**language, **renamed}


@pytest.mark.parametrize("name", CASES)
def test_twenty_steps(name: str, runs: Path) -> None:
    case = CASES[name]
    theirs = load_file(case.fixture)
    losses = theirs.pop("losses").mean(1)
    rows = [json.loads(line) for line in (runs / name / "losses.jsonl").read_text().splitlines()]
    assert [row["text_loss"] for row in rows] == pytest.approx(losses.tolist(), abs=1e-5)
    start, ours = before(case), after(case, runs / name)
    assert set(start) == set(ours) == set(theirs)

    def length(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
        return float(np.sqrt(sum(np.square(a[key].astype(np.float64) - b[key]).sum() for key in theirs)))

    start, ours = ({key: material.kept(key, value) for key, value in side.items()} for side in (start, ours))
    travelled = length(theirs, start)
    assert travelled > 0.1
    assert length(theirs, ours) <= 1e-5 * travelled
