"""One table of the paper, as CSV and Markdown, with its provenance."""

from pathlib import Path
from typing import TYPE_CHECKING

from vdep.files import write_atomically, write_json
from vdep.report.printing import as_csv, as_markdown, provenance
from vdep.report.results import Results, read_published
from vdep.report.tables import TableDefinition, build_table

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

definition = TableDefinition.model_validate_json(snakemake.params.definition)
keys = definition.evaluations
results = Results(
    dict(zip(keys, map(Path, snakemake.input[: len(keys)]), strict=True)), dict(zip(keys, definition.recipes, strict=True))
)
table = build_table(definition, results, read_published(Path(snakemake.input.published)))
write_atomically(Path(snakemake.output.csv), as_csv(table))
write_atomically(Path(snakemake.output.markdown), as_markdown(table))
write_json(Path(snakemake.output.provenance), provenance(table, results, definition.columns))
