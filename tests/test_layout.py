"""The rooms of ``src``, and the one-way arrows between them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import world

SRC = world.ROOT / "src"
FLOORS = (
    {"errors", "__init__"},
    {"files", "entry_points"},
    {"hashes"},
    {"study"},
    {"artifacts"},
    {"assets", "data"},
    {"model"},
    {"run", "evaluation"},
    {"train", "report"},
    {"everyday"},
    {"__main__"},
)
"""From the ground up. What a room imports lies on floors below it; on one floor, nothing imports its neighbour."""


def imports(path: Path) -> set[str]:
    """Every module of ``src`` that a file imports anywhere, inside functions too, by its dotted name."""
    package = path.relative_to(SRC).parent.parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = (*package[: len(package) - node.level + 1],) if node.level else ()
            origin = ".".join((*base, *([node.module] if node.module else [])))
            found.add(origin)
            found |= {f"{origin}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] in ("vdep", "vdep_demo")}


def room(name: str) -> str:
    return name.split(".")[1] if "." in name else "__init__"


def floor(name: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if name in rooms)


MODULES = sorted(path for path in (SRC / "vdep").rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SRC)))
def test_arrows_point_down(path: Path) -> None:
    here = path.relative_to(SRC / "vdep").parts[0].removesuffix(".py")
    for name in imports(path):
        assert name.split(".")[0] == "vdep", f"{path}: the library imports its guest, {name}"
        if not (SRC / name.replace(".", "/")).is_dir() and not (SRC / (name.replace(".", "/") + ".py")).is_file():
            continue  # a name in a module, which is listed too
        if room(name) != here:
            assert floor(room(name)) < floor(here), f"{path.relative_to(SRC)} imports {name}"


def test_no_two_modules_import_each_other() -> None:
    names = {".".join(path.relative_to(SRC).with_suffix("").parts): imports(path) for path in SRC.rglob("*.py")}
    reached: dict[str, set[str]] = {}

    def below(name: str, chain: tuple[str, ...]) -> set[str]:
        assert name not in chain, f"a circle: {' -> '.join((*chain, name))}"
        if name not in reached:
            direct = {other for other in names[name] if other in names}
            reached[name] = direct.union(*(below(other, (*chain, name)) for other in direct)) if direct else set()
        return reached[name]

    for name in names:
        below(name, ())


def test_the_library_does_not_speak_of_its_guest() -> None:
    for path in (SRC / "vdep").rglob("*.py"):
        assert "vdep_demo" not in path.read_text(), path
