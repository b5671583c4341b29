"""The demo's own report: what each checkpoint sees, skill by skill, pooled over the benchmarks; and what guessing scores."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from vdep.artifacts import AssetManifest
from vdep.files import write_atomically
from vdep_demo.chance import chance_csv
from vdep_demo.skills import as_csv, as_markdown, pooled

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

evaluations = json.loads(snakemake.params.evaluations)
seeds = {seed for _, _, seed, _ in evaluations}
keys = [(m, v if len(seeds) == 1 else f"{v} {seed}", benchmark) for m, v, seed, benchmark in evaluations]
scores = dict(zip(keys, map(Path, snakemake.input.scores), strict=True))
benchmarks = list(dict.fromkeys(benchmark for *_, benchmark in keys))
assets = {
    name: AssetManifest.open(Path(manifest)).folder
    for name, manifest in zip(benchmarks, snakemake.input.questions, strict=True)
}
skills = pooled(scores, assets)
write_atomically(Path(snakemake.output.csv), as_csv(skills))
write_atomically(Path(snakemake.output.markdown), as_markdown(skills))
write_atomically(Path(snakemake.output.chance), chance_csv({key[2]: path for key, path in reversed(scores.items())}, assets))
