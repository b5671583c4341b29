"""What is needed for what, and where it lies: the names of the pipeline's files, and what each target consists of."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from ..errors import ConfigError
from .check import load_study, missing_files
from .evidence import comparable, needed
from .recipe import PreparationRecipe, canonical_json
from .settings import STAGES, LocalAsset, ShippedAsset, Stage
from .study import IMPORTED, Run, Study, apply_lock
from .tables import Target

ENDINGS = {"tables": ("csv", "md", "provenance.json"), "figures": ("png", "csv")}
"""Of what is made of a table and of a figure."""


class Plan:
    """The files of a study. Paths are relative to where Snakemake runs."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.results, self.resources = study.results, study.resources

    @classmethod
    def of(cls, config: dict[str, Any], checkout: Path) -> Plan:
        """Read the merged configuration and config/lock.yaml.

        Raises:
            ConfigError: naming each key that cannot be, and what is known instead.
        """
        lock = checkout / "config" / "lock.yaml"
        study = load_study(apply_lock(config, yaml.safe_load(lock.read_text()) or {} if lock.is_file() else {}))
        if problems := list(missing_files(study, checkout)):
            raise ConfigError("; ".join(problems))
        return cls(study)

    # -- files

    def asset(self, name: str) -> str:
        """The manifest of a download."""
        return f"{self.resources}/assets/{name}/manifest.json"

    def unfetchable(self, name: str) -> str | None:
        """What is wrong with an asset that lies on this machine, and that no job has taken over before."""
        asset = self.study.assets[name]
        if not isinstance(asset, LocalAsset | ShippedAsset) or any(Path(p).exists() for p in (asset.path, self.asset(name))):
            return None
        return f"assets.{name}.path: {asset.path} is not there; it should name a file or a folder of this machine"

    def prepared(self, recipe: PreparationRecipe) -> str:
        """The manifest of prepared data."""
        return f"{self.resources}/prepared/{self.prepared_name(recipe)}/manifest.json"

    @staticmethod
    def prepared_name(recipe: PreparationRecipe) -> str:
        return f"{recipe.name}-{recipe.key}"

    def training_data(self, model: str, variant: str, stage: Stage) -> str:
        return self.prepared(self.study.preparation_recipe(model, variant, stage))

    def validation(self, model: str, variant: str, stage: Stage) -> str:
        """A file that names the manifest of what a stage's text loss is measured on, or nothing.

        Its name tells how that data is prepared and not which it is: other data, or none, makes no training run again.
        """
        return f"{self.resources}/validation/{self._validation_name(model, variant, stage)}.txt"

    def validation_manifest(self, model: str, variant: str, stage: Stage) -> str:
        """What it names; empty, where nothing is measured."""
        recipe = self.validations[self._validation_name(model, variant, stage)]
        return self.prepared(recipe) if recipe else ""

    def _validation_name(self, model: str, variant: str, stage: Stage) -> str:
        recipe = self.study.preparation_recipe(model, variant, stage)
        return f"{stage}-{recipe.tokenizer}-{recipe.template}-{recipe.image_tokens}-{recipe.max_length}"

    def done(self, run: Run, stage: Stage) -> str:
        """What a stage writes last. Its weights lie beside it."""
        return f"{self.results}/runs/{'/'.join(run)}/{stage}/done.json"

    def scores(self, run: Run, benchmark: str) -> str:
        return f"{self.results}/evaluations/{'/'.join(run)}/{benchmark}.json"

    def attention(self, figure: str, run: Run) -> str:
        """What a figure draws of a run: figures that ask the same of the same pictures share it."""
        figures = self.study.figures
        asked = [(entry.question, entry.shown, entry.measured) for entry in figures.values()]
        first = list(figures)[asked.index(asked[list(figures).index(figure)])]
        return f"{self.results}/attention/{first}/{'/'.join(run)}.npz"

    def submission(self, run: Run, benchmark: str) -> str:
        return f"{self.results}/submissions/{'/'.join(run)}/{benchmark}.json"

    # -- what follows from the tables and figures

    @cached_property
    def preparations(self) -> dict[str, PreparationRecipe]:
        """By the name of its folder: the data of every run that could be asked for, whether a table has it or not."""
        return self._prepared(self.study.trainable)

    def _prepared(self, pairs: Iterable[tuple[str, str]]) -> dict[str, PreparationRecipe]:
        study = self.study
        recipes = [study.preparation_recipe(m, v, stage) for m, v in pairs for stage in STAGES]
        recipes += [study.preparation_recipe(m, v, stage, name) for m, v in pairs for stage, name in study.validation.items()]
        return {self.prepared_name(recipe): recipe for recipe in recipes}

    @cached_property
    def validations(self) -> dict[str, PreparationRecipe | None]:
        """What the text loss is measured on, by the name of the file that says so; None: nothing."""
        study = self.study
        return {
            self._validation_name(m, v, stage): study.preparation_recipe(m, v, stage, data) if data else None
            for m, v in study.trainable
            for stage in STAGES
            for data in [study.validation.get(stage)]
        }

    @cached_property
    def evaluations(self) -> dict[str, list[tuple[Run, str]]]:
        """Table -> (run, benchmark) of its scores."""
        return {name: self.study.table_evaluations(name) for name in self.study.tables}

    @property
    def assets(self) -> list[str]:
        """Every download that any table or figure needs."""
        study, names = self.study, []
        for run in study.all_runs:
            entry = study.models[run.model]
            names += [entry.vision_tower.weights, study.imported(run.variant) or entry.language_model]
        trained = dict.fromkeys((run.model, run.variant) for run in study.all_runs if run.seed != IMPORTED)
        for recipe in self._prepared(trained).values():
            names += recipe.sources
        names += [study.benchmarks[b].asset for scores in self.evaluations.values() for _, b in scores]
        names += [asset for name, figure in study.figures.items() if study.sides(name) for asset in figure.assets]
        return [self.asset(name) for name in dict.fromkeys(names)]

    # -- targets

    @cached_property
    def shown(self) -> set[str]:
        """The names of all tables and figures that are made."""
        study = self.study
        if study.only_stage is not None:
            return set()
        drawn = {name for name, arms in {**study.tables, **study.loss_figures}.items() if study.rows(arms)}
        return drawn | {name for name in study.figures if study.sides(name)}

    def members(self, name: str) -> Iterable[Target]:
        """A target and those that belong to it."""
        target = self.study.targets.get(name, Target())
        yield target
        for other in target.targets:
            yield from self.members(other)

    def target_runs(self, name: str) -> list[Run]:
        study, runs = self.study, []
        for target in self.members(name):
            for key in target.tables:
                runs += study.runs(study.tables[key])
            for key in target.figures:
                runs += study.sides(key) if key in study.figures else study.runs(study.loss_figures[key])
            runs += study.claimed_runs(target)
        return list(dict.fromkeys(runs))

    @property
    def all_scores(self) -> list[tuple[Run, str]]:
        """(run, benchmark) of everything that a table or a claim could ask for."""
        study = self.study
        scores = [score for table in self.evaluations.values() for score in table] + needed(study, study.claims)
        return list(dict.fromkeys([*scores, *comparable(study)]))

    def asked(self, targets: Iterable[str]) -> list[tuple[Run, str]]:
        """(run, benchmark) of the scores that targets, or tables by their files, need."""
        if self.study.only_stage is not None:
            return []
        scores = []
        # the demo is `main` and its skills; a job's own process is told no target, and so asks for nothing
        for name in ("main" if name == "demo" else name for name in targets):
            if name in self.study.targets:
                for target in self.members(name):
                    scores += [score for table in target.tables for score in self.evaluations[table]]
                    scores += needed(self.study, target.verdicts)
            elif (path := Path(name)).parent == Path(self.results) / "tables":
                scores += self.evaluations.get(path.name.partition(".")[0], [])
        return list(dict.fromkeys(scores))

    def target(self, name: str) -> list[str]:
        """The files of a target; with ``only_stage`` those that the stage writes last."""
        study = self.study
        if study.only_stage is not None:
            return [self.done(run, study.only_stage) for run in self.target_runs(name) if run.seed != IMPORTED]
        files = []
        for target in self.members(name):
            for kind, keys in (("tables", target.tables), ("figures", target.figures)):
                files += [f"{self.results}/{kind}/{key}.{end}" for key in keys if key in self.shown for end in ENDINGS[kind]]
            if self.study.claimed_runs(target):
                files += [f"{self.results}/tables/{name}" for name in ("comparison.json", "verdicts.md")]
        return list(dict.fromkeys(files))

    @property
    def submissions(self) -> list[str]:
        """Of the runs of ``all``: what only servers can score."""
        if self.study.only_stage is not None:
            return []
        runs, benchmarks = self.target_runs("all"), self.study.submission_benchmarks
        return [self.submission(run, benchmark) for run in runs for benchmark in benchmarks]

    # -- what rules are told

    def table_definition(self, name: str) -> str:
        study = self.study
        table = study.tables[name]
        needed = sorted({part for column in table.columns for part in study.column_parts(column)})
        return canonical_json(
            {
                "table": table.model_dump(mode="json"),
                "rows": study.rows(table),
                "columns": {column: study.columns[column].model_dump(mode="json") for column in needed},
                "left_out": [column for column in table.columns if study.left_out(column)],
                "evaluations": [(*run, benchmark) for run, benchmark in self.evaluations[name]],
                "recipes": [study.scored_recipes(run, benchmark) for run, benchmark in self.evaluations[name]],
                "protocols": {key: entry.model_dump(mode="json") for key, entry in study.table_protocols(name).items()},
                "note": study.note,
            }
        )

    def attention_settings(self, figure: str, model: str, variant: str) -> str:
        entry, settings = self.study.figures[figure], self.study.stage(model, variant, "finetune")
        return canonical_json(
            {
                "shown": entry.shown.model_dump(mode="json", exclude={"asset"}),
                "measured": entry.measured.model_dump(mode="json", exclude={"asset", "masks"}),
                "question": entry.question,
                "template": settings.template,
                "image_fit": settings.image,
                "precision": self.study.evaluation.precision,
            }
        )
