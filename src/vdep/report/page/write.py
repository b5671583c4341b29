"""The page as a file: everything that is gathered as JSON, in the one script tag that the rest of the page reads."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import shutil
from pathlib import Path

from ...files import write_atomically
from . import curves, evidence, maps, origin
from .cells import sheet, tables
from .content import Answers, Page
from .current import current
from .request import Request
from .room import More, Room, one_page

HERE = Path(__file__).parent
SCRIPTS = tuple(
    f"{name}.js"
    for name in ("dom", "data", "charts", "verdicts", "tables", "losses", "attention", "kinds", "answers", "origin", "page")
)
"""In this order: each may use what stands before it."""


def gather(request: Request, checkout: Path, space: Room, more: More) -> Page:
    """The page. ``more`` is given the answers of each benchmark that it shows in part."""
    request, left_out = current(request)
    found = evidence.concluded(request)
    differences = evidence.differences(found)
    page = Page(
        title=request.title,
        note=request.note,
        claims=evidence.claims(found),
        differences=differences,
        evidence=evidence.evidence(found),
        tables=tables(request, differences),
        others=tuple(sheet(Path(file), name) for name, file in request.others.items()),
        power=evidence.sheets(request, evidence.POWER),
        audit=evidence.sheets(request, evidence.AUDIT),
        curves=curves.curves(request),
        attention=maps.views(request),
        answers=one_page(request, space, more),
        origin=origin.origin(request, checkout, left_out),
    )
    missing = {name: sentence for name, sentence in evidence.MISSING.items() if not getattr(page, name)}
    return page.model_copy(update={"missing": missing})


def build(request: Request, checkout: Path, output: Path, folder: Path, log: Path, space: Room | None = None) -> None:
    """Write the page, and into ``folder`` one for each benchmark that it shows only in part; ``log``: how large they are."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    written = [output]
    labels = {benchmark.name: benchmark.label for benchmark in request.benchmarks}

    def more(name: str, answers: Answers) -> None:
        page = Page(title=f"{request.title}: {labels[name]}", note=request.note, home=f"../{output.name}", answers=answers)
        written.append(folder / f"{name}.html")
        write_atomically(written[-1], as_html(page))

    write_atomically(output, as_html(gather(request, checkout, space or Room(), more)))
    write_atomically(log, "".join(f"{path}: {path.stat().st_size:,} bytes\n" for path in written))


def as_html(page: Page) -> str:
    """One file that needs no other, and whose own policy lets it fetch none."""
    style = (HERE / "style.css").read_text()
    script = "(() => {\n'use strict';\n" + "\n".join((HERE / name).read_text() for name in SCRIPTS) + "\n})();\n"
    parts = {
        "policy": f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}",
        "title": html.escape(page.title),
        "style": style,
        "data": as_json(page),
        "script": script,
    }
    text = (HERE / "template.html").read_text()
    head, *rest = text.split("{{")
    # one pass: what is filled in may itself hold the marks of the template
    return head + "".join(parts[piece.split("}}", 1)[0]] + piece.split("}}", 1)[1] for piece in rest)


def as_json(page: Page) -> str:
    """JSON that cannot end the tag that it stands in, nor open a comment there: ``<`` is written as an escape."""
    content = page.model_dump(mode="json", exclude_defaults=True)
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
