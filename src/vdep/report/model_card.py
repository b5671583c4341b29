"""The card of a published checkpoint, from what is recorded: recipes, data, scores, verdicts, and provenance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ..artifacts import Scores
from .checkpoints import SFT, STAGE_1, Checkpoint
from .comparison_text import markdown_table, number
from .evidence import Comparison, JudgedClaim

TITLES = {STAGE_1: "Stage 1 (projector)", SFT: "SFT (language model and projector)"}


def model_card(
    checkpoint: Checkpoint, scores: Mapping[str, Scores], verdicts: Sequence[JudgedClaim] | None, licence: str | None
) -> str:
    """Markdown with the hub's YAML in front.

    Args:
        scores: by benchmark, of these weights.
        verdicts: on claims that this run is an arm of; None where the comparison is not of these weights.
        licence: as the hub names it; None says nothing, and the terms of the base weights hold all the same.
    """
    title = "/".join(filter(None, (checkpoint.model, checkpoint.variant, checkpoint.seed))) or "A LLaVA-style checkpoint"
    lines = ["---", yaml.safe_dump(_metadata(checkpoint, licence), sort_keys=False).rstrip(), "---", "", f"# {title}", ""]
    lines += [_sentence(checkpoint), "", *_use(checkpoint), *_training(checkpoint), *_scores(scores), *_verdicts(verdicts)]
    return "\n".join([*lines, *_provenance(checkpoint, scores)]).rstrip() + "\n"


def _sources(checkpoint: Checkpoint) -> dict[str, dict[str, Any]]:
    """Name -> source, of the base weights and of the data."""
    found: dict[str, dict[str, Any]] = {}
    for stage, recipe in checkpoint.recipes.items():
        found["vision tower"], found["language model"] = recipe["tower_source"], recipe["language_source"]
        found |= {f"{stage}: {name}": source for name, source in recipe["data"]["sources"].items()}
    return found


def _metadata(checkpoint: Checkpoint, licence: str | None) -> dict[str, Any]:
    sources = _sources(checkpoint)
    hub = [(name, source) for name, source in sources.items() if source.get("kind") == "hub"]
    bases = [s["repo"] for name, s in hub if name in ("vision tower", "language model")]
    data = [s["repo"] for name, s in hub if ":" in name and s.get("type") == "dataset"]
    variant = checkpoint.recipes.get(STAGE_1, {}).get("vdep")
    return {
        **({"license": licence} if licence else {}),
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        "tags": ["llava", *(["vdep"] if variant else [])],
        **({"base_model": list(dict.fromkeys(bases))} if bases else {}),
        **({"datasets": list(dict.fromkeys(data))} if data else {}),
    }


def _sentence(checkpoint: Checkpoint) -> str:
    if checkpoint.stage.stage == "imported":
        return "A checkpoint that others trained, converted to the layout of transformers."
    vdep = checkpoint.recipes.get(STAGE_1, {}).get("vdep")
    if STAGE_1 not in checkpoint.recipes:
        return "A LLaVA-style model; how its projector was pretrained is not recorded beside it."
    if vdep is None:
        return "A LLaVA-style model, trained without VDEP: the baseline of a reproduction of arXiv 2502.09093."
    alpha = vdep["alpha"] if not isinstance(vdep["alpha"], dict) else json.dumps(vdep["alpha"])
    return (
        f"A LLaVA-style model whose projector was pretrained with VDEP (arXiv 2502.09093): alpha {alpha}, "
        f"ratio {vdep['ratio']}, loss {vdep['loss']}, {vdep['schedule']}"
        + ("" if vdep.get("target", "own") == "own" else f"; a control, whose states are compared with `{vdep['target']}`")
        + "."
    )


def _use(checkpoint: Checkpoint) -> list[str]:
    recipe = checkpoint.recipes.get(SFT)
    asked = (
        f"asked by the template `{recipe['data']['template']}`, pictures by `{recipe['settings']['image']}`" if recipe else ""
    )
    return [
        "## Use",
        "",
        *([f"It was {asked}; ask it alike.", ""] if asked else []),
        "```python",
        "from vdep.model.llava import load_checkpoint  # LlavaForConditionalGeneration; a Phi-2 with the bias of its head",
        'model = load_checkpoint(folder, "auto")',
        "```",
        "",
    ]


def _training(checkpoint: Checkpoint) -> list[str]:
    lines = ["## Training", ""]
    for stage, title in TITLES.items():
        if (recipe := checkpoint.recipes.get(stage)) is None:
            continue
        shown = recipe["settings"]
        rows = [(f"`{key}`", f"`{json.dumps(value, ensure_ascii=False)}`") for key, value in shown.items()]
        rows += [(f"`vdep.{key}`", f"`{json.dumps(value)}`") for key, value in (recipe["vdep"] or {}).items()]
        lines += [f"### {title}", "", *markdown_table(("", ""), rows, left=2), ""]
    if not checkpoint.recipes:
        return [*lines, "It is not recorded.", ""]
    rows = [(name, _source(source)) for name, source in _sources(checkpoint).items()]
    return [*lines, "### Base weights and data", "", *markdown_table(("", "from"), rows, left=2), ""]


def _source(source: Mapping[str, Any]) -> str:
    place = source.get("repo") or source.get("url") or source.get("maker") or source.get("path") or source.get("kind")
    revision = source.get("revision") or source.get("sha256")
    return f"{place}" + (f", revision `{revision}`" if revision else "")


def _scores(scores: Mapping[str, Scores]) -> list[str]:
    if not scores:
        return ["## Scores", "", "None are recorded for these weights.", ""]
    rows = []
    for name, each in scores.items():
        for part, found in each.seen["parts"].items():
            blind = (each.blind or {}).get("parts", {}).get(part)
            interval = f"[{number(found['low'])}, {number(found['high'])}]"
            rows.append(
                (name, part, number(found["value"]), interval, number(blind and blind["value"]) or "-", str(each.seen["n"]))
            )
    heads = ("benchmark", "part", "score", "95% interval", "blind", "questions")
    return [
        "## Scores",
        "",
        *markdown_table(heads, rows, left=2),
        "",
        "Intervals are over questions of this one checkpoint. Blind: every picture is replaced by one colour.",
        "",
    ]


def _verdicts(verdicts: Sequence[JudgedClaim] | None) -> list[str]:
    lines = ["## Does it help?", ""]
    if verdicts is None:
        return [*lines, "No comparison of these weights is recorded.", ""]
    judged = [(v.says, v.endpoint_label, str(v.verdict), v.why) for v in verdicts if v.verdict is not None]
    if not judged:
        return [*lines, "No claim could be judged with this run.", ""]
    note = "By rules that were written before any run (config/verdicts.yaml)."
    return [*lines, *markdown_table(("claim", "on", "verdict", "why"), judged, left=4), "", note, ""]


def _provenance(checkpoint: Checkpoint, scores: Mapping[str, Scores]) -> list[str]:
    stage = checkpoint.stage
    inputs = {name: getattr(stage, f"input_{name}") for name in ("tower", "language_model", "data", "initial", "checkpoint")}
    rows = [
        ("weights", f"`{stage.digest}`"),
        ("recipe", f"`{stage.recipe}`"),
        *([("recipe of stage 1", f"`{stage.initial_recipe}`")] if stage.initial_recipe else []),
        *((f"input: {name}", f"`{digest}`") for name, digest in inputs.items() if digest),
        ("steps", str(stage.steps)),
        ("trained with", ", ".join(f"{name} {version}" for name, version in stage.versions.items())),
        *([("evaluated with", f"lmms-eval {', '.join(sorted({s.lmms_eval for s in scores.values()}))}")] if scores else []),
    ]
    return [
        "## Provenance",
        "",
        *markdown_table(("", "SHA-256, or version"), rows, left=2),
        "",
        "`vdep/` holds both recipes, the scores and the hashes of the weights' files, as they were recorded.",
    ]


def verdicts_of(checkpoint: Checkpoint, tables: Path) -> list[JudgedClaim] | None:
    """What ``comparison.json`` among the tables says of a run's variant; None where it is not made of these weights."""
    comparison, provenance = tables / "comparison.json", tables / "comparison.provenance.json"
    if not (checkpoint.model and comparison.is_file() and provenance.is_file()):
        return None
    origins = json.loads(provenance.read_text())["results"].values()
    if checkpoint.stage.digest not in {origin["weights"] for origin in origins}:
        return None
    return [
        judged
        for judged in Comparison.read(comparison).verdicts
        if judged.model == checkpoint.model
        and judged.deciding
        and any(checkpoint.variant in (part.treatment, part.reference) for part in judged.parts)
    ]
