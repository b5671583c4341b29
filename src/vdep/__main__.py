"""``python -m vdep``: the steps of the pipeline, as Snakemake calls them and as people can."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Argument, Option

from . import __version__, everyday
from .errors import CheckpointError, ConfigError, DataError, UserError

if TYPE_CHECKING:
    from .evaluation.run import EvaluationJob

app = typer.Typer(help=__doc__, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

# What several commands are told. Each command imports what it needs when it runs: `vdep --version` waits for no torch.
Recipe = Annotated[str, Option(help="what determines the result, as JSON")]
Execution = Annotated[str, Option(help="how it is run, as JSON")]
Written = Annotated[Path, Option(help="written last; everything else lies beside it")]
Finetuned = Annotated[Path, Option(help="done.json of the SFT")]
Tower = Annotated[Path, Option(help="manifest of the vision tower")]
Benchmark = Annotated[Path, Option(help="manifest of the benchmark's data")]
Answers = Annotated[Path, Option(help="what `vdep record-answers` wrote last")]


def _version(asked: bool) -> None:
    if asked:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(version: Annotated[bool, Option("--version", callback=_version, is_eager=True)] = False) -> None:
    pass


@app.command()
def fetch(
    name: Annotated[str, Option()],
    asset: Annotated[str, Option(help="the asset's entry in the configuration, as JSON")],
    manifest: Written,
) -> None:
    """Download an asset, or make it."""
    from pydantic import TypeAdapter

    from .assets import fetch
    from .study.settings import Asset, MadeAsset

    entry: Any = TypeAdapter(Asset).validate_json(asset)
    if isinstance(entry, MadeAsset):
        fetch.make(name, entry, manifest.parent)
    else:
        fetch.fetch(name, entry, manifest.parent, Path.cwd())


@app.command()
def prepare(
    recipe: Recipe,
    inputs: Annotated[list[Path], Option(help="manifests of the dataset's assets and the tokenizer's")],
    manifest: Written,
    more: Annotated[list[Path] | None, Argument(hidden=True, help="the second of --inputs, and so on")] = None,
    workers: int = 1,
) -> None:
    """Check and tokenise a dataset."""
    from .artifacts import AssetManifest
    from .data import prepare
    from .study.recipe import PreparationRecipe

    wanted = PreparationRecipe.model_validate_json(recipe)
    assets = {asset.asset: asset for asset in map(AssetManifest.open, (*inputs, *(more or ())))}
    dataset = wanted.dataset
    conversations = assets[dataset.conversations]
    prepare.prepare(
        wanted,
        conversations.member(dataset.file) if dataset.file else conversations.only_file(".json"),
        assets[wanted.tokenizer].folder,
        [prepare.ArchiveRoute(assets[e.asset].images(), e.prefix, e.folder) for e in dataset.images],
        manifest.parent,
        workers,
    )


@app.command()
def train(
    recipe: Recipe,
    execution: Execution,
    tower: Tower,
    language_model: Annotated[Path, Option(help="manifest of the language model")],
    data: Annotated[Path, Option(help="manifest of the prepared data")],
    done: Written,
    initial: Annotated[Path | None, Option(help="done.json of the stage before")] = None,
    validation: Annotated[str, Option(help="manifest of prepared data on which the text loss is measured")] = "",
) -> None:
    """Run or resume one stage of a training."""
    from .artifacts import AssetManifest, FinishedStage, PreparedManifest
    from .files import sha256
    from .run.job import Job
    from .run.launch import launch
    from .study.execution import StageExecution
    from .study.recipe import TrainingRecipe

    wanted, how = TrainingRecipe.model_validate_json(recipe), json.loads(execution)
    manifests = {"tower": tower, "language_model": language_model, "data": data}
    inputs = {name: sha256(path) for name, path in manifests.items()}
    weights = {name: AssetManifest.open(manifests[name]).folder.resolve() for name in ("tower", "language_model")}
    prepared = PreparedManifest.open(data)
    if prepared.digest != wanted.data.digest:
        raise DataError(f"{data} is of another preparation than the recipe's: name the right one with --data")
    measured = PreparedManifest.open(Path(validation)) if validation else None
    alike = ("tokenizer_source", "template", "image_tokens")
    if measured and any(measured.recipe[key] != getattr(wanted.data, key) for key in alike):
        raise DataError(
            f"{validation} is prepared with another tokenizer, template or number of image tokens than the training data: "
            "name with --validation what is prepared alike"
        )
    for each in filter(None, (prepared, measured)):
        each.verify_archives()
    before = None
    if initial:
        before = FinishedStage.open(initial)
        inputs["initial"] = sha256(initial)
    if (before and before.recipe) != wanted.initial:
        raise CheckpointError(
            f"--initial {initial} has the recipe {before and before.recipe}, and this {wanted.stage} starts from "
            f"{wanted.initial}: name the done.json of its own stage 1"
        )
    job = Job(
        recipe=wanted,
        execution=StageExecution.model_validate(how["settings"]),
        device=how["device"],
        deepspeed=Path(how["deepspeed"]).resolve(),
        data=prepared.folder.resolve(),
        initial=before.weights if before else None,
        validation=measured.folder.resolve() if measured else None,
        run=(done.parent / wanted.key).resolve(),
        inputs=inputs,
        **weights,
    )
    raise typer.Exit(launch(job, done))


@app.command()
def evaluate(
    recipe: Recipe,
    execution: Execution,
    checkpoint: Finetuned,
    data: Benchmark,
    scores: Written,
    graded: Annotated[str, Option(help="what `vdep grade` wrote: these answers are scored")] = "",
) -> None:
    """Run one checkpoint on one benchmark."""
    from .evaluation.run import evaluate

    evaluate(_evaluation_job(recipe, execution, checkpoint, data, scores, Path(graded) if graded else None))


@app.command()
def record_answers(recipe: Recipe, execution: Execution, checkpoint: Finetuned, data: Benchmark, answers: Written) -> None:
    """As evaluate, but without grades and scores."""
    from .evaluation.run import answer

    answer(_evaluation_job(recipe, execution, checkpoint, data, answers))


def _evaluation_job(
    recipe: str, execution: str, checkpoint: Path, data: Path, output: Path, graded: Path | None = None
) -> EvaluationJob:
    from .artifacts import AssetManifest
    from .evaluation.run import EvaluationJob
    from .study.recipe import EvaluationRecipe

    how = json.loads(execution)
    return EvaluationJob(
        recipe=EvaluationRecipe.model_validate_json(recipe),
        checkpoint=checkpoint,
        asset=AssetManifest.open(data).folder,
        output=output,
        cache=Path(how["cache"]).resolve(),
        device=how["device"],
        threads=how["threads"],
        batch_size=how["batch_size"],
        graded=graded,
    )


@app.command()
def grade(
    judge: Annotated[str, Option(help="who grades, as JSON; OPENAI_BASE_URL and OPENAI_API_KEY say where")],
    execution: Execution,
    answers: Answers,
    graded: Written,
) -> None:
    """Have a judge grade answers; needs no GPU."""
    from .evaluation.grades import grade
    from .study.evaluation import Judge
    from .study.execution import JudgeExecution

    grade(answers, graded, Judge.model_validate_json(judge), JudgeExecution.model_validate_json(execution))


@app.command()
def attention(
    settings: Annotated[str, Option(help="question, template and so on, as JSON")],
    execution: Execution,
    checkpoint: Finetuned,
    images: Annotated[Path, Option(help="manifest of the pictures whose maps are shown")],
    measured: Annotated[Path, Option(help="manifest of the pictures that are measured")],
    masks: Annotated[Path, Option(help="manifest of what says where their objects are")],
    output: Annotated[Path, Option()],
) -> None:
    """What a question attends to in pictures."""
    from .artifacts import AssetManifest, FinishedStage
    from .report.attention import Watcher, flow
    from .report.masks import list_images, masked_pictures

    wanted, how = json.loads(settings), json.loads(execution)
    shown, objects = wanted["shown"], wanted["measured"]
    pictures = list_images(AssetManifest.open(images).folder / shown["folder"])[: shown["pictures"]]
    known = masked_pictures(AssetManifest.open(measured), objects["folder"], AssetManifest.open(masks), objects["objects"])
    weights = FinishedStage.open(checkpoint).weights
    asked = {key: wanted[key] for key in ("template", "image_fit", "question", "precision")}
    watcher = Watcher(weights, device=how["device"], **asked)
    flow(watcher, pictures, known, objects["pictures"], how["batch_size"]).save(output)


@app.command()
def inspect(
    template: Annotated[Literal["plain", "vicuna_v1", "phi"], Option()],
    tokenizer: Annotated[Path, Option(help="folder of a language model or its tokenizer")],
    data: Annotated[Path | None, Option(help="conversations as LLaVA JSON; images are not opened")] = None,
    question: Annotated[str | None, Option(help="what a model is asked at evaluation; <image> is a picture")] = None,
    index: Annotated[int | None, Option(help="one sample, from 0; without it all, a line of JSON each")] = None,
    as_json: Annotated[bool, Option("--json", help="no table: -200 is the image, -100 is ignored")] = False,
    image_tokens: Annotated[int, Option(help="how many tokens an image counts for --max-length")] = 576,
    max_length: int = 2048,
) -> None:
    """What becomes of a sample or a question, token by token."""
    if (data is None) == (question is None):
        raise typer.BadParameter("give one of --data and --question")
    from rich.console import Console

    from .data.inspect import inspect, inspect_question, print_question, print_table
    from .data.tokenizer import load_tokenizer

    known = load_tokenizer(tokenizer)
    console = Console(highlight=False)
    if question is not None:
        asked = inspect_question(question, template, known)
        if as_json:
            print(asked.as_json())
        else:
            print_question(asked, known, image_tokens, console)
    for shown in inspect(data, template, known, image_tokens, max_length, index) if data is not None else ():
        if as_json or index is None:
            print(shown.as_json())
        elif shown.defect is not None:
            raise DataError(f"sample {shown.index} (id {shown.id}), {shown.defect['kind']}: {shown.defect['message']}")
        else:
            print_table(shown, template, known, image_tokens, console)


@app.command()
def import_llava(
    source: Annotated[Path, Option(help="folder of a full checkpoint, or mm_projector.bin")],
    tower: Annotated[Path, Option(help="folder of the vision tower")],
    image: Annotated[Literal["crop", "pad", "warp"], Option(help="how images were prepared in SFT")],
    output: Annotated[Path, Option()],
    language_model: Annotated[Path | None, Option(help="folder of the language model, for mm_projector.bin")] = None,
) -> None:
    """A checkpoint of the original LLaVA as one of ours."""
    from .model.original import import_original

    import_original(source, tower, language_model, image, output)


@app.command()
def import_checkpoint(
    recipe: Recipe,
    tower: Tower,
    checkpoint: Annotated[Path, Option(help="manifest of the checkpoint, in the layout of the original LLaVA")],
    done: Written,
) -> None:
    """A checkpoint of others in the place of a training."""
    from .model.imported import import_checkpoint
    from .study.recipe import ImportRecipe

    import_checkpoint(ImportRecipe.model_validate_json(recipe), tower, checkpoint, done)


@app.command()
def export_llava(
    checkpoint: Annotated[Path, Option(help="folder of an SFT, or projector.safetensors of stage 1")],
    output: Annotated[Path, Option(help="a folder, or a file such as mm_projector.bin")],
    language_model: Annotated[Path | None, Option(help="folder of the language model, whose tokenizer goes along")] = None,
    tower_name: Annotated[str | None, Option(help="for mm_vision_tower: openai/clip-vit-large-patch14-336")] = None,
) -> None:
    """A checkpoint of ours as one of the original LLaVA."""
    from safetensors.torch import load_file

    from .artifacts import FINAL, FinishedStage
    from .model.original import export_original, projector_to_original

    is_projector = checkpoint.suffix == ".safetensors"
    FinishedStage.open((checkpoint.parent if is_projector else checkpoint) / FINAL)
    if is_projector:
        projector_to_original(load_file(checkpoint), output)
    elif language_model is None or tower_name is None:
        raise ConfigError("a whole checkpoint needs --language-model and --tower-name")
    else:
        export_original(checkpoint, language_model, tower_name, output)


@app.command()
def audit(
    published: Annotated[Path, Option(help="the printed numbers")] = Path("config/published.csv"),
    expectations: Annotated[Path, Option(help="what they can be")] = Path("config/audit.yaml"),
    protocols: Annotated[Path, Option(help="which protocols made them")] = Path("config/protocols.yaml"),
    output: Annotated[Path, Option(help="where audit.csv and audit.md are written")] = Path("results/tables"),
) -> None:
    """Say of every printed number what it cannot be."""
    from .report import audit as report
    from .report.audit_expectations import read_expectations, read_protocols
    from .report.results import read_published

    found = report.audit(read_published(published), read_expectations(expectations), read_protocols(protocols))
    report.write(found, output / "audit.csv", output / "audit.md")
    print("\n".join(f"{len(found.of(check)):5} {check}: {what}" for check, what in report.CHECKS.items()))
    print(f"each, and why: {output / 'audit.md'}")


@app.command()
def power(
    configfile: Annotated[list[Path] | None, Option(help="an overlay, as for Snakemake; again for the next")] = None,
) -> None:
    """Say what effects some seeds can detect."""
    from .report.comparison import build_comparison
    from .report.evidence import Definition
    from .report.finished import finished
    from .report.power import build_power
    from .report.power_text import as_markdown
    from .report.results import read_published
    from .study.evidence import comparable, comparison_definition
    from .study.files import merged_configuration
    from .study.plan import Plan

    checkout = Path.cwd()
    plan = Plan.of(merged_configuration(checkout, configfile or ()), checkout)
    published = read_published(checkout / "config" / "published.csv")
    definition = Definition.model_validate(comparison_definition(plan.study))
    files = finished(plan, comparable(plan.study)).files
    print(as_markdown(build_power(build_comparison(definition, files, published), published)), end="")


@app.command()
def schema() -> None:
    """Print the configuration's JSON schema."""
    from .study.schema import schema_text

    sys.stdout.write(schema_text())


@app.command()
def lock(resources: Path = Path("resources"), lock: Path = Path("config/lock.yaml")) -> None:
    """Record revisions, hashes and sizes of downloads."""
    from .assets.lock import write_lock

    write_lock(resources, lock)


app.add_typer(everyday.app)


def main() -> int:
    return run(sys.argv[1:])


def run(command_line: list[str]) -> int:
    """Run one command in this process; returns its exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S", force=True)
    try:
        app(command_line, prog_name="vdep")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except UserError as error:
        if os.environ.get("VDEP_TRACEBACK"):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
