"""What ran, on what, for how long, and from what: the last part of the page."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ... import __version__
from ...artifacts import AssetManifest, FinishedStage, Scores
from ...errors import UserError
from ...run import attempts
from .content import Evaluated, Origin, Source, Trained
from .request import AskedStage, Request


def origin(request: Request, checkout: Path, left_out: Sequence[str] = ()) -> Origin:
    trained = tuple(_trained(stage) for stage in request.stages)
    scores = {}
    for benchmark in request.benchmarks:
        for asked in benchmark.scores:
            read = Scores.read(Path(asked.file))
            scores[asked.file] = Evaluated(
                checkpoint=asked.checkpoint,
                benchmark=benchmark.label,
                questions=read.seen["n"],
                weights=read.checkpoint.weights,
                recipe=read.digest,
                samples=read.samples.sha256,
                judge=read.judge or "",
                hours=_hours(asked.seconds),
            )
    versions = {name: version for stage in trained for name, version in stage.versions.items()}
    return Origin(
        commit=commit(checkout),
        trained=trained,
        sources=tuple(_source(name, Path(file)) for name, file in request.assets.items()),
        scores=scores,
        versions={"vdep": __version__, **versions},
        left_out=tuple(left_out),
    )


def commit(checkout: Path) -> str:
    """The commit of a checkout, marked where files differ from it; empty outside of git."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(checkout), *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        head = git("rev-parse", "HEAD")
        return f"{head} with changes" if head and git("status", "--porcelain", "--untracked-files=no") else head
    except OSError:
        return ""


def _trained(stage: AskedStage) -> Trained:
    finished = FinishedStage.read(Path(stage.done))
    run = finished.weights.parent
    job, made = _job(run), attempts.read(run)
    seconds = sum(attempt.seconds for attempt in made) if made else stage.seconds
    return Trained(
        checkpoint=stage.checkpoint,
        stage=stage.stage,
        recipe=finished.recipe,
        weights=finished.digest,
        steps=finished.steps,
        hours=_hours(seconds),
        attempts=len(made),
        hardware="; ".join(dict.fromkeys(attempt.hardware for attempt in made)) or _configured(job),
        settings=_settings(job),
        versions=finished.versions,
    )


def _job(run: Path) -> dict[str, Any]:
    try:
        return json.loads((run / "job.json").read_text())
    except (OSError, ValueError):
        return {}


def _configured(job: Mapping[str, Any]) -> str:
    """Where attempts were not recorded: what was asked for."""
    processes = job.get("execution", {}).get("processes")
    if processes is None:
        return ""
    return f"{processes} x {'CPU' if job.get('device') == 'cpu' else 'GPU'}"


def _settings(job: Mapping[str, Any]) -> dict[str, Any]:
    """What a reader asks for first; the recipe's digest stands for the rest."""
    recipe = job.get("recipe", {})
    names = ("data", "epochs", "global_batch", "learning_rate", "precision", "max_length", "seed")
    settings = {name: recipe.get("settings", {}).get(name) for name in names}
    settings |= {f"vdep.{name}": value for name, value in (recipe.get("vdep") or {}).items()}
    return {name: value for name, value in settings.items() if value is not None}


def _hours(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds / 3600, 4)


def _source(name: str, manifest: Path) -> Source:
    try:
        source = AssetManifest.read(manifest).source
    except UserError:
        return Source(name=name, kind="damaged", origin="", revision="")
    origin = next((str(source[key]) for key in ("repo", "url", "path", "maker") if source.get(key)), "")
    arguments = source.get("arguments")
    if arguments:
        origin += f" ({', '.join(f'{key} {value}' for key, value in arguments.items())})"
    return Source(
        name=name,
        kind=str(source.get("kind", "")),
        origin=origin,
        revision=str(source.get("revision") or AssetManifest.read(manifest).revision or source.get("sha256") or ""),
    )
