"""The judge of free-form answers: what counts as a grade, and what becomes of a judge that gives none."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import world
from hypothesis import given, settings
from hypothesis import strategies as st
from judge_server import ENDLESS, NOTHING, SERVED_MODEL, JudgeServer, Reply, fails, grades, says

from vdep.errors import EvaluationError
from vdep.evaluation.grades import GradeLog, check, grade
from vdep.evaluation.judge import Busy, NoGrade, Server, mmvet_instructions, read_grade
from vdep.evaluation.pace import NotGraded, Pace
from vdep.files import read_json, write_json
from vdep.study.evaluation import Judge
from vdep.study.execution import JudgeExecution
from vdep_demo.judge import exact_match

SECRET = "sk-not-to-be-shown"
JUDGE = Judge(kind="openai", model="gpt-4o-2024-11-20")
SHIPPED = JudgeExecution()
QUICK = JudgeExecution(backoff=0.002, timeout=0.25, patience=0.8)
PROSE = "The prediction names the animal, although it does not say which breed it is."
HOSTILE = {
    "a percentage": lambda prompt, number: says("70"),
    "prose": lambda prompt, number: says(PROSE),
    "a label": lambda prompt, number: says("Correctness: 0.5"),
    "429 for ever": lambda prompt, number: fails(429, "Rate limit reached"),
    "429, come back tomorrow": lambda prompt, number: fails(429, "Rate limit reached", Retry_After="86400"),
    "an empty answer": lambda prompt, number: says(""),
    "no answer": lambda prompt, number: NOTHING,
    "a byte at a time": lambda prompt, number: ENDLESS,
}


@pytest.mark.parametrize(
    ("truth", "prediction", "expected"),
    [
        ("red", "red", 1),
        ("red", "Red.", 1),
        ("red", "green", 0),
        ("red", "", 0),
        ("red<OR>crimson", "crimson", 1),
        ("red<AND>7", "a red 7", 1),
        ("red<AND>7", "a red 8", 0),
    ],
)
def test_the_local_judge_compares_words(truth: str, prediction: str, expected: float) -> None:
    assert exact_match(f"Compare.\n\nQuestion | ...\nWhat is it? | {truth} | {prediction} |") == expected


# -- one grade


@given(st.floats(0, 1))
def test_a_number_between_0_and_1_is_a_grade(number: float) -> None:
    assert read_grade(f" {number!r}\n") == number
    assert read_grade(f"{number!r} because the prediction is near") == number


@pytest.mark.parametrize(
    "text", ["70", "1.1", "-0.1", "nan", "inf", "", " ", PROSE, "Correctness: 0.5", "1 out of 10", "0.5/1", "0.5 or 0.6"]
)
def test_anything_else_is_none(text: str) -> None:
    with pytest.raises(NoGrade, match=r"where a number from 0\.0 to 1\.0 was asked for"):
        read_grade(text)


@given(st.one_of(st.text("0123456789.+-enaif \n", max_size=8), st.floats().map(repr), st.integers(-2, 101).map(str)))
def test_no_grade_is_read_where_lmms_eval_reads_another(text: str) -> None:
    try:
        ours = read_grade(text)
    except NoGrade:
        return
    # lmms_eval/tasks/mmvet/utils.py, mmvet_process_results
    assert ours == float(text.strip().split(" ")[0].strip())


# -- the bounds, in a time that is only counted

FAILURES = st.one_of(
    st.builds(NoGrade, st.just("prose")),
    st.builds(Busy, st.just("503"), st.none() | st.floats(0, 200), st.booleans()),
)
LIMITS = st.builds(
    JudgeExecution,
    parallel=st.integers(1, 16),
    attempts=st.integers(1, 5),
    timeout=st.just(45.0),
    patience=st.just(90.0),
    backoff=st.floats(0.05, 10),
)


def given_up(limits: JudgeExecution, outcomes: st.DataObject | list[Any], questions: int = 218) -> tuple[int, float]:
    """Requests and seconds until a judge that never grades is given up. An outcome: what went wrong, after how many seconds."""
    now, flying, requests = 0.0, [], 0
    pace = Pace(questions, limits, now)
    try:
        while not pace.finished:
            for row, _ in pace.due(now):
                error, seconds = outcomes[requests % len(outcomes)] if isinstance(outcomes, list) else outcomes.draw(OUTCOME)
                flying.append((now + seconds, row, error))
                requests += 1
            flying.sort(key=lambda outcome: outcome[0])
            if flying and flying[0][0] <= pace.wake():
                now, row, error = flying.pop(0)
                pace.failed(row, error, now)
            else:
                now = max(now, pace.wake())
        pace.close()
    except NotGraded:
        return requests, now
    raise AssertionError("it was not given up")


OUTCOME = st.tuples(FAILURES, st.floats(0.001, SHIPPED.timeout))


@settings(max_examples=200, deadline=None)
@given(LIMITS, st.data())
def test_whatever_goes_wrong_a_judge_is_given_up_within_fifty_requests_and_two_minutes(
    limits: JudgeExecution, outcomes: st.DataObject
) -> None:
    requests, seconds = given_up(limits, outcomes)
    assert requests <= 50
    assert seconds <= 120


@pytest.mark.parametrize(
    ("error", "seconds", "requests", "minutes"),
    [
        (NoGrade("prose"), 1.0, 17, 0.75),
        (Busy("429", None, rate_limit=True), 0.5, 14, 1.2),
        (Busy("429", 20.0, rate_limit=True), 0.5, 12, 1.5),
        (Busy("no answer", None), SHIPPED.timeout, 9, 1.5),
    ],
    ids=["prose", "429", "429 with Retry-After", "no answer"],
)
def test_what_the_shipped_limits_come_to(error: Exception, seconds: float, requests: int, minutes: float) -> None:
    asked, took = given_up(SHIPPED, [(error, seconds)])
    assert asked <= requests
    assert took <= 60 * minutes


def test_a_wait_that_the_server_asks_for_is_kept() -> None:
    pace = Pace(1, SHIPPED, now=0.0)
    pace.due(0.0)
    pace.failed(0, Busy("429", wait=40.0, rate_limit=True), now=1.0)
    assert pace.wake() == 41.0
    assert pace.due(40.9) == []
    assert pace.due(41.0) == [(0, 0.0)]


def test_one_answer_that_cannot_be_graded_keeps_the_others_waiting_only_a_moment() -> None:
    """Graded one by one, with an answer in the middle that makes the judge ramble: all others get their grade first."""
    pace, now, graded = Pace(9, SHIPPED.model_copy(update={"parallel": 1}), now=0.0), 0.0, []
    while not pace.finished:
        for row, _ in pace.due(now):
            now += 1
            if row == 4:
                pace.failed(row, NoGrade("prose"), now)
            else:
                pace.graded(row, now)
                graded.append(row)
        now = max(now, min(pace.wake(), now + 100))
    assert graded == [0, 1, 2, 3, 5, 6, 7, 8]
    with pytest.raises(NotGraded, match="an answer could not be graded"):
        pace.close()


# -- a server


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def recorded(folder: Path, count: int = 40) -> Path:
    """Answers as `vdep record-answers` leaves them: two of three are right."""
    instructions = mmvet_instructions()
    rows = [
        {"answer": str(i % 3), "rest": f"\nHow many, in picture {i}? | {i % 3 if i % 3 else 7} | {i % 3} |"}
        for i in range(count)
    ]
    document = {"benchmark": "mmvet", "recipe": "r", "weights": "w", "lmms_eval": "0.7.3", "instructions": instructions}
    write_json(folder / "mmvet.answers.json", document | {"passes": {"seen": {"rows": rows, "summary": {}}}})
    return folder / "mmvet.answers.json"


def run(folder: Path, judge: JudgeServer, monkeypatch: pytest.MonkeyPatch, limits: JudgeExecution = QUICK) -> Path:
    answers = folder / "mmvet.answers.json"
    monkeypatch.setenv("OPENAI_BASE_URL", judge.url)
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    grade(answers if answers.exists() else recorded(folder), folder / "mmvet.graded.json", JUDGE, limits)
    return folder / "mmvet.graded.json"


def test_a_good_judge_grades_everything_several_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(4, timeout=30)

    def behave(prompt: str, number: int) -> Reply:
        if number >= 2:
            # goes on when four requests wait here at once
            together.wait()
        return grades(prompt)

    with JudgeServer(behave) as judge:
        document = read_json(run(tmp_path, judge, monkeypatch, QUICK.model_copy(update={"parallel": 4, "timeout": 60})))
    assert [row["grade"] for row in document["passes"]["seen"]["rows"]] == [float(i % 3 > 0) for i in range(40)]
    assert judge.most_at_once == 4
    assert judge.keys == {f"Bearer {SECRET}"}
    assert document["judge"] == JUDGE.model_dump()
    assert document["reported_model"] == {SERVED_MODEL: 40}
    assert document["graded"]["first"] <= document["graded"]["last"]
    assert {body["temperature"] for body in judge.bodies} == {0.0}
    assert len(judge.prompts) == 42, "the known pair, and each answer once"


@pytest.mark.parametrize("first", [0, 2, 12], ids=["from the start", "after the known pair", "after ten grades"])
@pytest.mark.parametrize("how", HOSTILE)
def test_a_judge_that_gives_no_grade_ends_it_without_a_score(
    how: str, first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def behave(prompt: str, number: int) -> Reply:
        return grades(prompt) if number < first else HOSTILE[how](prompt, number)

    with JudgeServer(behave) as judge, pytest.raises(EvaluationError, match="the judge gpt-4o-2024-11-20 at http") as error:
        run(tmp_path, judge, monkeypatch)
    assert len(judge.prompts) - first <= 50
    assert "snakemake --config judge=none" in str(error.value)
    assert not (tmp_path / "mmvet.graded.json").exists()
    kept = tmp_path / "mmvet.graded.jsonl"
    assert len(kept.read_text().splitlines() if kept.exists() else []) == max(0, first - 2)
    assert SECRET not in str(error.value) + caplog.text


def test_a_restart_asks_only_for_what_was_not_graded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        JudgeServer(lambda prompt, number: grades(prompt) if number < 32 else fails(500)) as judge,
        pytest.raises(EvaluationError, match=r"has graded 30 of 40 answers: .*The grades are kept: start again"),
    ):
        run(tmp_path, judge, monkeypatch)
    graded = set(judge.prompts[2:32])
    with JudgeServer(lambda prompt, number: grades(prompt)) as judge:
        document = read_json(run(tmp_path, judge, monkeypatch))
        assert not graded & set(judge.prompts)
        assert len(judge.prompts) == 2 + 10
        assert [row["grade"] for row in document["passes"]["seen"]["rows"]] == [float(i % 3 > 0) for i in range(40)]
        run(tmp_path, judge, monkeypatch)
        assert len(judge.prompts) == 12, "where all is graded nobody is asked"


def test_torn_and_foreign_lines_cost_only_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with JudgeServer(lambda prompt, number: grades(prompt)) as judge:
        run(tmp_path, judge, monkeypatch)
        kept = tmp_path / "mmvet.graded.jsonl"
        lines = kept.read_bytes().splitlines(keepends=True)
        absurd = json.dumps(json.loads(lines[7]) | {"grade": 70.0}).encode() + b"\n"
        # torn in the middle, an absurd one, bytes that are no text, torn at the end
        lines[3], lines[7], lines[11], lines[-1] = lines[3][:20] + b"\n", absurd, b"\xff\xfe\n", lines[-1][:-9]
        kept.write_bytes(b"".join(lines))
        asked = len(judge.prompts)
        run(tmp_path, judge, monkeypatch)
        assert len(judge.prompts) == asked + 2 + 4
        run(tmp_path, judge, monkeypatch)
        assert len(judge.prompts) == asked + 6, "what was written behind a torn line is whole"


def test_grades_are_of_one_judge_and_one_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with JudgeServer(lambda prompt, number: grades(prompt)) as judge:
        run(tmp_path, judge, monkeypatch)
    log, other = (
        GradeLog(tmp_path / "mmvet.graded.jsonl", JUDGE.model_copy(update={"model": model})) for model in (JUDGE.model, "other")
    )
    prompt = judge.prompts[-1]
    assert log.find(prompt) is not None
    assert log.find(prompt + " ") is None
    assert other.find(prompt) is None


def test_a_rate_limit_is_waited_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every third request is one too many: all answers get their grade all the same, also those that met it often."""
    with JudgeServer(lambda prompt, number: fails(429, Retry_After="0.01") if number % 3 == 2 else grades(prompt)) as judge:
        document = read_json(run(tmp_path, judge, monkeypatch, QUICK.model_copy(update={"attempts": 1, "patience": 60})))
    assert len(document["passes"]["seen"]["rows"]) == 40


