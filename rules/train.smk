# Stage 1 and SFT, or a checkpoint that others trained. The weights lie beside done.json, in a folder named after the recipe's digest.


rule pretrain:
    """Stage 1: the projector, on captions; with VDEP the image loss too."""
    input:
        tower=lambda w: PLAN.asset(STUDY.models[w.model].vision_tower.weights),
        language_model=lambda w: PLAN.asset(STUDY.models[w.model].language_model),
        data=lambda w: PLAN.training_data(w.model, w.variant, "pretrain"),
        validation=ancient(lambda w: PLAN.validation(w.model, w.variant, "pretrain")),
    output:
        f"{RESULTS}/runs/{{model}}/{{variant}}/{{seed}}/pretrain/done.json",
    log:
        f"{RESULTS}/logs/pretrain/{{model}}/{{variant}}/{{seed}}.log",
    wildcard_constraints:
        variant=TRAINED,
        seed=SEEDS,
    conda:
        "../envs/vdep.yaml"
    threads: stage_threads("pretrain")
    resources:
        **stage_resources("pretrain"),
        validation=lambda w: PLAN.validation_manifest(w.model, w.variant, "pretrain"),
    params:
        recipe=lambda w: STUDY.recipe(w.model, w.variant, "pretrain", w.seed).canonical,
    shell:
        "$VDEP train --recipe {params.recipe:q} --execution {resources.execution:q} --tower {input.tower:q} "
        "--language-model {input.language_model:q} --data {input.data:q} "
        "--validation={resources.validation:q} --done {output:q} "
        "2>&1 | tee {log:q}"


rule finetune:
    """SFT: the projector of stage 1 and the language model, on conversations."""
    input:
        tower=lambda w: PLAN.asset(STUDY.models[w.model].vision_tower.weights),
        language_model=lambda w: PLAN.asset(STUDY.models[w.model].language_model),
        data=lambda w: PLAN.training_data(w.model, w.variant, "finetune"),
        validation=ancient(lambda w: PLAN.validation(w.model, w.variant, "finetune")),
        initial=f"{RESULTS}/runs/{{model}}/{{variant}}/{{seed}}/pretrain/done.json",
    output:
        f"{RESULTS}/runs/{{model}}/{{variant}}/{{seed}}/finetune/done.json",
    log:
        f"{RESULTS}/logs/finetune/{{model}}/{{variant}}/{{seed}}.log",
    wildcard_constraints:
        variant="none" if STUDY.only_stage == "pretrain" else TRAINED,
        seed=SEEDS,
    conda:
        "../envs/vdep.yaml"
    threads: stage_threads("finetune")
    resources:
        **stage_resources("finetune"),
        validation=lambda w: PLAN.validation_manifest(w.model, w.variant, "finetune"),
    params:
        recipe=lambda w: STUDY.recipe(w.model, w.variant, "finetune", w.seed).canonical,
    shell:
        "$VDEP train --recipe {params.recipe:q} --execution {resources.execution:q} --tower {input.tower:q} "
        "--language-model {input.language_model:q} --data {input.data:q} --initial {input.initial:q} "
        "--validation={resources.validation:q} --done {output:q} "
        "2>&1 | tee {log:q}"


rule import_checkpoint:
    """A checkpoint of the original LLaVA in the place of an SFT of ours."""
    input:
        tower=lambda w: PLAN.asset(STUDY.models[w.model].vision_tower.weights),
        checkpoint=lambda w: PLAN.asset(STUDY.imported(w.variant)),
    output:
        f"{RESULTS}/runs/{{model}}/{{variant}}/{{seed}}/finetune/done.json",
    log:
        f"{RESULTS}/logs/import/{{model}}/{{variant}}/{{seed}}.log",
    wildcard_constraints:
        variant=IMPORTED,
        seed="imported",
    conda:
        "../envs/vdep.yaml"
    threads: 4
    resources:
        mem="64GB",
        runtime="2h",
    params:
        recipe=lambda w: STUDY.import_recipe(w.model, w.variant).canonical,
    shell:
        "$VDEP import-checkpoint --recipe {params.recipe:q} --tower {input.tower:q} --checkpoint {input.checkpoint:q} "
        "--done {output:q} > {log:q} 2>&1"
