"""What some seeds can detect: CSV, Markdown, LaTeX, JSON."""

from pathlib import Path
from typing import TYPE_CHECKING

from vdep.files import write_atomically
from vdep.report import power_text as text
from vdep.report.evidence import Comparison
from vdep.report.power import build_power
from vdep.report.results import read_published

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

comparison = Comparison.read(Path(snakemake.input.comparison))
power = build_power(comparison, read_published(Path(snakemake.input.published)))
# in the order of the configuration, which write_json would sort
write_atomically(Path(snakemake.output.json), power.model_dump_json(indent=1) + "\n")
write_atomically(Path(snakemake.output.csv), text.as_csv(power))
write_atomically(Path(snakemake.output.differences), text.published_csv(power))
write_atomically(Path(snakemake.output.markdown), text.as_markdown(power))
write_atomically(Path(snakemake.output.latex), text.as_latex(power))
