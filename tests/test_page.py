"""The page's data: every count is right, the most telling questions come first, and nothing in it can end its tag."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import page_study
import pytest
import world
from hypothesis import given
from hypothesis import strategies as st
from page_study import ATTACKS, PageStudy
from PIL import Image

from vdep.errors import EvaluationError, ReportError
from vdep.evaluation.samples import read_samples
from vdep.report.attention_data import MEASURES, Flow
from vdep.report.page import answers, cells, curves, maps, pictures, write
from vdep.report.page.content import Page
from vdep.report.page.request import Request
from vdep.report.page.room import Room

CHECKPOINTS = [f"toy/{variant}/seed-{seed}" for variant in ("baseline", "vdep", "vdep-alpha0") for seed in (1, 2)]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> PageStudy:
    return page_study.make(tmp_path_factory.mktemp("study"), CHECKPOINTS, {"gqa": 90, "pope": 40}, attacks=ATTACKS)


def gathered(request: Request) -> Page:
    """The page of a study for all of which it has room."""
    further: list[str] = []
    page = write.gather(request, world.ROOT, Room(), lambda name, answers: further.append(name))
    assert not further
    return page


@pytest.fixture(scope="module")
def page(study: PageStudy) -> Page:
    return gathered(study.request)


class Scripts(HTMLParser):
    """What a browser would take for scripts, and for elements at all."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts: list[tuple[str | None, str]] = []
        self.tags: list[str] = []
        self._kind: str | None = None
        self._text: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "script":
            self._kind, self._text = dict(attrs).get("type"), []

    def handle_data(self, data: str) -> None:
        if self._text is not None:
            self._text.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "script" and self._text is not None:
            self.scripts.append((self._kind, "".join(self._text)))
            self._text = None


def parsed(html: str) -> Scripts:
    found = Scripts()
    found.feed(html)
    return found


def test_the_data_comes_back_as_it_went_in_whatever_models_wrote(page: Page) -> None:
    found = parsed(write.as_html(page))
    assert [kind for kind, _ in found.scripts] == ["application/json", None]
    assert Page.model_validate_json(found.scripts[0][1]) == page
    assert "img" not in found.tags
    assert sum(text in q.w for b in page.answers.benchmarks for q in b.questions for text in ATTACKS) > 20


@given(st.text())
def test_no_text_can_end_the_tag_that_it_stands_in(text: str) -> None:
    html = f"<script>{write.as_json(Page(title=text, note=f'{text}</script>'))}</script><p>"
    found = parsed(html)
    ((_, data),) = found.scripts
    assert found.tags == ["script", "p"]
    assert json.loads(data) == {"title": text, "note": f"{text}</script>"}


def test_the_page_names_no_other_file() -> None:
    html = write.as_html(Page(title="Empty"))
    outside = re.findall(r"""(?:src|href)=["']?(?!data:|#)[^"'> ]+|url\([^)]*\)|@import|https?://[^"'\s<]+""", html)
    assert [text for text in outside if "www.w3.org/2000/svg" not in text] == []


