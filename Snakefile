# VDEP: the paper's plan, from downloads to tables. `snakemake -n all` shows it; README.md says how to run it.

from snakemake.utils import min_version

min_version("9.20")


configfile: f"{workflow.basedir}/config/assets.yaml"
configfile: f"{workflow.basedir}/config/datasets.yaml"
configfile: f"{workflow.basedir}/config/models.yaml"
configfile: f"{workflow.basedir}/config/variants.yaml"
configfile: f"{workflow.basedir}/config/benchmarks.yaml"
configfile: f"{workflow.basedir}/config/protocols.yaml"
configfile: f"{workflow.basedir}/config/verdicts.yaml"
configfile: f"{workflow.basedir}/config/config.yaml"


report: "rules/captions/workflow.rst"


include: "rules/common.smk"
include: "rules/finished.smk"
include: "rules/assets.smk"
include: "rules/data.smk"
include: "rules/train.smk"
include: "rules/evaluate.smk"
include: "rules/submission.smk"
include: "rules/tables.smk"
include: "rules/audit.smk"
include: "rules/figures.smk"
include: "rules/evidence.smk"
include: "rules/report.smk"


rule all:
    """Every table and figure of the paper."""
    default_target: True
    input:
        target("all"),


rule main:
    """The paper's main tables, and the figures."""
    input:
        target("main"),


rule controls:
    """Not in the paper: is it the image loss, or the doubled steps?"""
    input:
        target("controls"),


rule submissions:
    """What only the servers of VizWiz and MMBench can score."""
    input:
        PLAN.submissions or (lambda w: refuse(targets.nothing(PLAN, "submissions"))),


rule assets:
    """All downloads."""
    input:
        PLAN.assets,


include: "rules/demo.smk"


rule mistyped:
    """No such target: its input names those that there are."""
    input:
        lambda w: refuse(str(targets.unknown(PLAN, w.mistyped, [rule.name for rule in workflow.rules]))),
    output:
        "{mistyped}",
    wildcard_constraints:
        mistyped=targets.mistyped(RESULTS, (file.regex().pattern for rule in workflow.rules for file in rule.output)),


for file in {str(file) for rule in workflow.rules for file in rule.output} & set(targets.files(PLAN)):
    raise WorkflowError(f"configuration: a rule makes {file} already; give the table or figure of that name another")

# what an overlay adds to `targets`
for added in set(STUDY.targets) - {"all", "main", "controls"}:
    if any(rule.name == added for rule in workflow.rules):
        raise WorkflowError(f"configuration: targets.{added}: a rule has that name; give the target another")

    rule:
        name:
            added
        input:
            target(added),


onstart:
    before_the_first_job()
