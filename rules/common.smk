# The configuration, the constraints on names, and what is checked before the first job. No rules here: what is needed for what
# is worked out in src/vdep/study/plan.py.

import json
import re
from pathlib import Path

from snakemake.exceptions import WorkflowError

from vdep.assets.lock import check_downloads
from vdep.errors import UserError
from vdep.evaluation import grades
from vdep.run import driver
from vdep.study import targets
from vdep.study.plan import Plan
from vdep.study.recipe import canonical_json
from vdep.study.study import Run

CHECKOUT = Path(workflow.basedir)

try:
    PLAN = Plan.of(config, CHECKOUT)
except UserError as error:
    raise WorkflowError(f"configuration: {error}")

STUDY = PLAN.study
RESULTS, RESOURCES, EXECUTION = STUDY.results, STUDY.resources, STUDY.execution
driver.prepare_environment(CHECKOUT, EXECUTION.command)


def either_of(names):
    return "|".join(re.escape(name) for name in sorted(names)) or "none"


IMPORTED = either_of(name for name in STUDY.variants if STUDY.imported(name) and STUDY.only_stage != "pretrain")
TRAINED = either_of(name for name in STUDY.variants if not STUDY.imported(name))
SEEDS = either_of(f"seed-{seed}" for seed in STUDY.seeds)
MEASURED = set() if STUDY.only_stage else set(STUDY.benchmarks)
SUBMITTED = either_of(MEASURED & set(STUDY.submission_benchmarks))
SCORED = either_of(MEASURED - set(STUDY.submission_benchmarks))


wildcard_constraints:
    asset=either_of(STUDY.assets),
    prepared=either_of(PLAN.preparations),
    validated=either_of(PLAN.validations),
    model=either_of([STUDY.only_model] if STUDY.only_model else STUDY.models),
    variant=either_of(STUDY.variants),
    seed=f"{SEEDS}|imported",
    benchmark=either_of(MEASURED),
    table=either_of(PLAN.shown & set(STUDY.tables)),
    figure=either_of(PLAN.shown & set(STUDY.figures)),
    losses=either_of(PLAN.shown & set(STUDY.loss_figures)),


def refuse(message):
    raise WorkflowError(message)


def target(name):
    return PLAN.target(name) or (lambda wildcards: refuse(targets.nothing(PLAN, name)))


def run_of(wildcards):
    return Run(wildcards.model, wildcards.variant, wildcards.seed)


def stage_resources(stage):
    """Resources are no trigger of a rerun: how a step is run changes none of its results."""
    execution = getattr(EXECUTION, stage)
    settings = execution.model_dump(mode="json")
    deepspeed = f"{workflow.basedir}/config/deepspeed"
    return {
        "gpu": execution.gpus if EXECUTION.device == "cuda" else 0,
        "mem": execution.memory,
        "runtime": execution.runtime,
        "execution": canonical_json({"settings": settings, "device": EXECUTION.device, "deepspeed": deepspeed}),
    }


def stage_threads(stage):
    execution = getattr(EXECUTION, stage)
    return execution.processes * (execution.threads + execution.workers)


def evaluation_resources(graded_elsewhere=lambda wildcards: False):
    execution, gpus = EXECUTION.evaluate, EXECUTION.evaluate.gpus if EXECUTION.device == "cuda" else 0
    settings = {"threads": execution.threads, "batch_size": execution.batch_size, "device": EXECUTION.device}
    return {
        # what a server graded is scored without a model
        "gpu": lambda wildcards: 0 if graded_elsewhere(wildcards) else gpus,
        "mem": lambda wildcards: "8GB" if graded_elsewhere(wildcards) else execution.memory,
        "runtime": lambda wildcards: "1h" if graded_elsewhere(wildcards) else execution.runtime,
        "execution": canonical_json({**settings, "cache": f"{RESOURCES}/cache/datasets"}),
    }


def before_the_first_job():
    """Refuse a second driver, a plan that needs GPUs this machine does not have, and one whose judge cannot grade."""
    try:
        driver.lock(CHECKOUT / ".snakemake")
        jobs = list(workflow.dag.needrun_jobs())
        if workflow.local_exec and (needing := {job.rule.name for job in jobs if (job.resources.get("gpu") or 0) > 0}):
            driver.require_gpu(sorted(needing))
        check_downloads(STUDY.assets, PLAN.asset, {output for job in jobs for output in job.output})
        if any(job.rule.name == "grade" and job.is_local for job in jobs):
            # before hours of GPUs are spent on what nobody will grade
            grades.check(STUDY.judge, EXECUTION.judge)
    except UserError as error:
        raise WorkflowError(str(error))
