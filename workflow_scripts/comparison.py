"""Every pair of arms compared, and the verdicts: CSV, Markdown, LaTeX, JSON, and where each number comes from."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from vdep.files import sha256, write_atomically, write_json
from vdep.report import comparison_text as text
from vdep.report.comparison import build_comparison, provenance
from vdep.report.evidence import Definition
from vdep.report.finished import Finished, made
from vdep.report.results import read_published

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

definition = Definition.model_validate(
    {**json.loads(snakemake.params.definition), "rules_file_sha256": sha256(Path(snakemake.input.rules))}
)
done = Finished.model_validate_json(snakemake.params.finished)
files = done.files | made(snakemake.params.asked, snakemake.input.asked)
comparison = build_comparison(definition, files, read_published(Path(snakemake.input.published)), done.left_out)
# in the order of the configuration, which write_json would sort
write_atomically(Path(snakemake.output.json), comparison.model_dump_json(indent=1) + "\n")
for path, content in (
    (snakemake.output.csv, text.as_csv(comparison)),
    (snakemake.output.markdown, text.as_markdown(comparison)),
    (snakemake.output.latex, text.as_latex(comparison)),
    (snakemake.output.verdicts_csv, text.verdicts_csv(comparison)),
    (snakemake.output.verdicts_markdown, text.verdicts_markdown(comparison)),
    (snakemake.output.verdicts_latex, text.verdicts_latex(comparison)),
):
    write_atomically(Path(path), content)
write_json(Path(snakemake.output.provenance), provenance(comparison, files))
