"""Two checkpoints' attention side by side, and the totals behind the curves."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from vdep.files import write_atomically
from vdep.report.attention_data import Flow
from vdep.report.attention_figure import draw, totals_csv

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

names = [f"{model}/{variant}" for model, variant, _ in json.loads(snakemake.params.runs)]
flows = {name: Flow.load(Path(path)) for name, path in zip(names, snakemake.input, strict=True)}
draw(flows, snakemake.params.question, Path(snakemake.output.png))
write_atomically(Path(snakemake.output.csv), totals_csv(flows))
