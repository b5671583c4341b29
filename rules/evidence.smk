# Does it help? Pairs of arms question by question, verdicts by the rules of config/verdicts.yaml, and what could be detected at all.
# What is finished is compared: nothing here starts a training, except where a target asks for tables or verdicts.


def asked_for():
    """(key, file) of each score that the targets of the command line need anyway."""
    wanted = set(comparable(STUDY))
    return [
        ((*run, benchmark), PLAN.scores(run, benchmark))
        for run, benchmark in PLAN.asked(workflow.dag_settings.targets)
        if (run, benchmark) in wanted
    ]


def what_is_finished():
    return finished(PLAN, comparable(STUDY), {path for _, path in asked_for()}).model_dump_json()


rule comparison:
    """Every pair of arms, on every benchmark and pooled; and the verdicts."""
    input:
        asked=lambda w: [path for _, path in asked_for()],
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
        asked=lambda w: canonical_json([key for key, _ in asked_for()]),
        finished=lambda w: what_is_finished(),
    script:
        "../workflow_scripts/comparison.py"
