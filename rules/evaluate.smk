# One checkpoint on one benchmark, by lmms-eval; a result that cannot be trusted fails its job. What a server grades (MM-Vet) is
# answered where the GPUs are, graded where the network is, and then scored.


rule answer:
    input:
        checkpoint=f"{RESULTS}/runs/{{model}}/{{variant}}/finetune/done.json",
        data=benchmark_manifest,
    output:
        f"{RESULTS}/evaluations/{{model}}/{{variant}}/{{benchmark}}.answers.json",
    log:
        f"{RESULTS}/logs/answer/{{model}}/{{variant}}/{{benchmark}}.log",
    conda:
        "../envs/vdep.yaml"
    threads: EXECUTION.evaluate.threads
    resources:
        **evaluation_resources(),
    params:
        recipe=answer_recipe,
    shell:
        "$VDEP answer --recipe {params.recipe:q} --execution {resources.execution:q} "
        "--checkpoint {input.checkpoint:q} --data {input.data:q} --answers {output:q} > {log:q} 2>&1"


rule grade:
    input:
        f"{RESULTS}/evaluations/{{model}}/{{variant}}/{{benchmark}}.answers.json",
    output:
        f"{RESULTS}/evaluations/{{model}}/{{variant}}/{{benchmark}}.graded.json",
    log:
        f"{RESULTS}/logs/grade/{{model}}/{{variant}}/{{benchmark}}.log",
    # it has tried again itself
    retries: 0
    localrule: EXECUTION.judge.where == "driver"
    conda:
        "../envs/vdep.yaml"
    resources:
        mem_mb=1000,
        runtime=EXECUTION.judge.runtime,
        execution=canonical_json(EXECUTION.judge.model_dump(mode="json")),
    params:
        judge=canonical_json(STUDY.judge and STUDY.judge.model_dump(mode="json")),
    shell:
        "$VDEP grade --judge {params.judge:q} --execution {resources.execution:q} --answers {input:q} "
        "--graded {output:q} > {log:q} 2>&1"


rule evaluate:
    input:
        checkpoint=f"{RESULTS}/runs/{{model}}/{{variant}}/finetune/done.json",
        data=benchmark_manifest,
        graded=graded_answers,
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
        **scoring_resources(),
    params:
        recipe=evaluation_recipe,
    shell:
        "$VDEP evaluate --recipe {params.recipe:q} --execution {resources.execution:q} "
        "--checkpoint {input.checkpoint:q} --data {input.data:q} --graded {input.graded:q} --scores {output:q} > {log:q} 2>&1"
