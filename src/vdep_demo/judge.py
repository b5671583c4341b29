"""Grades the demo's MM-Vet without a server: ``judge: {kind: function, model: "vdep_demo.judge:exact_match"}``."""

from __future__ import annotations


def exact_match(prompt: str) -> float:
    """The last row of MM-Vet's prompt is ``question | ground truth | prediction |``: 1 where the two are the same words.

    ``<AND>`` and ``<OR>`` in the ground truth mean what they mean to MM-Vet.
    """
    # a prediction may have several lines
    cells = [cell.strip().lower().rstrip(".") for cell in prompt.rstrip().rstrip("|").split("|")]
    truth, prediction = cells[-2], cells[-1]
    for alternative in truth.split("<or>"):
        parts = [part.strip() for part in alternative.split("<and>")]
        if all(part == prediction or (len(parts) > 1 and part in prediction) for part in parts):
            return 1.0
    return 0.0
