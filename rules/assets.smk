# Everything that is downloaded, or made on the spot for the demo.


rule fetch:
    output:
        f"{RESOURCES}/assets/{{asset}}/manifest.json",
    log:
        f"{RESOURCES}/logs/fetch/{{asset}}.log",
    localrule: True
    conda:
        "../envs/vdep.yaml"
    params:
        asset=asset_json,
    shell:
        "$VDEP fetch --name {wildcards.asset} --asset {params.asset:q} --manifest {output:q} > {log:q} 2>&1"
