# The configuration, typed; the names of files; and what each rule needs. No rules here.

from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError

from vdep.errors import ConfigError, UserError
from vdep.evaluation import grades
from vdep.study.recipe import canonical_json
from vdep.study.study import apply_lock, load_study, split_checkpoint
from vdep.run import driver


def read_lock():
    path = Path(workflow.basedir) / "config" / "lock.yaml"
    return yaml.safe_load(path.read_text()) or {} if path.is_file() else {}


try:
    STUDY = load_study(apply_lock(config, read_lock()))
except ConfigError as error:
    raise WorkflowError(str(error))

RESULTS, RESOURCES, EXECUTION = STUDY.results, STUDY.resources, STUDY.execution
driver.prepare_environment(Path(workflow.basedir), EXECUTION.command)
ABLATIONS = STUDY.ablation_tables
PREPARATIONS = {
    f"{recipe.name}-{recipe.key}": recipe
    for model, variant in STUDY.trained
    for stage in ("pretrain", "finetune")
    for recipe in [STUDY.preparation_recipe(model, variant, stage)]
}


def either_of(names):
    return "|".join(sorted(names)) or "none"


IMPORTED = either_of(name for name in STUDY.variants if STUDY.imported(name))
TRAINED = either_of(name for name in STUDY.variants if not STUDY.imported(name))
SUBMITTED = either_of(STUDY.submission_benchmarks)
SCORED = either_of(set(STUDY.benchmarks) - set(STUDY.submission_benchmarks))


wildcard_constraints:
    asset=either_of(STUDY.assets),
    prepared=either_of(PREPARATIONS),
    model=either_of(STUDY.models),
    variant=either_of(STUDY.variants),
    stage="pretrain|finetune",
    benchmark=either_of(STUDY.benchmarks),
    table=either_of(STUDY.tables),
    figure=either_of(STUDY.figures),
    losses=either_of(STUDY.loss_figures),


# -- files


def asset_manifest(name):
    return f"{RESOURCES}/assets/{name}/manifest.json"


def prepared_manifest(model, variant, stage):
    recipe = STUDY.preparation_recipe(model, variant, stage)
    return f"{RESOURCES}/prepared/{recipe.name}-{recipe.key}/manifest.json"


def done_file(model, variant, stage):
    return f"{RESULTS}/runs/{model}/{variant}/{stage}/done.json"


def scores_file(model, variant, benchmark):
    return f"{RESULTS}/evaluations/{model}/{variant}/{benchmark}.json"


def submission_file(model, variant, benchmark):
    return f"{RESULTS}/submissions/{model}/{variant}/{benchmark}.json"


# -- assets and data


def asset_json(wildcards):
    return canonical_json(STUDY.assets[wildcards.asset].model_dump(mode="json"))


def prepared_inputs(wildcards):
    recipe = PREPARATIONS[wildcards.prepared]
    return [asset_manifest(name) for name in dict.fromkeys((recipe.tokenizer, *recipe.sources))]


def preparation_recipe(wildcards):
    return PREPARATIONS[wildcards.prepared].canonical


# -- training


def tower_of(wildcards):
    return asset_manifest(STUDY.models[wildcards.model].vision_tower.weights)


def language_model_of(wildcards):
    return asset_manifest(STUDY.models[wildcards.model].language_model)


def data_of(stage):
    return lambda wildcards: prepared_manifest(wildcards.model, wildcards.variant, stage)


def imported_asset(wildcards):
    return asset_manifest(STUDY.imported(wildcards.variant))


def import_recipe(wildcards):
    return STUDY.import_recipe(wildcards.model, wildcards.variant).canonical


def recipe_of(stage):
    return lambda wildcards: STUDY.recipe(wildcards.model, wildcards.variant, stage).canonical


def stage_resources(stage):
    """Resources are no trigger of a rerun: how a stage is run changes none of its results."""
    execution = getattr(EXECUTION, stage)
    return {
        "gpu": execution.gpus if EXECUTION.device == "cuda" else 0,
        "mem": execution.memory,
        "runtime": execution.runtime,
        "execution": canonical_json(
            {
                "settings": execution.model_dump(mode="json"),
                "device": EXECUTION.device,
                "deepspeed": f"{workflow.basedir}/config/deepspeed",
            }
        ),
    }


def stage_threads(stage):
    execution = getattr(EXECUTION, stage)
    return execution.processes * (execution.threads + execution.workers)


# -- evaluation


def benchmark_manifest(wildcards):
    return asset_manifest(STUDY.benchmarks[wildcards.benchmark].asset)


def graded_answers(wildcards):
    """What a server graded is answered and graded by jobs of their own, and scored without a GPU."""
    if not STUDY.graded_by_a_server(wildcards.benchmark):
        return []
    return f"{RESULTS}/evaluations/{wildcards.model}/{wildcards.variant}/{wildcards.benchmark}.graded.json"


