"""What ``python -m vdep make`` can make, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .data import make_captions, make_conversations


def _benchmark(folder: Path, name: str, questions: int, seed: int) -> None:
    from .benchmarks import make_benchmark

    make_benchmark(folder, name, questions, seed)


def _gallery(folder: Path, scenes: int, seed: int) -> None:
    from .gallery import make_gallery

    make_gallery(folder, scenes, seed)


MAKERS: dict[str, Callable[..., Any]] = {
    "captions": make_captions,
    "conversations": make_conversations,
    "benchmark": _benchmark,
    "gallery": _gallery,
}
