"""A benchmark that a judge grades, in lmms-eval: answered without a grade, and scored from recorded answers and grades.

lmms-eval's own prompt, reading of a grade and aggregation are used. What is replaced is whom its ``get_chat_response`` asks,
which by itself asks without end, or takes 0 for a grade that it did not get.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmms_eval.api.instance import Instance

from .. import entry_points
from ..artifacts import AnsweredPass, Answers
from ..errors import EvaluationError
from ..study.evaluation import Judge
from ..study.recipe import EvaluationRecipe
from .answerer import Answerer
from .judge import mmvet_instructions
from .tasks import LMMS_EVAL_VERSION

if TYPE_CHECKING:
    from .lmms_model import VdepModel

Grader = Callable[[str], tuple[float, str]]
"""From a grading prompt to a grade in [0, 1] and the model that gave it."""


def graded_by(process_results: Callable[..., dict[str, Any]], grader: Grader) -> Callable[..., dict[str, Any]]:
    """lmms-eval's ``process_results`` with another judge.

    Raises:
        EvaluationError: where the task asks its judge in another way than MM-Vet does.
    """
    if "get_chat_response" not in process_results.__globals__:
        raise EvaluationError(
            f"{process_results.__module__} does not ask its judge as MM-Vet does: only MM-Vet's kind is known here"
        )

    def respond(prompt: str, **_: Any) -> tuple[str, str]:
        grade, model = grader(prompt)
        return repr(grade), model

    process_results.__globals__["get_chat_response"] = respond
    return process_results


class LocalJudge:
    """A function that grades on this machine: from the prompt to a grade in [0, 1]."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self._grade = entry_points.load(judge.model)

    def __call__(self, prompt: str) -> tuple[float, str]:
        grade = float(self._grade(prompt))
        if not 0.0 <= grade <= 1.0:
            raise EvaluationError(f"{self.judge.model} gave the grade {grade}, which is not in [0, 1]")
        return grade, self.judge.model

    @property
    def name(self) -> str:
        return f"{self.judge.model} (local)"

    def provenance(self) -> dict[str, Any]:
        return {**self.judge.model_dump(mode="json"), "lmms_eval": LMMS_EVAL_VERSION}


class Prompts:
    """No judge at all: collects what one would be asked, in the order of the questions."""

    def __init__(self) -> None:
        self.collected: list[str] = []

    def __call__(self, prompt: str) -> tuple[float, str]:
        self.collected.append(prompt)
        return 0.0, "nobody"


def recorded_pass(model: VdepModel, answers: list[str], prompts: list[str]) -> AnsweredPass:
    """A pass as the document keeps it: what was answered, what the judge is to be asked, and what the model says of the pass.

    Args:
        answers, prompts: in the order of the documents. Of a prompt only what follows the judge's instructions is kept.
    """
    instructions = mmvet_instructions()
    assert all(prompt.startswith(instructions) for prompt in prompts)
    rows = tuple(
        {"answer": answer, "rest": prompt[len(instructions) :], "pictures": model.pictures.get(document, "")}
        for document, (answer, prompt) in enumerate(zip(answers, prompts, strict=True))
    )
    return AnsweredPass(rows=rows, summary=model.summary())


def write_answers(path: Path, recipe: EvaluationRecipe, weights: str, passes: dict[str, AnsweredPass]) -> None:
    """A small document with every answer of a checkpoint; ``passes`` has ``seen``, and ``blind`` where there is one."""
    Answers(
        benchmark=recipe.benchmark,
        recipe=recipe.of_answers.digest,
        weights=weights,
        lmms_eval=LMMS_EVAL_VERSION,
        instructions=mmvet_instructions(),
        passes=passes,
    ).write(path)


class GradedAnswers:
    """Recorded answers with their grades, which are scored as if they were given now.

    Raises:
        EvaluationError: where they are another checkpoint's, or were made or graded otherwise than the recipe says.
    """

    def __init__(self, path: Path, recipe: EvaluationRecipe, weights: str) -> None:
        self.document = Answers.open(path)
        assert recipe.judge is not None
        expected = {"recipe": recipe.of_answers.digest, "weights": weights, "judge": recipe.judge.model_dump(mode="json")}
        for key, value in expected.items():
            if getattr(self.document, key) != value:
                raise EvaluationError(f"{path} holds answers of another {key}: remove it, and start again")
        self.judge = recipe.judge
        rows = [row for recorded in self.document.passes.values() for row in recorded.rows]
        if not all(row["rest"].endswith(f" | {row['answer'].strip()} |") for row in rows):
            raise self._changed()
        self._grades = {self.document.instructions + row["rest"]: row["grade"] for row in rows}

    def _changed(self) -> EvaluationError:
        return EvaluationError(
            f"{self.document.benchmark}: an answer or its question is not the one that was graded. The data or lmms-eval "
            "has changed since: remove the recorded answers, and start again."
        )

    def __call__(self, prompt: str) -> tuple[float, str]:
        if prompt not in self._grades:
            raise self._changed()
        return self._grades[prompt], self.judge.model

    @property
    def name(self) -> str:
        reported = [model for model in self.document.reported_model or {} if model != self.judge.model]
        return self.judge.model + (f" (its server says {', '.join(reported)})" if reported else "")

    def provenance(self) -> dict[str, Any]:
        """Which judge, under which name its server knows it, when, and with which prompt."""
        document = self.document
        return {
            **(document.judge or {}),
            "reported_model": document.reported_model,
            "graded": document.graded,
            "lmms_eval": document.lmms_eval,
            "instructions_sha256": hashlib.sha256(document.instructions.encode()).hexdigest(),
        }


class Recorded(Answerer):
    """Answers that were given before, in the place of ``VdepModel``. No weights, no tokenizer, no picture is opened."""

    def __init__(self, graded: GradedAnswers) -> None:
        super().__init__("cpu")
        self.graded = graded

    @property
    def _pass(self) -> AnsweredPass:
        return self.graded.document.passes["blind" if self.blind else "seen"]

    @property
    def pictures(self) -> dict[int, str]:
        return {document: row["pictures"] for document, row in enumerate(self._pass.rows)}

    def summary(self) -> dict[str, Any]:
        return dict(self._pass.summary)

    def generate_until(self, requests: list[Instance]) -> list[str]:
        answers = [row["answer"] for row in self._pass.rows]
        if len(answers) != len(requests):
            raise EvaluationError(f"{len(answers)} answers were recorded, and there are {len(requests)} questions")
        return [answers[request.args[3]] for request in requests]
