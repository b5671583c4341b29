# Does it help? Pairs of arms question by question, verdicts by the rules of config/verdicts.yaml, and what could be detected at all.
# What is finished is compared: nothing here starts a training, except where a target asks for tables or verdicts.


rule comparison:
    """Every pair of arms, on every benchmark and pooled; and the verdicts."""
    input:
        asked=lambda w: [path for _, path in asked_for(comparable(STUDY))],
        published=workflow.source_path("../config/published.csv"),
        rules=workflow.source_path("../config/verdicts.yaml"),
    output:
        csv=report(f"{RESULTS}/tables/comparison.csv", caption="captions/comparison.rst", category="Evidence"),
        markdown=f"{RESULTS}/tables/comparison.md",
        latex=f"{RESULTS}/tables/comparison.tex",
        json=f"{RESULTS}/tables/comparison.json",
        provenance=f"{RESULTS}/tables/comparison.provenance.json",
        verdicts_csv=report(f"{RESULTS}/tables/verdicts.csv", caption="captions/verdicts.rst", category="Evidence"),
        verdicts_markdown=f"{RESULTS}/tables/verdicts.md",
        verdicts_latex=f"{RESULTS}/tables/verdicts.tex",
    log:
        f"{RESULTS}/logs/tables/comparison.log",
    localrule: True
    conda:
        "../envs/vdep.yaml"
    params:
        # in the order of the configuration
        definition=lambda w: json.dumps(comparison_definition(STUDY)),
        asked=lambda w: asked_recipes(comparable(STUDY)),
        finished=lambda w: what_is_finished(comparable(STUDY)),
    script:
        "../workflow_scripts/comparison.py"


rule power:
    """The smallest effects that some seeds can detect, and which of the paper's differences are smaller."""
    input:
        comparison=f"{RESULTS}/tables/comparison.json",
        published=workflow.source_path("../config/published.csv"),
    output:
        csv=report(f"{RESULTS}/tables/power.csv", caption="captions/power.rst", category="Evidence"),
        differences=f"{RESULTS}/tables/power_published.csv",
        markdown=f"{RESULTS}/tables/power.md",
        latex=f"{RESULTS}/tables/power.tex",
        json=f"{RESULTS}/tables/power.json",
    log:
        f"{RESULTS}/logs/tables/power.log",
    localrule: True
    conda:
        "../envs/vdep.yaml"
    script:
        "../workflow_scripts/power.py"


rule tidy:
    """Every number of every finished evaluation, one a line."""
    input:
        lambda w: [path for _, path in asked_for(PLAN.all_scores)],
    output:
        report(f"{RESULTS}/tables/results.csv", caption="captions/results.rst", category="Evidence"),
    log:
        f"{RESULTS}/logs/tables/results.log",
    localrule: True
    conda:
        "../envs/vdep.yaml"
    params:
        asked=lambda w: asked_recipes(PLAN.all_scores),
        finished=lambda w: what_is_finished(PLAN.all_scores),
    script:
        "../workflow_scripts/tidy.py"
