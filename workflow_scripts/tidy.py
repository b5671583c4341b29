"""Every number of every finished evaluation, as one CSV."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from vdep.files import write_atomically
from vdep.report.finished import Finished
from vdep.report.tidy import as_csv

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

files = {key: Path(path) for key, path, _ in Finished.model_validate_json(snakemake.params.finished).scores}
asked = json.loads(snakemake.params.asked)
files |= {tuple(key): Path(path) for key, path in zip(asked, snakemake.input, strict=True)}
write_atomically(Path(snakemake.output[0]), as_csv(files))
