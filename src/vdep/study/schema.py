"""The JSON schema of the configuration, for editors: generated from the types, kept in config/schema.json."""

from __future__ import annotations

import json

from .study import Study


def schema_text() -> str:
    """Each file of the configuration holds a part of it, so no key is required at the top."""
    schema = Study.model_json_schema()
    schema.pop("required", None)
    schema["title"] = "VDEP configuration"
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"
