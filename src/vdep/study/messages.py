"""What is wrong with a configuration, in words."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from difflib import get_close_matches

from pydantic import ValidationError

from .settings import ADDRESS, NAME, Frozen

_WORDS = {
    re.escape(f"String should match pattern '{ADDRESS}'"): "an address begins with https:// and names no user (a mirror may)",
    "Tuple should": "List should",
    "a valid tuple": "a list",
    "a valid dictionary( or instance of .*)?": "a mapping",
    r"String should match pattern '\^\(\\d.*": "should be a time, such as 90m, 8h or 2d",
    r"String should match pattern '\^\\d.*": "should be an amount of memory, such as 64GB",
    r"String should match pattern '\^\[0-9a-f\].*": "should be a SHA-256: 64 of the digits 0-9, a-f",
    re.escape(f"String should match pattern '{NAME}'"): "names begin with one of a-z, 0-9; also '.', '_', '-' may follow",
}
"""What pydantic says (regular expressions), and what it is called in YAML."""


def describe_validation_error(error: ValidationError) -> str:
    """One line per problem: the key as one would write it, what is wrong, and the value that was given."""
    lines = []
    problems = error.errors()
    for problem in problems:
        # in parentheses stands which of several types a value was taken for (``settings.Alpha``): no key
        key = ".".join(str(part) for part in problem["loc"] if not str(part).startswith("("))
        given = problem.get("input")
        shown = "" if isinstance(given, dict | list | Frozen) else f" (given: {given!r})"
        message = problem["msg"].removeprefix("Value error, ")
        for theirs, ours in _WORDS.items():
            message = re.sub(theirs, ours, message)
        if problem["type"] == "too_short" and any(
            p["loc"][: len(problem["loc"])] == problem["loc"] for p in problems if p is not problem
        ):
            # an entry was refused, and does not count
            continue
        if problem["type"] == "tuple_type" and isinstance(given, str | int | float):
            message = f"should be a list: [{given}]"
        elif problem["type"] == "extra_forbidden":
            near = get_close_matches(str(problem["loc"][-1]), _every_key() - {problem["loc"][-1]}, 1)
            message = "there is no such key" + (f", did you mean {near[0]}?" if near else "")
        elif problem["type"] == "invalid_key":
            message = "keys should be words; is there a comma in a number?"
        lines.append(f"{key}: {message}{shown}" if key else message)
    return "; ".join(lines)


def missing(name: str, kind: str, known: Collection[str], where: str) -> Iterator[str]:
    """One line, if a name is not among those that are known."""
    if name not in known:
        near = get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        yield f"{where}: there is no {kind} named {name!r} ({hint}known: {', '.join(sorted(known)) or 'none'})"


def _every_key() -> set[str]:
    def below(kind: type[Frozen]) -> Iterator[type[Frozen]]:
        for child in kind.__subclasses__():
            yield child
            yield from below(child)

    return {name for kind in below(Frozen) for name in kind.model_fields}