def test_a_judge_that_rambles_now_and_then_is_asked_again_at_a_higher_temperature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with JudgeServer(lambda prompt, number: grades(prompt) if number % 5 else says(PROSE)) as judge:
        run(tmp_path, judge, monkeypatch)
    assert {body["temperature"] for body in judge.bodies} >= {0.0, 0.5}


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (fails(401, f"Incorrect API key provided: {SECRET[:8]}"), "HTTP 401: it refuses the key in OPENAI_API_KEY"),
        (fails(404, "no such model"), "HTTP 404: no such model - is the model's name right"),
        (fails(429, "You exceeded your quota", "insufficient_quota"), "the account's quota is used up"),
        (fails(429, "come back tomorrow", Retry_After="86400"), "no grade within .* come back tomorrow"),
        (Reply(b"", 301, (("Location", "https://elsewhere"),)), "HTTP 301"),
    ],
    ids=["the key", "the model", "the quota", "a day", "a redirection"],
)
def test_what_no_repetition_helps_is_asked_once(reply: Reply, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with JudgeServer(lambda prompt, number: reply) as judge:
        monkeypatch.setenv("OPENAI_BASE_URL", judge.url)
        monkeypatch.setenv("OPENAI_API_KEY", SECRET)
        with pytest.raises(EvaluationError, match=message) as error:
            check(JUDGE, QUICK)
    assert len(judge.prompts) == 1
    assert SECRET[:8] not in str(error.value)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply(b"<html>proxy</html>"), "something else than JSON: <html>"),
        (Reply(b"[" * 100_000), "something else than JSON"),
        (Reply(b'{"choices": []}'), "something else than a chat completion"),
        (Reply(b" " * (2 << 20)), "its answer does not end"),
        (fails(503), "HTTP 503"),
        (says(f"You sent me {SECRET}"), r"You sent me \*\*\*"),
    ],
    ids=["HTML", "brackets", "no choice", "megabytes", "503", "the key itself"],
)
def test_nonsense_is_named_and_never_a_secret(reply: Reply, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with JudgeServer(lambda prompt, number: reply) as judge:
        monkeypatch.setenv("OPENAI_BASE_URL", judge.url)
        monkeypatch.setenv("OPENAI_API_KEY", SECRET)
        with pytest.raises(EvaluationError, match=message) as error:
            check(JUDGE, QUICK)
    assert SECRET not in str(error.value)


def test_a_judge_that_cannot_tell_right_from_wrong_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with JudgeServer(lambda prompt, number: says("1.0")) as judge:
        monkeypatch.setenv("OPENAI_BASE_URL", judge.url)
        with pytest.raises(EvaluationError, match=r"gives a right answer 1\.0 and a wrong one 1\.0: it cannot grade"):
            check(JUDGE, QUICK)


def test_the_known_pair_is_asked_as_mm_vet_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    with JudgeServer(lambda prompt, number: grades(prompt)) as judge:
        monkeypatch.setenv("OPENAI_BASE_URL", judge.url)
        check(JUDGE, QUICK)
    assert len(judge.prompts) == 2
    assert judge.keys == {None}, "a server of one's own may need no key"
    instructions, _, row = judge.prompts[0].rpartition("\n")
    assert instructions == mmvet_instructions()
    assert row == "What animal is in the picture? | a dog | a dog |"


def test_without_a_key_one_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EvaluationError, match=r"set OPENAI_API_KEY .* or OPENAI_BASE_URL .* `judge: null`"):
        check(JUDGE, QUICK)
    monkeypatch.setenv("OPENAI_BASE_URL", "judge.example/v1")
    with pytest.raises(EvaluationError, match="OPENAI_BASE_URL is no address"):
        check(JUDGE, QUICK)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://user:word@127.0.0.1:1/v1")
    monkeypatch.setenv("OPENAI_API_KEY", f"{SECRET} {SECRET}")
    with pytest.raises(EvaluationError, match="OPENAI_API_KEY holds a space") as error:
        check(JUDGE, QUICK)
    assert SECRET not in str(error.value)


