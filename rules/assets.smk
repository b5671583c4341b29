# Everything that is downloaded, or made on the spot for the demo.


rule fetch:
    """Download an asset, or make it; what arrives is compared with what was recorded."""
    input:
        lambda w: refuse(f"configuration: {problem}") if (problem := PLAN.unfetchable(w.asset)) else [],
    output:
        f"{RESOURCES}/assets/{{asset}}/manifest.json",
    log:
        f"{RESOURCES}/logs/fetch/{{asset}}.log",
    localrule: True
    conda:
        "../envs/vdep.yaml"
    resources:
        # whole; what is no parameter fetches nothing again, and so makes nothing again that was made of it: a mirror has the same
        # files, and a hash that was recorded of this download (`make lock`) is compared before the first job
        asset=lambda w: canonical_json(STUDY.assets[w.asset].model_dump(mode="json")),
    params:
        asset=lambda w: canonical_json(STUDY.assets[w.asset].model_dump(mode="json", exclude={"mirror", "sha256", "size"})),
    shell:
        "$VDEP fetch --name {wildcards.asset} --asset {resources.asset:q} --manifest {output:q} > {log:q} 2>&1"
