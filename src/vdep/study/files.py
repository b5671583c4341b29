"""The configuration from its files, for commands that do without Snakemake."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ..errors import ConfigError
from .study import deep_merge

_NAMED = re.compile(r'^configfile: f"\{workflow\.basedir\}/(.+)"$', re.MULTILINE)


def merged_configuration(checkout: Path, overlays: Sequence[Path] = ()) -> dict[str, Any]:
    """What the Snakefile of a checkout names, merged in its order, then the overlays.

    Raises:
        ConfigError: where a file is missing, or is no mapping in YAML.
    """
    snakefile = checkout / "Snakefile"
    try:
        named = _NAMED.findall(snakefile.read_text())
    except OSError as error:
        raise ConfigError(f"{snakefile} cannot be read ({error.strerror}): call this from the checkout") from None
    merged: dict[str, Any] = {}
    for path in (*(checkout / name for name in named), *overlays):
        try:
            content = yaml.safe_load(path.read_text()) or {}
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
        except yaml.YAMLError as error:
            raise ConfigError(f"{path} is not YAML: {error}") from None
        if not isinstance(content, dict):
            raise ConfigError(f"{path} should be a mapping of keys")
        merged = deep_merge(merged, content)
    return merged
