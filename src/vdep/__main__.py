"""``python -m vdep``: the steps of the pipeline, as Snakemake calls them and as people can."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import CheckpointError, ConfigError, DataError, UserError

if TYPE_CHECKING:
    from .evaluation.run import EvaluationJob


def _fetch(arguments: argparse.Namespace) -> int:
    from pydantic import TypeAdapter

    from .assets.fetch import fetch, make
    from .study.settings import Asset, MadeAsset

    asset = TypeAdapter(Asset).validate_json(arguments.asset)
    folder = Path(arguments.manifest).parent
    if isinstance(asset, MadeAsset):
        make(arguments.name, asset, folder)
    else:
        fetch(arguments.name, asset, folder, Path.cwd())
    return 0


def _prepare(arguments: argparse.Namespace) -> int:
    from .artifacts import AssetManifest
    from .data.prepare import ArchiveRoute, prepare
    from .study.recipe import PreparationRecipe

    recipe = PreparationRecipe.model_validate_json(arguments.recipe)
    assets = {asset.asset: asset for asset in map(AssetManifest.open, map(Path, arguments.inputs))}
    dataset = recipe.dataset
    conversations = assets[dataset.conversations]
    prepare(
        recipe,
        conversations.folder / dataset.file if dataset.file else conversations.only_file(".json"),
        assets[recipe.tokenizer].folder,
        [ArchiveRoute(assets[e.asset].images(), e.prefix, e.folder) for e in dataset.images],
        Path(arguments.manifest).parent,
        arguments.workers,
    )
    return 0


def _train(arguments: argparse.Namespace) -> int:
    from .artifacts import AssetManifest, FinishedStage, PreparedManifest
    from .files import sha256
    from .run.job import Job
    from .run.launch import launch
    from .study.recipe import TrainingRecipe
    from .study.settings import StageExecution

    recipe = TrainingRecipe.model_validate_json(arguments.recipe)
    execution = json.loads(arguments.execution)
    done = Path(arguments.done)
    manifests = {name: Path(getattr(arguments, name)) for name in ("tower", "language_model", "data")}
    inputs = {name: sha256(path) for name, path in manifests.items()}
    tower, language_model = (AssetManifest.open(manifests[name]) for name in ("tower", "language_model"))
    data = PreparedManifest.open(manifests["data"])
    if data.digest != recipe.data.digest:
        raise DataError(f"{manifests['data']} is of another preparation than the recipe's: name the right one with --data")
    validation = PreparedManifest.open(Path(arguments.validation)) if arguments.validation else None
    for prepared in filter(None, (data, validation)):
        prepared.verify_archives()
    initial = None
    if arguments.initial:
        initial = FinishedStage.open(Path(arguments.initial))
        inputs["initial"] = sha256(Path(arguments.initial))
    if (initial and initial.recipe) != recipe.initial:
        raise CheckpointError(
            f"--initial {arguments.initial} has the recipe {initial and initial.recipe}, and this {recipe.stage} starts from "
            f"{recipe.initial}: name the done.json of its own stage 1"
        )
    job = Job(
        recipe=recipe,
        execution=StageExecution.model_validate(execution["settings"]),
        device=execution["device"],
        deepspeed=Path(execution["deepspeed"]).resolve(),
        tower=tower.folder.resolve(),
        language_model=language_model.folder.resolve(),
        data=data.folder.resolve(),
        initial=initial.weights if initial else None,
        validation=validation.folder.resolve() if validation else None,
        run=(done.parent / recipe.key).resolve(),
        inputs=inputs,
    )
    return launch(job, done)


def _evaluate(arguments: argparse.Namespace) -> int:
    from .evaluation.run import evaluate

    graded = Path(arguments.graded) if arguments.graded else None
    evaluate(_evaluation_job(arguments, Path(arguments.scores), graded))
    return 0


def _answer(arguments: argparse.Namespace) -> int:
    from .evaluation.run import answer

    answer(_evaluation_job(arguments, Path(arguments.answers)))
    return 0


def _evaluation_job(arguments: argparse.Namespace, output: Path, graded: Path | None = None) -> EvaluationJob:
    from .artifacts import AssetManifest
    from .evaluation.run import EvaluationJob
    from .study.recipe import EvaluationRecipe

    execution = json.loads(arguments.execution)
    return EvaluationJob(
        recipe=EvaluationRecipe.model_validate_json(arguments.recipe),
        checkpoint=Path(arguments.checkpoint),
        asset=AssetManifest.open(Path(arguments.data)).folder,
        output=output,
        cache=Path(execution["cache"]).resolve(),
        device=execution["device"],
        threads=execution["threads"],
        batch_size=execution["batch_size"],
        graded=graded,
    )


def _grade(arguments: argparse.Namespace) -> int:
    from .evaluation.grades import grade
    from .study.settings import Judge, JudgeExecution

    limits = JudgeExecution.model_validate_json(arguments.execution)
    grade(Path(arguments.answers), Path(arguments.graded), Judge.model_validate_json(arguments.judge), limits)
    return 0


def _attention(arguments: argparse.Namespace) -> int:
    from .artifacts import AssetManifest, FinishedStage
    from .report.attention import flow, list_images

    settings = json.loads(arguments.settings)
    images = list_images(AssetManifest.open(Path(arguments.images)).folder / settings["folder"])
    flow(
        FinishedStage.open(Path(arguments.checkpoint)).weights,
        settings["template"],
        settings["image_path"],
        images[: settings["curve_samples"]],
        settings["question"],
        settings["samples"],
        json.loads(arguments.execution)["device"],
        settings["precision"],
    ).save(Path(arguments.output))
    return 0


def _inspect(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from .data.inspect import inspect, inspect_question, print_question, print_table
    from .data.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(arguments.tokenizer)
    console = Console(highlight=False)
    if arguments.question is not None:
        asked = inspect_question(arguments.question, arguments.template, tokenizer)
        if arguments.json:
            sys.stdout.write(asked.as_json() + "\n")
        else:
            print_question(asked, tokenizer, arguments.image_tokens, console)
        return 0
    found = inspect(
        arguments.data, arguments.template, tokenizer, arguments.image_tokens, arguments.max_length, arguments.index
    )
    for shown in found:
        if arguments.json or arguments.index is None:
            sys.stdout.write(shown.as_json() + "\n")
        elif shown.defect is not None:
            raise DataError(f"sample {shown.index} (id {shown.id}), {shown.defect['kind']}: {shown.defect['message']}")
        else:
            print_table(shown, arguments.template, tokenizer, arguments.image_tokens, console)
    return 0


def _import_llava(arguments: argparse.Namespace) -> int:
    from .model.original import import_original

    import_original(arguments.source, arguments.tower, arguments.language_model, arguments.image, arguments.output)
    return 0


def _import_checkpoint(arguments: argparse.Namespace) -> int:
    from .model.imported import import_checkpoint
    from .study.recipe import ImportRecipe

    recipe = ImportRecipe.model_validate_json(arguments.recipe)
    import_checkpoint(recipe, Path(arguments.tower), Path(arguments.checkpoint), Path(arguments.done))
    return 0


def _export_llava(arguments: argparse.Namespace) -> int:
    from safetensors.torch import load_file

    from .artifacts import FINAL, FinishedStage
    from .model.original import export_original, projector_to_original

    is_projector = arguments.checkpoint.suffix == ".safetensors"
    FinishedStage.open((arguments.checkpoint.parent if is_projector else arguments.checkpoint) / FINAL)
    if is_projector:
        projector_to_original(load_file(arguments.checkpoint), arguments.output)
    elif arguments.language_model is None or arguments.tower_name is None:
        raise ConfigError("a whole checkpoint needs --language-model and --tower-name")
    else:
        export_original(arguments.checkpoint, arguments.language_model, arguments.tower_name, arguments.output)
    return 0


def _schema(arguments: argparse.Namespace) -> int:
    from .study.schema import schema_text

    sys.stdout.write(schema_text())
    return 0


def _lock(arguments: argparse.Namespace) -> int:
    from .assets.lock import write_lock

    write_lock(Path(arguments.resources), Path(arguments.lock))
    return 0


def parser() -> argparse.ArgumentParser:
    whole = argparse.ArgumentParser(prog="vdep", description=__doc__)
    commands = whole.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("fetch", help="download an asset, or make it")
    command.add_argument("--name", required=True)
    command.add_argument("--asset", required=True, help="the asset's entry in the configuration, as JSON")
    command.add_argument("--manifest", required=True, help="written last; the files lie beside it")
    command.set_defaults(run=_fetch)

    command = commands.add_parser("prepare", help="check and tokenise a dataset")
    command.add_argument("--recipe", required=True, help="a preparation recipe as JSON")
    command.add_argument("--inputs", required=True, nargs="+", help="manifests of the dataset's assets and the tokenizer's")
    command.add_argument("--manifest", required=True, help="written last; the prepared data lies beside it")
    command.add_argument("--workers", type=int, default=1)
    command.set_defaults(run=_prepare)

    command = commands.add_parser("train", help="run or resume one stage of a training")
    command.add_argument("--recipe", required=True, help="a training recipe as JSON")
    command.add_argument("--execution", required=True, help="how to run it, as JSON")
    command.add_argument("--tower", required=True, help="manifest of the vision tower")
    command.add_argument("--language-model", required=True, help="manifest of the language model")
    command.add_argument("--data", required=True, help="manifest of the prepared data")
    command.add_argument("--validation", help="manifest of prepared data whose text loss is to be measured meanwhile")
    command.add_argument("--initial", help="done.json of the stage before")
    command.add_argument("--done", required=True, help="written last; the run's folder lies beside it")
    command.set_defaults(run=_train)

    evaluate = commands.add_parser("evaluate", help="run one checkpoint on one benchmark")
    answer = commands.add_parser("answer", help="the same for a benchmark that a server grades, without grades and scores")
    for command in (evaluate, answer):
        command.add_argument("--recipe", required=True, help="an evaluation recipe as JSON")
        command.add_argument("--execution", required=True, help="how to run it, as JSON")
        command.add_argument("--checkpoint", required=True, help="done.json of the SFT")
        command.add_argument("--data", required=True, help="manifest of the benchmark's data")
    evaluate.add_argument("--graded", nargs="?", help="what `vdep grade` wrote: these answers are scored")
    evaluate.add_argument("--scores", required=True, help="written last; the samples lie beside it")
    evaluate.set_defaults(run=_evaluate)
    answer.add_argument("--answers", required=True, help="written last; what has been answered lies beside it")
    answer.set_defaults(run=_answer)

    command = commands.add_parser("grade", help="have a judge's server grade what `vdep answer` wrote; needs no GPU")
    command.add_argument("--judge", required=True, help="who grades, as JSON; OPENAI_BASE_URL and OPENAI_API_KEY say where")
    command.add_argument("--execution", required=True, help="how it is asked, as JSON")
    command.add_argument("--answers", required=True)
    command.add_argument("--graded", required=True, help="written last; the grades so far lie beside it")
    command.set_defaults(run=_grade)

    command = commands.add_parser("attention", help="how much a question's words attend to each image token")
    command.add_argument("--settings", required=True, help="question, template and so on, as JSON")
    command.add_argument("--execution", required=True, help="how to run it, as JSON")
    command.add_argument("--checkpoint", required=True, help="done.json of the SFT")
    command.add_argument("--images", required=True, help="manifest of the pictures")
    command.add_argument("--output", required=True)
    command.set_defaults(run=_attention)

    command = commands.add_parser(
        "inspect", help="show what a sample or a question becomes: its tokens, and which of them are trained"
    )
    command.add_argument("--template", required=True, choices=("plain", "vicuna_v1", "phi"))
    command.add_argument("--tokenizer", required=True, type=Path, help="folder of a language model or its tokenizer")
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument("--data", type=Path, help="conversations as LLaVA JSON; images are not opened")
    what.add_argument("--question", help="show what a model is asked at evaluation; <image> stands for a picture")
    command.add_argument("--index", type=int, help="one sample, counted from 0; without it all, a line of JSON each")
    command.add_argument("--json", action="store_true", help="JSON instead of a table: -200 is the image, -100 is ignored")
    command.add_argument("--image-tokens", type=int, default=576, help="how many tokens an image counts for --max-length")
    command.add_argument("--max-length", type=int, default=2048)
    command.set_defaults(run=_inspect)

    command = commands.add_parser("import-llava", help="a checkpoint of the original LLaVA as one of ours")
    command.add_argument("--source", required=True, type=Path, help="folder of a full checkpoint, or mm_projector.bin")
    command.add_argument("--tower", required=True, type=Path, help="folder of the vision tower")
    command.add_argument("--language-model", type=Path, help="folder of the language model, for mm_projector.bin")
    command.add_argument("--image", required=True, choices=("crop", "pad", "warp"), help="how images were prepared in SFT")
    command.add_argument("--output", required=True, type=Path)
    command.set_defaults(run=_import_llava)

    command = commands.add_parser("import-checkpoint", help="a downloaded checkpoint of others, in the place of a training")
    command.add_argument("--recipe", required=True, help="an import recipe as JSON")
    command.add_argument("--tower", required=True, help="manifest of the vision tower")
    command.add_argument("--checkpoint", required=True, help="manifest of the checkpoint, in the layout of the original LLaVA")
    command.add_argument("--done", required=True, help="written last; the weights lie beside it")
    command.set_defaults(run=_import_checkpoint)

    command = commands.add_parser("export-llava", help="one of our checkpoints in the layout of the original LLaVA")
    command.add_argument("--checkpoint", required=True, type=Path, help="folder of an SFT, or projector.safetensors of stage 1")
    command.add_argument("--language-model", type=Path, help="folder of the language model, whose tokenizer goes along")
    command.add_argument("--tower-name", help="what mm_vision_tower shall say: openai/clip-vit-large-patch14-336")
    command.add_argument("--output", required=True, type=Path, help="a folder, or a file such as mm_projector.bin")
    command.set_defaults(run=_export_llava)

    command = commands.add_parser("schema", help="print the JSON schema of the configuration (config/schema.json)")
    command.set_defaults(run=_schema)

    command = commands.add_parser("lock", help="record the revisions, hashes and sizes of what was downloaded")
    command.add_argument("--resources", default="resources")
    command.add_argument("--lock", default="config/lock.yaml")
    command.set_defaults(run=_lock)
    return whole


def main() -> int:
    return run(sys.argv[1:])


def run(command_line: list[str]) -> int:
    """Run one command in this process; returns its exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S", force=True)
    arguments = parser().parse_args(command_line)
    try:
        return int(arguments.run(arguments))
    except UserError as error:
        if os.environ.get("VDEP_TRACEBACK"):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
