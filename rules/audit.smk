# What the printed numbers cannot be, from the numbers alone: nothing is trained, and no GPU is needed.


if "audit" in STUDY.tables:
    raise WorkflowError("configuration: tables.audit: the audit of the printed numbers has that name; give the table another")


rule audit:
    """Every printed number of which the numbers alone say something, and why."""
    input:
        published=workflow.source_path("../config/published.csv"),
        expectations=workflow.source_path("../config/audit.yaml"),
    output:
        csv=report(f"{RESULTS}/tables/audit.csv", caption="captions/audit.rst", category="Tables", labels={"table": "audit"}),
        markdown=f"{RESULTS}/tables/audit.md",
    log:
        f"{RESULTS}/logs/tables/audit.log",
    localrule: True
    conda:
        "../envs/vdep.yaml"
    params:
        protocols=canonical_json({name: entry.model_dump(mode="json") for name, entry in STUDY.protocols.items()}),
    script:
        "../workflow_scripts/audit.py"


ruleorder: audit > mistyped
