"""Questions are answered once, whole, and out of few pictures at a time; what cannot be answered is named."""

from __future__ import annotations

import io
import os
import random
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import answering
import numpy as np
import pytest
import world
from answering import Rows
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps

from vdep.errors import EvaluationError
from vdep.evaluation.answers import AnswerLog, answer_key
from vdep.evaluation.pictures import BATCHES_AHEAD, Picture, identity, prefetched
from vdep.evaluation.run import EvaluationJob, evaluate
from vdep.evaluation.tasks import offline_environment


@pytest.fixture(scope="module", autouse=True)
def _environment(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Evaluations change the environment of their process; here it is that of other tests too."""
    before = dict(os.environ)
    offline_environment(tmp_path_factory.mktemp("environment"))
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def done(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return answering.export(assets, tmp_path_factory.mktemp("checkpoint"))


def batches_of(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that a model is asked from now on."""
    from vdep.evaluation.lmms_model import VdepModel

    sizes: list[int] = []
    answer = VdepModel._answer

    def counted(self: Any, questions: Any, pixels: Any) -> list[str]:
        sizes.append(len(questions))
        return answer(self, questions, pixels)

    monkeypatch.setattr(VdepModel, "_answer", counted)
    return sizes


# ---------------------------------------------------------------------------------------------------------- the log


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.text(max_size=12), min_size=1, max_size=8), st.integers(0, 200), st.binary(max_size=6), st.booleans()
)  # fmt: skip
def test_a_torn_line_costs_its_own_answer_and_no_other(
    tmp_path_factory: pytest.TempPathFactory, answers: list[str], cut: int, rubbish: bytes, in_the_middle: bool
) -> None:
    path = tmp_path_factory.mktemp("log") / "answers.jsonl"
    kept = {str(i): answer for i, answer in enumerate(answers)}
    AnswerLog(path).add(kept)
    whole = path.read_bytes()
    lines = whole.split(b"\n")[:-1]
    torn = cut % len(lines) if in_the_middle else len(lines) - 1
    at = cut % max(1, len(lines[torn]))
    lines[torn] = lines[torn][:at] + rubbish.replace(b"\n", b"")
    path.write_bytes(b"\n".join(lines) + (b"\n" if in_the_middle else b""))
    read = AnswerLog(path)
    assert {k: v for k, v in read.answers.items() if k != str(torn)} == {k: v for k, v in kept.items() if k != str(torn)}
    read.add({"new": "a\n\nb", str(torn): answers[torn]})
    assert AnswerLog(path).answers == {**kept, "new": "a\n\nb"}


def test_an_answer_depends_on_prompt_pictures_and_settings() -> None:
    keys = {
        answer_key("a", ["p"], {"n": 1}), answer_key("b", ["p"], {"n": 1}), answer_key("a", ["q"], {"n": 1}),
        answer_key("a", ["p", "p"], {"n": 1}), answer_key("a", ["p"], {"n": 2}), answer_key("a", [], {"n": 1}),
    }  # fmt: skip
    assert len(keys) == 6
    assert answer_key("a", ("p",), {"n": 1, "m": 2}) == answer_key("a", ["p"], {"m": 2, "n": 1})


# ----------------------------------------------------------------------------------------------------- the pictures


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_batches_come_in_order_and_few_are_loaded_ahead(threads: int) -> None:
    loaded: list[int] = []
    lock = threading.Lock()

    def load(member: int) -> int:
        with lock:
            loaded.append(member)
        return -member

    batches = [[3 * i, 3 * i + 1, 3 * i + 2] for i in range(9)]
    for number, (batch, values) in enumerate(prefetched(batches, load, threads)):
        assert batch == batches[number]
        assert values == [-member for member in batch]
        assert len(loaded) <= 3 * (number + 1 + (BATCHES_AHEAD if threads else 0))
    assert sorted(loaded) == list(range(27))


@pytest.mark.parametrize("threads", [0, 2])
def test_what_fails_ahead_fails_when_its_turn_comes(threads: int) -> None:
    def load(member: int) -> int:
        if member == 2:
            raise EvaluationError("the third")
        return member

    batches = prefetched([[0], [1], [2], [3]], load, threads)
    assert [next(batches), next(batches)] == [([0], [0]), ([1], [1])]
    with pytest.raises(EvaluationError, match="the third"):
        next(batches)