def test_scripts_make_no_markup_out_of_text() -> None:
    forbidden = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|setAttribute\('on")
    for name in write.SCRIPTS:
        assert not forbidden.search((write.HERE / name).read_text()), name


def samples(study: PageStudy, benchmark: str, checkpoint: str) -> list[dict[str, Any]]:
    path = study.folder / "results" / "evaluations" / checkpoint / f"{benchmark}.samples.jsonl.gz"
    return [row for row in read_samples(path) if row["pass"] == "seen"]


def test_counts_are_of_every_question_for_every_pair_of_one_seed_or_one_variant(study: PageStudy, page: Page) -> None:
    paired = {(p.left, p.right) for p in page.answers.benchmarks[0].pairs}
    alike = {
        (i, j)
        for (i, a), (j, b) in product(enumerate(CHECKPOINTS), repeat=2)
        if i < j and (a.split("/")[1] == b.split("/")[1] or a.split("/")[2] == b.split("/")[2])
    }
    assert paired == alike
    for benchmark in page.answers.benchmarks:
        for pair in benchmark.pairs:
            left, right = (samples(study, benchmark.name, CHECKPOINTS[i]) for i in (pair.left, pair.right))
            both = [(a["category"], a["points"], b["points"]) for a, b in zip(left, right, strict=True)]
            for category, counted in zip(benchmark.categories, pair.counts, strict=True):
                mine = [(a, b) for name, a, b in both if name == category]
                assert counted == (
                    sum(a == b > 0 for a, b in mine), sum(b > a for a, b in mine),
                    sum(b < a for a, b in mine), sum(a == b == 0 for a, b in mine),
                )  # fmt: skip


def test_a_question_shows_what_each_checkpoint_answered(study: PageStudy, page: Page) -> None:
    for benchmark in page.answers.benchmarks:
        assert len(benchmark.questions) == benchmark.asked
        by_id = {q.id: q for q in benchmark.questions}
        for i, checkpoint in enumerate(CHECKPOINTS):
            for row in samples(study, benchmark.name, checkpoint):
                shown = by_id[row["question_id"]]
                assert (shown.w[shown.a[i]], shown.s[i], shown.q) == (row["answer"], row["points"], row["question"])
                assert shown.o == tuple(row["options"])
                assert len(shown.p) == 1


def test_a_picture_is_the_one_that_was_asked_about(study: PageStudy, page: Page) -> None:
    """By what it looks like: its thumbnail is nearer to it than to any other."""
    asked = answers.read(study.request.benchmarks[0], tuple(CHECKPOINTS))
    wanted = {digest for number in range(90) for digest in answers.pictures_of(asked, number)}
    originals = dict(pictures.found([study.folder / "assets" / "gqa" / "images-0.parquet"], wanted))
    assert set(originals) == wanted

    def small(data: bytes) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB").resize((16, 12)), float)

    by_digest = {digest: small(data) for digest, data in originals.items()}
    rows = {row["question_id"]: row for row in samples(study, "gqa", CHECKPOINTS[0])}
    for question in page.answers.benchmarks[0].questions[:30]:
        url = page.answers.pictures[question.p[0]]
        shown = small(base64.b64decode(url.partition(",")[2]))
        nearest = min(by_digest, key=lambda digest: np.abs(by_digest[digest] - shown).sum())
        assert nearest == rows[question.id]["pictures"]


def test_with_little_room_the_disagreements_of_baseline_and_vdep_come_first(study: PageStudy) -> None:
    asked = answers.read(study.request.benchmarks[0], tuple(CHECKPOINTS))
    order = answers.by_priority(asked)
    assert sorted(order) == list(range(90))

    def telling(number: int) -> int:
        points = asked.points[number]
        if any(points[i] != points[i + 2] for i in (0, 1)):
            return 0
        return 1 if len(set(points)) > 1 else 2

    kinds = [telling(number) for number in order]
    assert kinds == sorted(kinds)
    assert set(kinds) == {0, 1, 2}
    first = {asked.rows[number]["category"] for number in order[: len(asked.categories)]}
    assert len(first) > 3, "not one category after the other"
    shown = answers.within(asked, order, 6000)
    assert [q.id for q in shown] == [asked.rows[number]["question_id"] for number in order[: len(shown)]]
    assert sum(map(answers.size, shown)) <= 6000 < sum(map(answers.size, shown)) + 1500


def test_what_has_no_room_is_on_a_page_of_its_own_and_is_counted_all_the_same(study: PageStudy, tmp_path: Path) -> None:
    output, folder = tmp_path / "report.html", tmp_path / "report"
    write.build(study.request, world.ROOT, output, folder, tmp_path / "log", Room(texts=20_000, pictures=60_000))
    assert sorted(path.name for path in folder.iterdir()) == ["gqa.html", "pope.html"]
    page = Page.model_validate_json(parsed(output.read_text()).scripts[0][1])
    whole = Page.model_validate_json(parsed((folder / "gqa.html").read_text()).scripts[0][1])
    gqa = page.answers.benchmarks[0]
    assert 0 < len(gqa.questions) < gqa.asked == 90
    assert gqa.page == "report/gqa.html"
    assert sum(map(sum, gqa.pairs[0].counts)) == 90
    assert sum(len(url) for url in page.answers.pictures) <= 60_000
    assert len(whole.answers.benchmarks[0].questions) == 90
    assert whole.home == "../report.html"
    log = (tmp_path / "log").read_text()
    assert f"{output.stat().st_size:,} bytes" in log


def test_two_checkpoints_with_other_questions_are_not_laid_side_by_side(tmp_path: Path) -> None:
    one = page_study.make(tmp_path / "one", CHECKPOINTS[:1], {"gqa": 20}).request.benchmarks[0]
    two = page_study.make(tmp_path / "two", CHECKPOINTS[2:3], {"gqa": 21}).request.benchmarks[0]
    both = one.model_copy(update={"scores": (*one.scores, *two.scores)})
    with pytest.raises(ReportError, match=r"two.*gqa\.json: these are other questions than those of .*one"):
        answers.read(both, (CHECKPOINTS[0], CHECKPOINTS[2]))


def test_samples_that_are_not_those_of_the_scores_are_refused(tmp_path: Path) -> None:
    request = page_study.make(tmp_path, CHECKPOINTS[:2], {"gqa": 20}).request
    (tmp_path / "results" / "evaluations" / CHECKPOINTS[0] / "gqa.samples.jsonl.gz").write_bytes(b"other")
    with pytest.raises(EvaluationError, match=r"gqa\.samples\.jsonl\.gz"):
        gathered(request)


@pytest.mark.parametrize("what", ["evaluation", "training"])
def test_what_another_configuration_made_is_left_out_and_named(study: PageStudy, what: str) -> None:
    first = study.request.benchmarks[0]
    stale = first.scores[0].model_copy(update={what: "x" * 64})
    changed = (first.model_copy(update={"scores": (stale, *first.scores[1:])}), *study.request.benchmarks[1:])
    page = gathered(study.request.model_copy(update={"benchmarks": changed}))
    verb = {"evaluation": "evaluated", "training": "trained"}[what]
    assert page.origin.left_out == (f"{stale.file}: {verb} by another recipe than the configuration's",)
    index = page.answers.checkpoints.index(CHECKPOINTS[0])
    assert {q.a[index] for q in page.answers.benchmarks[0].questions} == {-1}
    assert {q.a[index] for q in page.answers.benchmarks[1].questions} != {-1}


def test_a_study_that_has_only_begun_has_a_page_that_says_what_is_missing(tmp_path: Path) -> None:
    empty = {
        "stages": (),
        "benchmarks": (),
        "tables": (),
        "figures": (),
        "sheets": {},
        "others": {},
        "assets": {},
        "stamps": {},
    }
    request = Request(title="Nothing yet", note="", results=str(tmp_path), **empty)
    page = gathered(request)
    assert set(page.missing) == {"claims", "differences", "tables", "power", "audit", "curves", "attention", "answers"}


def test_a_benchmark_whose_data_is_gone_is_shown_without_pictures(tmp_path: Path) -> None:
    study = page_study.make(tmp_path, CHECKPOINTS[:2], {"gqa": 12})
    for path in (tmp_path / "assets").rglob("*.parquet"):
        path.unlink()
    page = gathered(study.request)
    assert page.answers.pictures == ()
    assert len(page.answers.benchmarks[0].questions) == 12


def test_verdicts_and_differences_are_those_of_the_comparison(page: Page) -> None:
    assert [claim.verdict for claim in page.claims] == ["holds", "cannot tell", "not evaluated"]
    assert [(d.label, d.outcome, d.published) for d in page.differences] == [
        ("GQA", "better", "+1.30"), ("POPE", "worse", ""), ("AI2D", "no verdict", ""),
    ]  # fmt: skip
    gqa, pope = (page.tables[0].rows[1].cells[i] for i in (0, 1))
    assert (gqa.outcome, pope.outcome) == ("better", "worse")


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_no_verdict_from_fewer_seeds_than_the_rules_ask_for_or_from_some_of_them(
    study: PageStudy, tmp_path: Path, seeds: int
) -> None:
    content = json.loads(Path(study.request.sheets["comparison.json"]).read_text())
    content["differences"][0]["by_seed"] = content["differences"][0]["by_seed"][:seeds]
    if seeds == 3:
        content["definition"]["seeds"] = [f"seed-{i}" for i in range(4)]
    (tmp_path / "comparison.json").write_text(json.dumps(content))
    request = study.request.model_copy(update={"sheets": {"comparison.json": str(tmp_path / "comparison.json")}})
    page = gathered(request)
    assert page.differences[0].outcome == "no verdict"
    (tmp_path / "comparison.json").write_text("{}")
    with pytest.raises(ReportError, match=r"comparison\.json is no comparison of this version"):
        gathered(request)


def test_a_table_is_its_csv_with_the_change_between_baseline_and_vdep(page: Page) -> None:
    table = page.tables[0]
    assert [(row.run, row.change) for row in table.rows] == [
        ("baseline", False), ("vdep", False), ("CHANGE", True), ("vdep-alpha0", False),
    ]  # fmt: skip
    assert table.rows[0].cells[1].texts == {
        "reproduced": "61.00", "low": "58.00", "high": "64.00", "published": "62.00", "blind": "21.00",
    }  # fmt: skip
    assert table.rows[2].cells[0].texts == {"reproduced": "+1.00", "published": "+1.00"}
    assert table.notes == ("Each cell: the score.",)
    assert all(source in page.origin.scores for row in table.rows for cell in row.cells for source in cell.sources)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=900))
