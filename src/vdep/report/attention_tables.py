"""The numbers of an attention figure as CSV and Markdown."""

from __future__ import annotations

import pandas as pd

from .attention_statistics import AttentionReport, Difference

SHOWN = ("image", "object_without_sinks", "pointing_without_sinks", "entropy", "sinks")


def as_csv(report: AttentionReport) -> str:
    """Tidy: a row for each checkpoint, layer and measure, and for each difference, whose ``reference`` is not empty."""
    frames = [
        pd.DataFrame([e.model_dump() for e in report.estimates]).rename(columns={"mean": "value"}),
        pd.DataFrame([d.model_dump() for d in report.differences]).rename(columns={"difference": "value"}),
    ]
    columns = ["checkpoint", "reference", "layer", "measure", "value", "low", "high", "uniform", "p", "p_holm"]
    columns += ["crossed_low", "crossed_high", "pictures", "seeds"]
    rows = pd.concat([frame.reindex(columns=columns).astype(object) for frame in frames])
    rows["layer"] = rows["layer"].map(lambda layer: "best head" if pd.isna(layer) else int(layer))
    return rows.to_csv(index=False, float_format="%.6g", lineterminator="\n")


def as_markdown(report: AttentionReport) -> str:
    """A table for each measure: layers down, checkpoints and differences across."""
    lines = [f"# Attention of “{report.question}”", "", report.conclusion, ""]
    lines += [
        f"95% intervals: {report.noise}, {report.pictures} pictures. Differences are paired; * has p < 0.05 after Holm.",
        "",
    ]
    values = {(e.measure, e.layer, e.checkpoint): e for e in report.estimates}
    paired = {(d.measure, d.layer, d.reference): d for d in report.differences}
    references = list(dict.fromkeys(d.reference for d in report.differences))
    compared = report.differences[0].checkpoint
    for measure in SHOWN:
        heads = [*report.checkpoints, *(f"{compared} − {reference}" for reference in references)]
        lines += [
            f"## {report.titles[measure]}",
            "",
            f"| layer | uniform | {' | '.join(heads)} |",
            "|---" * (len(heads) + 2) + "|",
        ]
        for layer in [*range(1, report.layers + 1), None]:
            cells = [values[measure, layer, name] for name in report.checkpoints]
            uniform = "" if cells[0].uniform is None else f"{cells[0].uniform:.3f}"
            shown = [f"{cell.mean:.3f} [{cell.low:.3f}, {cell.high:.3f}]" for cell in cells]
            shown += [_difference(paired[measure, layer, reference]) for reference in references]
            lines.append(f"| {layer or 'best head'} | {uniform} | {' | '.join(shown)} |")
        lines.append("")
    chosen = "; ".join(f"{h.checkpoint} layer {h.best[0]}, head {h.best[1]}" for h in report.heads)
    lines.append(f"The best head looks at objects most on half of the pictures; the table has the other half: {chosen}.")
    return "\n".join(lines) + "\n"


def _difference(d: Difference) -> str:
    mark = "*" if d.p_holm is not None and d.p_holm < 0.05 else ""
    return f"{d.difference:+.3f}{mark} [{d.low:+.3f}, {d.high:+.3f}]"
