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
    resources:
        # a mirror has the same files: naming one fetches nothing again, and so makes nothing again that was made of it
        asset=lambda w: canonical_json(STUDY.assets[w.asset].model_dump(mode="json")),
    params:
        asset=lambda w: canonical_json(STUDY.assets[w.asset].model_dump(mode="json", exclude={"mirror"})),
    shell:
        "$VDEP fetch --name {wildcards.asset} --asset {resources.asset:q} --manifest {output:q} > {log:q} 2>&1"
