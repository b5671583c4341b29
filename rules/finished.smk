# What is finished is compared and shown: nothing of it starts a training, except what the targets of the command line need anyway.
# No rules here.

import json

from snakemake.io import IOFile

from vdep.report.finished import finished
from vdep.report.page import request
from vdep.study.evidence import comparable, comparison_definition


def asked_for(wanted):
    """(key, file) of each wanted score that the targets of the command line need anyway."""
    asked = set(PLAN.asked(workflow.dag_settings.targets))
    return [((*run, benchmark), PLAN.scores(run, benchmark)) for run, benchmark in wanted if (run, benchmark) in asked]


def asked_recipes(wanted):
    """Of each of these its key and the recipes that it has to be of, as JSON."""
    return canonical_json([(key, STUDY.scored_recipes(Run(*key[:3]), key[3])) for key, _ in asked_for(wanted)])


def what_is_finished(wanted):
    """Of some scores those that are there and are of the configuration, as JSON."""
    return finished(PLAN, wanted, {path for _, path in asked_for(wanted)}).model_dump_json()


def shown_on_the_page():
    """What is finished, with what Snakemake recorded of the jobs that made it."""
    return request.ask(PLAN, lambda file: workflow.persistence.metadata(IOFile(file)))
