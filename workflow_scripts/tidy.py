"""Every number of every finished evaluation, as one CSV."""

from pathlib import Path
from typing import TYPE_CHECKING

from vdep.files import write_atomically
from vdep.report.finished import Finished, made
from vdep.report.tidy import as_csv

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

files = Finished.model_validate_json(snakemake.params.finished).files | made(snakemake.params.asked, snakemake.input)
write_atomically(Path(snakemake.output[0]), as_csv(files))