def test_a_server_that_is_not_there_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://user:{SECRET}@127.0.0.1:{port}/v1")
    with pytest.raises(
        EvaluationError, match=rf"gpt-4o-2024-11-20 at http://127\.0\.0\.1:{port}/v1 .*cannot be reached"
    ) as error:
        check(JUDGE, QUICK)
    assert SECRET not in str(error.value)


def test_the_demos_judge_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "no address")
    check(Judge(kind="function", model="vdep_demo.judge:exact_match"), QUICK)


def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://judge.invalid/v1")
    seen = []

    def behave(prompt: str, number: int) -> Reply:
        seen.append(number)
        return grades(prompt)

    with JudgeServer(behave) as proxy:
        proxy.path = "http://judge.invalid/v1/chat/completions"
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        check(JUDGE, QUICK)
    assert seen == [0, 1]


def test_models_that_think_are_asked_as_they_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    thinking = Judge(kind="openai", model="o3-mini", max_tokens=4000)
    with JudgeServer(lambda prompt, number: grades(prompt)) as judge:
        Server(thinking, judge.url, 5.0).grade("q | a | a |", 0.0)
        Server(JUDGE, judge.url, 5.0).grade("q | a | a |", 0.5)
    assert [{k: v for k, v in body.items() if k not in ("model", "messages")} for body in judge.bodies] == [
        {"max_completion_tokens": 4000},
        {"max_tokens": 128, "temperature": 0.5},
    ]


