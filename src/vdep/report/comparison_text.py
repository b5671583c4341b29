"""The comparison and its verdicts, for people and for programs: CSV, Markdown, LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from .evidence import OVER_SEEDS, TWO_CHECKPOINTS, Comparison, Difference, JudgedClaim
from .latex import tabular
from .tables import shown

FIELDS = (
    *("model", "treatment", "reference", "quantity", "label", "pooled", "n", "questions", "clusters"),
    *("reference_mean", "treatment_mean", "difference", "low", "high", "basis", "p", "p_adjusted"),
    *("crossed_low", "crossed_high", "gained", "lost", "disagreement", "published_change", "published_tables"),
)
"""Of the CSV. ``low`` and ``high`` bound the difference: ``basis`` says over what."""


def number(value: float | None, sign: bool = False) -> str:
    return "" if value is None else f"{shown(value):{'+' if sign else ''}}"


def probability(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def count(value: float) -> str:
    """Of questions, or its mean over seeds."""
    return f"{value:g}" if value == int(value) else f"{value:.1f}"


def as_csv(comparison: Comparison) -> str:
    """One line per pair and quantity."""
    return csv_of(FIELDS, [_line(d) for d in comparison.differences])


def csv_of(fields: Sequence[str], rows: Sequence[dict[str, str]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _line(d: Difference) -> dict[str, str]:
    published = d.published
    return {
        "model": d.model,
        "treatment": d.treatment,
        "reference": d.reference,
        "quantity": d.quantity,
        "label": d.label,
        "pooled": "yes" if d.pooled else "no",
        "n": str(d.n),
        "questions": str(d.questions),
        "clusters": str(d.clusters),
        "reference_mean": number(d.reference_mean),
        "treatment_mean": number(d.treatment_mean),
        "difference": number(d.difference, sign=True),
        "low": number(d.low, sign=True),
        "high": number(d.high, sign=True),
        "basis": d.basis,
        "p": probability(d.p),
        "p_adjusted": probability(d.p_adjusted),
        "crossed_low": number(d.crossed_low, sign=True),
        "crossed_high": number(d.crossed_high, sign=True),
        "gained": count(d.gained),
        "lost": count(d.lost),
        "disagreement": f"{d.disagreement:.3f}",
        "published_change": number(published.change, sign=True) if published else "",
        "published_tables": " ".join(published.tables) if published else "",
    }


def _heads(comparison: Comparison, pair: tuple[str, str, str]) -> tuple[str, ...]:
    interval = f"{1 - comparison.definition.level:.0%} interval"
    return "", "n", pair[2], pair[1], "difference", interval, "p", "p (Holm)", "gained", "lost", "published"


def _row(d: Difference) -> tuple[str, ...]:
    line = _line(d)
    label = f"**{d.label}**" if d.pooled else d.label
    means = line["reference_mean"], line["treatment_mean"]
    interval = f"[{line['low']}, {line['high']}]"
    beside = line["p"], line["p_adjusted"], line["gained"], line["lost"], line["published_change"]
    return label, line["n"], *means, line["difference"], interval, *(value or "-" for value in beside)


def _pairs(comparison: Comparison) -> Iterator[tuple[tuple[str, str, str], list[Difference]]]:
    for pair, found in groupby(comparison.differences, lambda d: d.pair):
        yield pair, list(found)


def _title(pair: tuple[str, str, str]) -> str:
    return f"{pair[0]}: {pair[1]} against {pair[2]}"


def _seeds(differences: Sequence[Difference]) -> str:
    n = sorted({d.n for d in differences})
    if n == [1]:
        return f"One seed: {TWO_CHECKPOINTS}. Intervals are over clusters of questions, and there is no test."
    over = f"{n[0]}" if len(n) == 1 else f"{n[0]} to {n[-1]}"
    return f"{over} seeds: t intervals of the seeds' paired differences" + (
        f"; where there is one, an interval over questions ({TWO_CHECKPOINTS})." if n[0] == 1 else "."
    )


def notes(comparison: Comparison) -> list[str]:
    """What the tables say under themselves."""
    found = [
        "n: seeds that both arms have.",
        "gained, lost: questions that the treatment answers better, and worse, at one seed (the mean over seeds).",
    ]
    if any(d.pooled for d in comparison.differences):
        found.append("Bold: means of columns, each on a scale from 0 to 100 by its highest possible number.")
    if any(d.basis == OVER_SEEDS for d in comparison.differences):
        found.append("p: of the t test over seeds; Holm: adjusted over the columns of a pair.")
    if any(d.published for d in comparison.differences):
        found.append("published: the same difference in the paper, of one run each.")
    labels = comparison.definition.left_out.values()
    if labels:
        found.append(f"{', '.join(labels)}: left out, because no judge is configured.")
    return [*found, *([comparison.definition.note] if comparison.definition.note else [])]


def as_markdown(comparison: Comparison) -> str:
    """A table for each pair."""
    lines = ["# Comparison, question by question", ""]
    for pair, found in _pairs(comparison):
        lines += [f"## {_title(pair)}", "", _seeds(found), "", *markdown_table(_heads(comparison, pair), map(_row, found)), ""]
    if not comparison.differences:
        lines += ["There are no two evaluated arms of one model yet.", ""]
    lines += [line for note in notes(comparison) for line in (note, "")]
    if comparison.missing:
        lines += ["## Not compared", "", *(f"* {line}" for line in comparison.missing), ""]
    return "\n".join(lines).rstrip() + "\n"


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> list[str]:
    ruler = "---|" * left + "---:|" * (len(heads) - left)
    return [f"| {' | '.join(heads)} |", f"|{ruler}", *(f"| {' | '.join(row)} |" for row in rows)]


def as_latex(comparison: Comparison) -> str:
    return "\n".join(
        tabular(
            _heads(comparison, pair),
            [_row(d) for d in found],
            f"{_title(pair)}. {_seeds(found)}",
            "-".join(pair),
            notes(comparison),
        )
        for pair, found in _pairs(comparison)
    )


# -------------------------------------------------------------------------------------------------------------- verdicts

VERDICT_FIELDS = (
    *("claim", "says", "source", "model", "endpoint", "deciding", "verdict", "why", "n", "needed"),
    *("treatment", "reference", "quantity", "difference", "low", "high", "margin", "p", "p_below_margin", "part_verdict"),
)


def verdicts_csv(comparison: Comparison) -> str:
    """One line per claim, model, version of the endpoint and difference."""
    rows = []
    for judged in comparison.verdicts:
        claim = {
            "claim": judged.claim,
            "says": judged.says,
            "source": judged.source,
            "model": judged.model,
            "endpoint": judged.endpoint,
            "deciding": "yes" if judged.deciding else "no",
            "verdict": judged.verdict or "not evaluated",
            "why": judged.why,
            "n": str(judged.n),
            "needed": "" if judged.needed is None else str(judged.needed),
        }
        parts = [
            {
                "treatment": part.treatment,
                "reference": part.reference,
                "quantity": part.quantity,
                "difference": number(part.difference, sign=True),
                "low": number(part.low, sign=True),
                "high": number(part.high, sign=True),
                "margin": number(part.margin),
                "p": probability(part.p),
                "p_below_margin": probability(part.p_below_margin),
                "part_verdict": part.verdict,
            }
            for part in judged.parts
        ]
        rows += [claim | part for part in parts or [{}]]
    return csv_of(VERDICT_FIELDS, rows)


VERDICT_HEADS = ("claim", "who says so", "model", "on", "verdict", "difference", "why")


def _verdict_row(judged: JudgedClaim) -> tuple[str, ...]:
    if len(judged.parts) == 1:
        part = judged.parts[0]
        found = f"{number(part.difference, sign=True)} [{number(part.low, sign=True)}, {number(part.high, sign=True)}]"
    else:
        better = sum(part.difference > 0 for part in judged.parts)
        found = f"{better} of {len(judged.parts)} above 0" if judged.parts else "-"
    verdict = f"**{judged.verdict}**" if judged.verdict and judged.deciding else judged.verdict or "not evaluated"
    return judged.says, judged.source, judged.model, judged.endpoint_label, verdict, found, judged.why


def _rules_note(comparison: Comparison) -> str:
    rules = comparison.definition.rules
    if rules is None:
        return "No rules are configured (`verdicts`)."
    return (
        f"By config/verdicts.yaml, written before any run (rules as applied: SHA-256 {comparison.definition.rules_sha256}): "
        f"level {rules.level:g}, margin {rules.margin:g} points of 100, at least {rules.minimum_seeds} seeds. Bold: the "
        "version of the endpoint that decides."
    )


def verdicts_markdown(comparison: Comparison) -> str:
    rows = [_verdict_row(judged) for judged in comparison.verdicts]
    note = [comparison.definition.note] if comparison.definition.note else []
    lines = ["# Verdicts", "", *markdown_table(VERDICT_HEADS, rows, left=7), "", _rules_note(comparison)]
    return "\n".join([*lines, *(line for text in note for line in ("", text))]) + "\n"


def verdicts_latex(comparison: Comparison) -> str:
    rows = [_verdict_row(judged) for judged in comparison.verdicts]
    return tabular(VERDICT_HEADS, rows, "Verdicts", "verdicts", [_rules_note(comparison)], "p{4cm}p{3cm}lp{2cm}lrp{3cm}")
