"""What all tests share: the tiny world, made once; the sample of generated cases; a checkout that they leave alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.path.insert(0, str(Path(__file__).parent))

import world

BATCHES = 10  # of generated cases in `make test-full`, each as large as the one of `make test`
MADE_BY_TOOLS = {".pytest_cache", ".ruff_cache", ".mypy_cache", ".hypothesis", ".snakemake", ".torch_extensions", "__pycache__"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--whole", action="store_true", help=f"{BATCHES} times the generated cases, other ones in every run")


def pytest_configure(config: pytest.Config) -> None:
    """Without ``--whole`` the generated cases are a fixed sample: a change is judged by what it changes, not by the draw."""
    hypothesis.settings.register_profile("sample", derandomize=True)
    hypothesis.settings.load_profile("default" if config.getoption("whole") else "sample")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.config.getoption("whole") and hypothesis.is_hypothesis_test(metafunc.function):
        metafunc.fixturenames.append("batch_of_cases")
        metafunc.parametrize("batch_of_cases", range(BATCHES), indirect=True)


@pytest.fixture
def batch_of_cases(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def on_top() -> set[str]:
    return {path.name for path in world.ROOT.iterdir()}


@pytest.fixture(scope="session", autouse=True)
def _leaves_the_checkout_alone() -> Iterator[None]:
    """What a test writes belongs into its own folder: nothing new lies on top of the checkout after the last one."""
    before = on_top()
    yield
    new = on_top() - before - MADE_BY_TOOLS
    assert not new, f"the tests left {sorted(new)} in {world.ROOT}: write into tmp_path"


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
