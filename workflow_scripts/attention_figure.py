"""Checkpoints' attention side by side, how much of it lies on objects, and the numbers of both."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from vdep.files import write_atomically
from vdep.report import attention_figure, objects_figure
from vdep.report.attention_data import Flow
from vdep.report.attention_statistics import report
from vdep.report.attention_tables import as_csv, as_markdown

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

flows: dict[str, list[Flow]] = {}
for (model, variant, _), path in zip(json.loads(snakemake.params.runs), snakemake.input, strict=True):
    flows.setdefault(f"{model}/{variant}", []).append(Flow.load(Path(path)))
said = report(flows, snakemake.params.question)
attention_figure.draw(flows, said, Path(snakemake.output.png))
objects_figure.draw(said, Path(snakemake.output.objects))
write_atomically(Path(snakemake.output.csv), as_csv(said))
write_atomically(Path(snakemake.output.markdown), as_markdown(said))
write_atomically(Path(snakemake.output.json), said.model_dump_json(indent=1) + "\n")
