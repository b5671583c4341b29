"""The losses of some checkpoints' stages, drawn from the logs beside their done.json."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from vdep.files import write_atomically
from vdep.report.loss_figure import draw, losses_csv, read_log

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

files = iter(snakemake.input)
runs = {
    (f"{model}/{variant}", seed): {stage: read_log(Path(next(files))) for stage in ("pretrain", "finetune")}
    for model, variant, seed in json.loads(snakemake.params.runs)
}
draw(runs, Path(snakemake.output.png))
write_atomically(Path(snakemake.output.csv), losses_csv(runs))
