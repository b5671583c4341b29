"""What differs between two recipes, key by key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

ABSENT = "-"
Keys = dict[str, str]


def flat(value: Any, key: str = "") -> Keys:
    """A nested mapping as dotted keys with JSON values: ``{"a": {"b": [1]}}`` is ``{"a.b": "[1]"}``."""
    if isinstance(value, Mapping) and value:
        return {k: v for name, inner in value.items() for k, v in flat(inner, f"{key}.{name}" if key else str(name)).items()}
    return {key: json.dumps(value, ensure_ascii=False)}


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Dotted key -> both values, where these differ; ``ABSENT`` where one of them has no such key."""
    a, b = flat(one), flat(other)
    keys = dict.fromkeys((*a, *b))
    return {key: (a.get(key, ABSENT), b.get(key, ABSENT)) for key in keys if a.get(key, ABSENT) != b.get(key, ABSENT)}


def said(differences: Mapping[str, tuple[str, str]]) -> str:
    return "; ".join(f"{key}: {one} and {other}" for key, (one, other) in differences.items())
