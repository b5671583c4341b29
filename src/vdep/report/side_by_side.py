"""``vdep compare``: what differs between two checkpoints - their recipes key by key, their scores, question by question.

The differences are ``comparison.build_comparison``'s, for the one pair: seeds that both have are paired, and of one seed there
is an interval over questions and no test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..artifacts import Scores
from ..errors import CheckpointError
from ..study.evidence import comparison_definition
from ..study.study import Study
from .checkpoints import SFT, STAGE_1, Checkpoint
from .comparison import build_comparison
from .comparison_text import as_markdown, markdown_table
from .differing import differing, said
from .evidence import Comparison, Definition
from .results import Key, Published

UNNAMED_SEED = "the one"
"""Of two checkpoints that are laid side by side whatever their seeds."""


@dataclass(frozen=True)
class SideBySide:
    """``recipes``: stage -> key -> the values of both, where these differ; None where a recipe is not known."""

    names: tuple[str, str]
    recipes: dict[str, dict[str, tuple[str, str]] | None]
    comparison: Comparison
    same_weights: bool
    seeds: int


def paired_by_seed(a: Sequence[Checkpoint], b: Sequence[Checkpoint]) -> list[tuple[str, Checkpoint, Checkpoint]]:
    """(seed, one, other): a single checkpoint with a single one, several by their seeds, one with several by its seed.

    Raises:
        CheckpointError: where they have no seed in common.
    """
    if len(a) == len(b) == 1:
        return [(a[0].seed if a[0].seed == b[0].seed and a[0].seed else UNNAMED_SEED, a[0], b[0])]
    of_b = {each.seed: each for each in b}
    if pairs := [(each.seed, each, of_b[each.seed]) for each in a if each.seed in of_b]:
        return pairs
    seeds = ["; ".join(f"{each.name}" for each in arm) for arm in (a, b)]
    raise CheckpointError(f"{seeds[0]} and {seeds[1]} have no seed in common: name one checkpoint of each")


def side_by_side(a: Sequence[Checkpoint], b: Sequence[Checkpoint], study: Study, published: Sequence[Published]) -> SideBySide:
    """Compare B with A; a difference is B minus A.

    Raises:
        CheckpointError: where they have no seed in common.
        ReportError: where samples do not yield their score.
    """
    pairs = paired_by_seed(a, b)
    model, names = _names(pairs)
    files: dict[Key, Path] = {}
    notes: list[str] = []
    for seed, one, other in pairs:
        (of_one, stale), (of_other, stale_too) = one.scores(), other.scores()
        found = (of_one, of_other)
        notes += [*stale, *stale_too]
        common, more = _comparable(found, (one, other))
        notes += more
        for benchmark in common:
            files |= {(model, name, seed, benchmark): each[benchmark] for name, each in zip(names, found, strict=True)}
    definition = Definition.model_validate(comparison_definition(study) | {"pairs": [(model, names[1], names[0])], "seeds": []})
    known = {column.benchmark for column in definition.columns.values()}
    unknown = sorted({key[3] for key in files} - known)
    if unknown:
        notes.append(f"no column of the configuration is compared on {', '.join(unknown)} (`comparison.columns`)")
    _, one, other = pairs[0]
    return SideBySide(
        names=(names[0], names[1]),
        recipes={stage: _recipes(one, other, stage) for stage in (STAGE_1, SFT) if stage in {*one.recipes, *other.recipes}},
        comparison=build_comparison(definition, {k: p for k, p in files.items() if k[3] in known}, published, notes),
        same_weights=all(one.stage.digest == other.stage.digest for _, one, other in pairs),
        seeds=len(pairs),
    )


def _names(pairs: Sequence[tuple[str, Checkpoint, Checkpoint]]) -> tuple[str, tuple[str, str]]:
    """The model that both are of, and what to call either beside it."""
    _, one, other = pairs[0]
    if one.model and one.model == other.model:
        if one.variant != other.variant:
            return one.model, (one.variant, other.variant)
        if one.seed != other.seed:
            return one.model, (f"{one.variant}/{one.seed}", f"{other.variant}/{other.seed}")
    names = (one.name, other.name) if len(pairs) == 1 else tuple(f"{c.model}/{c.variant}" for c in (one, other))
    return "two checkpoints", (names[0], names[1] if names[0] != names[1] else f"{names[1]} (again)")


def _recipes(one: Checkpoint, other: Checkpoint, stage: str) -> dict[str, tuple[str, str]] | None:
    both = [each.recipes.get(stage) for each in (one, other)]
    return None if both[0] is None or both[1] is None else differing(both[0], both[1])


def _comparable(found: Sequence[dict[str, Path]], both: Sequence[Checkpoint]) -> tuple[list[str], list[str]]:
    """Benchmarks on which both were evaluated in the same way, and what is to be said of the others."""
    common, notes = [], []
    otherwise: dict[str, list[str]] = {}
    for benchmark in dict.fromkeys((*found[0], *found[1])):
        if benchmark not in found[0] or benchmark not in found[1]:
            has, lacks = both if benchmark in found[0] else (both[1], both[0])
            notes.append(f"{benchmark}: {has.name} was evaluated on it, and {lacks.name} was not")
            continue
        scores = [Scores.read(each[benchmark]) for each in found]
        if scores[0].digest == scores[1].digest:
            common.append(benchmark)
            continue
        how = said(differing(scores[0].recipe, scores[1].recipe))
        values = [each.seen["parts"].get("score", {}).get("value", float("nan")) for each in scores]
        otherwise.setdefault(how, []).append(f"{benchmark} {values[0]:.1f} and {values[1]:.1f}")
    notes += [f"evaluated in different ways ({how}), and not paired: {', '.join(found)}" for how, found in otherwise.items()]
    return common, notes


def as_text(found: SideBySide) -> str:
    """Markdown, which reads well in a terminal."""
    heads = ("", *found.names)
    lines = [f"# {found.names[1]} against {found.names[0]}", ""]
    if found.same_weights:
        lines += ["Both are the same weights.", ""]
    titles = {STAGE_1: "Stage 1", SFT: "SFT"}
    for stage, differences in found.recipes.items():
        lines += [f"## {titles[stage]}: recipe", ""]
        if differences is None:
            lines += ["Of one of them the recipe is not known.", ""]
        elif differences:
            lines += [*markdown_table(heads, [(key, *both) for key, both in differences.items()], left=3), ""]
        else:
            lines += ["The same in every key.", ""]
    if not found.recipes:
        lines += ["Their recipes are not known: there is no job.json beside them.", ""]
    if not found.comparison.differences:
        lines += ["## No scores in common", ""]
        missing = found.comparison.missing or ("neither was evaluated",)
        return "\n".join([*lines, *(f"* {line}" for line in missing)]) + "\n"
    return "\n".join(lines) + "\n" + as_markdown(found.comparison).replace("# Comparison", "## Scores", 1)
