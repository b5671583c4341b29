# Figure 1: what the words of a question attend to, layer by layer, and how much of it lies on objects. And how the runs went.
# Every figure is a PNG and a PDF, at the width at which it is printed.


rule attention:
    """The attention of a checkpoint: maps of a few pictures, and measures of many whose objects are known."""
    input:
        checkpoint=lambda w: PLAN.done(run_of(w), "finetune"),
        images=lambda w: PLAN.asset(STUDY.figures[w.figure].shown.asset),
        measured=lambda w: PLAN.asset(STUDY.figures[w.figure].measured.asset),
        masks=lambda w: PLAN.asset(STUDY.figures[w.figure].measured.masks),
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
        "$VDEP attention --settings {params.settings:q} --execution {resources.execution:q} --checkpoint {input.checkpoint:q} "
        "--images {input.images:q} --measured {input.measured:q} --masks {input.masks:q} --output {output:q} > {log:q} 2>&1"


rule attention_figure:
    """Checkpoints' attention side by side, how much of it lies on objects, and the numbers of both."""
    input:
        lambda w: [PLAN.attention(w.figure, run) for run in STUDY.sides(w.figure)],
    output:
        png=report(
            f"{RESULTS}/figures/{{figure}}.png",
            caption="captions/attention.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
        pdf=f"{RESULTS}/figures/{{figure}}.pdf",
        objects=report(
            f"{RESULTS}/figures/{{figure}}.objects.png",
            caption="captions/objects.rst",
            category="Figures",
            labels={"figure": "{figure}, objects"},
        ),
        objects_pdf=f"{RESULTS}/figures/{{figure}}.objects.pdf",
        csv=f"{RESULTS}/figures/{{figure}}.csv",
        markdown=f"{RESULTS}/figures/{{figure}}.md",
        json=f"{RESULTS}/figures/{{figure}}.json",
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
        pdf=f"{RESULTS}/figures/{{losses}}.pdf",
        csv=f"{RESULTS}/figures/{{losses}}.csv",
    log:
        f"{RESULTS}/logs/figures/{{losses}}.log",
    localrule: True
    conda:
        "../envs/vdep.yaml"
    params:
        runs=lambda w: canonical_json(STUDY.runs(STUDY.loss_figures[w.losses])),
        samples=lambda w: canonical_json(
            [
                STUDY.recipe(*run[:2], stage).text_samples_a_step
                for run in STUDY.runs(STUDY.loss_figures[w.losses])
                for stage in ("pretrain", "finetune")
            ]
        ),
    script:
        "../workflow_scripts/loss_figure.py"