def test_a_picture_is_decoded_as_datasets_decodes_it_and_not_before() -> None:
    from datasets import Image as ImageFeature

    exif = Image.Exif()
    exif[0x0112] = 6
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8))
    data = answering.encoded(noise, "JPEG", exif=exif)
    picture = Picture(data, "row 0 of a.parquet")
    assert picture.convert("RGB") is picture
    assert picture.size == (20, 30), "turned upright"
    theirs = ImageFeature().decode_example({"bytes": data, "path": None}).convert("RGB")
    assert np.array_equal(np.asarray(picture.open()), np.asarray(theirs))
    with Image.open(io.BytesIO(data)) as raw:
        assert np.array_equal(np.asarray(picture.open()), np.asarray(ImageOps.exif_transpose(raw)))
    assert identity(picture) != identity(Picture(data + b"\0", ""))
    assert identity(noise) != identity(noise.transpose(Image.Transpose.ROTATE_90))
    red, green = (Image.new("P", (4, 4)) for _ in range(2))
    red.putpalette([255, 0, 0])
    green.putpalette([0, 255, 0])
    assert identity(red) != identity(green)
    for bad in (b"<html>", b"", data[:100]):
        with pytest.raises(EvaluationError, match=r"row 7 of b\.parquet: the picture is"):
            Picture(bad, "row 7 of b.parquet").convert("RGB").open()


