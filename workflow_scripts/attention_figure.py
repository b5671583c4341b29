"""Two checkpoints' attention side by side, and the totals behind the curves."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from vdep.files import write_atomically
from vdep.report.attention_data import Flow
from vdep.report.attention_figure import draw, totals_csv

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

figure = json.loads(snakemake.params.definition)
flows = {name: Flow.load(Path(path)) for name, path in zip((figure["left"], figure["right"]), snakemake.input, strict=True)}
draw(flows, figure["question"], Path(snakemake.output.png))
write_atomically(Path(snakemake.output.csv), totals_csv(flows))
