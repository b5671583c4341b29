# What only the demo has (src/vdep_demo): a report by skill, and its base weights made anew. To ship those, copy them to
# src/vdep_demo/base_weights/shipped and put the revisions that the logs end with into config/demo.yaml.


SKILL_SCORES = list(
    dict.fromkeys(score for target in PLAN.members("main") for table in target.tables for score in PLAN.evaluations[table])
)


rule skills:
    """What each checkpoint sees, skill by skill, pooled over the benchmarks of the main tables; and what guessing scores."""
    input:
        scores=[PLAN.scores(run, benchmark) for run, benchmark in SKILL_SCORES],
        questions=[PLAN.asset(STUDY.benchmarks[name].asset) for name in dict.fromkeys(b for _, b in SKILL_SCORES)],
    output:
        csv=f"{RESULTS}/tables/skills.csv",
        markdown=f"{RESULTS}/tables/skills.md",
        chance=f"{RESULTS}/tables/chance.csv",
    log:
        f"{RESULTS}/logs/tables/skills.log",
    localrule: True
    conda:
        "../envs/vdep.yaml"
    params:
        evaluations=canonical_json([(*run, benchmark) for run, benchmark in SKILL_SCORES]),
    script:
        "../workflow_scripts/skills.py"


rule demo:
    """The demo's main tables and figures, and its skills."""
    input:
        # the paper's benchmarks are downloaded, and the demo is not the paper at full size
        lambda w: (
            PLAN.target("main")
            if all(STUDY.assets[STUDY.benchmarks[name].asset].kind == "made" for _, name in SKILL_SCORES)
            else refuse("the demo has a configuration of its own: make demo, or snakemake demo --configfile config/demo.yaml")
        ),
        [] if STUDY.only_stage else rules.skills.output,


rule demo_base:
    """One of the demo's base models."""
    output:
        "resources/demo_weights/{base}/recipe.json",
    log:
        "resources/logs/demo_weights/{base}.log",
    wildcard_constraints:
        base="clip|siglip|llama|phi",
    conda:
        "../envs/vdep.yaml"
    resources:
        mem_mb=4000,
        runtime="6h",
    shell:
        "python -m vdep_demo.base_weights.make --name {wildcards.base} --folder resources/demo_weights/{wildcards.base} "
        "--threads {threads} > {log:q} 2>&1"


rule demo_weights:
    """All four of them."""
    input:
        expand("resources/demo_weights/{base}/recipe.json", base=["clip", "siglip", "llama", "phi"]),
