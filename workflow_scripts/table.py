"""One table of the paper, as CSV, Markdown and LaTeX, with its provenance."""

from pathlib import Path
from typing import TYPE_CHECKING

from vdep.files import write_atomically, write_json
from vdep.report.audit import audit, remarks
from vdep.report.audit_expectations import read_expectations
from vdep.report.combined import interval
from vdep.report.latex import table_latex
from vdep.report.printing import as_csv, as_markdown, provenance
from vdep.report.results import Results, read_published
from vdep.report.tables import TableDefinition, build_table

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

definition = TableDefinition.model_validate_json(snakemake.params.definition)
keys = definition.evaluations
files = dict(zip(keys, map(Path, snakemake.input[: len(keys)]), strict=True))
results = Results(files, dict(zip(keys, definition.recipes, strict=True)), interval)
published = read_published(Path(snakemake.input.published))
audited = audit(published, read_expectations(Path(snakemake.input.expectations)), protocols={})
table = build_table(definition, results, published, remarks(audited))
write_atomically(Path(snakemake.output.csv), as_csv(table))
write_atomically(Path(snakemake.output.markdown), as_markdown(table))
write_atomically(Path(snakemake.output.latex), table_latex(table, snakemake.wildcards.table))
write_json(Path(snakemake.output.provenance), provenance(table, results, definition.columns))
