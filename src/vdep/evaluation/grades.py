"""Many answers graded by a server that may ramble, refuse or say nothing, and every grade kept as it comes.

What cannot be graded ends the grading (``pace`` says when) and never becomes a 0. A later call asks only for what is missing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ..artifacts import AnsweredPass, Answers
from ..errors import EvaluationError
from ..files import exclusive_lock
from ..study.evaluation import Judge
from ..study.execution import JudgeExecution
from .judge import LEAVE_OUT, Busy, NoGrade, Server, Useless, mmvet_instructions
from .pace import MOST_IN_A_ROW, NotGraded, Pace

log = logging.getLogger(__name__)

# question, ground truth, a right and a wrong answer
KNOWN = ("What animal is in the picture?", "a dog", "a dog", "an empty bus stop at night")


@dataclass(frozen=True)
class Grade:
    """A grade in [0, 1], the model as the server named it, and the day (UTC)."""

    grade: float
    model: str
    date: str


class GradeLog:
    """Grades by judge and prompt, a line of JSON each. A line that was torn anywhere counts as not there."""

    def __init__(self, path: Path, judge: Judge) -> None:
        self.path = path
        self.judge = judge
        self._grades: dict[str, Grade] = {}
        lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
        # what follows a torn line must not become a part of it
        self._start = b"\n" if lines[-1] else b""
        for line in lines:
            try:
                row = json.loads(line)
                grade = Grade(float(row["grade"]), str(row["model"]), str(row["date"]))
                if 0.0 <= grade.grade <= 1.0:
                    self._grades[str(row["key"])] = grade
            except (ValueError, LookupError, TypeError):
                continue

    def key(self, prompt: str) -> str:
        return hashlib.sha256(f"{self.judge.model}\0{prompt}".encode()).hexdigest()

    def find(self, prompt: str) -> Grade | None:
        return self._grades.get(self.key(prompt))

    def add(self, prompt: str, grade: Grade) -> None:
        """On the disk when it returns: a grade may have cost money."""
        self._grades[self.key(prompt)] = grade
        line = json.dumps({"key": self.key(prompt), **grade.__dict__}, ensure_ascii=False)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "ab") as file:
            file.write(self._start + f"{line}\n".encode())
            file.flush()
            os.fsync(file.fileno())
        self._start = b""


def ask_all(
    server: Server,
    prompts: Sequence[str],
    limits: JudgeExecution,
    keep: Callable[[str, Grade], None],
    most_in_a_row: int = MOST_IN_A_ROW,
) -> None:
    """Grade each prompt, several at a time; ``keep`` gets every grade as it comes, in the calling thread.

    A request that hangs longer than it may is left behind: its thread ends with the process.

    Raises:
        NotGraded: saying why. What was graded has been kept.
    """
    outcomes: queue.SimpleQueue[tuple[int, tuple[float, str] | Exception]] = queue.SimpleQueue()

    def ask(row: int, temperature: float) -> None:
        try:
            outcomes.put((row, server.grade(prompts[row], temperature)))
        except Exception as error:
            outcomes.put((row, error))

    pace = Pace(len(prompts), limits, time.monotonic(), most_in_a_row)
    while not pace.finished:
        for request in pace.due(time.monotonic()):
            threading.Thread(target=ask, args=request, daemon=True).start()
        try:
            row, outcome = outcomes.get(timeout=max(0.0, pace.wake() - time.monotonic()))
        except queue.Empty:
            continue
        if isinstance(outcome, NoGrade | Busy | Useless):
            log.warning("the judge: %s", outcome)
            pace.failed(row, outcome, time.monotonic())
        elif isinstance(outcome, Exception):
            raise outcome
        else:
            keep(prompts[row], Grade(*outcome, date=datetime.now(UTC).date().isoformat()))
            pace.graded(row, time.monotonic())
    pace.close()


def mmvet_prompt(question: str, truth: str, prediction: str) -> str:
    """A grading prompt as lmms-eval writes it for MM-Vet."""
    return f"{mmvet_instructions()}\n{question} | {truth} | {prediction} |"


def probe(server: Server, limits: JudgeExecution) -> None:
    """Have a right and a wrong answer graded: two requests of a judge that works, at most a few more of one that does not.

    Raises:
        EvaluationError: where there is no grade, or the right answer's is not the higher one.
    """
    question, truth, right, wrong = KNOWN
    prompts = [mmvet_prompt(question, truth, answer) for answer in (right, wrong)]
    grades: dict[str, float] = {}
    try:
        ask_all(
            server,
            prompts,
            limits.model_copy(update={"parallel": 1}),
            lambda prompt, grade: grades.update({prompt: grade.grade}),
            most_in_a_row=1,
        )
    except NotGraded as error:
        raise EvaluationError(
            f"the judge {server.name} does not grade a known answer: {error}. Look at OPENAI_BASE_URL, OPENAI_API_KEY and "
            f"`judge` in the configuration, {LEAVE_OUT}"
        ) from None
    first, second = (grades[prompt] for prompt in prompts)
    if first <= second:
        raise EvaluationError(
            f"the judge {server.name} gives a right answer {first} and a wrong one {second}: it cannot grade. Choose another "
            f"`judge` in the configuration, {LEAVE_OUT}"
        )


def check(judge: Judge, limits: JudgeExecution) -> None:
    """Whether the judge can be asked, and can grade; without a request where it is no server.

    Raises:
        EvaluationError: saying what to set, or how to do without.
    """
    if judge.kind == "openai":
        probe(Server.from_environment(judge, limits.timeout), limits)


def grade(answers: Path, graded: Path, judge: Judge, limits: JudgeExecution) -> None:
    """Grade recorded answers, and write them down with their grades, and who gave them when.

    Args:
        answers: what ``vdep record-answers`` wrote.
        graded: written last, when every answer has its grade. The grades so far lie beside it, as JSON lines.

    Raises:
        EvaluationError: where not every answer could be graded. A next call asks only for the rest.
    """
    document = Answers.open(answers)
    recorded = [row["rest"] for each in document.passes.values() for row in each.rows]
    prompts = [document.instructions + rest for rest in dict.fromkeys(recorded)]
    with exclusive_lock(graded.with_suffix(".lock"), f"the grading of {answers}", wait_seconds=5):
        kept = GradeLog(graded.with_suffix(".jsonl"), judge)
        missing = [prompt for prompt in prompts if kept.find(prompt) is None]
        if missing:
            log.info("%d of %d answers are to be graded by %s", len(missing), len(prompts), judge.model)
            server = Server.from_environment(judge, limits.timeout)
            probe(server, limits)
            try:
                ask_all(server, missing, limits, kept.add)
            except NotGraded as error:
                done = sum(kept.find(prompt) is not None for prompt in prompts)
                raise EvaluationError(
                    f"the judge {server.name} has graded {done} of {len(prompts)} answers: {error}. The grades are kept: start "
                    f"again to ask for the rest, {LEAVE_OUT}"
                ) from None
    _with_grades(document, kept).write(graded)


def _with_grades(document: Answers, kept: GradeLog) -> Answers:
    passes: dict[str, AnsweredPass] = {}
    given: list[Grade] = []
    for name, recorded in document.passes.items():
        rows = []
        for row in recorded.rows:
            entry = kept.find(document.instructions + row["rest"])
            assert entry is not None
            given.append(entry)
            rows.append({**row, "grade": entry.grade})
        passes[name] = AnsweredPass(rows=tuple(rows), summary=recorded.summary)
    return document.model_copy(
        update={
            "passes": passes,
            "judge": kept.judge.model_dump(mode="json"),
            "reported_model": dict(sorted(Counter(g.model for g in given).items())),
            "graded": {"first": min(g.date for g in given), "last": max(g.date for g in given)},
        }
    )
