"""Tables as LaTeX (``booktabs``), to be put into a paper by ``\\input``."""

from __future__ import annotations

import re
from collections.abc import Sequence

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
    return "".join(
        rf"\textbf{{{_characters(part)}}}" if inside else _characters(part)
        for inside, part in zip(_alternating(), text.split("**"), strict=False)
    )


def _alternating() -> Sequence[bool]:
    return [bool(i % 2) for i in range(1000)]


def _characters(text: str) -> str:
    signed = re.fullmatch(r"[+-]\d[\d.]*", text)
    return f"${text}$" if signed else "".join(_SPECIAL.get(character, character) for character in text)


def tabular(
    heads: Sequence[str], rows: Sequence[Sequence[str]], caption: str, label: str, notes: Sequence[str] = (), left: int = 1
) -> str:
    """A table whose first ``left`` columns are words and the others numbers; a row that equals ``()`` is a rule."""
    lines = [
        "% needs \\usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escaped(caption)}}}",
        rf"\label{{tab:{label}}}",
        rf"\begin{{tabular}}{{{'l' * left}{'r' * (len(heads) - left)}}}",
        r"\toprule",
        " & ".join(map(escaped, heads)) + r" \\",
        r"\midrule",
    ]
    lines += [" & ".join(map(escaped, row)) + r" \\" if row else r"\midrule" for row in rows]
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par\smallskip\footnotesize {escaped(note)}" for note in notes]
    return "\n".join([*lines, r"\end{table}", ""])
