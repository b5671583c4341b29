# One checkpoint on one benchmark, by lmms-eval; a result that cannot be trusted fails its job.


rule evaluate:
    input:
        checkpoint=f"{RESULTS}/runs/{{model}}/{{variant}}/finetune/done.json",
        data=benchmark_manifest,
    output:
        f"{RESULTS}/evaluations/{{model}}/{{variant}}/{{benchmark}}.json",
    log:
        f"{RESULTS}/logs/evaluate/{{model}}/{{variant}}/{{benchmark}}.log",
    wildcard_constraints:
        benchmark=SCORED,
    conda:
        "../envs/vdep.yaml"
    threads: EXECUTION.evaluate.threads
    resources:
        **evaluation_resources(),
    params:
        recipe=evaluation_recipe,
    shell:
        "python -m vdep evaluate --recipe {params.recipe:q} --execution {resources.execution:q} "
        "--checkpoint {input.checkpoint:q} --data {input.data:q} --scores {output:q} > {log:q} 2>&1"
