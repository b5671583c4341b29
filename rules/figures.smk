# Figure 1: what the words of a question attend to, layer by layer, for two checkpoints. And how the runs went.


rule attention:
    """The attention of a checkpoint to each image token, over a folder of pictures."""
    input:
        checkpoint=lambda w: PLAN.done(run_of(w), "finetune"),
        images=lambda w: PLAN.asset(STUDY.figures[w.figure].asset),
    output:
        f"{RESULTS}/attention/{{figure}}/{{model}}/{{variant}}/{{seed}}.npz",
    log:
        f"{RESULTS}/logs/attention/{{figure}}/{{model}}/{{variant}}/{{seed}}.log",
    conda:
        "../envs/vdep.yaml"
    threads: EXECUTION.evaluate.threads
    resources:
        **evaluation_resources(),
    params:
        settings=lambda w: PLAN.attention_settings(w.figure, w.model, w.variant),
    shell:
        "$VDEP attention --settings {params.settings:q} --execution {resources.execution:q} "
        "--checkpoint {input.checkpoint:q} --images {input.images:q} --output {output:q} > {log:q} 2>&1"


rule attention_figure:
    """Two checkpoints' attention side by side, and the totals behind the curves."""
    input:
        lambda w: [f"{RESULTS}/attention/{w.figure}/{'/'.join(run)}.npz" for run in STUDY.sides(w.figure)],
    output:
        png=report(
            f"{RESULTS}/figures/{{figure}}.png",
            caption="captions/attention.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
        csv=f"{RESULTS}/figures/{{figure}}.csv",
    log:
        f"{RESULTS}/logs/figures/{{figure}}.log",
    localrule: True
    conda:
        "../envs/vdep.yaml"
    params:
        question=lambda w: STUDY.figures[w.figure].question,
        runs=lambda w: canonical_json(STUDY.sides(w.figure)),
    script:
        "../workflow_scripts/attention_figure.py"


rule loss_figure:
    """The losses of some checkpoints' runs, of both stages."""
    input:
        lambda w: [
            PLAN.done(run, stage) for run in STUDY.runs(STUDY.loss_figures[w.losses]) for stage in ("pretrain", "finetune")
        ],
    output:
        png=report(
            f"{RESULTS}/figures/{{losses}}.png",
            caption="captions/losses.rst",
            category="Figures",
            labels={"figure": "{losses}"},
        ),
        csv=f"{RESULTS}/figures/{{losses}}.csv",
    log:
        f"{RESULTS}/logs/figures/{{losses}}.log",
    localrule: True
    conda:
        "../envs/vdep.yaml"
    params:
        runs=lambda w: canonical_json(STUDY.runs(STUDY.loss_figures[w.losses])),
    script:
        "../workflow_scripts/loss_figure.py"
