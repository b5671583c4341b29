"""A study's finished files without a study: scores, samples, pictures, logs, tables and maps of any size, for the page."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import world
from PIL import Image

from vdep.artifacts import Scores
from vdep.evaluation.samples import write_samples
from vdep.files import sha256, write_json
from vdep.report.attention_data import MEASURES, Flow
from vdep.report.evidence import Comparison, Definition, Difference, JudgedClaim, JudgedPart, PublishedChange, SeedPair
from vdep.report.page.request import (
    AskedBenchmark,
    AskedFigure,
    AskedScores,
    AskedStage,
    AskedTable,
    Request,
)
from vdep.study.recipe import canonical_json
from vdep.study.verdicts import Assumptions, Rules

PAPER = {
    "okvqa": 5046, "gqa": 12578, "vizwiz": 4319, "textvqa": 5000, "realworldqa": 765, "scienceqa_img": 2017, "pope": 9000,
    "seedbench_img": 14233, "ai2d": 3088, "mmvet": 218, "mmmu": 900, "mmt": 3127, "ocrbench": 1000, "mmbench_en": 4329,
    "mmbench_cn": 4329, "mme": 2374,
}  # fmt: skip
"""Questions of each benchmark: 72,323."""

ATTACKS = (
    "<script>window.hacked = 1</script>",
    "</script><img src=x onerror='window.hacked = 2'>",
    "<!--<script>",
    "{{policy}} ${window.hacked = 3} \u2028",
    "javascript:window.hacked = 4",
)
"""What a model may answer, and a person may have asked."""


@dataclass
class PageStudy:
    """Where the files of a stand-in study lie, and what asks for them."""

    folder: Path
    request: Request


def photo(generator: np.random.Generator, side: int) -> bytes:
    """A JPEG with the structure of a photograph: it compresses as badly as one."""
    coarse = generator.integers(0, 255, (9, 12, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((side, side * 3 // 4), Image.Resampling.BICUBIC)
    noise = generator.normal(0, 14, (side * 3 // 4, side, 3))
    noisy = np.clip(np.asarray(picture, float) + noise, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).save(file, "JPEG", quality=85)
    return file.getvalue()


def make(
    folder: Path,
    checkpoints: Sequence[str],
    benchmarks: dict[str, int],
    *,
    attacks: Sequence[str] = (),
    pictures: int = 40,
    side: int = 320,
    words: int = 1,
    seed: int = 0,
) -> PageStudy:
    """Write everything.

    Args:
        attacks: answers, questions, options and categories that are markup.
        pictures: different pictures of a benchmark.
        words: how many an answer has, about.
    """
    generator = np.random.default_rng(seed)
    asked = [
        _benchmark(folder, name, n, checkpoints, generator, attacks, min(pictures, n), side, words)
        for name, n in benchmarks.items()
    ]
    stages = [stage for checkpoint in checkpoints for stage in _stages(folder, checkpoint, generator)]
    request = Request(
        title="A stand-in" + "".join(attacks[:1]),
        note="Made for a test. " + "".join(attacks[1:2]),
        results=str(folder / "results"),
        stages=tuple(stages),
        benchmarks=tuple(asked),
        tables=(_table(folder, checkpoints, list(benchmarks)),),
        figures=(_figure(folder, checkpoints[:2], generator),),
        sheets=_sheets(folder, attacks),
        others={},
        assets={},
        stamps={},
    )
    return PageStudy(folder, request)


def _benchmark(
    folder: Path,
    name: str,
    questions: int,
    checkpoints: Sequence[str],
    generator: np.random.Generator,
    attacks: Sequence[str],
    pictures: int,
    side: int,
    words: int,
) -> AskedBenchmark:
    photos = [photo(generator, side) for _ in range(pictures)]
    asset = folder / "assets" / name
    asset.mkdir(parents=True)
    column = pa.array([{"bytes": data, "path": None} for data in photos])
    pq.write_table(pa.table({"id": list(range(pictures)), "image": column}), asset / "images-0.parquet")
    world.write_manifest(asset)
    identities = [hashlib.sha256(data).hexdigest() for data in photos]
    vocabulary = ["red", "blue", "circle", "two", "left", "yes", "no", "a dog on the grass", "unanswerable"]
    truth = generator.choice(vocabulary, questions)
    rows = [
        {
            "document": i, "question_id": f"{name}-{i}", "prompt": f"Question {i}?", "pictures": identities[i % pictures],
            "question": _text(attacks, i, f"What is number {i} of the things in this picture of {name}?"),
            "options": [*sorted({str(truth[i]), "red", "two"}), _text(attacks, i + 1, "none of these")],
            "category": _text(attacks, i % 7 + 2, f"category {i % 7}"), "target": str(truth[i]), "group": "", "unit": "",
            "cluster": str(i), "is_yes": False, "predicted_yes": False, "metric": 0.0,
        }
        for i in range(questions)
    ]  # fmt: skip
    scores = []
    for number, checkpoint in enumerate(checkpoints):
        right = generator.random(questions) < 0.6 + 0.01 * number
        seen = []
        for i, row in enumerate(rows):
            wrong = " ".join(generator.choice(vocabulary, words))
            answer = str(truth[i]) if right[i] else _text(attacks, i + number, f"{wrong} not")
            seen.append(row | {"answer": answer, "points": float(right[i])})
        path = folder / "results" / "evaluations" / checkpoint / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = path.with_name(f"{name}.samples.jsonl.gz")
        write_samples(samples, {"seen": seen, "blind": seen[:1]})
        digest = write_scores(path, samples, questions, 100 * float(right.mean()), {"benchmark": name})
        scores.append(AskedScores(checkpoint=checkpoint, file=str(path), seconds=12.5, evaluation=digest, training="r" * 64))
    return AskedBenchmark(name=name, label=name.upper(), data=str(asset / "manifest.json"), scores=tuple(scores))


def _text(attacks: Sequence[str], number: int, otherwise: str) -> str:
    return attacks[number % len(attacks)] if attacks and number % 3 == 0 else otherwise


def write_scores(
    path: Path, samples: Path, questions: int, value: float, recipe: dict[str, Any], training: str = "r" * 64
) -> str:
    """Write the scores that samples are of, and return the digest of their recipe."""
    digest = hashlib.sha256(canonical_json(recipe).encode()).hexdigest()
    write_json(
        path,
        {
            "benchmark": recipe["benchmark"], "recipe": recipe, "digest": digest,
            "checkpoint": {"recipe": training, "initial_recipe": None, "weights": "w" * 64, "versions": {"torch": "2"}},
            "judge": None, "grading": None, "lmms_eval": "0.7.3", "blind": None,
            "seen": {"n": questions, "parts": {"score": {"value": value, "low": value - 3, "high": value + 3}}},
            "samples": {"file": samples.name, "sha256": sha256(samples)},
        },
    )  # fmt: skip
    Scores.open(path)
    return digest


def _stages(folder: Path, checkpoint: str, generator: np.random.Generator) -> list[AskedStage]:
    stages = []
    for stage in ("pretrain", "finetune"):
        run = folder / "results" / "runs" / checkpoint / stage / "run"
        (run / "final").mkdir(parents=True)
        (run / "final" / "weights.safetensors").write_bytes(b"weights")
        done = world.finish(run / "final", stage=stage)
        steps = [
            {"step": i, "text_loss": 3 / (1 + i / 50) + 0.1 * generator.random(), "image_loss": None, "gradient_norm": 1.0}
            for i in range(400)
        ]
        (run / "losses.jsonl").write_text("".join(json.dumps(row) + "\n" for row in steps))
        (run / "validation.jsonl").write_text('{"step": 0, "text_loss": 3.0, "tokens": 9}\n{"step": 400, "text_loss": 0.4}\n')
        stages.append(AskedStage(checkpoint=checkpoint, stage=stage, done=str(done), seconds=3700.0))
    return stages


def _table(folder: Path, checkpoints: Sequence[str], benchmarks: Sequence[str]) -> AskedTable:
    tables = folder / "results" / "tables"
    tables.mkdir(parents=True, exist_ok=True)
    runs = list(dict.fromkeys(tuple(checkpoint.split("/")[:2]) for checkpoint in checkpoints))
    lines = [",".join(("model", "run", "quantity", *benchmarks))]
    for number, (model, run) in enumerate(runs):
        for quantity, shift in (("reproduced", 0), ("low", -3), ("high", 3), ("published", 1), ("blind", -40)):
            values = (f"{60 + number + i + shift:.2f}" for i in range(len(benchmarks)))
            lines.append(",".join((model, run, quantity, *values)))
    (tables / "main.csv").write_text("\n".join(lines) + "\n")
    (tables / "main.md").write_text("# Main\n\n| a |\n|---|\n\nEach cell: *the* score.\n")
    cells: list[dict[str, Any]] = [
        {"model": m, "run": r, "column": b, "results": [f"{folder}/results/evaluations/{m}/{r}/seed-1/{b}.json"]}
        for m, r in runs
        for b in benchmarks
    ]
    write_json(tables / "main.provenance.json", {"cells": cells})
    return AskedTable(name="main", title="Main results", columns={name: name.upper() for name in benchmarks})


def _figure(folder: Path, checkpoints: Sequence[str], generator: np.random.Generator) -> AskedFigure:
    sides = {}
    for checkpoint in checkpoints:
        heads = generator.random((2, 3, 5, 16)).astype(np.float32) / 16
        path = folder / "results" / "attention" / "attention" / f"{checkpoint}.npz"
        Flow(
            maps=heads.mean(2),
            head_maps=heads.astype(np.float16),
            pixels=generator.integers(0, 255, (2, 48, 48, 3), dtype=np.uint8),
            cells=np.arange(16),
            side=4,
            uniform=0.6,
            names=np.arange(8).astype(str),
            areas=np.full(8, 0.1),
            by_layer=generator.random((8, 3, len(MEASURES))),
            by_head=generator.random((2, 3, 5, len(MEASURES))),
            best=np.array([1, 1]),
            best_values=generator.random((4, len(MEASURES))),
            sinks=np.zeros((3, 16), bool),
        ).save(path)
        sides[checkpoint] = str(path)
    numbers = folder / "results" / "figures" / "attention.csv"
    numbers.parent.mkdir(parents=True)
    numbers.write_text("layer,total\n1,0.5\n")
    numbers.with_suffix(".md").write_text("# Attention\n\nNothing can be concluded.\n\n| a |\n")
    return AskedFigure(name="attention", question="Describe this photo in detail.", sides=sides, numbers=str(numbers))


def _sheets(folder: Path, attacks: Sequence[str]) -> dict[str, str]:
    tables = folder / "results" / "tables"
    (tables / "audit.csv").write_text(
        "table,column,printed,words\n" + "".join(f't{i},gqa,{60 + i}.10,"no, {i}"\n' for i in range(60))
    )
    (tables / "power.csv").write_text("seeds,effect\n1,2.5\n3,1.10\n")
    pair = {"model": "toy", "treatment": "vdep", "reference": "baseline"}
    better = Difference(
        **pair, quantity="gqa", label="GQA", pooled=False, maximum=100,
        by_seed=tuple(SeedPair(seed=f"seed-{i}", treatment=62.0 + i, reference=60.0) for i in range(3)),
        difference=2.5, low=1.0, high=4.0, basis="over seeds", p=0.01, p_adjusted=0.02, questions=90, clusters=80,
        gained=9, lost=4.5, question_error=1.0,
        published=PublishedChange(treatment="61.3", reference="60", change=1.3, tables=("table1",)),
    )  # fmt: skip
    worse = better.model_copy(
        update={"quantity": "pope", "label": "POPE", "difference": -3.0, "low": -4.0, "high": -2.0, "p_adjusted": 0.01}
        | {"published": None}
    )
    single = better.model_copy(
        update={"quantity": "ai2d", "label": "AI2D", "by_seed": better.by_seed[:1], "p": None, "p_adjusted": None}
        | {"basis": "two checkpoints, no training noise", "published": None}
    )
    part = JudgedPart(
        treatment="vdep", reference="baseline", quantity="primary", label="mean of 2", n=3, difference=2.5, low=1.0, high=4.0,
        margin=1.0, p=0.01, p_below_margin=0.9, verdict="holds",
    )  # fmt: skip
    judged = JudgedClaim(
        claim="helps", says="It helps." + "".join(attacks[:1]), source="abstract", model="toy", endpoint="primary",
        endpoint_label="mean of 2", deciding=True, verdict="holds", why="better at the 5% level", n=3, parts=(part,),
    )  # fmt: skip
    undecided = {
        "claim": "steps",
        "source": "not in the paper",
        "says": "Not the steps.",
        "verdict": "cannot tell",
        "parts": (),
    }
    unknown = {"claim": "alpha", "says": "Less alpha.", "verdict": None, "parts": ()}
    rules = Rules(
        endpoints={}, claims={}, assumed=Assumptions(seed_spread=0.4, seed_correlation=0.3, disagreement=0.15), level=0.1,
        margin=1.0, minimum_seeds=3,
    )  # fmt: skip
    comparison = Comparison(
        definition=Definition(pairs=(), family=(), columns={}, rules=rules, rules_sha256="a" * 64),
        differences=(better, worse, single),
        verdicts=(judged, judged.model_copy(update=undecided), judged.model_copy(update=unknown)),
        missing=("toy, a against b: nothing",),
    )
    write_json(tables / "comparison.json", comparison.model_dump(mode="json"))
    return {name: str(tables / name) for name in ("comparison.json", "audit.csv", "power.csv")}