def test_a_curve_keeps_its_mean_its_end_and_no_more_points_than_can_be_seen(values: list[float]) -> None:
    rows = [{"step": i, "loss": value} for i, value in enumerate(values)]
    x, y = curves.thinned(rows, "loss")
    assert len(x) == len(y) == min(len(values), curves.POINTS)
    assert x[-1] == len(values)
    assert list(x) == sorted(set(x))
    weights = np.diff([0, *x])
    bound = 1e-3 * max(1.0, max(map(abs, values)))
    assert abs(np.average(y, weights=weights) - np.mean(values)) <= bound


def test_steps_without_a_value_or_with_none_that_is_finite_are_left_out() -> None:
    rows = [{"step": 0, "loss": None}, {"step": 1, "loss": 2.0}, {"step": 2, "loss": float("inf")}, {"step": 3}]
    assert curves.thinned(rows, "loss") == ((2,), (2.0,))


@given(st.integers(0, 2**32 - 1))
def test_attention_maps_lose_less_than_a_hundredth_of_their_peak(seed: int) -> None:
    values = np.random.default_rng(seed).lognormal(-6, 2, (2, 3, 16)).astype(np.float32)
    peak = float(values.max())
    back = maps.unpacked(maps.packed(values, peak), peak).reshape(values.shape)
    assert np.abs(back - values).max() <= 0.01 * peak


