# One page with everything that is finished: `snakemake report`. It trains nothing and evaluates nothing: what it shows are no
# inputs, whose own inputs Snakemake would look at in turn. One digest over their sizes and times is a parameter, so that the page
# is made anew when something is finished since; so it is no script, which would have to be told everything as a parameter, and
# Snakemake prints those that change. What is concluded is an input: that is made of what is finished, too.


rule page:
    """The page, and a further one for each benchmark that it has no room for."""
    input:
        comparison=rules.comparison.output.json,
        power=rules.power.output.csv,
        audit=rules.audit.output.csv,
    output:
        page=report(f"{RESULTS}/report.html", caption="captions/report.rst", category="Report", labels={"page": "everything"}),
        further=directory(f"{RESULTS}/report"),
    log:
        f"{RESULTS}/logs/report.log",
    localrule: True
    resources:
        mem_mb=4000,
    params:
        finished=lambda w: shown_on_the_page().digest,
    run:
        from vdep.report.page.write import build

        build(shown_on_the_page(), CHECKOUT, Path(output.page), Path(output.further), Path(log[0]))


rule report:
    """One page to send to a co-author, of whatever is finished."""
    input:
        rules.page.output.page,
