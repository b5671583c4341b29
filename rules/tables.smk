# The paper's tables from the scores: reproduced, published, difference; and where each number comes from.


rule table:
    input:
        table_scores,
        published=workflow.source_path("../config/published.csv"),
    output:
        csv=f"{RESULTS}/tables/{{table}}.csv",
        markdown=f"{RESULTS}/tables/{{table}}.md",
        provenance=f"{RESULTS}/tables/{{table}}.provenance.json",
    log:
        f"{RESULTS}/logs/tables/{{table}}.log",
    localrule: True
    conda:
        "../envs/vdep.yaml"
    params:
        definition=table_definition,
    script:
        "../workflow_scripts/table.py"