def save_maps(path: Path, layers: int, heads: int, edge: int, pictures: int = 4, **more: Any) -> None:
    values = np.random.default_rng(0).random((pictures, layers, heads, edge * edge)).astype(np.float16)
    pixels = np.zeros((pictures, 16, 16, 3), np.uint8)
    rest: dict[str, Any] = {
        "cells": np.arange(edge * edge), "side": edge, "uniform": 0.5, "names": np.arange(6).astype(str), "areas": np.ones(6),
        "by_layer": np.ones((6, layers, len(MEASURES))), "by_head": np.ones((2, layers, heads, len(MEASURES))),
        "best": np.zeros(2, int), "best_values": np.ones((3, len(MEASURES))), "sinks": np.zeros((layers, edge * edge), bool),
    }  # fmt: skip
    Flow(maps=values.mean(2), head_maps=values, pixels=pixels, **(rest | more)).save(path)


@pytest.mark.parametrize(("seeds", "shown", "with_heads"), [(1, 2, 1), (5, 10, 1)], ids=["one seed", "five seeds"])
def test_attention_at_full_size_keeps_to_its_room(
    tmp_path: Path, study: PageStudy, seeds: int, shown: int, with_heads: int
) -> None:
    """32 layers of 32 heads on 24 x 24 patches: no room for every head of every picture, nor for ten checkpoints."""
    save_maps(tmp_path / "one.npz", 32, 32, 24)
    sides = {f"llava-7b/{v}/seed-{n}": str(tmp_path / "one.npz") for v in ("baseline", "vdep") for n in range(seeds)}
    figure = study.request.figures[0].model_copy(update={"sides": sides})
    (view,) = maps.views(study.request.model_copy(update={"figures": (figure,)}))
    assert sum(len(side.maps) + len(side.heads) for side in view.sides) <= maps.ROOM
    assert (sum(bool(side.maps) for side in view.sides), view.with_heads) == (shown, with_heads)
    assert len(view.sides) == 2 * seeds, "totals are of all"


def test_tokens_lie_where_they_were_recorded_to_lie(tmp_path: Path, study: PageStudy) -> None:
    """A class token lies nowhere, and one patch may have no token."""
    save_maps(tmp_path / "one.npz", 2, 3, 2, cells=np.array([-1, 2, 0, 1]), side=2)
    sides = {"m/v/seed-1": str(tmp_path / "one.npz")}
    (view,) = maps.views(
        study.request.model_copy(update={"figures": (study.request.figures[0].model_copy(update={"sides": sides}),)})
    )
    given = Flow.load(tmp_path / "one.npz").maps
    placed = np.stack([given[..., 2], given[..., 3], given[..., 1], 0 * given[..., 0]], -1)
    peak = view.sides[0].peak
    np.testing.assert_allclose(maps.unpacked(view.sides[0].maps, peak), placed.ravel(), atol=peak / 100)
    assert len(maps.unpacked(view.sides[0].heads, peak)) == given.shape[0] * 2 * 3 * 4


def test_numbers_of_a_sheet_stand_right_and_words_left(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("name,score,share,p\na,-1.5,50%,<0.001\nb,,1e-3,0.2\n")
    assert cells.sheet(tmp_path / "a.csv", "A").numbers == (1, 2)
