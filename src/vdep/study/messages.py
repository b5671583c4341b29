"""What is wrong with a configuration, in words."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

from pydantic import ValidationError

from .settings import Frozen


def describe_validation_error(error: ValidationError) -> str:
    """One line per problem: the key as one would write it, what is wrong, and the value that was given."""
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        given = problem.get("input")
        shown = "" if isinstance(given, dict | list | Frozen) else f" (given: {given!r})"
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            near = get_close_matches(str(problem["loc"][-1]), _every_key(), 1)
            message = "there is no such key" + (f", did you mean {near[0]}?" if near else "")
        elif problem["type"] == "invalid_key":
            message = "keys should be words; is there a comma in a number?"
        lines.append(f"{key}: {message}{shown}" if key else message)
    return "; ".join(lines)


def _every_key() -> set[str]:
    def below(kind: type[Frozen]) -> Iterator[type[Frozen]]:
        for child in kind.__subclasses__():
            yield child
            yield from below(child)

    return {name for kind in below(Frozen) for name in kind.model_fields}
