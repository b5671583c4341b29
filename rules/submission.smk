# A split whose answers are not public: what comes out is the file that the benchmark's server scores.


rule submission:
    input:
        checkpoint=f"{RESULTS}/runs/{{model}}/{{variant}}/finetune/done.json",
        data=benchmark_manifest,
    output:
        f"{RESULTS}/submissions/{{model}}/{{variant}}/{{benchmark}}.json",
    log:
        f"{RESULTS}/logs/submission/{{model}}/{{variant}}/{{benchmark}}.log",
    wildcard_constraints:
        benchmark=SUBMITTED,
    conda:
        "../envs/vdep.yaml"
    threads: EXECUTION.evaluate.threads
    resources:
        **evaluation_resources(),
    params:
        recipe=evaluation_recipe,
    shell:
        "$VDEP evaluate --recipe {params.recipe:q} --execution {resources.execution:q} "
        "--checkpoint {input.checkpoint:q} --data {input.data:q} --scores {output:q} > {log:q} 2>&1"
