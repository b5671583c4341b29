"""Fixtures: the tiny world is made once for all tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.path.insert(0, str(Path(__file__).parent))

import world


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()


@pytest.fixture(scope="session")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, tokenizers and data of the tiny world."""
    folder = tmp_path_factory.mktemp("assets")
    world.make_assets(folder)
    return folder


@pytest.fixture(scope="session")
def prepared_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prepared")


@pytest.fixture(scope="session")
def captions(assets: Path, prepared_root: Path) -> Path:
    """Stage-1 data of the tiny Llama, prepared."""
    return world.prepare(world.make_study(), assets, prepared_root, "pretrain")


@pytest.fixture(scope="session")
def conversations(assets: Path, prepared_root: Path) -> Path:
    """SFT data of the tiny Llama, prepared."""
    return world.prepare(world.make_study(), assets, prepared_root, "finetune")
