# Everything that is downloaded, or made on the spot for the demo.


rule fetch:
    """Download an asset, or make it; what arrives is compared with what was recorded."""
    output:
        f"{RESOURCES}/assets/{{asset}}/manifest.json",
    log:
        f"{RESOURCES}/logs/fetch/{{asset}}.log",
    localrule: True
    conda:
        "../envs/vdep.yaml"
    params:
        asset=lambda w: canonical_json(STUDY.assets[w.asset].model_dump(mode="json")),
    shell:
        "$VDEP fetch --name {wildcards.asset} --asset {params.asset:q} --manifest {output:q} > {log:q} 2>&1"