def test_the_key_is_in_nothing_that_the_command_prints_or_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = recorded(tmp_path, 6)
    with JudgeServer(lambda prompt, number: says(f"0.5 {SECRET}") if number == 3 else grades(prompt)) as judge:
        monkeypatch.setenv("OPENAI_BASE_URL", judge.url)
        monkeypatch.setenv("OPENAI_API_KEY", f"{SECRET}\n")
        command = [
            *("grade", "--answers", str(answers), "--graded", str(tmp_path / "graded.json")),
            *("--judge", JUDGE.model_dump_json(), "--execution", QUICK.model_dump_json()),
        ]
        done = world.vdep(*command, timeout=60)
    assert done.returncode == 0, done.stderr
    written = "".join(path.read_text() for path in tmp_path.iterdir())
    assert SECRET not in done.stdout + done.stderr + written
    assert judge.keys == {f"Bearer {SECRET}"}


@pytest.mark.long
def test_with_the_shipped_limits_every_one_of_them_ends_in_two_minutes(tmp_path: Path) -> None:
    started = {}
    with contextlib.ExitStack() as stack:
        for name, behave in HOSTILE.items():
            folder = tmp_path / name
            folder.mkdir()
            # two grades of the known pair, five of answers, then no more
            judge = stack.enter_context(JudgeServer(lambda p, n, behave=behave: grades(p) if n < 7 else behave(p, n)))
            command = [
                *(sys.executable, "-m", "vdep", "grade"),
                *("--answers", str(recorded(folder)), "--graded", str(folder / "graded.json")),
                *("--judge", JUDGE.model_dump_json(), "--execution", SHIPPED.model_dump_json()),
            ]
            environment = world.environment() | {"OPENAI_BASE_URL": judge.url}
            started[name] = judge, subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 120
        for name, (judge, process) in started.items():
            _, errors = process.communicate(timeout=max(0.1, deadline - time.monotonic()))
            assert process.returncode == 1, name
            assert "error: the judge gpt-4o-2024-11-20 at" in errors
            assert "The grades are kept: start again" in errors
            assert len(judge.prompts) - 7 <= 50, name
            assert not (tmp_path / name / "graded.json").exists()


def test_grading_needs_neither_torch_nor_lmms_eval() -> None:
    code = "import sys, vdep.evaluation.grades; print({'torch', 'lmms_eval', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], env=world.environment(), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
