# Every image decoded and every conversation checked and tokenised, once.


rule prepare:
    input:
        prepared_inputs,
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
        recipe=preparation_recipe,
    shell:
        "$VDEP prepare --recipe {params.recipe:q} --inputs {input:q} --manifest {output:q} --workers {threads} "
        "> {log:q} 2>&1"
