"""Tables as LaTeX (``booktabs``), to be put into a paper by ``\\input``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from .tables import CHANGE, BuiltTable

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "-": "-",
    "<": r"$<$",
    ">": r"$>$",
    "–": "--",
} | {character: f"\\{character}" for character in "&%$#_{}"}


def escaped(text: str) -> str:
    """Plain text, in LaTeX; what stands between ``**`` becomes bold, as in Markdown."""
    parts = text.split("**")
    return "".join(rf"\textbf{{{_characters(part)}}}" if i % 2 else _characters(part) for i, part in enumerate(parts))


def _characters(text: str) -> str:
    signed = re.fullmatch(r"[+-]\d[\d.]*", text)
    return f"${text}$" if signed else "".join(_SPECIAL.get(character, character) for character in text)


def tabular(
    heads: Sequence[str], rows: Sequence[Sequence[str]], caption: str, label: str, notes: Sequence[str] = (), columns: str = ""
) -> str:
    """A table; a row that equals ``()`` is a rule.

    Args:
        columns: how they are set, as LaTeX has it; else the first is words and the others are numbers.
    """
    lines = [
        "% needs \\usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escaped(caption)}}}",
        rf"\label{{tab:{label}}}",
        rf"\begin{{tabular}}{{{columns or 'l' + 'r' * (len(heads) - 1)}}}",
        r"\toprule",
        " & ".join(map(escaped, heads)) + r" \\",
        r"\midrule",
    ]
    lines += [" & ".join(map(escaped, row)) + r" \\" if row else r"\midrule" for row in rows]
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par\smallskip\footnotesize {escaped(note)}" for note in notes]
    return "\n".join([*lines, r"\end{table}", ""])


def table_latex(table: BuiltTable, name: str) -> str:
    """Of the paper's tables: a line of what was reproduced, and one of what is published; calibration has none of the latter.

    Marks and notes on single numbers are the Markdown's.
    """
    rows: list[tuple[str, ...]] = []
    for i, (model, run) in enumerate(table.rows):
        if i and model != table.rows[i - 1][0]:
            rows.append(())
        rows += [(model, f"{run}{what}", *line) for what, line in _lines(table, model, run)]
    seeds = {cell["n"] for cell in table.cells.values() if "n" in cell}
    notes = [f"Mean over {' or '.join(sorted(seeds))} seeds ± their standard deviation." if seeds else "One seed (n = 1)."]
    heads = ("model", "run", *(table.labels[name] for name in table.columns))
    return tabular(heads, rows, table.title, name, [*notes, *dict.fromkeys(table.notes)], "ll" + "r" * len(table.columns))


def _lines(table: BuiltTable, model: str, run: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What it is, and its numbers."""
    cells = [(name, table.cells[model, run, name]) for name in table.columns]

    def shown(name: str, quantity: str, text: str) -> str:
        return f"**{text}**" if (model, run, name, quantity) in table.best else text

    own = "change" if run == CHANGE else "reproduced"
    if any(own in cell for _, cell in cells):
        spreads = [f" ± {cell['spread']}" if cell.get("spread") else "" for _, cell in cells]
        numbers = [shown(name, own, cell.get(own, "-")) for name, cell in cells]
        yield "", tuple(number + spread for number, spread in zip(numbers, spreads, strict=True))
    printed = "published_change" if run == CHANGE else "published"
    if any(printed in cell for _, cell in cells):
        yield ", published", tuple(shown(name, printed, cell.get(printed, "-")) for name, cell in cells)
