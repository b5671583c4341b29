# A split whose answers are not public: what comes out is the file that the benchmark's server scores.


rule submission:
    """Write the file that a benchmark's server scores."""
    input:
        checkpoint=f"{RESULTS}/runs/{{model}}/{{variant}}/{{seed}}/finetune/done.json",
        data=lambda w: PLAN.asset(STUDY.benchmarks[w.benchmark].asset),
    output:
        f"{RESULTS}/submissions/{{model}}/{{variant}}/{{seed}}/{{benchmark}}.json",
    log:
        f"{RESULTS}/logs/submission/{{model}}/{{variant}}/{{seed}}/{{benchmark}}.log",
    wildcard_constraints:
        benchmark=SUBMITTED,
    conda:
        "../envs/vdep.yaml"
    threads: EXECUTION.evaluate.threads
    resources:
        **evaluation_resources(),
    params:
        recipe=lambda w: STUDY.evaluation_recipe(w.model, w.variant, w.benchmark).canonical,
    shell:
        "$VDEP evaluate --recipe {params.recipe:q} --execution {resources.execution:q} "
        "--checkpoint {input.checkpoint:q} --data {input.data:q} --scores {output:q} > {log:q} 2>&1"
