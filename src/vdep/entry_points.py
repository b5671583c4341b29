"""Functions that the configuration names, ``package.module:function``: what a study brings along."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from .errors import ConfigError


def load(name: str) -> Callable[..., Any]:
    """The function of that name.

    Raises:
        ConfigError: where there is none.
    """
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{name} cannot be loaded: {error}. It should be package.module:function") from error
    if not callable(found):
        raise ConfigError(f"{name} is not a function")
    return found
