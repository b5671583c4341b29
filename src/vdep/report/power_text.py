"""Power, for people and for programs: CSV, Markdown, LaTeX."""

from __future__ import annotations

from itertools import groupby

from .comparison_text import csv_of, markdown_table, number
from .latex import tabular
from .power import Detectable, Power, PublishedDifference, beyond


def _seeds(n: int) -> str:
    return f"{n} seed{'s' if n > 1 else ''}"


def as_csv(power: Power) -> str:
    """One line per quantity: ``smallest_n`` is the smallest effect that n seeds detect, in points of 100."""
    fixed = ("quantity", "label", "pooled", "questions", "spread", "by_questions", "basis")
    fields = (*fixed, *(f"smallest_{n}" for n in power.rules.seeds))
    rows = [
        {
            "quantity": row.quantity,
            "label": row.label,
            "pooled": "yes" if row.pooled else "no",
            "questions": "" if row.questions is None else str(row.questions),
            "spread": number(row.spread),
            "by_questions": number(row.by_questions),
            "basis": row.basis,
        }
        | {f"smallest_{n}": number(row.smallest.get(n)) for n in power.rules.seeds}
        for row in power.rows
    ]
    return csv_of(fields, rows)


def published_csv(power: Power) -> str:
    """One line per difference of the paper."""
    fields = ("model", "treatment", "reference", "quantity", "label", "change", "points", "detected_with", "needed")
    rows = [
        {
            **{name: getattr(d, name) for name in ("model", "treatment", "reference", "quantity", "label")},
            "change": number(d.change, sign=True),
            "points": number(d.points, sign=True),
            "detected_with": "" if d.detected_with is None else str(d.detected_with),
            "needed": "" if d.needed is None else beyond(d.needed),
        }
        for d in power.published
    ]
    return csv_of(fields, rows)


def _heads(power: Power) -> tuple[str, ...]:
    return "", "questions", "spread", *(f"{_seeds(n)}{' *' if n == 1 else ''}" for n in power.rules.seeds), "basis"


def _row(row: Detectable, power: Power) -> tuple[str, ...]:
    label = f"**{row.label}**" if row.pooled else row.label
    smallest = (number(row.smallest.get(n)) or "-" for n in power.rules.seeds)
    return label, "-" if row.questions is None else str(row.questions), number(row.spread) or "-", *smallest, row.basis


def _caption(power: Power) -> str:
    rules = power.rules
    return (
        f"The smallest difference of two arms that is detected with a probability of {rules.power:.0%} (two-sided test, "
        f"{rules.level:.0%}), in points of 100"
    )


def _notes(power: Power) -> list[str]:
    assumed = power.rules.assumed
    notes = [
        "* One seed: two checkpoints over questions, no training noise; it says nothing of how they were trained.",
        "spread: standard deviation over seeds of the paired difference. basis: before any run it is assumed "
        f"(config/verdicts.yaml: seeds {assumed.seed_spread:g} points on a benchmark with correlation "
        f"{assumed.seed_correlation:g}, {assumed.disagreement:.0%} of the questions answered otherwise); finished runs measure "
        "first what questions do, then both together.",
    ]
    return [*notes, *([power.note] if power.note else [])]


def _verdict(d: PublishedDifference, power: Power) -> str:
    if d.detected_with is not None:
        return _seeds(d.detected_with)
    most = max(power.rules.seeds)
    return "-" if d.needed is None else f"not with {most}: about {beyond(d.needed)}"


def as_markdown(power: Power) -> str:
    lines = [f"# Power\n\n{_caption(power)}.", ""]
    lines += [*markdown_table(_heads(power), [_row(row, power) for row in power.rows]), ""]
    lines += [
        line.replace("* One", r"\* One", 1) if line.startswith("* One") else line for n in _notes(power) for line in (n, "")
    ]
    if power.published:
        # of a spread that nobody knows, and of no difference at all, it cannot be said how many seeds would do
        unknown = sum(d.needed is None for d in power.published)
        small = sum(d.needed is not None and d.detected_with is None for d in power.published)
        beside = f" Of {unknown} nothing can be said: no spread is known, or the difference is 0." if unknown else ""
        lines += [
            "## The paper's differences",
            "",
            f"{small} of {len(power.published)} lie below what {max(power.rules.seeds)} seeds would detect.{beside} "
            "Each is of one run of either arm.",
            "",
        ]
    for pair, found in groupby(power.published, lambda d: (d.model, d.treatment, d.reference)):
        rows = [(d.label, number(d.change, sign=True), number(d.points, sign=True), _verdict(d, power)) for d in found]
        lines += [f"### {pair[0]}: {pair[1]} against {pair[2]}", ""]
        lines += [*markdown_table(("", "published", "points of 100", "would be detected with"), rows), ""]
    return "\n".join(lines).rstrip() + "\n"


def as_latex(power: Power) -> str:
    return tabular(_heads(power), [_row(row, power) for row in power.rows], _caption(power), "power", _notes(power))
