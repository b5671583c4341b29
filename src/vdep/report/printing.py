"""A built table as CSV, as Markdown, and as the origin of each of its numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ..files import sha256
from ..study.tables import Column
from .results import Results
from .tables import AUDITED, BASELINE, CHANGE, VDEP, BuiltTable


def as_csv(table: BuiltTable) -> str:
    """One line per run and quantity; quantities that no cell has are left out."""
    present = set(table.printed["quantity"])
    runs = [row for row in table.rows if row[1] != CHANGE]
    order = [(*run, quantity) for run in runs for quantity in table.quantities if quantity in present]
    lines = pd.MultiIndex.from_tuples(order, names=["model", "run", "quantity"])
    wide = table.printed.pivot(index=lines.names, columns="column", values="text")
    return wide.reindex(index=lines, columns=list(table.columns)).to_csv(lineterminator="\n")


def as_markdown(table: BuiltTable) -> str:
    """For people: in each cell the reproduced number, then what it is to be compared with."""
    lines = [f"# {table.title}", ""]
    lines.append("| model | run | " + " | ".join(table.labels[c] for c in table.columns) + " |")
    lines.append("|---|---|" + "---:|" * len(table.columns))
    for row in table.rows:
        cells = (_markdown_cell(table, (*row, name)) for name in table.columns)
        lines.append(f"| {' | '.join(row)} | {' | '.join(cells)} |")
    lines += ["", "; ".join(_legend(table)) + ".", *(f"\n{note}" for note in dict.fromkeys(table.notes))]
    for i, protocol in enumerate(table.protocols.values()):
        lines.append(f"\n<sup>{chr(ord('a') + i)}</sup> {protocol.note} ({protocol.source})")
    for remark, where in _audited(table).items():
        lines.append(f"\n<sup>{AUDITED}</sup> {', '.join(where)}: {remark}.")
    return "\n".join(lines) + "\n"


def _audited(table: BuiltTable) -> dict[str, list[str]]:
    """What the audit says -> the numbers that it says it of."""
    remarks: dict[str, list[str]] = {}
    for (model, run, name), cell in table.cells.items():
        for quantity in ("published", "published_change"):
            for remark in cell.get(f"{quantity}_audit", "").splitlines():
                remarks.setdefault(remark, []).append(f"{cell[quantity]} ({model}/{run}, {table.labels[name]})")
    return remarks


def _legend(table: BuiltTable) -> Iterator[str]:
    present = set(table.printed["quantity"])
    seeds = dict.fromkeys(cell["n"] for cell in table.cells.values() if "n" in cell)
    if seeds:
        yield f"Each cell: the mean over {' or '.join(seeds)} seeds ± their standard deviation"
    if not seeds or "low" in present:
        resampled = "; ".join(f"{how}: {', '.join(labels)}" for how, labels in table.clusters.items())
        how = f"questions resampled {resampled}" if resampled else "questions resampled"
        start = "In a cell without ±" if seeds else "Each cell"
        yield f"{start}: the reproduced score with its 95% interval ({how}); one seed (n = 1): no training noise"
    if "published" in present:
        yield "*published*: that number and the difference to it"
    if table.best:
        yield "bold: the highest of a model's runs"
    if "change" in present or "published_change" in present:
        spread = " ± the standard deviation of the seeds' own changes" if seeds else ""
        yield f"{CHANGE}: {VDEP} minus {BASELINE}{spread}"
    if table.references:
        yield f"*{'*, *'.join(table.references)}*: the same checkpoint, evaluated by others, and the difference to it"
        yield "*tolerance*: how far ours may lie from the number that judges it (docs/decisions.md)"
    if table.protocols:
        yield "letters: the number comes from another protocol, or may do so, or needs a word; see below"
    if present & {"published_audit", "published_change_audit"}:
        yield f"{AUDITED}: the audit of the printed numbers has a word on it; see below, and audit.md"
    if "blind" in present:
        yield "*blind*: the same model with the picture replaced by one colour"


def _markdown_cell(table: BuiltTable, key: tuple[str, str, str]) -> str:
    cell = table.cells[key]

    def number(quantity: str) -> str:
        return f"**{cell[quantity]}**" if (*key, quantity) in table.best else cell[quantity]

    def beside(quantity: str, difference: str) -> str:
        marks = table.marks(cell, quantity)
        shown = f" ({cell[difference]})" if cell.get(difference) else ""
        return f"*{quantity}* {number(quantity)}{f'<sup>{marks}</sup>' if marks else ''}{shown}"

    parts = [number("reproduced") if "reproduced" in cell else cell.get("change", "-")]
    if cell.get("spread"):
        parts[0] += f" ± {cell['spread']}"
    if cell.get("published_change"):
        marks = table.marks(cell, "published_change")
        parts.append(f"*published* {cell['published_change']}{f'<sup>{marks}</sup>' if marks else ''}")
    if cell.get("low"):
        parts.append(f"[{cell['low']}, {cell['high']}]")
    if cell.get("published"):
        parts.append(beside("published", "difference"))
    parts += [beside(r, f"{r}_difference") for r in table.references if cell.get(r)]
    if cell.get("verdict"):
        parts.append(f"{cell['verdict']}, *tolerance* {cell['tolerance']}" if cell.get("tolerance") else cell["verdict"])
    if cell.get("blind"):
        parts.append(f"*blind* {cell['blind']}")
    return "<br>".join(parts)


def provenance(table: BuiltTable, results: Results, definitions: Mapping[str, Column]) -> dict[str, Any]:
    """For every cell its result files of all seeds; for every file the checkpoint, the recipes and the versions behind it."""
    cells: list[dict[str, Any]] = []
    for (model, variant, name), texts in table.cells.items():
        if "reproduced" not in texts:
            continue
        cell = results.cell(model, variant, name, definitions)
        marks = {quantity: texts.get(f"{quantity}_protocols", "").split() for quantity in ("published", *table.references)}
        cells.append(
            {
                "model": model,
                "run": variant,
                "column": name,
                "value": cell.value,
                "results": list(cell.sources),
                "protocols": {quantity: names for quantity, names in marks.items() if names},
            }
        )
    used = sorted({source for cell in cells for source in cell["results"]})
    by_path = {str(path): key for key, path in results.files.items()}
    files = {}
    for source in used:
        scores = results.scores(by_path[source])
        files[source] = {
            "sha256": sha256(Path(source)),
            "samples": scores.samples.model_dump(),
            "n": scores.seen["n"],
            "evaluation_recipe": scores.digest,
            "finetune_recipe": scores.checkpoint.recipe,
            "pretrain_recipe": scores.checkpoint.initial_recipe,
            "weights": scores.checkpoint.weights,
            "versions": scores.checkpoint.versions | {"lmms_eval": scores.lmms_eval},
            "judge": scores.judge,
        }
    return {"title": table.title, "cells": cells, "results": files}
