# Stage 1 and SFT, or a checkpoint that others trained. The weights lie beside done.json, in a folder that is named after the recipe's digest.


rule pretrain:
    input:
        tower=tower_of,
        language_model=language_model_of,
        data=data_of("pretrain"),
    output:
        f"{RESULTS}/runs/{{model}}/{{variant}}/pretrain/done.json",
    log:
        f"{RESULTS}/logs/pretrain/{{model}}/{{variant}}.log",
    wildcard_constraints:
        variant=TRAINED,
    conda:
        "../envs/vdep.yaml"
    threads: stage_threads("pretrain")
    resources:
        **stage_resources("pretrain"),
    params:
        recipe=recipe_of("pretrain"),
    shell:
        "$VDEP train --recipe {params.recipe:q} --execution {resources.execution:q} --tower {input.tower:q} "
        "--language-model {input.language_model:q} --data {input.data:q} --done {output:q} 2>&1 | tee {log:q}"


rule finetune:
    input:
        tower=tower_of,
        language_model=language_model_of,
        data=data_of("finetune"),
        initial=f"{RESULTS}/runs/{{model}}/{{variant}}/pretrain/done.json",
    output:
        f"{RESULTS}/runs/{{model}}/{{variant}}/finetune/done.json",
    log:
        f"{RESULTS}/logs/finetune/{{model}}/{{variant}}.log",
    wildcard_constraints:
        variant=TRAINED,
    conda:
        "../envs/vdep.yaml"
    threads: stage_threads("finetune")
    resources:
        **stage_resources("finetune"),
    params:
        recipe=recipe_of("finetune"),
    shell:
        "$VDEP train --recipe {params.recipe:q} --execution {resources.execution:q} --tower {input.tower:q} "
        "--language-model {input.language_model:q} --data {input.data:q} --initial {input.initial:q} --done {output:q} "
        "2>&1 | tee {log:q}"


rule import_checkpoint:
    input:
        tower=tower_of,
        checkpoint=imported_asset,
    output:
        f"{RESULTS}/runs/{{model}}/{{variant}}/finetune/done.json",
    log:
        f"{RESULTS}/logs/import/{{model}}/{{variant}}.log",
    wildcard_constraints:
        variant=IMPORTED,
    conda:
        "../envs/vdep.yaml"
    threads: 4
    resources:
        mem="64GB",
        runtime="2h",
    params:
        recipe=import_recipe,
    shell:
        "$VDEP import-checkpoint --recipe {params.recipe:q} --tower {input.tower:q} "
        "--checkpoint {input.checkpoint:q} --done {output:q} > {log:q} 2>&1"
