# VDEP: the paper's plan, from downloads to tables. `snakemake -n all` shows it; README.md says how to run it.

from snakemake.utils import min_version

min_version("9.20")


configfile: "config/assets.yaml"
configfile: "config/datasets.yaml"
configfile: "config/models.yaml"
configfile: "config/variants.yaml"
configfile: "config/benchmarks.yaml"
configfile: "config/protocols.yaml"
configfile: "config/config.yaml"


include: "rules/common.smk"
include: "rules/assets.smk"
include: "rules/data.smk"
include: "rules/train.smk"
include: "rules/evaluate.smk"
include: "rules/submission.smk"
include: "rules/tables.smk"
include: "rules/figures.smk"


rule all:
    default_target: True
    input:
        main_targets(),
        ablation_tables(),


rule main:
    input:
        main_targets(),


rule controls:
    input:
        control_targets(),


rule submissions:
    input:
        submission_targets(),


rule assets:
    input:
        asset_targets(),


include: "rules/demo.smk"


onstart:
    before_the_first_job()
