"""Two runs' attention side by side, and the totals behind the curves."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from vdep.files import write_atomically
from vdep.report.attention_data import Flow
from vdep.report.attention_figure import draw, totals_csv

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

flows: dict[str, list[Flow]] = {}
for (model, variant, _), path in zip(json.loads(snakemake.params.runs), snakemake.input, strict=True):
    flows.setdefault(f"{model}/{variant}", []).append(Flow.load(Path(path)))
draw(flows, snakemake.params.question, Path(snakemake.output.png))
write_atomically(Path(snakemake.output.csv), totals_csv(flows))
