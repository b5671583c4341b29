"""The audit of the printed numbers, as CSV and Markdown."""

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from vdep.report.audit import audit, write
from vdep.report.audit_expectations import read_expectations
from vdep.report.results import read_published
from vdep.study.tables import Protocol

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

protocols = TypeAdapter(dict[str, Protocol]).validate_json(snakemake.params.protocols)
expectations = read_expectations(Path(snakemake.input.expectations))
found = audit(read_published(Path(snakemake.input.published)), expectations, protocols)
write(found, Path(snakemake.output.csv), Path(snakemake.output.markdown))
