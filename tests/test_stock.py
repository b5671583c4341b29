"""No answer differs from those of lmms-eval's own ``llava_hf``, unchanged: odd and large pictures, long answers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import answering
import pytest
import stock

from vdep.evaluation.run import import_libraries
from vdep.evaluation.tasks import offline_environment


@pytest.fixture(scope="module")
def checkpoint(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    before = dict(os.environ)
    folder = tmp_path_factory.mktemp("stock")
    offline_environment(folder / "cache")
    import_libraries()
    yield answering.export(assets, folder).parent / "run"
    os.environ.clear()
    os.environ.update(before)


def assert_nothing_differs(found: stock.Compared, tokens: int) -> None:
    assert not found.different
    assert max(found.tokens) >= 0.8 * tokens, "an untrained model does not end by itself"
    assert len(set(found.stock)) > len(found.stock) / 3, "and answers different pictures differently"
    widths, heights = zip(*found.sizes, strict=True)
    assert (1224, 1632) in found.sizes
    assert any(w > h for w, h in found.sizes)
    assert min(widths) < 48 <= max(heights)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mmmu", "vizwiz"])
def test_a_sample_has_the_answers_of_llava_hf(name: str, checkpoint: Path, tmp_path: Path) -> None:
    assert_nothing_differs(stock.compare(checkpoint, name, 12, 60, tmp_path), 60)


@pytest.mark.long
@pytest.mark.parametrize("name", stock.TEN)
def test_sixty_questions_of_each_of_ten_benchmarks_have_the_answers_of_llava_hf(
    name: str, checkpoint: Path, tmp_path: Path
) -> None:
    tokens = 60 if name in ("vizwiz", "seedbench_img", "mme") else 12
    found = stock.compare(checkpoint, name, 60, tokens, tmp_path)
    assert len(found.stock) == 60
    assert_nothing_differs(found, tokens)
