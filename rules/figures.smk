# Figure 1: what the words of a question attend to, layer by layer, for two checkpoints. And how the runs went.


rule attention:
    input:
        checkpoint=figure_checkpoint,
        images=figure_images,
    output:
        f"{RESULTS}/attention/{{figure}}/{{model}}/{{variant}}.npz",
    log:
        f"{RESULTS}/logs/attention/{{figure}}/{{model}}/{{variant}}.log",
    conda:
        "../envs/vdep.yaml"
    threads: EXECUTION.evaluate.threads
    resources:
        **evaluation_resources(),
    params:
        settings=attention_parameters,
    shell:
        "$VDEP attention --settings {params.settings:q} --execution {resources.execution:q} "
        "--checkpoint {input.checkpoint:q} --images {input.images:q} --output {output:q} > {log:q} 2>&1"


rule attention_figure:
    input:
        figure_flows,
    output:
        png=f"{RESULTS}/figures/{{figure}}.png",
        csv=f"{RESULTS}/figures/{{figure}}.csv",
    log:
        f"{RESULTS}/logs/figures/{{figure}}.log",
    localrule: True
    conda:
        "../envs/vdep.yaml"
    params:
        definition=figure_definition,
    script:
        "../workflow_scripts/attention_figure.py"


rule loss_figure:
    input:
        loss_figure_runs,
    output:
        png=f"{RESULTS}/figures/{{losses}}.png",
        csv=f"{RESULTS}/figures/{{losses}}.csv",
    log:
        f"{RESULTS}/logs/figures/{{losses}}.log",
    localrule: True
    conda:
        "../envs/vdep.yaml"
    params:
        checkpoints=loss_figure_checkpoints,
    script:
        "../workflow_scripts/loss_figure.py"
