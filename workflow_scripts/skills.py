"""What each checkpoint sees, skill by skill, pooled over the benchmarks."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from vdep.files import write_atomically
from vdep.report.skills import as_csv, as_markdown, pooled

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

keys = [tuple(key) for key in json.loads(snakemake.params.evaluations)]
scores = pooled(dict(zip(keys, map(Path, snakemake.input), strict=True)))
write_atomically(Path(snakemake.output.csv), as_csv(scores))
write_atomically(Path(snakemake.output.markdown), as_markdown(scores))
