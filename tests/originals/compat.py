"""Imported before an original: what they import and do not need here, or what their Python had and this one has not.

None of the originals' own functions is changed. Python 3.11 refuses the Factory's ``Formatter``s as defaults of a dataclass;
transformers 4.37.2 lacks StableLM, Gemma and StaticCache, whose names the Factory imports; both import DeepSpeed for ZeRO-3.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_dataclass = dataclasses.dataclass


def _with_hashable_formatters(cls: Any = None, /, **options: Any) -> Any:
    def wrap(cls: Any) -> Any:
        made = _dataclass(cls, **options)
        if made.__module__.endswith("template.formatter"):
            made.__hash__ = object.__hash__
        return made

    return wrap if cls is None else wrap(cls)


dataclasses.dataclass = _with_hashable_formatters  # type: ignore[assignment]

import transformers  # noqa: E402
import transformers.cache_utils  # noqa: E402

for _name in ("StableLmForCausalLM", "StableLmModel", "StableLmConfig", "GemmaForCausalLM", "GemmaModel", "GemmaConfig"):
    if not hasattr(transformers, _name):
        setattr(transformers, _name, type(_name, (), {}))
if not hasattr(transformers.cache_utils, "StaticCache"):
    transformers.cache_utils.StaticCache = type("StaticCache", (), {})


def _empty_module(name: str, **content: Any) -> None:
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    module.__dict__.update(content)
    sys.modules[name] = module


_empty_module("deepspeed", zero=ModuleType("deepspeed.zero"))
_empty_module("deepspeed.runtime")
_empty_module("deepspeed.runtime.zero")
_empty_module("deepspeed.runtime.zero.partition_parameters", ZeroParamStatus=None)
_empty_module("einops_exts", rearrange_many=None)

# the Factory sleeps five seconds on each "tokenization mismatch"
time.sleep = lambda seconds: None