def test_a_truncated_picture_is_shown_as_lmms_eval_shows_it_but_not_in_silence(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datasets import Image as ImageFeature

    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8))
    half = answering.encoded(noise, "JPEG")
    half = half[: len(half) // 2]
    ours = Picture(half, "row 7 of b.parquet").open()
    assert "row 7 of b.parquet: the picture is damaged or truncated" in caplog.text
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    theirs = ImageFeature().decode_example({"bytes": half, "path": None}).convert("RGB")
    assert np.array_equal(np.asarray(ours), np.asarray(theirs))


# ------------------------------------------------------------------------------------------------- whole evaluations


def run(job: EvaluationJob) -> tuple[dict[str, Any], Rows]:
    job.output.parent.mkdir(parents=True, exist_ok=True)
    return evaluate(job), answering.read_rows(job.output)


def repeated(rows: Rows) -> Rows:
    """As POPE: most pictures and questions in all three categories."""
    return [{**row, "category": kind} for row in rows for kind in ("random", "popular", "adversarial")]


def told_apart(rows: Rows) -> Rows:
    """The same rows, but each with a picture file of its own."""
    rows = repeated(rows)
    for number, row in enumerate(rows):
        with Image.open(io.BytesIO(row["image"]["bytes"])) as image:
            row["image"] = {"bytes": answering.encoded(image, "PNG", compress_level=number % 10, dpi=(number, 1)), "path": None}
    return rows


@pytest.mark.slow
def test_repeated_questions_are_asked_once_and_score_as_before(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = batches_of(monkeypatch)
    results = {}
    for name, change, asked in (("repeated", repeated, 12), ("apart", told_apart, 36)):
        asset = answering.make(tmp_path / name / "data", "pope", 12, change)
        results[name] = run(answering.job(done, asset, "pope", tmp_path / name))
        assert sum(sizes) == asked
        assert results[name][0]["seen"]["distinct"] == asked
        sizes.clear()
    (once, once_rows), (each, each_rows) = results["repeated"], results["apart"]
    assert once["seen"]["parts"] == each["seen"]["parts"]
    assert [r["answer"] for r in once_rows] == [r["answer"] for r in each_rows]
    assert len({r["answer"] for r in once_rows}) > 1, "an untrained model still answers different pictures differently"
    assert {r["category"] for r in once_rows} == {"random", "popular", "adversarial"}


def test_a_second_evaluation_asks_what_changed_and_loads_no_weights_for_nothing(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = shutil.copytree(done.parent, tmp_path / "checkpoint") / "done.json"
    asset = answering.make(tmp_path / "data", "vizwiz", 9)
    job = answering.job(checkpoint, asset, "vizwiz", tmp_path / "out")
    scores, rows = run(job)
    with monkeypatch.context() as patch:
        patch.setattr("vdep.evaluation.lmms_model.load_checkpoint", None)
        assert run(job) == (scores, rows)

    def other_picture(rows: Rows) -> Rows:
        rows[4]["image"]["bytes"] = answering.odd(rows[4]["image"]["bytes"], 1)
        return rows

    answering.rewrite(next(asset.glob("*.parquet")), other_picture)
    sizes = batches_of(monkeypatch)
    _, again = run(job)
    assert sizes == [1]
    assert [i for i, (a, b) in enumerate(zip(rows, again, strict=True)) if a["pictures"] != b["pictures"]] == [4]


KEPT = {
    "pope": {"category": "adversarial", "question_id": "1", "target": "yes"},
    "mmmu": {"category": "Art", "question_id": "validation_Art_0"},
    "mmvet": {"category": "rec", "question_id": "v1_0"},
    "mmt": {"category": "visual_recognition", "question_id": "0"},
    "seedbench_img": {"category": "1", "question_id": "0"},
    "mme": {"category": "existence", "target": "Yes"},
    "mmbench_cn": {"category": "color", "question_id": "0"},
    "textvqa": {"question_id": "30000"},
    "ai2d": {},
}
OPTIONS = {"mmmu", "mmt", "seedbench_img", "mmbench_cn", "ai2d"}


@pytest.mark.slow
@pytest.mark.parametrize("name", KEPT)
def test_what_is_kept_of_a_question(name: str, done: Path, tmp_path: Path) -> None:
    asset = answering.make(tmp_path / "data", name, 12)
    _, rows = run(answering.job(done, asset, name, tmp_path / "out"))
    assert {key: rows[0][key] for key in KEPT[name]} == KEPT[name]
    for row in rows:
        assert row["question"]
        assert row["question"].split("?")[0].lower() in row["prompt"].lower()
        assert len(row["pictures"]) == 64
        assert row["target"] != "answer"
        assert "metric" in row
    assert ("options" in rows[0]) == (name in OPTIONS)
    if name in OPTIONS:
        assert all(option in rows[0]["prompt"] for option in rows[0]["options"])
    if name == "textvqa":
        assert rows[0]["answers"] == [rows[0]["target"]] * 10


@pytest.mark.slow
def test_the_pictures_of_gqa_are_stored_once(done: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0)

    def large(rows: Rows) -> Rows:
        for row in rows:
            row["image"]["bytes"] = answering.encoded(Image.fromarray(noise.integers(0, 255, (200, 200, 3), np.uint8)))
        return rows

    def many_questions(rows: Rows) -> Rows:
        return [{**row, "id": f"{row['id']}-{i}", "question": f"{row['question']} {i}"} for row in rows for i in range(30)]

    asset = answering.make(tmp_path / "data", "gqa", 4, many_questions)
    answering.rewrite(next(asset.glob("images*.parquet")), large)
    job = answering.job(done, asset, "gqa", tmp_path / "out", batch_size=32)
    scores, rows = run(job)
    assert scores["seen"]["n"] == 120
    assert len({row["pictures"] for row in rows}) == 4
    cached = sum(path.stat().st_size for path in job.cache.rglob("*") if path.is_file())
    assert 4 * 100_000 < cached < 8 * 120_000


# -------------------------------------------------------------------------------------------------- long and odd ones


@pytest.mark.slow
def test_an_answer_of_three_paragraphs_arrives_whole_at_the_judge(assets: Path, tmp_path: Path) -> None:
    question = "What do both cost?"
    answer = "To find the total we read the prices.\n\n1. Tea: 4 dollars\n2. Cake: 6 dollars\n\nThe answer is 10 dollars."
    done = answering.taught(assets, tmp_path / "checkpoint", question, answer)

    def asked(rows: Rows) -> Rows:
        return [{**row, "question": question, "answer": "10 dollars"} for row in rows]

    asset = answering.make(tmp_path / "data", "mmvet", 4, asked)
    _, rows = run(answering.job(done, asset, "mmvet", tmp_path / "out", max_new_tokens=None))
    assert [row["answer"] for row in rows] == [answer] * 4
    assert [row["metric"]["pred_answer"] for row in rows] == [answer] * 4


@pytest.mark.slow
def test_only_what_a_task_file_wrote_cuts_an_answer() -> None:
    from vdep.evaluation.lmms_model import _cut
    from vdep.evaluation.tasks import task_config

    written = {}
    for name, benchmark in answering.all_benchmarks().items():
        files = dict.fromkeys((*benchmark.files, "images"), "*.yaml")
        config = task_config(benchmark.model_copy(update={"files": files}), world.ROOT / "config")
        written[name] = config["generation_kwargs"]["until"]
    assert {name for name, until in written.items() if until} == {"okvqa", "vizwiz", "textvqa", "seedbench_img", "mmbench_en"}
    assert {tuple(until) for until in written.values()} == {(), ("ASSISTANT:",)}
    assert _cut("one\n\ntwo ASSISTANT: three", written["okvqa"]) == "one\n\ntwo"
    assert _cut("one\n\ntwo ASSISTANT: three", written["mmvet"]) == "one\n\ntwo ASSISTANT: three"


@pytest.mark.slow
def test_prompts_beyond_the_models_positions_are_counted_and_answered(
    done: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def lengthened(rows: Rows) -> Rows:
        rows[2]["question"] = " ".join(["red circle"] * 300) + " ?"
        rows[5]["question"] = " ".join(["red circle"] * 230) + " ?"
        return rows

    asset = answering.make(tmp_path / "data", "textvqa", 6, lengthened)
    scores, rows = run(answering.job(done, asset, "textvqa", tmp_path / "out", max_new_tokens=20, batch_size=2))
    assert scores["seen"]["positions"] == 256
    assert scores["seen"]["too_long"] == {"prompt": 1, "with_answer": 2}
    assert "1 prompts are longer than the model's 256 positions, and 2 are with the longest answer" in caplog.text
    assert rows[2]["answer"]


@pytest.mark.slow
def test_pictures_without_a_place_in_the_prompt_are_left_out_as_llava_leaves_them_out(
    done: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def lists(rows: Rows) -> Rows:
        for row in rows:
            row["image"] = [row["image"]]
        rows[3] = {**rows[2], "image": [rows[2]["image"][0], rows[0]["image"][0]]}
        return rows

    asset = answering.make(tmp_path / "data", "mmt", 6, lists)
    scores, rows = run(answering.job(done, asset, "mmt", tmp_path / "out"))
    assert scores["seen"]["unused_pictures"] == 1
    assert "mmt: row 3 of val-00000-of-00001.parquet has 1 pictures more than <image> in its prompt" in caplog.text
    assert rows[3]["answer"] == rows[2]["answer"]
    assert scores["seen"]["distinct"] == 5


def without(column: str, *numbers: int) -> Any:
    """Rows without a column, or with nothing in it at some rows."""

    def change(rows: Rows) -> Rows:
        if not numbers:
            return [{key: value for key, value in row.items() if key != column} for row in rows]
        return [{**row, column: None if i in numbers else row[column]} for i, row in enumerate(rows)]

    return change


def spoilt(number: int) -> Any:
    def change(rows: Rows) -> Rows:
        rows[number]["image"]["bytes"] = b"<html>not found</html>"
        return rows

    return change


def ask_for_two(rows: Rows) -> Rows:
    rows[2]["question"] = f"<image> <image> {rows[2]['question']}"
    return rows


BAD = {
    "a column": ("scienceqa_img", without("hint"), r"scienceqa_img: row 0 of test-0.* has no column 'hint'"),
    "the answers": ("okvqa", without("answers"), r"okvqa: row 0 of val2014-0.* has no column 'answers'"),
    "a picture": ("pope", without("image", 5), r"pope: row 5 of test-0.* has nothing in image"),
    "all of a picture": ("pope", spoilt(3), r"pope: row 3 of test-0.*: the picture is in no format that can be read"),
    "a picture for <image>": ("pope", ask_for_two, r"pope: row 2 of test-0.*: the prompt has 2 <image> for 1 pictures"),
    "what is filtered by": ("seedbench_img", without("data_type"), r"seedbench_img: test-0.*data_type.*another revision"),
    "a picture's name": ("gqa", without("imageId"), r"gqa: row 0 of testdev-0.* has nothing in imageId"),
    "one picture's name": ("gqa", without("imageId", 3), r"gqa: row 3 of testdev-0.* has nothing in imageId"),
    "an answer": ("mme", without("answer", 7), r"mme: row 7 of test-0.* has nothing in answer"),
}


@pytest.mark.slow
@pytest.mark.parametrize("missing", BAD)
def test_what_is_missing_is_named_with_benchmark_file_and_row(missing: str, done: Path, tmp_path: Path) -> None:
    name, change, message = BAD[missing]
    asset = answering.make(tmp_path / "data", name, 8, change)
    with pytest.raises(EvaluationError, match=message):
        run(answering.job(done, asset, name, tmp_path / "out"))
    assert not (tmp_path / "out" / f"{name}.json").exists()


@pytest.mark.slow
def test_a_column_of_pictures_is_no_cluster(done: Path, tmp_path: Path) -> None:
    asset = answering.make(tmp_path / "data", "okvqa", 4)
    with pytest.raises(
        EvaluationError, match=r"okvqa: the documents have no field 'image', .*picture and question always work"
    ):
        run(answering.job(done, asset, "okvqa", tmp_path / "out", cluster="image"))


@pytest.mark.slow
def test_a_row_is_counted_in_its_own_file_and_among_all_that_are_in_it(done: Path, tmp_path: Path) -> None:
    def videos_first(rows: Rows) -> Rows:
        return [{**row, "data_type": "video" if i < 3 else "image"} for i, row in enumerate(rows)]

    asset = answering.make(tmp_path / "data", "seedbench_img", 6, videos_first)
    (first,) = asset.glob("*.parquet")
    second = first.with_name("test-00001-of-00002.parquet")
    shutil.copy(first, second)
    answering.rewrite(second, without("image", 4))
    with pytest.raises(
        EvaluationError, match=r"seedbench_img: row 4 of test-00001-of-00002\.parquet has nothing in segment, image"
    ):
        run(answering.job(done, asset, "seedbench_img", tmp_path / "out"))


@pytest.mark.slow
def test_a_question_about_a_picture_that_is_not_there_is_named(done: Path, tmp_path: Path) -> None:
    def elsewhere(rows: Rows) -> Rows:
        return [{**row, "imageId": "n99" if i == 1 else row["imageId"]} for i, row in enumerate(rows)]

    asset = answering.make(tmp_path / "data", "gqa", 4, elsewhere)
    with pytest.raises(
        EvaluationError, match=r"gqa: row 1 of testdev-0.* asks about the picture 'n99', which none of the files"
    ):
        run(answering.job(done, asset, "gqa", tmp_path / "out"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mmmu", "mmt"])
def test_a_letter_that_is_drawn_depends_on_the_question_alone(name: str, tmp_path: Path) -> None:
    from vdep.evaluation.benchmark import BenchmarkTask
    from vdep.evaluation.tasks import task_config

    asset = answering.make(tmp_path / "data", name, 16)
    monkey = answering.benchmark(name)
    os.environ["HF_DATASETS_CACHE"] = str(tmp_path / "cache")

    def drawn(order: list[int], seed: int) -> list[Any]:
        task = BenchmarkTask(name, task_config(monkey, asset), seed)
        results: dict[int, Any] = {}
        for number in order:
            random.random()
            results[number] = task.process_results(task.eval_docs_no_media[number], ["no idea"])
        return [results[number] for number in sorted(results)]

    order = list(range(16))
    assert drawn(order, 1) == drawn(order[::-1], 1)
    assert drawn(order, 1) == drawn([*order[8:], *order[:8]], 1)
    assert drawn(order, 1) != drawn(order, 2), "the control: something is drawn"


# ------------------------------------------------------------------------------------------------------ at full size


@pytest.mark.long
@pytest.mark.parametrize("name", ["seedbench_img", "vizwiz"])
def test_memory_does_not_grow_with_the_number_of_pictures(name: str, done: Path, tmp_path: Path) -> None:
    """Pictures of two megapixels: decoded, the 400 more would take 2.4 GB more."""
    alone = answering.job(done, answering.stand_in(tmp_path / "18", name, 18), name, tmp_path / "alone", batch_size=1)
    one_at_a_time = [row["answer"] for row in run(alone)[1]]
    assert len(set(one_at_a_time)) > 3
    peaks = {}
    for count in (200, 600):
        asset, out = answering.stand_in(tmp_path / str(count), name, count), tmp_path / f"out-{count}"
        command = [sys.executable, str(Path(__file__).with_name("stand_in.py")), str(done), name, str(asset), str(out)]
        ended = subprocess.run(command, env=world.environment(), capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr[-3000:]
        peaks[count] = float(ended.stdout.rsplit("PEAK", 1)[1])
        rows = answering.read_rows(tmp_path / f"out-{count}" / f"{name}.json")
        assert [row["answer"] for row in rows] == [one_at_a_time[number % 18] for number in range(count)]
        assert len({row["pictures"] for row in rows}) == count
    assert peaks[600] < 1.1 * peaks[200], peaks
