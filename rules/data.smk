# Every image decoded and every conversation checked and tokenised, once.


rule prepare:
    """Check and tokenise a dataset for a tokenizer and a template."""
    input:
        tokenizer=lambda w: PLAN.asset(PLAN.preparations[w.prepared].tokenizer),
        sources=lambda w: [PLAN.asset(name) for name in PLAN.preparations[w.prepared].sources],
    output:
        f"{RESOURCES}/prepared/{{prepared}}/manifest.json",
    log:
        f"{RESOURCES}/logs/prepare/{{prepared}}.log",
    conda:
        "../envs/vdep.yaml"
    threads: EXECUTION.prepare_workers
    resources:
        mem_mb=EXECUTION.prepare_workers * 2000,
        runtime="6h",
    params:
        recipe=lambda w: PLAN.preparations[w.prepared].canonical,
    shell:
        "$VDEP prepare --recipe {params.recipe:q} --inputs {input:q} --manifest {output:q} --workers {threads} > {log:q} 2>&1"


rule validation:
    """Name the data that the text loss of trainings is measured on, if any: other data makes no training run again."""
    input:
        lambda w: [PLAN.prepared(recipe) for recipe in [PLAN.validations[w.validated]] if recipe],
    output:
        f"{RESOURCES}/validation/{{validated}}.txt",
    log:
        f"{RESOURCES}/logs/validation/{{validated}}.log",
    localrule: True
    conda:
        "../envs/vdep.yaml"
    shell:
        "echo {input:q} > {output:q} 2> {log:q}"
