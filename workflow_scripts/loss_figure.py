"""The losses of some checkpoints' stages, drawn from the logs beside their done.json."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from vdep.files import write_atomically
from vdep.report.loss_figure import draw, losses_csv, read_log

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

logs = iter(zip(snakemake.input, json.loads(snakemake.params.samples), strict=True))
runs = {}
for model, variant, seed in json.loads(snakemake.params.runs):
    stages = runs[f"{model}/{variant}", seed] = {}
    for stage in ("pretrain", "finetune"):
        path, samples = next(logs)
        stages[stage] = read_log(Path(path), samples)
draw(runs, Path(snakemake.output.png))
write_atomically(Path(snakemake.output.csv), losses_csv(runs))