def evaluation_resources():
    execution = EXECUTION.evaluate
    return {
        "gpu": execution.gpus if EXECUTION.device == "cuda" else 0,
        "mem": execution.memory,
        "runtime": execution.runtime,
        "execution": canonical_json(
            {
                "threads": execution.threads,
                "batch_size": execution.batch_size,
                "device": EXECUTION.device,
                "cache": f"{RESOURCES}/cache/datasets",
            }
        ),
    }


def scoring_resources():
    whole = evaluation_resources()

    def unless_graded(key, otherwise):
        return lambda wildcards: otherwise if STUDY.graded_by_a_server(wildcards.benchmark) else whole[key]

    return whole | {
        "gpu": unless_graded("gpu", 0),
        "mem": unless_graded("mem", "8GB"),
        "runtime": unless_graded("runtime", "1h"),
    }


def evaluation_recipe(wildcards):
    return STUDY.evaluation_recipe(wildcards.model, wildcards.variant, wildcards.benchmark).canonical


def answer_recipe(wildcards):
    return STUDY.evaluation_recipe(wildcards.model, wildcards.variant, wildcards.benchmark).of_answers.canonical


# -- tables and figures


def table_scores(wildcards):
    return [scores_file(*key) for key in STUDY.table_evaluations(wildcards.table)]


def table_definition(wildcards):
    table = STUDY.tables[wildcards.table]
    needed = set(table.columns)
    while True:
        more = {part for name in needed for part in (*STUDY.columns[name].mean_of, *STUDY.columns[name].sum_of)}
        if more <= needed:
            break
        needed |= more
    return canonical_json(
        {
            "table": table.model_dump(mode="json"),
            "columns": {name: STUDY.columns[name].model_dump(mode="json") for name in sorted(needed)},
            "left_out": [name for name in table.columns if STUDY.left_out(name)],
            "evaluations": STUDY.table_evaluations(wildcards.table),
            "protocols": {
                name: protocol.model_dump(mode="json") for name, protocol in STUDY.table_protocols(wildcards.table).items()
            },
        }
    )


def skill_evaluations():
    return list(dict.fromkeys(key for table in STUDY.main_tables for key in STUDY.table_evaluations(table)))


def figure_checkpoint(wildcards):
    return done_file(wildcards.model, wildcards.variant, "finetune")


def figure_images(wildcards):
    return asset_manifest(STUDY.figures[wildcards.figure].asset)


def figure_flows(wildcards):
    figure = STUDY.figures[wildcards.figure]
    return [f"{RESULTS}/attention/{wildcards.figure}/{name}.npz" for name in (figure.left, figure.right)]


def figure_definition(wildcards):
    return canonical_json(STUDY.figures[wildcards.figure].model_dump(mode="json"))


def loss_figure_runs(wildcards):
    checkpoints = [name.split("/") for name in STUDY.loss_figures[wildcards.losses]]
    return [done_file(model, variant, stage) for model, variant in checkpoints for stage in ("pretrain", "finetune")]


def loss_figure_checkpoints(wildcards):
    return canonical_json(STUDY.loss_figures[wildcards.losses])


def attention_parameters(wildcards):
    figure = STUDY.figures[wildcards.figure]
    settings = STUDY.stage(wildcards.model, wildcards.variant, "finetune")
    return canonical_json(
        {
            "folder": figure.file,
            "question": figure.question,
            "samples": figure.samples,
            "curve_samples": figure.curve_samples,
            "template": settings.template,
            "image_path": settings.image,
            "precision": STUDY.evaluation.precision,
        }
    )


# -- targets


def table_files(name):
    return [f"{RESULTS}/tables/{name}.{ending}" for ending in ("csv", "md", "provenance.json")]


def main_targets():
    tables = [file for name in STUDY.main_tables for file in table_files(name)]
    figures = [
        f"{RESULTS}/figures/{name}.{ending}" for name in (*STUDY.figures, *STUDY.loss_figures) for ending in ("png", "csv")
    ]
    return tables + figures


def ablation_tables():
    return [file for name in ABLATIONS for file in table_files(name)]


def control_targets():
    return [scores_file(*key) for key in STUDY.control_evaluations()]


def submission_targets():
    checkpoints = [split_checkpoint(name) for name in STUDY.checkpoints]
    return [submission_file(*checkpoint, name) for checkpoint in checkpoints for name in STUDY.submission_benchmarks]


def asset_targets():
    return [asset_manifest(name) for name in STUDY.needed_assets()]


# -- before any job starts


def before_the_first_job():
    """Refuse a second driver, a plan that needs GPUs this machine does not have, and one whose judge cannot grade."""
    try:
        driver.lock(Path(workflow.basedir) / ".snakemake")
        jobs = [job for job in workflow.dag.needrun_jobs()]
        needing = sorted({job.rule.name for job in jobs if (job.resources.get("gpu") or 0) > 0})
        if workflow.local_exec and needing:
            driver.require_gpu(needing)
        if any(job.rule.name == "grade" and job.is_local for job in jobs):
            # before hours of GPUs are spent on what nobody will grade
            grades.check(STUDY.judge, EXECUTION.judge)
    except UserError as error:
        raise WorkflowError(str(error))
