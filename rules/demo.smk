# The base weights that the demo ships, made anew: to ship them, copy them to src/vdep/demo/weights and put the revisions
# that the logs end with into config/demo.yaml.


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
        "python -m vdep.demo.weights --name {wildcards.base} --folder resources/demo_weights/{wildcards.base} "
        "--threads {threads} > {log:q} 2>&1"


rule demo_weights:
    input:
        expand("resources/demo_weights/{base}/recipe.json", base=["clip", "siglip", "llama", "phi"]),
