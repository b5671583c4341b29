# What only the demo has (src/vdep_demo): a report by skill, and its base weights made anew. To ship those, copy them to
# src/vdep_demo/base_weights/shipped and put the revisions that the logs end with into config/demo.yaml.


rule skills:
    input:
        scores=[scores_file(*key) for key in skill_evaluations()],
        questions=[asset_manifest(STUDY.benchmarks[name].asset) for name in dict.fromkeys(b for *_, b in skill_evaluations())],
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
        evaluations=canonical_json(skill_evaluations()),
    script:
        "../workflow_scripts/skills.py"


rule demo:
    input:
        rules.main.input,
        rules.skills.output,


rule demo_base:
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
    input:
        expand("resources/demo_weights/{base}/recipe.json", base=["clip", "siglip", "llama", "phi"]),
