# The paper's tables from the scores: reproduced, published, difference; and where each number comes from.


rule table:
    """One table as CSV, Markdown and LaTeX, with the origin of every number."""
    input:
        scores=lambda w: [PLAN.scores(run, benchmark) for run, benchmark in PLAN.evaluations[w.table]],
        published=workflow.source_path("../config/published.csv"),
        expectations=workflow.source_path("../config/audit.yaml"),
    output:
        csv=report(
            f"{RESULTS}/tables/{{table}}.csv", caption="captions/table.rst", category="Tables", labels={"table": "{table}"}
        ),
        markdown=f"{RESULTS}/tables/{{table}}.md",
        latex=f"{RESULTS}/tables/{{table}}.tex",
        provenance=f"{RESULTS}/tables/{{table}}.provenance.json",
    log:
        f"{RESULTS}/logs/tables/{{table}}.log",
    localrule: True
    conda:
        "../envs/vdep.yaml"
    params:
        definition=lambda w: PLAN.table_definition(w.table),
    script:
        "../workflow_scripts/table.py"
