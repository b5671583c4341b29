# What is finished is compared and shown: nothing of it starts a training, except what the targets of the command line need anyway.
# No rules here.

import json

from snakemake.io import IOFile

from vdep.report.finished import finished
from vdep.report.page import request
from vdep.study.evidence import comparable, comparison_definition


def asked_for():
    """(key, file) of each score that the targets of the command line need anyway."""
    wanted = set(comparable(STUDY))
    return [
        ((*run, benchmark), PLAN.scores(run, benchmark))
        for run, benchmark in PLAN.asked(workflow.dag_settings.targets)
        if (run, benchmark) in wanted
    ]


def what_is_finished():
    """Scores that can be compared, as JSON."""
    return finished(PLAN, comparable(STUDY), {path for _, path in asked_for()}).model_dump_json()


def page_request():
    """For the page, with what Snakemake recorded of the jobs that made it."""
    return request.ask(PLAN, lambda file: workflow.persistence.metadata(IOFile(file)))
