# One checkpoint on one benchmark, by lmms-eval; a result that cannot be trusted fails its job. What a server grades (MM-Vet) is
# answered where the GPUs are, graded where the network is, and then scored.


rule answer:
    """Have a checkpoint answer a benchmark that a server grades."""
    input:
        checkpoint=f"{RESULTS}/runs/{{model}}/{{variant}}/{{seed}}/finetune/done.json",
        data=lambda w: PLAN.asset(STUDY.benchmarks[w.benchmark].asset),
    output:
        f"{RESULTS}/evaluations/{{model}}/{{variant}}/{{seed}}/{{benchmark}}.answers.json",
    log:
        f"{RESULTS}/logs/answer/{{model}}/{{variant}}/{{seed}}/{{benchmark}}.log",
    conda:
        "../envs/vdep.yaml"
    threads: EXECUTION.evaluate.threads
    resources:
        **evaluation_resources(),
    params:
        recipe=lambda w: STUDY.evaluation_recipe(w.model, w.variant, w.benchmark).of_answers.canonical,
    shell:
        "$VDEP record-answers --recipe {params.recipe:q} --execution {resources.execution:q} "
        "--checkpoint {input.checkpoint:q} --data {input.data:q} --answers {output:q} > {log:q} 2>&1"


rule grade:
    """Have the judge's server grade recorded answers."""
    input:
        f"{RESULTS}/evaluations/{{model}}/{{variant}}/{{seed}}/{{benchmark}}.answers.json",
    output:
        f"{RESULTS}/evaluations/{{model}}/{{variant}}/{{seed}}/{{benchmark}}.graded.json",
    log:
        f"{RESULTS}/logs/grade/{{model}}/{{variant}}/{{seed}}/{{benchmark}}.log",
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
    """Score a checkpoint on a benchmark."""
    input:
        checkpoint=f"{RESULTS}/runs/{{model}}/{{variant}}/{{seed}}/finetune/done.json",
        data=lambda w: PLAN.asset(STUDY.benchmarks[w.benchmark].asset),
        # what a server graded is answered and graded by jobs of their own
        graded=lambda w: (
            f"{RESULTS}/evaluations/{w.model}/{w.variant}/{w.seed}/{w.benchmark}.graded.json"
            if STUDY.graded_by_a_server(w.benchmark)
            else []
        ),
    output:
        f"{RESULTS}/evaluations/{{model}}/{{variant}}/{{seed}}/{{benchmark}}.json",
    log:
        f"{RESULTS}/logs/evaluate/{{model}}/{{variant}}/{{seed}}/{{benchmark}}.log",
    wildcard_constraints:
        benchmark=SCORED,
    conda:
        "../envs/vdep.yaml"
    threads: EXECUTION.evaluate.threads
    resources:
        **evaluation_resources(lambda w: STUDY.graded_by_a_server(w.benchmark)),
    params:
        recipe=lambda w: STUDY.evaluation_recipe(w.model, w.variant, w.benchmark).canonical,
    shell:
        "$VDEP evaluate --recipe {params.recipe:q} --execution {resources.execution:q} "
        "--checkpoint {input.checkpoint:q} --data {input.data:q} --graded={input.graded:q} --scores {output:q} > {log:q} 2>&1"
