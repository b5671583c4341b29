"""One table of the paper, as CSV and Markdown, with its provenance."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from vdep.files import write_atomically, write_json
from vdep.report.tables import Results, as_csv, as_markdown, build_table, provenance, read_published
from vdep.study.settings import Calibration, Column, Protocol
from vdep.study.study import split_checkpoint

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

definition = json.loads(snakemake.params.definition)
keys = [tuple(key) for key in definition["evaluations"]]
results = Results(dict(zip(keys, map(Path, snakemake.input[: len(keys)]), strict=True)))
columns = {name: Column.model_validate(column) for name, column in definition["columns"].items()}
spec = definition["table"]
table = build_table(
    spec["title"],
    [split_checkpoint(row) for row in spec["rows"]],
    spec["columns"],
    columns,
    results,
    read_published(Path(snakemake.input.published)),
    spec["published"],
    {name: Protocol.model_validate(protocol) for name, protocol in definition["protocols"].items()},
    Calibration.model_validate(spec["calibration"]) if spec["calibration"] else None,
    definition["left_out"],
)
write_atomically(Path(snakemake.output.csv), as_csv(table))
write_atomically(Path(snakemake.output.markdown), as_markdown(table))
write_json(Path(snakemake.output.provenance), provenance(table, results, columns))
